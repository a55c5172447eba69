"""What the firmware records of traps and silence, and HELLO tells after the reset."""
import pytest

from llama2_spec import protocol
from llama2_spec.protocol import Opcode, Restart
from tests.firmware import library
from tests.firmware.images import small_image

TIME, BUS = 1, 2        # BOARD_EVENT_* of board.h
LOOK = 256              # polls between two looks at the core


def begin(firmware, events=0):
    """The next start: memory that outlives a reset is as it was; the cause and place that HELLO tells."""
    firmware.fake_events(events)
    firmware.restart_begin()
    word = library.Device(firmware).ask(Opcode.HELLO, protocol.Hello()).restart
    return word >> 24, word & 0xffffff


def test_the_first_start_is_power_and_later_ones_are_from_outside(firmware):
    assert begin(firmware) == (Restart.POWER, 0)
    assert begin(firmware) == begin(firmware) == (Restart.OUTSIDE, 0)


@pytest.mark.parametrize("cause", [Restart.TRAP, Restart.TRAP + 5, Restart.TRAP + 15, Restart.WATCHDOG, Restart.CORE])
def test_a_recorded_cause_is_told_once(firmware, cause):
    begin(firmware)
    firmware.restart(cause, 0xa0001234)
    assert firmware.fake_resets() == 1
    assert begin(firmware) == (cause, 0x001234)
    assert begin(firmware) == (Restart.OUTSIDE, 0)


def test_the_watchdog_tells_where_the_firmware_recorded_nothing(firmware):
    begin(firmware)
    assert begin(firmware, TIME) == (Restart.WATCHDOG, 0)
    firmware.restart(Restart.TRAP + 2, 0x444)       # a trap whose own reset did not come
    assert begin(firmware, TIME) == (Restart.TRAP + 2, 0x444)


def test_an_access_to_nowhere_resets_the_board(firmware):
    begin(firmware)
    firmware.fake_events(BUS)
    for _ in range(LOOK):
        firmware.restart_poll()
    assert firmware.fake_resets() == 1
    assert begin(firmware) == (Restart.BUS, 0)


def rounds(device, count, execute):
    """The main loop so many times; how often it told that it runs."""
    before = device.library.fake_alive()
    for _ in range(count):
        device.poll(execute=execute)
        device.library.restart_poll()
    return device.library.fake_alive() - before


def test_an_idle_device_and_a_busy_one_are_alive_but_not_a_core_that_stands(firmware):
    device = library.Device(firmware, small_image())
    assert rounds(device, 4 * LOOK, 0) == 4
    device.send(Opcode.GENERATE, protocol.Generate(max_new=400, ids=(1, 5)))
    device.library.llama2_stands()
    assert rounds(device, LOOK, 1) == 1
    rounds(device, LOOK, 0)                         # a look that sees no beat since the last
    assert rounds(device, 4 * LOOK, 0) == 0


def test_a_generation_that_waits_for_the_host_is_alive(firmware):
    """Nobody reads what it sends: results wait, and the core behind them."""
    device = library.Device(firmware, small_image())
    device.send(Opcode.GENERATE, protocol.Generate(max_new=400, ids=(1, 5)))
    device.library.fake_transmitter(0)
    rounds(device, 4000, 64)
    assert rounds(device, 8 * LOOK, 64) == 8
