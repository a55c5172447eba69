"""One board with several slots: clients that stream at the same time, whose rows are found again, and none in another's
way."""
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from llama2_host.backend import Backend
from llama2_host.connection import DeviceBackend
from llama2_host.device.device import Device
from llama2_host.device.link import DeviceError, Link
from llama2_host.errors import HostError
from llama2_host.generation import Outcome
from llama2_host.image.model import Model
from llama2_host.server import run
from llama2_host.server.adapter import Board
from llama2_host.server.pool import Seat
from llama2_spec.protocol import Error, Opcode, Reason, Stats, Status, Subject
from tests.firmware import library
from tests.firmware.conftest import built, firmware  # noqa: F401 - fixtures
from tests.firmware.line import transport
from tests.firmware.test_slots_client import Locked
from tests.server.running import Running
from tests.server.scripted import Scripted
from tests.server.test_pool import A, in_background, stream  # noqa: F401 - a fixture, too
from tests.waiting import PATIENCE_S, until


class Slotted(Backend):
    """A backend of several scripted slots."""
    name = "golden"

    def __init__(self, model, gates):
        self.model, self.slots = model, len(gates)
        self.parts = [Scripted(model, lambda position: A, gate) for gate in gates]

    def generate(self, ids, options, *, slot=0, **more):
        return self.parts[slot].generate(ids, options, **more)

    @property
    def running(self):
        return sum(part.running for part in self.parts)

    @property
    def prompts(self):
        """Of each slot, (position, tokens fed) of every generation."""
        return [[(position, len(ids)) for position, ids in part.requests] for part in self.parts]

    def kill(self):
        for part in self.parts:
            part.dead = True


@pytest.fixture
def slotted(image):
    return lambda *gates: Slotted(Model.load(image), gates)


def test_clients_stream_at_the_same_time_and_more_of_them_queue(slotted, in_background):  # noqa: F811
    gates = [threading.Semaphore(0) for _ in range(2)]
    backend = slotted(*gates)
    with Running(lambda: backend) as server:
        answers = [in_background(lambda: server.complete(max_tokens=2, temperature=0)) for _ in range(3)]
        until(lambda: backend.running == 2 and server.pool.waiting == 1)
        shown = server.client.get("/boards").json()["boards"][0]
        assert (shown["slots"], shown["running_slots"], shown["waiting"]) == (2, 2, 1)
        assert server.client.get("/props").json()["total_slots"] == 2
        gates[1].release(4)                     # slot 1 does two of the three, while slot 0 waits
        until(lambda: len(backend.parts[1].requests) == 2 and not backend.parts[1].running)
        assert backend.parts[0].running
        gates[0].release(2)
        assert [answer().json()["choices"][0]["text"] for answer in answers] == ["aa"] * 3


def test_a_full_board_s_line_is_bounded(slotted, in_background):  # noqa: F811
    gates = [threading.Semaphore(0) for _ in range(2)]
    with Running(lambda: slotted(*gates), bound=1) as server:
        answers = [in_background(lambda: server.complete(max_tokens=1)) for _ in range(3)]
        until(lambda: server.pool.waiting == 1 and server.pool.seats[0].full)
        assert server.complete(max_tokens=1).status_code == 429
        for gate in gates:
            gate.release(3)
        assert [answer().status_code for answer in answers] == [200] * 3


def test_the_longest_unused_slot_is_given_up_first_and_prefixes_are_found_again(slotted):
    backend = slotted(None, None)
    texts = {name: name * 20 for name in "pqr"}
    with Running(lambda: backend) as server:
        def ask(name):
            """How many of its tokens were held."""
            answer = server.complete(texts[name], max_tokens=1, temperature=0).json()
            texts[name] += answer["choices"][0]["text"]
            return answer["usage"]["prompt_tokens_details"]["cached_tokens"]
        assert [ask("p"), ask("q")] == [0, 0] and [len(part.requests) for part in backend.parts] == [1, 1]
        assert ask("p") >= 20 and ask("q") >= 20
        assert ask("r") <= 2                    # BOS and a blank: p was unused longest
        assert [len(part.requests) for part in backend.parts] == [3, 2]
        assert ask("q") >= 20 and ask("r") >= 20 and ask("p") <= 2


def test_a_slot_whose_answer_was_just_sent_is_waited_for():
    """A client's next turn may come before the board's thread has returned."""
    held = {0: 9, 1: 2}
    seat = Seat(SimpleNamespace(slots=2, shared=lambda ids, slot: held[slot]))
    turn = SimpleNamespace(ids=[0] * 10, cache=True)
    assert seat.slot_for(turn) == 0
    seat.jobs[0] = SimpleNamespace(closed=False)
    assert seat.slot_for(turn) == 1, "another conversation of the same beginning runs there"
    seat.jobs[0].closed = True
    assert seat.slot_for(turn) is None
    del seat.jobs[0]
    assert seat.slot_for(turn) == 0


def test_a_client_that_leaves_does_not_disturb_the_others(slotted, in_background):  # noqa: F811
    gates = [threading.Semaphore(0) for _ in range(2)]
    backend = slotted(*gates)
    with Running(lambda: backend) as server:
        stays = in_background(lambda: server.complete(max_tokens=30, temperature=0))
        until(lambda: backend.running == 1)
        gates[1].release(2)
        with stream(server, max_tokens=200) as response:
            assert next(response.iter_lines())
            until(lambda: backend.parts[1].made == 2)
        until(lambda: server.pool.aborted == 1)
        gates[1].release(1)
        until(lambda: backend.parts[1].aborts == 1)
        gates[0].release(30)
        assert stays().json()["choices"][0]["text"] == "a" * 30 and backend.parts[0].aborts == 0


def test_a_board_that_dies_with_several_jobs_is_looked_for_once(slotted, in_background):  # noqa: F811
    gates = [threading.Semaphore(0) for _ in range(2)]
    backends, opened = [slotted(*gates), slotted(None, None)], []

    def connect():
        if opened and backends[0].running:
            raise HostError("it is opened anew while its jobs still run")
        opened.append(backends[len(opened)])
        return opened[-1]
    with Running(connect) as server:
        answers = [in_background(lambda: server.complete(max_tokens=2, temperature=0)) for _ in range(3)]
        until(lambda: backends[0].running == 2 and server.pool.waiting == 1)
        backends[0].kill()
        gates[0].release(1)
        until(lambda: not backends[0].parts[0].running)
        gates[1].release(1)
        assert [answer().json()["choices"][0]["text"] for answer in answers] == ["aa"] * 3
        assert server.pool.lost == 1 and len(opened) == 2


def test_a_board_whose_slots_somebody_took_is_opened_anew(slotted):
    def refuse(*_):
        raise DeviceError(Opcode.GENERATE, Status.BAD_VALUE, Error(Subject.SLOT, 1, 0))
    backends = [slotted(None, None), slotted(None, None)]
    for part in backends[0].parts:
        part.generate = refuse
    with Running(lambda: backends.pop(0)) as server:
        assert server.complete(max_tokens=2, temperature=0).json()["choices"][0]["text"] == "aa"
        assert server.pool.lost == 1 and not backends


def test_a_server_that_ends_ends_all_that_run(slotted, in_background, monkeypatch):  # noqa: F811
    monkeypatch.setattr(run, "SHUTDOWN_S", 0)
    gates = [threading.Semaphore(0) for _ in range(2)]
    backend = slotted(*gates)
    with Running(lambda: backend) as server:
        answers = [in_background(lambda: server.complete(max_tokens=50)) for _ in range(2)]
        until(lambda: backend.running == 2)
        server.server.should_exit = True
        assert [answer().json()["error"]["code"] for answer in answers] == ["shutting_down"] * 2
        for gate in gates:
            gate.release(1)
    assert [part.aborts for part in backend.parts] == [1, 1]


def test_cycles_of_answers_at_the_same_time_are_counted_once(slotted):
    """One begins at cycle 0 and ends at 1,000; the other runs beside it and ends 300 cycles later."""
    board, readings = Board("board", lambda: slotted(None, None)), [0, 1010, 1310]
    board._read_stats = lambda: stats(readings.pop(0))
    board.open()
    long, short = (Outcome(Reason.LENGTH, 1, 0, 0, 0.0, start_cycles=begun, end_cycles=ended)
                   for begun, ended in ((0, 1000), (200, 1300)))
    begun_s = time.monotonic()
    first, second = board._account(long, begun_s), board._account(short, begun_s)
    assert (first.cycles, first.cpu_cycles) == (1000, 1000 - 1010 // 2)
    assert (second.cycles, second.cpu_cycles) == (300, 300 - 150)


def stats(cycles):
    """Counters of a core that executes half of the time."""
    nothing = Stats.unpack(bytes(Stats.FORMAT.size))
    return replace(nothing, cycles=cycles, counters=(cycles // 2, *nothing.counters[1:]))


def test_four_clients_on_the_firmware_get_what_each_gets_alone(image, firmware, in_background):  # noqa: F811
    """The real firmware and client: greedy and sampled, with a prompt that takes two GENERATEs."""
    model = Model.load(image)
    device = library.Device(firmware, bytes(model.data), columns=2, boot=False)
    device.poll(200)
    backend = DeviceBackend(Device(Link(transport(Locked(device))), hello_timeout_s=PATIENCE_S), model)
    backend.divide(None)
    assert backend.slots == 4
    requests = [dict(prompt=[A + slot] * (215 if slot == 3 else 5 + slot), max_tokens=25, temperature=slot % 2, seed=7)
                for slot in range(4)]
    with Running(lambda: backend) as server:
        alone = [server.complete(**request).json()["choices"][0]["text"] for request in requests]
        assert len(set(alone)) == 4
        together = [in_background(lambda request=request: server.complete(**request)) for request in requests]
        assert [answer().json()["choices"][0]["text"] for answer in together] == alone
