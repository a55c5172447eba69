"""What the four LEDs of a board show."""
from migen import *
from migen.sim import run_simulation

from soc.leds import HOLD_S, StatusLeds

CLOCK_HZ = 1000    # few cycles a second, so that a second is simulated at once


def run(cycles, **levels):
    """Simulate with the inputs at ``levels`` (each a function of the cycle); returns the four LEDs of each cycle."""
    pads = Signal(4)
    dut  = StatusLeds(pads, CLOCK_HZ)
    seen = []

    def stimulus():
        for cycle in range(cycles):
            for name, level in levels.items():
                yield getattr(dut, name).eq(level(cycle))
            yield
            seen.append((yield pads))
    run_simulation(dut, stimulus())
    return [[value >> led & 1 for value in seen] for led in range(4)]


def edges(values):
    return sum(a != b for a, b in zip(values, values[1:]))


def test_clock_blinks_once_a_second():
    clock = run(3*CLOCK_HZ)[0]
    assert edges(clock) in (5, 6) and abs(sum(clock) - len(clock)//2) < 10


def test_dram_is_dark_until_done_then_lit():
    assert not any(run(200)[1])
    assert all(run(200, dram_done=lambda cycle: 1)[1][2:])


def test_dram_blinks_fast_when_it_failed():
    dram = run(CLOCK_HZ, dram_done=lambda cycle: 1, dram_failed=lambda cycle: 1)[1]
    assert 8 <= edges(dram) <= 40


def test_an_event_of_one_cycle_is_held_for_the_eye():
    hold = round(HOLD_S*CLOCK_HZ)
    core = run(300, busy=lambda cycle: cycle == 20)[2]
    assert sum(core) == hold and not any(core[-100:])


def test_serial_shows_either_direction():
    for line in ("rx", "tx"):
        serial = run(300, **{line: lambda cycle: int(cycle != 20)})[3]
        assert sum(serial) >= HOLD_S*CLOCK_HZ and not any(serial[-100:])
    assert not any(run(300)[3][1:])
