"""The simulated byte lanes: right within their window and wrong outside of it, and faults only where they are asked
for."""
import subprocess

import numpy as np
import pytest

from soc.sim.lanes import BITSLIPS, DELAYS, HERE
from tests.soc.compiled import compiled

BENCH = """
#include <cstdio>
#include "Vdram_lanes.h"
#include "verilated.h"
int main(int argc, char **argv)
{
	Verilated::commandArgs(argc, argv);
	static Vdram_lanes lanes;
	unsigned delay, bitslip, words[4];
	while (scanf("%x %x %x %x %x %x", &delay, &bitslip, &words[0], &words[1], &words[2], &words[3]) == 6) {
		lanes.delay = delay;
		lanes.bitslip = bitslip;
		for (int i = 0; i < 4; i++) lanes.sent[i] = words[i];
		lanes.eval();
		printf("%x %x %x %x %x\\n", lanes.trained, lanes.seen[0], lanes.seen[1], lanes.seen[2], lanes.seen[3]);
	}
}
"""
WINDOWS = {0: (1, 1, 5), 1: (0, 2, 6)}    # lane: bitslip, first and last delay
SENT    = np.random.default_rng(3).integers(0, 256, 16, dtype=np.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("lanes"), "dram_lanes", BENCH, [HERE/"dram_lanes.v"])


def look(model, settings, *switches):
    """What is seen at (delay, bitslip) of both lanes, as bytes; and what the model says that training would choose."""
    words = " ".join(f"{word:x}" for word in SENT.view("<u4"))
    lines = "".join(f"{delay:x} {bitslip:x} {words}\n" for delay, bitslip in settings)
    told  = subprocess.run([str(model), *switches], input=lines, text=True, capture_output=True,
                           check=True).stdout.splitlines()
    rows  = [[int(word, 16) for word in line.split()] for line in told]
    return [np.array(row[1:], "<u4").view(np.uint8) for row in rows], [row[0] for row in rows]


def every_setting(lane):
    return [(bitslip, delay) for bitslip in range(BITSLIPS) for delay in range(DELAYS)], \
           [(delay << 4*lane, bitslip << 4*lane) for bitslip in range(BITSLIPS) for delay in range(DELAYS)]


def right(model, lane, *switches):
    """Settings at which a lane's bytes are those that were sent."""
    names, settings = every_setting(lane)
    seen, _ = look(model, settings, *switches)
    return [name for name, bytes_ in zip(names, seen) if (bytes_[lane::2] == SENT[lane::2]).all()]


@pytest.mark.parametrize("lane", WINDOWS)
def test_a_lane_is_right_in_its_window_only(model, lane):
    bitslip, first, last = WINDOWS[lane]
    assert right(model, lane) == [(bitslip, delay) for delay in range(first, last + 1)]


def test_what_training_would_choose_is_in_the_middle(model):
    _, [trained] = look(model, [(0, 0)])
    for lane, (bitslip, first, last) in WINDOWS.items():
        assert (trained >> 8*lane + 4 & 15, trained >> 8*lane & 15) == (bitslip, (first + last)//2)


@pytest.mark.parametrize("switch", ["+dram_train", "+dram_fault=stuck", "+dram_fault=shifted", "+dram_fault=row"])
def test_training_is_left_to_the_firmware_where_it_is_asked_for(model, switch):
    assert look(model, [(0, 0)], switch)[1] == [0]


def test_a_stuck_lane_reads_ones_and_leaves_the_other(model):
    assert right(model, 1, "+dram_fault=stuck") == [] and right(model, 0, "+dram_fault=stuck") == right(model, 0)
    seen, _ = look(model, every_setting(1)[1], "+dram_fault=stuck")
    assert all((bytes_[1::2] == 255).all() for bytes_ in seen)


def test_a_shifted_window_is_at_the_end_of_all_delays(model):
    assert right(model, 1, "+dram_fault=shifted") == [(BITSLIPS - 1, DELAYS - 2), (BITSLIPS - 1, DELAYS - 1)]
    assert right(model, 0, "+dram_fault=shifted") == right(model, 0)


def test_a_bad_row_is_no_lane_s(model):
    assert (right(model, 0, "+dram_fault=row") == right(model, 0)
            and right(model, 1, "+dram_fault=row") == right(model, 1))
