"""The device against a scripted one: uploads, generations and what is lost of them."""
import random
import time
import threading

import pytest

import llama2_host.device.device
import llama2_host.device.upload
from llama2_host.device.device import Device
from llama2_host.errors import HostError
from llama2_host.generation import Options, Sampling
from llama2_host.device.link import TRIES, DeviceError, LinkError
from llama2_host.progress import Progress
from llama2_spec import protocol
from llama2_spec.protocol import ModelState, Opcode, Reason, Status
from tests.host.fake_device import FakeDevice

IMAGE = random.Random(1).randbytes(10 * protocol.LOAD_CHUNK + 77)
GREEDY = Sampling(temperature=0)


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch):
    monkeypatch.setattr(llama2_host.device.upload, "TIMEOUT_S", 0.1)
    monkeypatch.setattr(llama2_host.device.device, "SILENCE_S", 0.15)
    monkeypatch.setattr(llama2_host.device.link.Link.request, "__kwdefaults__", {"timeout_s": 0.15, "tries": 4})


def numbered(numbers, change=lambda encoded: b""):
    """Lose (or change) the frames with these numbers."""
    return lambda number, frame, encoded: change(encoded) if number in numbers else encoded


def tokens(generation):
    return [event.token for event in generation]


# Upload -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("lost_in", [(), (3,), (4, 5, 6), (12,), (2, 9)])
@pytest.mark.parametrize("lost_out", [(), (4,), (5, 6), (13, 14)])
def test_upload_arrives_whole(lost_in, lost_out):
    with FakeDevice(fault_in=numbered(lost_in), fault_out=numbered(lost_out), model_state=ModelState.NONE) as fake:
        with Device.open(fake.url) as device:
            device.load(IMAGE)
            assert fake.memory == IMAGE
            assert device.info.model_state == ModelState.READY


def test_upload_keeps_a_window_under_way():
    seen = []
    with FakeDevice() as fake:
        take = fake.on_load
        fake.on_load = lambda frame: (seen.append(protocol.Load.unpack(frame.payload).offset), take(frame))[1]
        with Device.open(fake.url) as device:
            device.load(IMAGE)
    assert seen == list(range(0, len(IMAGE), protocol.LOAD_CHUNK))


def test_upload_resumes_where_it_stopped():
    with FakeDevice() as fake:
        fake.cut_after = 6
        with pytest.raises(HostError, match="went away"), Device.open(fake.url) as device:
            device.load(IMAGE)
        before = fake.received
        assert 0 < before < len(IMAGE)
        fake.effects.clear()
        with Device.open(fake.url) as device:
            device.load(IMAGE)
        assert fake.memory == IMAGE
        assert fake.effects.count(Opcode.LOAD) == -(-(len(IMAGE) - before) // protocol.LOAD_CHUNK)


def test_upload_to_a_device_slower_than_the_time_out_gets_on():
    """Every reply comes after its request was given up; each counts, and the client learns the pace."""
    slow = lambda number, frame, encoded: (time.sleep(0.25) if frame.opcode == Opcode.LOAD else None, encoded)[1]
    pieces = 6
    with FakeDevice(fault_out=slow) as fake, Device.open(fake.url) as device:
        device.load(IMAGE[:pieces * protocol.LOAD_CHUNK])
        assert fake.memory == IMAGE[:pieces * protocol.LOAD_CHUNK]
        sent = sum(frame.opcode == Opcode.LOAD for frame in fake.requests)
    assert sent <= 4 * pieces and device.link.patience(0.1) > 0.25


def test_progress_of_a_resumed_upload_counts_what_is_sent_now():
    bar = Progress().bar("loading", 1000, start=900)
    bar.done = 950
    assert "5 B/s, 10 s left" in bar.line(10.0)


def test_upload_to_a_dead_device_ends():
    with FakeDevice() as fake, Device.open(fake.url) as device:
        fake.fault_in = lambda number, frame, encoded: b"" if frame.opcode == Opcode.LOAD else encoded
        with pytest.raises(LinkError, match="stopped answering at 0 of"):
            device.load(IMAGE)


def test_damaged_image_is_refused():
    with FakeDevice() as fake, Device.open(fake.url) as device:
        take = fake.on_load

        def spoil(frame):
            answer = take(frame)
            fake.memory[5] ^= 1
            return answer
        fake.on_load = spoil
        with pytest.raises(DeviceError, match="damaged: its tensors have CRC 0x.*: load it again"):
            device.load(IMAGE)


def test_image_larger_than_dram_is_refused_at_once():
    with FakeDevice(dram_bytes=4096) as fake, Device.open(fake.url) as device:
        with pytest.raises(HostError, match="has 9.9 KiB, the device 4.0 KiB of DRAM"):
            device.load(IMAGE)
        assert Opcode.LOAD_BEGIN not in fake.effects


def test_progress_counts_to_the_end():
    class Tty:
        text = ""
        isatty = lambda self: False
        flush = lambda self: None

        def write(self, text):
            self.text += text
    stream = Tty()
    with FakeDevice() as fake, Device.open(fake.url) as device:
        device.load(IMAGE, progress=Progress(stream))
    assert "100 % of 9.9 KiB" in stream.text


def test_refused_image_is_explained():
    error = (protocol.Subject.DIM, 2048, 1024)
    with FakeDevice(model_state=ModelState.REFUSED, model_status=Status.TOO_LARGE, model_error=error) as fake:
        with Device.open(fake.url) as device, pytest.raises(DeviceError,
                                                            match=r"dim .* is 2048, this device's maximum is 1024"):
            device.require_model()


def test_other_protocol_version_is_refused():
    with FakeDevice(version=99) as fake, pytest.raises(HostError, match="speaks protocol 99, this client"):
        Device.open(fake.url)


# Generations --------------------------------------------------------------------------------------

def test_yields_every_token_with_position_and_cycles():
    with FakeDevice() as fake, Device.open(fake.url) as device:
        generation = device.generate([1, 5, 6], Options(max_new=5, sampling=GREEDY))
        events = list(generation)
    assert [event.token for event in events] == [13, 14, 15, 16, 17]
    assert [event.position for event in events] == [3, 4, 5, 6, 7]
    assert [(b.cycles - a.cycles) % 2 ** 32 for a, b in zip(events, events[1:])] == [1000] * 4
    assert generation.outcome.reason == Reason.LENGTH and generation.outcome.position == 7


@pytest.mark.parametrize("lost", [(3,), (4, 5), (2,), (7,), (8,), (9,), (3, 5, 7), (4, 5, 6, 7, 8, 9), (8, 9)])
def test_lost_events_are_asked_for_again(lost):
    with FakeDevice(fault_out=numbered(lost)) as fake, Device.open(fake.url) as device:
        assert tokens(device.generate([1], Options(max_new=6, sampling=GREEDY))) == [11, 12, 13, 14, 15, 16]


def test_events_that_come_twice_count_once():
    with FakeDevice(fault_out=lambda number, frame, encoded: encoded * 2) as fake, Device.open(fake.url) as device:
        for _ in range(2):
            assert tokens(device.generate([1], Options(max_new=6, sampling=GREEDY))) == [11, 12, 13, 14, 15, 16]


def test_random_faults_in_both_directions():
    for seed in range(8):
        random_source = random.Random(seed)

        def fault(number, frame, encoded, random_source=random_source):
            kind = random_source.choices(("ok", "lose", "flip", "twice"), (0.7, 0.1, 0.1, 0.1))[0]
            at = random_source.randrange(len(encoded) - 1)
            damaged = encoded[:at] + bytes([encoded[at] ^ 1 or 2]) + encoded[at + 1:]
            return {"ok": encoded, "lose": b"", "flip": damaged, "twice": encoded * 2}[kind]
        with FakeDevice() as fake, Device.open(fake.url) as device:
            fake.fault_out = fault
            fake.fault_in = lambda number, frame, encoded, fault=fault: fault(number, frame,
                                                                              encoded) if number % 3 == 0 else encoded
            generation = device.generate([1], Options(max_new=20, sampling=GREEDY))
            assert tokens(generation) == list(range(11, 31))
            assert generation.outcome.reason == Reason.LENGTH


def test_stop_token_is_the_last_one():
    with FakeDevice(script=lambda position: 2 if position == 4 else 9) as fake, Device.open(fake.url) as device:
        generation = device.generate([1], Options(max_new=50, sampling=GREEDY, stops=(1, 2)))
        assert tokens(generation) == [9, 9, 9, 2]
        assert generation.outcome.reason == Reason.STOP


def test_long_prompt_travels_in_pieces():
    with FakeDevice(seq_len=1000) as fake, Device.open(fake.url) as device:
        prompt = [1] + [5] * 599
        assert tokens(device.generate(prompt, Options(position=3, max_new=2, sampling=GREEDY))) == [613, 614]
    sent = [protocol.Generate.unpack(frame.payload) for frame in fake.requests if frame.opcode == Opcode.GENERATE]
    assert [(request.position, len(request.ids), request.max_new) for request in sent] == \
        [(3, 208, 0), (211, 208, 0), (419, 184, 2)]


def test_sampling_options_travel_in_fixed_point():
    with FakeDevice() as fake, Device.open(fake.url) as device:
        tokens(device.generate([1], Options(max_new=1, sampling=Sampling(0.8, 0.95, 40, 0.05, 1.1, 32, 1 << 40))))
    request = fake.generate
    assert (request.temperature, request.top_p, request.top_k) == (52429, 62259, 40)
    assert (request.min_p, request.repetition_penalty, request.repetition_window) == (3277, 72090, 32)
    assert request.seed == 1 << 40 and request.speculate == 0


def test_speculation_travels_and_comes_back():
    with FakeDevice() as fake, Device.open(fake.url) as device:
        generation = device.generate([1], Options(max_new=3, sampling=Sampling(0, speculate=3)))
        tokens(generation)
    assert fake.generate.speculate == 3
    assert (generation.outcome.passes, generation.outcome.guessed) == (2, 5)


@pytest.mark.parametrize("options", [{"temperature": 0.5}, {"temperature": 0, "repetition_penalty": 1.1}])
def test_speculation_is_greedy_only(options):
    with pytest.raises(HostError, match="add --temperature 0"):
        Sampling(**options, speculate=1).fixed()


@pytest.mark.parametrize("options", [{"temperature": -1}, {"top_p": 1.5}, {"min_p": -0.1}, {"seed": -1}, {"top_k": -2},
                                     {"repetition_penalty": 0}, {"temperature": 0, "speculate": 8},
                                     {"temperature": float("nan")}])
def test_option_out_of_range_is_one_line(options):
    with pytest.raises(HostError, match="is from"):
        Sampling(**options).fixed()


def test_abort_ends_a_generation():
    with FakeDevice() as fake, Device.open(fake.url) as device:
        fake.hold = True
        generation = device.generate([1], Options(max_new=50, sampling=GREEDY))
        assert generation.abort() == []
        assert generation.outcome.reason == Reason.ABORT
        fake.hold = False
        assert tokens(device.generate([1], Options(max_new=2, sampling=GREEDY))) == [11, 12]


def test_silent_but_running_device_is_waited_for():
    with FakeDevice() as fake, Device.open(fake.url) as device:
        fake.hold = True
        generation = device.generate([1], Options(max_new=3, sampling=GREEDY))
        threading.Timer(0.5, fake._generate).start()
        assert tokens(generation) == [11, 12, 13]


def test_device_that_forgot_the_generation_is_an_error():
    with FakeDevice() as fake, Device.open(fake.url) as device:
        fake.hold = True
        generation = device.generate([1], Options(max_new=3, sampling=GREEDY))
        fake.running = False                    # as after a reset: no tokens, no DONE
        with pytest.raises(LinkError, match="no longer knows this generation"):
            next(generation)


def test_device_is_asked_as_often_after_it_has_said_that_it_runs():
    """Before it counts as one that forgot."""
    with FakeDevice() as fake, Device.open(fake.url) as device:
        fake.hold = True
        answer, asked = fake.on_resend, []

        def on_resend(frame):
            asked.append(fake.running)
            fake.running = len(asked) < 2           # the first answer says that it runs
            return answer(frame)
        fake.on_resend = on_resend
        generation = device.generate([1], Options(max_new=3, sampling=GREEDY))
        with pytest.raises(LinkError, match="no longer knows this generation"):
            next(generation)
        assert len(asked) == 1 + TRIES


def test_busy_device_is_asked_again():
    with FakeDevice() as fake, Device.open(fake.url) as device:
        take, refusals = fake.on_generate, [1, 1]
        fake.on_generate = lambda frame: ((Status.BUSY, protocol.Error()) if refusals and refusals.pop()
                                          else take(frame))
        fake.after = lambda frame, after=fake.after: after(frame) if fake.running else None
        assert tokens(device.generate([1], Options(max_new=2, sampling=GREEDY))) == [11, 12]


def test_reads_dram_in_pieces():
    with FakeDevice(memory=IMAGE[:5000]) as fake, Device.open(fake.url) as device:
        assert device.read(8, 4000) == IMAGE[8:4008]
        with pytest.raises(DeviceError, match="which has 5000 bytes"):
            device.read(4096, 4096)
