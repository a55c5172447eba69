"""A firmware that stands still is interrupted, then reset; one that speaks is left alone."""
from migen import *
from migen.sim import run_simulation

from soc.watchdog import Watchdog

BIT  = 3
TICK = 2**(BIT + 1)    # cycles


def run(cycles, **writes):
    """Simulate with writes to the registers (``name=(cycles...)``) and pulses of ``bus_error``; per cycle the reset,
    the interrupt and the events."""
    count, seen = Signal(8), []
    dut = Watchdog(count[BIT])
    dut.sync += count.eq(count + 1)
    pulses = {name: getattr(dut, f"_{name}").re for name in ("reset", "alive", "events")} | {"bus_error": dut.bus_error}

    def stimulus():
        for cycle in range(cycles):
            for name, pulse in pulses.items():
                yield pulse.eq(cycle in writes.get(name, ()))
            yield
            seen.append(((yield dut.soc_rst), (yield dut.ev.irq), (yield dut._events.w)))
    run_simulation(dut, stimulus())
    return [list(column) for column in zip(*seen)]


def test_it_sleeps_until_it_is_fed():
    resets, interrupts, events = run(8*TICK)
    assert not any(resets + interrupts + events)


def test_silence_ends_in_an_interrupt_and_then_in_one_reset_that_it_remembers():
    resets, interrupts, events = run(6*TICK, alive=(2,))
    first = resets.index(1)
    assert abs(first - 3*TICK) <= 2 and resets[first + 1] == 0
    assert interrupts.index(1) + TICK == first
    assert not any(events[:first]) and events[first + 2] == 1


def test_the_firmware_has_a_whole_tick_at_least():
    for at in range(TICK):
        resets, interrupts, _ = run(2*TICK + at + 1, alive=(at,))
        assert not any(resets) and not any(interrupts[:at + TICK])


def test_one_word_a_tick_is_enough():
    resets, interrupts, events = run(10*TICK, alive=range(5, 10*TICK, TICK))
    assert not any(resets + interrupts + events)


def test_a_word_after_the_interrupt_takes_it_back():
    _, interrupts, _ = run(4*TICK, alive=(2,))
    late = interrupts.index(1)
    resets, interrupts, _ = run(late + TICK + 4, alive=(2, late + 3))
    assert not any(resets) and not any(interrupts[late + 6:])


def test_the_firmware_may_reset_at_once_and_is_not_taken_for_silent():
    resets, _, events = run(20, reset=(9,))
    assert sum(resets) == 1 and not any(events)


def test_an_access_to_nowhere_is_remembered_until_it_is_told():
    _, _, events = run(40, bus_error=(5,), events=(20,))
    assert events[8] == events[20] == 2 and not any(events[24:])
