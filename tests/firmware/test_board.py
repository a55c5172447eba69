"""What the firmware tells of the board around the core, and that its tests of DRAM lose nothing."""
import ctypes
import zlib

import numpy as np
import pytest

from llama2_spec import protocol
from llama2_spec.protocol import MAX_PLACES, Hello, Lane, Memory, Opcode, Status, Stream, Subject
from tests.firmware import library
from tests.firmware.images import small_image

ROW = 2048


@pytest.fixture
def device(firmware):
    for lane, window in enumerate([(1, 1, 5, 3), (0, 2, 6, 4)]):
        firmware.fake_lane(lane, *window)
    return library.Device(firmware, small_image())


def memory(device):
    return np.ctypeslib.as_array(ctypes.cast(device.library.fake_dram(), ctypes.POINTER(ctypes.c_uint8)),
                                 (library.DRAM_BYTES,))


def eye(device, lane, bitslip):
    return device.ask(Opcode.LANE, Lane(lane, bitslip, 0xff00ff << 8 * lane))


def test_says_what_is_around_the_core(device):
    board = device.ask(Opcode.BOARD)
    assert (board.simulated, board.dram_status, board.lanes, board.delays, board.bitslips) == (1, 1, 2, 8, 2)
    assert (board.pin_bytes, board.banks, board.row_bytes, board.flash_id) == (16, 8, ROW, 0)


def test_an_eye_is_open_where_the_lane_reads_right(device):
    before = memory(device).copy()
    for lane, (bitslip, first, last, delay) in enumerate([(1, 1, 5, 3), (0, 2, 6, 4)]):
        for at in range(2):
            seen = eye(device, lane, at)
            assert (seen.bitslip, seen.delay) == (bitslip, delay)
            assert [not errors for errors in seen.errors] == [at == bitslip and first <= n <= last for n in range(8)]
            assert max(seen.errors) <= seen.words * 16
    assert (memory(device) == before).all()
    assert device.ask(Opcode.HELLO, protocol.Hello()).model_state == protocol.ModelState.READY


def test_a_stuck_lane_reads_wrong_everywhere_and_the_other_right(device):
    device.library.fake_lane_stuck(1)
    assert all(errors > seen.words * 4 for seen in (eye(device, 1, 0), eye(device, 1, 1)) for errors in seen.errors)
    assert not all(eye(device, 0, 1).errors)


def test_a_good_memory_holds_and_is_left_as_it_was(device):
    before = memory(device).copy()
    tested = device.ask(Opcode.MEMORY, Memory(0, ROW, 1024))
    assert (tested.tested, tested.bad, tested.bits) == (1024, 0, 0)
    assert (memory(device) == before).all()


@pytest.mark.parametrize("row", [0, 5, 23, 24, 1023])
def test_one_bad_row_is_found_wherever_it_is(device, row):
    device.library.fake_bad_row(row * ROW, 0x10100)
    tested = device.ask(Opcode.MEMORY, Memory(0, ROW, 1024))
    assert (tested.bad, tested.first, tested.last, tested.bits) == (1, row * ROW, row * ROW, 0x10100)


def test_several_are_counted(device):
    device.library.fake_bad_row(3 * ROW, 1)
    tested = device.ask(Opcode.MEMORY, Memory(3 * ROW, 32, 64))
    assert (tested.bad, tested.first, tested.last) == (64, 3 * ROW, 3 * ROW + 63 * 32)


@pytest.mark.parametrize("what", [Memory(0, ROW, 0), Memory(0, ROW, MAX_PLACES + 1), Memory(4, ROW, 1), Memory(0, 4, 1),
                                  Memory(0, 0, 1),
                                  Memory(library.DRAM_BYTES, ROW, 1), Memory(0, 1 << 31, 3),
                                  Memory(library.DRAM_BYTES - ROW, ROW, 2)])
def test_places_outside_of_dram_are_refused(device, what):
    assert library.error(device.request(Opcode.MEMORY, what))[:2] == (Status.BAD_VALUE, Subject.PLACE)


@pytest.mark.parametrize("what", [Lane(2, 0), Lane(0, 2), Lane(1 << 31, 0)])
def test_lanes_that_are_not_there_are_refused(device, what):
    assert library.error(device.request(Opcode.LANE, what))[:2] == (Status.BAD_VALUE, Subject.LANE)


def test_the_core_reads_a_piece(device):
    streamed = device.ask(Opcode.STREAM, Stream(64, 4096))
    assert streamed.crc == zlib.crc32(memory(device)[64:64 + 4096])
    assert streamed.boot == device.ask(Opcode.HELLO, Hello()).boot


@pytest.mark.parametrize("what", [Stream(0, 0), Stream(8, 16), Stream(0, 8), Stream(library.DRAM_BYTES, 16),
                                  Stream(0, library.DRAM_BYTES + 16),
                                  Stream(0, (64 << 20) + 16)])
def test_streams_outside_of_dram_are_refused(device, what):
    assert library.error(device.request(Opcode.STREAM, what))[:2] == (Status.BAD_VALUE, Subject.PLACE)


@pytest.mark.parametrize("opcode, payload", [(Opcode.LANE, Lane(0, 0)), (Opcode.MEMORY, Memory(0, ROW, 1)),
                                             (Opcode.STREAM, Stream(0, 16))])
def test_nothing_is_tested_while_an_image_is_checked(firmware, opcode, payload):
    device = library.Device(firmware, small_image(), boot=False)
    assert library.error(device.request(opcode, payload))[0] == Status.BUSY
    device.boot()
    assert library.error(device.request(opcode, payload))[0] == Status.OK


def test_a_board_whose_dram_failed_answers_all_the_same(firmware):
    firmware.fake_dram_fails()
    firmware.fake_lane_stuck(1)
    device = library.Device(firmware)
    assert device.ask(Opcode.BOARD).dram_status == 0
    assert all(eye(device, 1, 0).errors)
    assert device.ask(Opcode.MEMORY, Memory(0, ROW, 8)).bits == 0xff00ff00
