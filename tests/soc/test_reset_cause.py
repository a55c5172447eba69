"""The simulated SoC restarts after a trap and after an access to nowhere, and the next client is told why.

The firmware's answer to LANE is overwritten in the simulated ROM, so that a request meets what only a bug could.
"""
import io
import shutil
import subprocess

import pytest

from llama2_host.device.device import Device
from llama2_host.device import rate
from llama2_host.errors import HostError
from llama2_host.progress import Progress
from llama2_spec.protocol import Lane, Opcode, Restart
from soc.base import ROM_SIZE
from soc.sim.compile import VSIM
from soc.sim.simulator import Simulator
from soc.split_ram import power_of_two_parts
from targets import sim
from tests.waiting import PATIENCE_S

pytestmark = pytest.mark.soc

ILLEGAL = [0x00000000]
NOWHERE = [0xa00002b7, 0x0002a303, 0x00008067]    # lui t0, 0xa0000; lw t1, 0(t0); ret
HELLO_TRIES = 60
ANSWER_S = 0.5      #: no answer comes; the board may have restarted when this is over, or not


@pytest.fixture(scope="module")
def vsim():
    return sim.build()


def place_of(vsim, function):
    """Its address in the firmware."""
    elf   = vsim.parents[2]/"software"/"firmware"/"firmware.elf"
    lines = subprocess.run(["riscv64-unknown-elf-nm", elf], capture_output=True, text=True, check=True).stdout
    return next(int(line.split()[0], 16) for line in lines.splitlines() if line.split()[2] == function)


def overwritten(vsim, folder, place, words):
    """A copy of the simulator in whose ROM these words stand at ``place``."""
    gateware = shutil.copytree(vsim.parents[1], folder/"gateware", ignore=shutil.ignore_patterns("*.v", "*.o", "*.cpp"))
    part  = 0
    files = sorted(gateware.glob("sim_rom*.init"))
    sizes = [4*words for words in power_of_two_parts(ROM_SIZE//4)]    # bytes
    while place >= sizes[part]:
        place -= sizes[part]
        part += 1
    lines = files[part].read_text().split()
    lines[place//4:place//4 + len(words)] = [f"{word:08x}" for word in words]
    files[part].write_text("\n".join(lines) + "\n")
    return gateware/VSIM


def next_client(url, boot):
    """The first session after the boot with that number, and what its user was told. A request that waits while the
    access to nowhere does (a million cycles) may be answered before the firmware sees that nothing was there."""
    for _ in range(HELLO_TRIES):
        notes = io.StringIO()
        notes.isatty = lambda: False
        try:
            device = Device.open(url, wait_s=PATIENCE_S, hello_tries=HELLO_TRIES, progress=Progress(notes))
        except HostError:               # it restarted meanwhile
            continue
        if device.info.boot != boot:
            return device, notes
        device.close()
    raise AssertionError("the board did not restart")


@pytest.mark.parametrize("words, cause, line", [
    (ILLEGAL, Restart.TRAP + 2, "its firmware met an illegal instruction at "),
    (NOWHERE, Restart.BUS, "its firmware accessed an address where nothing answers"),
], ids=["trap", "bus"])
def test_the_board_restarts_and_the_next_client_is_told(vsim, tmp_path, words, cause, line):
    place = place_of(vsim, "inspect_lane")
    with Simulator(overwritten(vsim, tmp_path, place, words)) as simulator:
        with Device.open(simulator.url, wait_s=PATIENCE_S, hello_tries=HELLO_TRIES) as device:
            boot = device.info.boot
            assert device.info.restart >> 24 in (Restart.POWER, Restart.OUTSIDE)
            with pytest.raises(HostError):
                device.link.request(Opcode.LANE, Lane(0, 0, 255), timeout_s=ANSWER_S, tries=1)
        device, notes = next_client(simulator.url, boot)
        with device:
            assert device.info.restart >> 24 == cause
            assert device.info.restart & 0xffffff == (place if cause >= Restart.TRAP else 0)
            assert device.info.boot in rate._numbers
            assert device.hello().restart >> 24 == cause      # it still knows
        assert f"the board restarted: {line}" in notes.getvalue() and notes.getvalue().count("\n") == 1
