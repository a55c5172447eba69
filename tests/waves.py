"""Records what Amaranth's simulator does in a test as a waveform, where WAVES names a folder: ``make wave
TEST=...``."""
import collections
import contextlib
import os
import re
from pathlib import Path

from amaranth.lib import wiring

WRITTEN = []                        #: files of this process, in the order of its simulations
SIMULATIONS = collections.Counter() #: of each test


def stem(test, number):
    """Name of the file of a test's simulation ``number``: the test's, without what a shell or a file system minds."""
    file, _, name = re.sub(r" \(\w+\)$", "", test).partition("::")
    name = f"{os.path.basename(file).removesuffix('.py')}.{name}"
    return re.sub(r"[^\w.=-]+", "-", name).strip("-")[:120] + (f"-{number}" if number > 1 else "")


@contextlib.contextmanager
def recorded(sim, dut):
    """Within it ``sim`` writes a VCD and a GTKWave file that shows the ports of ``dut``; nothing unless WAVES is set.

    A test that simulates several times gets as many files. What a failing test did up to there is written, too.
    """
    folder = os.environ.get("WAVES")
    if not folder:
        yield
        return
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    test = os.environ.get("PYTEST_CURRENT_TEST", "simulation")
    SIMULATIONS[test] += 1
    path = folder/f"{stem(test, SIMULATIONS[test])}.vcd"
    WRITTEN.append(path)
    with sim.write_vcd(str(path), str(path.with_suffix(".gtkw")),
                       traces=dut if isinstance(dut, wiring.Component) else ()):
        yield
