"""Several servers behind HAProxy, with the configuration that docs/fleet.md shows: one dies and one comes under
load."""
import contextlib
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

from tests.waiting import PATIENCE_S, until

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
        self.socket = str(folder / "admin.sock")
        assert "/run/haproxy/admin.sock" in config
        config = config.replace("/run/haproxy/admin.sock", self.socket)
        (folder / "haproxy.cfg").write_text(config)
        checked = subprocess.run([HAPROXY, "-c", "-f", str(folder / "haproxy.cfg")], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
        self.servers = {}
        self.settled = 0                    #: a number for each time in which no server comes or goes; None in between
        self.balancer = subprocess.Popen([HAPROXY, "-db", "-f", str(folder / "haproxy.cfg")], stdout=subprocess.DEVNULL,
                                         stderr=subprocess.DEVNULL)

    def start(self, index):
        self.servers[index] = subprocess.Popen(
            [sys.executable, "-m", "llama2_host", "serve", "--golden", "--model", str(self.image), "--http-port",
             str(self.ports[index])],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def up(self, index):
        try:
            return httpx.get(f"http://127.0.0.1:{self.ports[index]}/health").status_code == 200
        except httpx.HTTPError:
            return False

    def metric(self, index, name, having=""):
        """The sum of a server's figures of this name."""
        text = httpx.get(f"http://127.0.0.1:{self.ports[index]}/metrics").text
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name)
                   and having in line)

    def served(self, index):
        """Good answers to chats of one server."""
        return self.metric(index, "llama2_requests_total", 'path="/v1/chat/completions",status="200"')

    def tell(self, command):
        """What HAProxy answers on its socket."""
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(self.socket)
            admin.sendall(command.encode() + b"\n")
            return b"".join(iter(lambda: admin.recv(65536), b"")).decode()

    def states(self):
        """What HAProxy thinks of each server, by its name in the page."""
        rows = [line.split(",") for line in self.tell("show stat -1 4 -1").splitlines() if line.startswith("boards,")]
        return {row[1]: row[17] for row in rows}

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
        until(lambda: fleet.states() == {"one": "UP", "two": "UP", "three": "UP", "four": "DOWN"})
        yield fleet
    finally:
        fleet.close()


class Talker(threading.Thread):
    """One conversation after another, some turns streamed; notes what became of every request."""

    def __init__(self, fleet, name):
        super().__init__(daemon=True)
        self.fleet, self.name_, self.ending = fleet, name, threading.Event()
        self.url = f"http://127.0.0.1:{fleet.front}"
        self.answered, self.lost, self.wrong = 0, [], []
        self.stayed, self.moved = [], []    #: conversations by whether one server had them; when, see Fleet.settled

    def run(self):
        number = 0
        while not self.ending.is_set():
            number += 1
            self.converse(f"{self.name_}-{number}: ")

    def converse(self, text):
        messages, began, servers = [{"role": "user", "content": text}], self.fleet.settled, set()
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
            servers.add(server)
            messages = [*messages, {"role": "assistant", "content": said}, {"role": "user", "content": "go on"}]
        when = began if began == self.fleet.settled else None
        (self.stayed if len(servers) == 1 else self.moved).append(when)

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
        return "".join(chunk["choices"][0]["delta"].get("content", "")
                       for chunk in chunks), response.headers["x-server"]

    def read(self, response):
        if response.status_code == 200:
            return response.json()["choices"][0]["message"]["content"], response.headers["x-server"]
        # A failure is an error object, never a page of HTML.
        (self.lost if response.status_code in (502, 503) and response.json()["error"]["message"]
         else self.wrong).append(response.status_code)
        return None, None


@contextlib.contextmanager
def talking(fleet):
    """Six talkers, who have ended when it has."""
    talkers = [Talker(fleet, f"talker {index}") for index in range(6)]
    for talker in talkers:
        talker.start()
    try:
        yield talkers
    finally:
        for talker in talkers:
            talker.ending.set()
        for talker in talkers:
            talker.join(PATIENCE_S)
    assert not any(talker.is_alive() for talker in talkers), "a request was never answered"
    assert [talker.wrong for talker in talkers] == [[]] * len(talkers)


def kept(talkers, when):
    """How many conversations of that time one server had."""
    return sum(talker.stayed.count(when) for talker in talkers)


def test_one_dies_and_one_comes_under_load(fleet):
    with talking(fleet) as talkers:
        until(lambda: kept(talkers, 0) >= 20)
        assert [talker.lost for talker in talkers] == [[]] * 6
        assert sum(fleet.served(index) > 0 for index in range(3)) >= 2
        fleet.settled = None
        fleet.servers[0].kill()
        fleet.start(3)
        until(lambda: fleet.states() == {"one": "DOWN", "two": "UP", "three": "UP", "four": "UP"})
        fleet.settled = 1
        until(lambda: kept(talkers, 1) >= 40 and fleet.served(3) > 0)
    # In flight at the kill: at most one request of each talker.
    assert all(len(talker.lost) <= 1 for talker in talkers), [talker.lost for talker in talkers]
    # Conversations stay where their cache is; those that were under way when servers went and came may have moved.
    assert [when for talker in talkers for when in talker.moved if when is not None] == []


def test_one_that_is_drained_first_is_stopped_without_loss(fleet):
    with talking(fleet) as talkers:
        until(lambda: fleet.served(0) > 0 and kept(talkers, 0) >= 10)
        fleet.settled = None
        fleet.tell("set server boards/one state drain")
        until(lambda: fleet.metric(0, "llama2_queue_running") == 0)
        fleet.servers[0].terminate()
        fleet.servers[0].wait(PATIENCE_S)
        fleet.settled = 1
        until(lambda: kept(talkers, 1) >= 10)
    assert [talker.lost for talker in talkers] == [[]] * 6
