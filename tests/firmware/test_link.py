"""The link answers what arrives whole, survives what does not, and never acts twice on a request sent twice."""
import random

import pytest

from llama2_spec.frame import MAX_PAYLOAD, Frame
from llama2_spec.protocol import VERSION, Device as DeviceInfo, Error, Hello, LoadBegin, Opcode, Read, Status
from tests.firmware.library import Device

HELLO = Frame(Opcode.HELLO, 9, Hello().pack()).encode()


@pytest.fixture
def device(firmware):
    return Device(firmware)


def test_hello_is_answered(device):
    info = device.ask(Opcode.HELLO, Hello())
    assert info.version == VERSION
    assert info.clock_hz == 100_000_000
    assert (info.dram_status, info.columns, info.lanes, info.candidates) == (1, 1, 16, 64)


def test_garbage_before_a_frame_is_skipped(device):
    device.feed(bytes(range(1, 200)) + b"\0" + HELLO)
    assert [frame.sequence for frame in device.frames()] == [9]
    assert device.ask(Opcode.HELLO, Hello()).link_damaged == 1


@pytest.mark.parametrize("at", range(0, len(HELLO) - 1, 3))
def test_dropped_or_damaged_byte_costs_one_frame(device, at):
    device.feed(HELLO[:at] + HELLO[at + 1:])
    assert device.frames() == []
    device.feed(HELLO[:at] + bytes([HELLO[at] ^ 0x55 or 1]) + HELLO[at + 1:])
    assert device.frames() == []
    device.feed(HELLO)
    assert [frame.sequence for frame in device.frames()] == [9]


def test_lost_delimiter_costs_two_frames(device):
    device.feed(HELLO[:-1] + HELLO + HELLO)
    assert len(device.frames()) == 1


def test_empty_frames_are_nothing(device):
    device.feed(bytes(100) + HELLO)
    assert DeviceInfo.unpack(device.frames()[0].payload).link_damaged == 0


def test_random_bytes_are_survived(device):
    rng = random.Random(3)
    for _ in range(50):
        device.feed(rng.randbytes(rng.randrange(3000)))
    device.feed(b"\0" + HELLO)
    assert device.frames()[-1].sequence == 9


def test_unknown_opcode_and_wrong_length_are_refused(device):
    device.feed(Frame(0x55, 1).encode() + Frame(Opcode.HELLO, 2, b"12").encode() +
                Frame(Opcode.STATS, 3, b"1234").encode())
    device.poll(4)
    replies = device.frames()
    assert [(frame.sequence, frame.status) for frame in replies] == [
        (1, Status.BAD_OPCODE), (2, Status.BAD_LENGTH), (3, Status.BAD_LENGTH)]
    assert Error.unpack(replies[1].payload).value == 2


@pytest.mark.parametrize("fill", [b"\0", b"\xff", bytes(range(256))])
def test_largest_reply_arrives(firmware, fill):
    memory = (fill * MAX_PAYLOAD)[:MAX_PAYLOAD]
    device = Device(firmware, memory)
    assert device.ask(Opcode.READ, Read(0, MAX_PAYLOAD)) == memory


def test_slow_transmitter_loses_nothing(device, firmware):
    firmware.fake_transmitter(1)
    device.feed(HELLO * 3)
    for _ in range(2000):
        device.poll()
        if len(replies := device.frames()):
            break
    assert replies[0].sequence == 9
    for _ in range(2000):
        device.poll()
        replies += device.frames()
    assert len(replies) == 3


def test_read_outside_dram_is_refused(device):
    reply = device.request(Opcode.READ, Read(1 << 31, 16))
    assert reply.status == Status.OUT_OF_RANGE


def test_upload_larger_than_dram_is_refused(device):
    reply = device.request(Opcode.LOAD_BEGIN, LoadBegin(1 << 31, 0))
    numbers = Error.unpack(reply.payload)
    assert (reply.status, numbers.value, numbers.limit) == (Status.NO_MEMORY, 1 << 31, 4 << 20)
