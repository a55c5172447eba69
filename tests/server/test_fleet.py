"""Several servers behind HAProxy, with the configuration that docs/fleet.md shows: one dies and one comes under load."""
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from tests.server.running import PATIENCE_S, until

pytestmark = pytest.mark.web
PAGE = Path(__file__).resolve().parents[2] / "docs" / "fleet.md"
HAPROXY = shutil.which("haproxy") or "/usr/sbin/haproxy"


def free_ports(count):
    """Ports that were free a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Fleet:
    """HAProxy as the page says, with ports of its own; servers are started one by one."""

    def __init__(self, image, folder):
        self.image = image
        self.front, *self.ports = free_ports(5)
        config = re.search(r"```haproxy\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]
        for shown, real in zip(("8000", "8081", "8082", "8083", "8084"), (self.front, *self.ports)):
            assert f"127.0.0.1:{shown}" in config
            config = config.replace(f"127.0.0.1:{shown}", f"127.0.0.1:{real}")
        (folder / "haproxy.cfg").write_text(config)
        checked = subprocess.run([HAPROXY, "-c", "-f", str(folder / "haproxy.cfg")], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
        self.servers = {}
        self.balancer = subprocess.Popen([HAPROXY, "-db", "-f", str(folder / "haproxy.cfg")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def start(self, index):
        self.servers[index] = subprocess.Popen(
            [sys.executable, "-m", "llama2_host", "serve", "--golden", "--model", str(self.image), "--http-port", str(self.ports[index])],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def up(self, index):
        try:
            return httpx.get(f"http://127.0.0.1:{self.ports[index]}/health").status_code == 200
        except httpx.HTTPError:
            return False

    def served(self, index):
        """Answers of one server."""
        text = httpx.get(f"http://127.0.0.1:{self.ports[index]}/metrics").text
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
                   if line.startswith("llama2_requests_total") and "chat" in line and 'status="200"' in line)

    def close(self):
        for process in (self.balancer, *self.servers.values()):
            process.kill()
            process.wait()


@pytest.fixture
def fleet(image, tmp_path):
    fleet = Fleet(image, tmp_path)
    try:
        for index in range(3):
            fleet.start(index)
        until(lambda: all(fleet.up(index) for index in range(3)))
        until(lambda: reachable(fleet))
        yield fleet
    finally:
        fleet.close()


def reachable(fleet):
    try:
        return httpx.get(f"http://127.0.0.1:{fleet.front}/health").status_code == 200
    except httpx.HTTPError:
        return False


class Talker(threading.Thread):
    """One conversation after another, some turns streamed; notes what became of every request."""

    def __init__(self, fleet, name):
        super().__init__()
        self.url, self.name_, self.ending = f"http://127.0.0.1:{fleet.front}", name, threading.Event()
        self.answered, self.lost, self.wrong = 0, [], []
        self.moves, self.turns = 0, 0       #: turns that were answered elsewhere than the one before; and all but the first

    def run(self):
        number = 0
        while not self.ending.is_set():
            number += 1
            self.converse(f"{self.name_}-{number}: ")

    def converse(self, text):
        messages, before = [{"role": "user", "content": text}], None
        for turn in range(3):
            body = {"messages": messages, "max_tokens": 3, "temperature": 0, "stream": turn == 1}
            try:
                said, server = self.ask(body)
            except httpx.HTTPError as error:
                self.lost.append(type(error).__name__)
                return
            if said is None:
                return
            self.answered += 1
            if before is not None:
                self.turns, self.moves = self.turns + 1, self.moves + (server != before)
            before = server
            messages = [*messages, {"role": "assistant", "content": said}, {"role": "user", "content": "go on"}]

    def ask(self, body):
        with httpx.Client(timeout=PATIENCE_S) as client:
            if not body["stream"]:
                return self.read(client.post(self.url + "/v1/chat/completions", json=body))
            with client.stream("POST", self.url + "/v1/chat/completions", json=body) as response:
                if response.status_code != 200:
                    response.read()
                    return self.read(response)
                lines = [line[6:] for line in response.iter_lines() if line.startswith("data: ")]
        if lines[-1] != "[DONE]":
            self.lost.append("stream without its end")
            return None, None
        chunks = [json.loads(line) for line in lines[:-1]]
        return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks), response.headers["x-server"]

    def read(self, response):
        if response.status_code == 200:
            return response.json()["choices"][0]["message"]["content"], response.headers["x-server"]
        # A failure is an error object, never a page of HTML.
        (self.lost if response.status_code in (502, 503) and response.json()["error"]["message"] else self.wrong).append(response.status_code)
        return None, None


def test_one_dies_and_one_comes_under_load(fleet):
    talkers = [Talker(fleet, f"talker {index}") for index in range(6)]
    for talker in talkers:
        talker.start()
    total = lambda: sum(talker.answered for talker in talkers)
    try:
        until(lambda: total() >= 60)
        assert sum(len(talker.lost) for talker in talkers) == 0
        assert sum(fleet.served(index) > 0 for index in range(3)) >= 2
        fleet.servers[0].kill()
        killed_at = total()
        fleet.start(3)
        until(lambda: fleet.up(3) and fleet.served(3) > 0)
        until(lambda: total() >= killed_at + 120)
    finally:
        for talker in talkers:
            talker.ending.set()
        for talker in talkers:
            talker.join(PATIENCE_S)
    assert not any(talker.is_alive() for talker in talkers), "a request was never answered"
    assert [talker.wrong for talker in talkers] == [[]] * 6
    # In flight at the kill: at most one request of each talker.
    assert all(len(talker.lost) <= 1 for talker in talkers), [talker.lost for talker in talkers]
    # A conversation is answered by one server, but for those under way when one went or came: each talker has one then.
    assert sum(talker.turns for talker in talkers) >= 100
    assert all(talker.moves <= 2 for talker in talkers), [talker.moves for talker in talkers]
