"""The table shows what each clock edge takes, by name; a name that is not there is refused with those that are."""
import subprocess
import sys

import pytest

from bench.wave import rows
from tests import waves
from tests.accel.streams import simulate
from tests.test_waves import Blinker


@pytest.fixture
def vcd(tmp_path, monkeypatch):
    monkeypatch.setenv("WAVES", str(tmp_path))
    monkeypatch.setattr(waves, "WRITTEN", [])
    dut = Blinker()

    async def testbench(ctx):
        for start in (0, 1, 0, 0):
            ctx.set(dut.start, start)
            await ctx.tick()
    simulate(dut, testbench)
    return waves.WRITTEN[0]


def test_values_are_those_before_the_edge(vcd):
    table = [(cycle, values["start"], values["lamp"], values["fsm_state"].partition("/")[0])
             for cycle, values in rows(vcd, ["start", "lamp", "fsm_state"])]
    assert table[:4] == [(0, "0", "0", "DARK"), (1, "1", "0", "DARK"), (2, "0", "1", "AFTER-START"),
                         (3, "0", "0", "DARK")]


def test_unknown_signal_is_one_line(vcd):
    done = subprocess.run([sys.executable, "-m", "bench.wave", str(vcd), "lamps"], text=True, capture_output=True)
    assert (done.returncode == 1 and done.stderr.count("\n") == 1 and "no signal lamps" in done.stderr
            and "lamp" in done.stderr)
