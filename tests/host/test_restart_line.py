"""The client says once, in one true line, why the board began anew."""
import io

import pytest

from llama2_host.device.device import Device
from llama2_host.device.link import Link
from llama2_host.device.restart import explain_restart
from llama2_host.progress import Progress
from llama2_spec.protocol import Restart
from tests.firmware import library
from tests.firmware.conftest import built, firmware     # noqa: F401  (fixtures)
from tests.firmware.line import LinePort, transport


@pytest.mark.parametrize("cause, words", [
    (Restart.WATCHDOG, "its firmware stood still"), (Restart.CORE, "busy and moved nothing"),
    (Restart.BUS, "nothing answers"), (Restart.TRAP, "a jump"), (Restart.TRAP + 2, "an illegal instruction"),
    (Restart.TRAP + 5, "a read from where nothing is"), (Restart.TRAP + 13, "trap 13"),
    (7, "a cause that this client does not know (7)"), (255, "a cause that this client does not know (255)")])
def test_each_cause_is_one_line_with_its_place(cause, words):
    line = explain_restart(cause << 24 | 0x1234)
    assert line.startswith("the board restarted: ") and words in line and "at 0x001234" in line and "\n" not in line
    assert " at " not in explain_restart(cause << 24).split(";")[0].split(words)[1]


@pytest.mark.parametrize("cause", [Restart.POWER, Restart.OUTSIDE])
def test_a_person_s_reset_is_no_news(cause):
    assert explain_restart(cause << 24) is None


def greet(device):
    notes = io.StringIO()
    notes.isatty = lambda: False
    Device(Link(transport(LinePort(device))), progress=Progress(notes))
    return notes.getvalue().splitlines()


def test_the_first_client_after_a_trap_tells_and_the_next_does_not(firmware, monkeypatch):    # noqa: F811
    firmware.restart_begin()
    firmware.restart(Restart.TRAP + 5, 0x2468)
    firmware.restart_begin()
    device = library.Device(firmware, boot=False)
    [line] = greet(device)
    assert "the board restarted: its firmware met a read from where nothing is at 0x002468" in line
    from llama2_host.device import rate
    rate._numbers.clear()               # another process
    assert greet(device) == []
