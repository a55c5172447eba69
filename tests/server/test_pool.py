"""Who gets a job, and what becomes of it when its client leaves, its board dies, or the line is full."""
import contextlib
import json
import socket
import threading

import httpx
import pytest

from llama2_host.errors import HostError
from llama2_host.image.model import Model
from llama2_host.server import run
from llama2_spec.protocol import MAX_PROMPT
from tests.server.running import Running
from tests.server.scripted import Scripted
from tests.waiting import PATIENCE_S, until

A = 3 + ord("a")


@pytest.fixture
def scripted(image):
    """Makes backends of the tiny model."""
    return lambda script=lambda position: A, gate=None: Scripted(Model.load(image), script, gate)


@pytest.fixture
def in_background():
    """Runs functions in threads, whose results are asked for later."""
    threads = []

    def start(function):
        result = []
        thread = threading.Thread(target=lambda: result.append(function()), daemon=True)
        thread.start()
        threads.append(thread)
        return lambda: (thread.join(PATIENCE_S), result[0])[1]
    yield start
    for thread in threads:
        thread.join(PATIENCE_S)


def stream(server, **fields):
    """A chat whose answer is read event by event."""
    body = {"messages": [{"role": "user", "content": "x"}], "stream": True, "temperature": 0} | fields
    return httpx.stream("POST", server.url + "/v1/chat/completions", json=body, timeout=PATIENCE_S)


@contextlib.contextmanager
def asked(server, body):
    """A client that has sent a request and waits; it leaves in the end."""
    content = json.dumps(body).encode()
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as line:
        line.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(content) +
                     content)
        yield


@pytest.mark.parametrize("streaming", [True, False])
def test_a_client_that_leaves_ends_its_generation_within_a_token(scripted, in_background, streaming):
    gate = threading.Semaphore(0)
    backend = scripted(gate=gate)
    with Running(lambda: backend) as server:
        gate.release(3)
        if streaming:
            with stream(server, max_tokens=200) as response:
                assert len(iter_text(response.iter_lines(), 4)) == 4     # the role, then three tokens
        else:
            with asked(server, {"prompt": "x", "max_tokens": 200}):
                until(lambda: backend.made == 3)
        until(lambda: server.pool.aborted == 1)
        gate.release(1)                     # the token that was under way
        until(lambda: backend.aborts == 1)
        assert backend.made == 4
        gate.release(5)
        assert server.complete(max_tokens=2, temperature=0).status_code == 200      # the board is free again
        assert "llama2_aborted_total 1.0" in server.client.get("/metrics").text


def iter_text(lines, count):
    """The first ``count`` events' lines."""
    found = []
    for line in lines:
        if line.startswith("data: "):
            found.append(line)
        if len(found) == count:
            break
    return found


def test_who_leaves_the_line_is_never_run(scripted, in_background):
    gate = threading.Semaphore(0)
    backend = scripted(gate=gate)
    with Running(lambda: backend) as server:
        first = in_background(lambda: server.complete("first", max_tokens=1))
        until(lambda: server.boards[0].backend.running)
        with asked(server, {"prompt": "second", "max_tokens": 1}):
            until(lambda: server.pool.waiting == 1)
        until(lambda: server.pool.waiting == 0)
        gate.release(9)
        assert first().status_code == 200
        assert server.complete("third", max_tokens=1).status_code == 200
        assert len(backend.requests) == 2


def test_a_full_line_is_429_and_says_when(scripted, in_background):
    gate = threading.Semaphore(0)
    with Running(lambda: scripted(gate=gate), bound=2) as server:
        waiting = [in_background(lambda: server.complete(max_tokens=1)) for _ in range(3)]
        until(lambda: server.pool.waiting == 2 and server.pool.seats[0].running is not None)
        refused = server.complete(max_tokens=1)
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["type"] == "rate_limit_error"
        gate.release(10)
        assert [answer().status_code for answer in waiting] == [200] * 3


def test_a_dead_board_is_503_and_comes_back(scripted):
    backends = [scripted(), scripted()]
    away, opened = threading.Event(), []

    def connect():
        if away.is_set():
            raise HostError("no board on this port")
        opened.append(backends[len(opened)])
        return opened[-1]
    with Running(connect) as server:
        away.set()
        backends[0].dead = True
        lost = server.complete(max_tokens=1)
        assert lost.status_code == 503 and "lost" in lost.json()["error"]["message"]
        for path in ("/health", "/v1/completions"):
            gone = server.client.request("GET" if path == "/health" else "POST", path, json={"prompt": "x"})
            assert gone.status_code == 503 and int(gone.headers["retry-after"]) > 0
        away.clear()
        until(lambda: server.client.get("/health").status_code == 200)
        assert server.complete(max_tokens=1, temperature=0).json()["choices"][0]["text"] == "a"
        assert any("back again" in note for note in server.notes)


def test_a_board_that_was_only_reset_does_the_job_after_all(scripted):
    backends = iter([scripted(), scripted()])
    with Running(lambda: next(backends)) as server:
        server.boards[0].backend.dead = True
        assert server.complete(max_tokens=1, temperature=0).json()["choices"][0]["text"] == "a"
        assert server.pool.lost == 1


def test_a_job_that_said_nothing_is_repeated_elsewhere(scripted):
    boards, away = [scripted(), scripted()], threading.Event()

    def connect():
        if away.is_set():
            raise HostError("no board on this port")
        return boards[0]
    with Running(connect, lambda: boards[1]) as server:
        away.set()
        boards[0].dead = True
        assert [server.complete(max_tokens=1, temperature=0).status_code for _ in range(3)] == [200] * 3
        assert [seat.ready for seat in server.pool.seats] == [False, True] and len(boards[1].requests) == 3


def test_a_board_lost_in_the_middle_ends_the_stream_with_an_error(scripted):
    gate = threading.Semaphore(0)
    first = scripted(gate=gate)
    backends = iter([first, scripted()])
    with Running(lambda: next(backends)) as server:
        gate.release(2)
        with stream(server, max_tokens=50) as response:
            lines = response.iter_lines()
            iter_text(lines, 2)
            first.dead = True
            gate.release(1)
            rest = [line for line in lines if line.startswith("data: ")]
        assert "error" in rest[-1] and "lost" in rest[-1] and "[DONE]" not in rest[-1]
        assert (server.pool.lost, server.pool.aborted) == (1, 0)        # its client did not leave


def test_conversations_return_to_the_board_that_holds_them(scripted):
    boards = [scripted(), scripted()]
    with Running(lambda: boards[0], lambda: boards[1]) as server:
        conversations = ["the first conversation", "quite another one"]
        for turn in range(4):
            for text in conversations:
                answer = server.complete(text + "a" * turn, max_tokens=1, temperature=0).json()
                assert turn == 0 or answer["usage"]["prompt_tokens_details"]["cached_tokens"] >= len(text)
        assert [len(board.requests) for board in boards] == [4, 4]


def test_a_busy_board_is_passed_over(scripted, in_background):
    gate = threading.Semaphore(0)
    boards = [scripted(gate=gate), scripted(gate=gate)]
    with Running(lambda: boards[0], lambda: boards[1]) as server:
        answers = [in_background(lambda: server.complete(max_tokens=1)) for _ in range(2)]
        until(lambda: all(board.running for board in boards))
        gate.release(2)
        assert [answer().status_code for answer in answers] == [200, 200]


def test_a_bug_is_one_500_and_no_more(scripted):
    def script(position):
        if script.broken:
            raise ZeroDivisionError
        return A
    script.broken = True
    with Running(lambda: scripted(script)) as server:
        failed = server.complete(max_tokens=1)
        assert failed.status_code == 500 and failed.json()["error"]["code"] == "internal_error"


def test_a_long_prompt_is_fed_in_pieces_that_a_client_s_leave_can_end(scripted):
    backend = scripted()
    with Running(lambda: backend) as server:
        server.complete([A] * 250, max_tokens=1, temperature=0)
        assert [(position, len(ids)) for position, ids in backend.requests] == [(0, MAX_PROMPT),
                                                                                (MAX_PROMPT, 250 - MAX_PROMPT)]


def test_a_server_that_ends_refuses_who_waits_and_finishes_what_runs(scripted, in_background):
    gate = threading.Semaphore(0)
    backend = scripted(gate=gate)
    with Running(lambda: backend) as server:
        running = in_background(lambda: server.complete(max_tokens=3, temperature=0))
        until(lambda: backend.running)
        waiting = [in_background(lambda: server.complete("who waits", max_tokens=3)) for _ in range(2)]
        until(lambda: server.pool.waiting == 2)
        server.server.should_exit = True
        assert [answer().json()["error"]["code"] for answer in waiting] == ["shutting_down"] * 2
        gate.release(3)
        assert running().json()["choices"][0]["text"] == "aaa"
        assert len(backend.requests) == 1


@pytest.mark.parametrize("streaming", [True, False])
def test_a_server_that_ends_aborts_what_runs_on(scripted, in_background, monkeypatch, streaming):
    gate = threading.Semaphore(0)
    backend = scripted(gate=gate)
    monkeypatch.setattr(run, "SHUTDOWN_S", 0)
    with Running(lambda: backend) as server:
        answer = in_background(lambda: server.complete(max_tokens=50, temperature=0, stream=streaming))
        gate.release(2)
        until(lambda: backend.made == 2)
        server.server.should_exit = True
        until(lambda: server.pool.ending)
        ended = answer()
        gate.release(1)
    said = ended.text.rsplit("data: ", 1)[1] if streaming else ended.text
    assert json.loads(said)["error"]["code"] == "shutting_down" and ended.status_code == (200 if streaming else 503)
    assert backend.aborts == 1 and backend.made <= 3


@pytest.mark.parametrize("streaming", [True, False])
def test_a_stop_string_stops_the_board(scripted, streaming):
    backend = scripted()
    with Running(lambda: backend) as server:
        assert server.complete(max_tokens=50, temperature=0, stop=["aaa"], stream=streaming).status_code == 200
        until(lambda: backend.aborts == 1)
        assert backend.made == 3
