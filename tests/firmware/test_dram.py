"""DRAM at start: tested without a loss, and an image that DRAM kept through a reset is whole after training."""
import ctypes
import shutil
import subprocess
import zlib

import numpy as np
import pytest

from llama2_spec import emit_c, image
from llama2_spec.protocol import Board as Board_
from tests.firmware.library import FLAGS, ROOT, counting

DRAM_BYTES = 1 << 20
HEADER     = image.HEADER_BYTES + 1000    # with what the CRC covers behind it

#: A board whose DRAM has faults, and whose training writes over the first bytes as LiteDRAM's does.
BOARD = """
#include <generated/llama2_spec.h>
#include <string.h>
#include "board.h"
#include "dram.h"
uint8_t memory[%(bytes)d] __attribute__((aligned(16)));
uint8_t reached[IMAGE_CHECKED_FROM];    /* of the first bytes, what has left the caches */
uint32_t stuck_at, stuck_bits, aliased_line;
int trains = 1, refreshes;
uint32_t board_lanes(void) { return 0; }
uint32_t board_delays(void) { return 0; }
void board_lane_read(uint32_t lane, uint32_t *bitslip, uint32_t *delay) { *bitslip = *delay = lane; }
void board_lane_write(uint32_t lane, uint32_t bitslip, uint32_t delay) { (void)lane; (void)bitslip; (void)delay; }
uint8_t *board_dram(void) { return memory; }
uint32_t board_dram_bytes(void) { return sizeof memory; }
bool board_dram_train(void)
{
    memset(memory, 0xa5, IMAGE_CHECKED_FROM);
    return trains;
}
void board_dram_refresh(void)
{
    refreshes++;
    memcpy(reached, memory, sizeof reached);
    if (stuck_bits) {
        uint32_t word;
        memcpy(&word, memory + stuck_at, 4);
        word |= stuck_bits;
        memcpy(memory + stuck_at, &word, 4);
    }
    /* The line does nothing: where it is high is what was written where it is low. */
    if (aliased_line)
        memcpy(memory + aliased_line, memory, 32);
}
"""


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dram")
    (folder/"generated").mkdir()
    (folder/"generated"/"llama2_spec.h").write_text(emit_c.header())
    (folder/"board.c").write_text(BOARD % {"bytes": DRAM_BYTES})
    subprocess.run(["gcc", *FLAGS, "-shared", f"-I{folder}", f"-I{ROOT/'firmware'}", "-o", folder/"dram.so",
                    folder/"board.c",
                    ROOT/"firmware"/"dram.c", ROOT/"firmware"/"crc32.c", *counting()], check=True)
    return folder/"dram.so"


class Board:
    def __init__(self, built, folder):
        self.library = ctypes.CDLL(str(shutil.copyfile(built, folder/"dram.so")))
        self.library.dram_start.restype = ctypes.c_bool
        self.memory = np.ctypeslib.as_array((ctypes.c_uint8*DRAM_BYTES).in_dll(self.library, "memory"))

    def start(self, rounds=3):
        return self.library.dram_start(rounds)

    def failed(self):
        """First byte and wrong bits of the first place that failed at start."""
        board = (ctypes.c_uint32*(Board_.FORMAT.size//4))()
        self.library.dram_failed(board)
        told = Board_.unpack(bytes(board))
        return told.failed_offset, told.failed_bits

    def set(self, name, value):
        ctypes.c_uint32.in_dll(self.library, name).value = value


@pytest.fixture
def board(built, tmp_path):
    board = Board(built, tmp_path)
    board.memory[:] = np.random.default_rng(7).integers(0, 256, DRAM_BYTES, dtype=np.uint8)
    return board


def put_image(board, seed=3):
    """Lay a valid header at DRAM's beginning, as an upload leaves it."""
    body = np.random.default_rng(seed).integers(0, 256, HEADER, dtype=np.uint8)
    body[16:20] = np.frombuffer(HEADER.to_bytes(4, "little"), np.uint8)
    body[:4]    = np.frombuffer(b"LLMI", np.uint8)
    body[12:16] = np.frombuffer(zlib.crc32(body[image.CHECKED_FROM:].tobytes()).to_bytes(4, "little"), np.uint8)
    board.memory[:HEADER] = body


def test_test_leaves_dram_as_it_was(board):
    before = board.memory.copy()
    assert board.start()
    assert (board.memory[image.CHECKED_FROM:] == before[image.CHECKED_FROM:]).all()
    assert (board.memory[:image.CHECKED_FROM] == 0xa5).all()    # training's, and no image that it belongs to


@pytest.mark.parametrize("bit", [0, 13, 31])
@pytest.mark.parametrize("at", [0, 28, 64, DRAM_BYTES//2])
def test_stuck_bit_is_found(board, at, bit):
    board.set("stuck_at", at)
    board.set("stuck_bits", 1 << bit)
    assert not board.start()


@pytest.mark.parametrize("line", [1 << n for n in range(5, 20)])
def test_address_line_that_does_nothing_is_found(board, line):
    board.set("aliased_line", line)
    assert not board.start()


def test_start_tells_where_it_failed(board):
    board.set("stuck_at", 64)
    board.set("stuck_bits", 1 << 13)
    assert not board.start()
    assert board.failed() == (64, 1 << 13)


def test_failed_training_is_failure(board):
    board.set("trains", 0)
    assert not board.start()


def test_kept_image_is_whole_after_a_reset(board):
    put_image(board)
    before = board.memory.copy()
    board.library.dram_keep()
    assert board.start() and (board.memory == before).all()
    assert board.start() and (board.memory == before).all()
    reached = (ctypes.c_uint8*image.CHECKED_FROM).in_dll(board.library, "reached")
    assert bytes(reached) == before[:image.CHECKED_FROM].tobytes(), "in the CPU's caches, not in DRAM"


def test_burst_is_returned_to_no_other_image(board):
    put_image(board)
    board.library.dram_keep()
    put_image(board, seed=4)            # an upload of another began
    other = board.memory.copy()
    assert board.start()
    assert (board.memory[:image.CHECKED_FROM] == 0xa5).all()
    assert (board.memory[image.CHECKED_FROM:] == other[image.CHECKED_FROM:]).all()


@pytest.mark.parametrize("end", [0, 255, DRAM_BYTES, 2**32 - 1])
def test_wild_length_is_not_followed(board, end):
    put_image(board)
    board.library.dram_keep()
    board.memory[16:20] = np.frombuffer(end.to_bytes(4, "little"), np.uint8)
    assert board.start()
    assert (board.memory[:image.CHECKED_FROM] == 0xa5).all()
