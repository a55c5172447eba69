"""The shipped client and the real firmware with several generations over one link: in turns, and by threads."""
import threading
from dataclasses import replace

import pytest

import llama2_host.device.device
from llama2_host.connection import DeviceBackend, with_slots
from llama2_host.device.device import Device
from llama2_host.device.link import DeviceError, Link
from llama2_host.errors import HostError
from llama2_host.generation import OptionError, Options, Sampling
from llama2_host.image.model import Model
from llama2_spec.protocol import Opcode, Reason, Status
from tests.firmware import library
from tests.firmware.images import CONFIG, SEQ_LEN, small_image
from tests.firmware.line import LinePort, transport
from tests.firmware.test_generate import greedy

GREEDY = Sampling(temperature=0)


@pytest.fixture(autouse=True)
def short_silence(monkeypatch):
    monkeypatch.setattr(llama2_host.device.device, "SILENCE_S", 0.05)


class Locked(LinePort):
    """A port that several threads may use: the firmware on this PC is one thread's at a time."""

    def __init__(self, *args, **kwargs):
        self._one = threading.RLock()
        super().__init__(*args, **kwargs)

    def _drain(self):
        with self._one:
            super()._drain()

    def write(self, data):
        with self._one:
            super().write(data)

    def read(self, size):
        self._alive()
        self._drain()
        with self._one:
            data, self._buffer = bytes(self._buffer[:size]), self._buffer[size:]
        return data


@pytest.fixture
def port(firmware):
    device = library.Device(firmware, small_image(), columns=2, boot=False)
    device.poll(200)
    return Locked(device)


@pytest.fixture
def client(port):
    return Device(Link(transport(port)), hello_timeout_s=2.0)


def test_generations_in_turns(client, port):
    client.divide(3)
    generations = [client.generate([1, 5 + slot], Options(0, 200, GREEDY, ()), slot=slot) for slot in range(3)]
    tokens = [[next(generation).token for generation in generations] for _ in range(200)]
    assert [list(generation) for generation in generations] == [[], [], []]
    for slot, column in enumerate(zip(*tokens)):
        assert list(column) == greedy(port.device, 5 + slot, 1, 200)
    assert [generation.outcome.reason for generation in generations] == [Reason.LENGTH] * 3
    assert client.rows == {0: 201, 1: 201, 2: 201}


def test_generations_by_threads(client, port):
    """Each thread takes its own slot's tokens through prompts in pieces, turns and an abort."""
    client.divide(4)
    found = {}

    def talk(slot):
        ids = [1, *range(2 + slot, 90 + slot)] * 3                 # longer than one GENERATE
        first = [event.token for event in client.generate(ids, Options(0, 40, GREEDY, ()), slot=slot)]
        cut = client.generate([7], Options(20, 150, GREEDY, ()), slot=slot)
        some = [next(cut).token for _ in range(5)] + [event.token for event in cut.abort()]
        found[slot] = ids, first, some, cut.outcome.reason
    threads = [threading.Thread(target=talk, args=(slot,)) for slot in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert found.keys() == {0, 1, 2, 3}
    for ids, first, some, reason in found.values():
        assert first == greedy(port.device, ids[-1], len(ids) - 1, 40)
        assert some == greedy(port.device, 7, 20, len(some)) and reason == Reason.ABORT


def test_lost_events_are_asked_for_again_by_their_owner(client, port):
    client.divide(2)
    drain, count = port._drain, [0]

    def lossy():
        drain()
        count[0] += 1
        if count[0] % 7 == 3:
            port._buffer.clear()
    generations = [client.generate([1, 5 + slot], Options(0, 150, GREEDY, ()), slot=slot) for slot in range(2)]
    port._drain = lossy
    one = [event.token for event in generations[0]]
    two = [event.token for event in generations[1]]
    port._drain = drain
    assert one == greedy(port.device, 5, 1, 150) and two == greedy(port.device, 6, 1, 150)


def test_a_newer_generation_ends_its_slot_s_only(client, port):
    client.divide(2)
    other = client.generate([1, 5], Options(0, 100, GREEDY, ()), slot=0)
    older = client.generate([1, 6], Options(0, 300, GREEDY, ()), slot=1)
    next(older)
    newer = client.generate([1, 9], Options(0, 20, GREEDY, ()), slot=1)
    assert [event.token for event in newer] == greedy(port.device, 9, 1, 20)
    with pytest.raises(HostError, match="ended by a newer one"):
        next(older)
    assert [event.token for event in other] == greedy(port.device, 5, 1, 100)


def test_slots_that_are_not_there(client):
    with pytest.raises(HostError, match="slot is from 0 to 0, not 1"):
        client.generate([1], Options(0, 1, GREEDY, ()), slot=1)
    with pytest.raises(DeviceError) as refused:
        client.divide(99)
    assert refused.value.status == Status.BAD_VALUE and "\n" not in str(refused.value)
    with pytest.raises(DeviceError, match=f"seq_len = {SEQ_LEN + 1} is out of range .limit {SEQ_LEN}"):
        client.divide(2, SEQ_LEN + 1)
    for wrong in ((-1,), (1 << 32,), ("2",), (2, -5), (True,)):
        with pytest.raises(OptionError, match="is a whole number|is from 0 to"):
            client.divide(*wrong)
    with pytest.raises(OptionError, match="slot is from 0"):
        client.generate([1], Options(0, 1, GREEDY, ()), slot=-1)
    with pytest.raises(OptionError, match="slots is at least 1"):
        with_slots(DeviceBackend(client, Model(small_image())), 0)
    assert client.divide().count == 1 and client.divide(2, 100).length == client.info.seq_len == 100
    with pytest.raises(DeviceError, match="context has 100 positions"):
        client.generate([1] * 101, Options(0, 1, GREEDY, ()), slot=1)
    assert client.divide(1).length == SEQ_LEN


def test_another_model_has_one_slot(client):
    client.divide(2)
    client.load(small_image(replace(CONFIG, seq_len=64)))
    assert client.slots == client.divide().count == 1


def test_a_load_waits_for_what_an_earlier_client_left(client, port, monkeypatch):
    """Rows of its prompt are still being written when the new one has said HELLO."""
    client.divide(2)
    text = client.generate([1, 5], Options(0, 300, GREEDY, ()), slot=1)
    next(text)
    execute, left = port.device.library.fake_execute, [0]

    def slowly(count):
        left[0] -= left[0] > 0
        execute(min(count, 1) if not left[0] else 0)
    monkeypatch.setattr(port.device, "library", Slow(port.device.library, slowly))
    list(client.generate([1] * 200, Options(0, 0, GREEDY, ()), slot=0))
    client.hello()
    left[0] = 100
    client.load(small_image(replace(CONFIG, seq_len=64)))
    assert not left[0] and client.info.seq_len == 64


class Slow:
    """The firmware's library with another ``fake_execute``."""

    def __init__(self, library, execute):
        self._library, self.fake_execute = library, execute

    def __getattr__(self, name):
        return getattr(self._library, name)


def test_a_division_that_does_not_fit_is_one_line(built, tmp_path):
    device = library.Device(library.load(built, tmp_path / "firmware.so"), small_image(replace(CONFIG, seq_len=4096)),
                            boot=False)
    device.poll(400)
    client = Device(Link(transport(LinePort(device))), hello_timeout_s=2.0)
    with pytest.raises(DeviceError, match="so many slots need .* the device has 4.0 MiB: choose fewer slots"):
        client.divide(8)
    assert client.divide().count == 1


def test_slots_that_an_earlier_client_made_shorter_are_made_one(client):
    model = Model(small_image())
    client.divide(4, 64)
    backend = with_slots(DeviceBackend(client, model), None)
    assert (backend.slots, client.info.seq_len) == (1, SEQ_LEN)
    assert with_slots(DeviceBackend(client, model), 3).slots == 3
    list(client.generate([1, 5], Options(0, 5, GREEDY, ()), slot=2))
    assert with_slots(DeviceBackend(client, model), 3).slots == 3 and client.rows == {2: 6}, "its rows are gone"


def test_as_many_slots_as_there_is_room_for(built, tmp_path):
    """Three of these fit the fake board's 4 MiB."""
    device = library.Device(library.load(built, tmp_path / "firmware.so"), small_image(replace(CONFIG, seq_len=4096,
                                                                                               n_layers=4)), boot=False)
    device.poll(400)
    client = Device(Link(transport(LinePort(device))), hello_timeout_s=2.0)
    backend = DeviceBackend(client, Model(small_image(replace(CONFIG, seq_len=4096, n_layers=4))))
    backend.divide(None, most=4)
    assert 1 < backend.slots < 4 and client.info.seq_len == 4096
    with pytest.raises(DeviceError, match="so many slots need"):
        backend.divide(backend.slots + 1)


def test_firmware_of_before_has_one_slot(client, port, monkeypatch):
    """It knows no SLOTS, and no ABORT with a payload."""
    ask, sent = client.link.request, []

    def older(opcode, payload=None, **more):
        sent.append((opcode, payload))
        return ask(Opcode.BASELINE if opcode == Opcode.SLOTS else opcode, payload, **more)      # it knows neither

    monkeypatch.setattr(client.link, "request", older)
    assert client.divide(1).count == 1
    with pytest.raises(DeviceError, match="does not know"):
        client.divide(2)
    generation = client.generate([1, 5], Options(0, 300, GREEDY, ()))
    next(generation)
    generation.abort()
    assert (Opcode.ABORT, None) in sent
