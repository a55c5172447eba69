"""What a request may not ask for is refused with its numbers, at every edge of the checks of device.c and install.c."""
import ctypes
from dataclasses import dataclass

import pytest

from llama2_spec.protocol import (Generate, Hello, Lane, Load, LoadBegin, Memory, ModelState, Opcode, Read, Reset,
                                  Resend, ResetFlag, Slots, Status, Subject, Tokens, Verify)
from tests.firmware import library
from tests.firmware.images import SEQ_LEN, small_image
from tests.firmware.library import DRAM_BYTES, Device


@dataclass
class Raw:
    """A payload of any length."""
    data: bytes

    def pack(self) -> bytes:
        return self.data


@pytest.fixture
def device(firmware):
    return Device(firmware, small_image(), columns=2)


def slow_check(firmware):
    """From the second CRC on, that of the tensors, the core takes longer than a test lasts. Keep what it returns."""
    crcs = []

    def pushed(command):
        crcs.append(command)
        if len(crcs) > 1:
            firmware.fake_crc_looks(1 << 30)
    pushed = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(pushed)
    firmware.fake_when_pushed(pushed)
    return pushed


def end_check(firmware):
    firmware.fake_when_pushed(None)
    firmware.fake_crc_looks(0)


def refused(device, opcode, payload=None):
    return library.error(device.request(opcode, payload))


def test_hello_of_this_version_and_another_length_is_of_another_version(device):
    reply = device.request(Opcode.HELLO, Raw(Hello().pack() + b"more"))
    assert reply.status == Status.BAD_VERSION and len(reply.payload) == 12


@pytest.mark.parametrize("opcode, payload, least", [
    (Opcode.GENERATE, Generate(ids=(1,)).pack() + b"x", 184), (Opcode.ABORT, b"abc", 0), (Opcode.STATS, b"x", 0),
    (Opcode.READ, b"abcd", 8), (Opcode.READ, b"abcdefghi", 8)])
def test_a_length_that_a_request_cannot_have(device, opcode, payload, least):
    assert refused(device, opcode, Raw(payload)) == (Status.BAD_LENGTH, Subject.NONE, len(payload), least)


@pytest.mark.parametrize("offset, length", [(0, 1028), (0, 6), (2, 8)])
def test_a_read_of_no_words(device, offset, length):
    assert refused(device, Opcode.READ, Read(offset, length)) == (Status.BAD_VALUE, Subject.LENGTH, length, 1024)


@pytest.mark.parametrize("offset", [DRAM_BYTES - 4, DRAM_BYTES + 4])
def test_a_read_beyond_dram(device, offset):
    assert refused(device, Opcode.READ, Read(offset, 8)) == (Status.OUT_OF_RANGE, Subject.NONE, offset, DRAM_BYTES)


def test_slots_of_no_model_and_of_another_length(firmware):
    assert refused(Device(firmware), Opcode.SLOTS, Slots(2, 0)) == (Status.NO_MODEL, Subject.NONE, 0, 0)
    device = Device(firmware, small_image())
    assert device.ask(Opcode.SLOTS, Slots(2, 50)).length == 50
    assert device.ask(Opcode.SLOTS, Slots(2, 60)).length == 60 and device.ask(Opcode.SLOTS, Slots(0, 0)).count == 2
    assert refused(device, Opcode.SLOTS, Slots(2, SEQ_LEN + 1)) == (Status.BAD_VALUE, Subject.SEQ_LEN, SEQ_LEN + 1,
                                                                    SEQ_LEN)


def test_counters_and_errors_are_reset_apart(device):
    device.generate(ids=(1, 2), max_new=3)
    device.ask(Opcode.RESET, Reset(ResetFlag.ERRORS))
    assert device.ask(Opcode.STATS).tokens == 3
    device.ask(Opcode.RESET, Reset(ResetFlag.COUNTERS))
    assert device.ask(Opcode.STATS).tokens == 0


def test_while_a_model_is_checked_the_core_and_dram_are_taken(device, firmware):
    """But a generation that was accepted before is known, and its request answered again."""
    device.generate(ids=(1, 2), max_new=3)
    known = device.generation
    hook = slow_check(firmware)
    assert device.ask(Opcode.VERIFY, Verify(1)).running
    for opcode, payload in ((Opcode.LOAD_BEGIN, LoadBegin(64, 0)), (Opcode.LANE, Lane(0, 0, 255)),
                            (Opcode.MEMORY, Memory(0, 32, 1)), (Opcode.GENERATE, Generate(ids=(1,), max_new=1))):
        assert refused(device, opcode, payload)[0] == Status.BUSY
    assert device.request(Opcode.GENERATE, Generate(ids=(1, 2), max_new=3), sequence=known).status == Status.OK
    assert hook and device.ask(Opcode.VERIFY, Verify(1)).running, "the one that runs goes on"
    end_check(firmware)
    device.poll(8)
    assert not device.ask(Opcode.VERIFY, Verify(0)).running


def test_while_a_model_is_looked_for_dram_is_not_tested(firmware):
    hook = slow_check(firmware)
    device = Device(firmware, small_image(), boot=False)
    for opcode, payload in ((Opcode.LANE, Lane(0, 0, 255)), (Opcode.MEMORY, Memory(0, 32, 1))):
        assert hook and refused(device, opcode, payload)[0] == Status.BUSY
    end_check(firmware)
    device.boot()
    assert device.ask(Opcode.HELLO, Hello()).model_state == ModelState.READY


def test_a_board_whose_dram_failed_takes_no_model(firmware):
    firmware.fake_dram_fails()
    device = Device(firmware)
    assert refused(device, Opcode.LOAD_BEGIN, LoadBegin(1024, 0)) == (Status.NO_DRAM, Subject.NONE, 0, 0)


@pytest.mark.parametrize("offset, size", [(0, 6), (2, 4)])
def test_a_piece_of_no_words(device, offset, size):
    device.ask(Opcode.LOAD_BEGIN, LoadBegin(1024, 1))
    assert refused(device, Opcode.LOAD, Load(offset, b"x" * size))[0] in (Status.BAD_VALUE, Status.OUT_OF_ORDER)
    assert device.ask(Opcode.LOAD, Load(0, b"x" * 8)).received == 8


def test_a_check_without_a_model(device):
    device.ask(Opcode.LOAD_BEGIN, LoadBegin(1024, 1))
    assert refused(device, Opcode.VERIFY, Verify(1))[0] == Status.NO_MODEL


def test_a_core_s_errors_end_in_the_generation_that_met_them(device, firmware):
    """Sticky until they are reset."""
    device.send(Opcode.GENERATE, Generate(ids=(1, 2), max_new=30))
    device.poll(3)
    firmware.fake_core_errors(5)
    tokens, done = device.finish()
    assert done.errors == 5 and device.ask(Opcode.STATS).errors == 5
    tokens, done = device.generate(ids=(1, 2), max_new=3)
    assert done.errors == 0 and device.ask(Opcode.STATS).errors == 5
    device.ask(Opcode.RESET, Reset(ResetFlag.ERRORS))
    assert device.ask(Opcode.STATS).errors == 0


def test_a_resend_has_what_a_frame_holds_and_what_the_ring_has(device):
    """Held at the ring's end, 128 tokens wait; a frame has room for 126. Acknowledged ones are overwritten."""
    sequence = device.send(Opcode.GENERATE, Generate(ids=(1, 2), max_new=200))
    device.poll(3000)
    device.frames()
    tokens = Tokens.unpack(device.request(Opcode.RESEND, Resend(0, sequence, 0)).payload)
    assert (tokens.count, len(tokens.entries)) == (128, 2 * 126)
    device.request(Opcode.RESEND, Resend(128, sequence, 1))
    device.poll(3000)
    count = Tokens.unpack(device.request(Opcode.RESEND, Resend(150, sequence, 1)).payload).count
    assert refused(device, Opcode.RESEND, Resend(3, sequence, 1)) == (Status.BAD_VALUE, Subject.NONE, 3, count - 128)
    assert refused(device, Opcode.RESEND, Resend(count + 1, sequence, 1))[0] == Status.BAD_VALUE
