"""A test's simulation is written as a waveform with the names of ports and states; a run that wrote none says so and
fails."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tests import waves
from tests.accel.streams import simulate

ROOT = Path(__file__).parent.parent


class Blinker(wiring.Component):
    """Lights ``lamp`` for a cycle after ``start``."""
    def __init__(self):
        super().__init__({"start": In(1), "lamp": Out(1)})

    def elaborate(self, platform):
        m = Module()
        with m.FSM():
            with m.State("DARK"):
                with m.If(self.start):
                    m.next = "AFTER-START"
            with m.State("AFTER-START"):
                m.d.comb += self.lamp.eq(1)
                m.next = "DARK"
        return m


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("WAVES", str(tmp_path/"waves"))
    monkeypatch.setattr(waves, "WRITTEN", [])
    return tmp_path/"waves"


def test_names_ports_and_states(folder):
    dut = Blinker()

    async def testbench(ctx):
        ctx.set(dut.start, 1)
        await ctx.tick().repeat(2)
    simulate(dut, testbench)
    text = (folder/"test_waves.test_names_ports_and_states.vcd").read_text()
    assert " start $end" in text and " lamp $end" in text and "AFTER-START" in text
    assert "lamp" in (folder/"test_waves.test_names_ports_and_states.gtkw").read_text()


def test_a_failing_test_leaves_what_it_did(folder):
    async def testbench(ctx):
        await ctx.tick()
        raise AssertionError("the bug")
    with pytest.raises(AssertionError, match="the bug"):
        simulate(Blinker(), testbench)
    simulate(Blinker())                 # the second of this test does not replace the first
    assert [path.name for path in waves.WRITTEN] == ["test_waves.test_a_failing_test_leaves_what_it_did.vcd",
                                                     "test_waves.test_a_failing_test_leaves_what_it_did-2.vcd"]
    assert "DARK" in waves.WRITTEN[0].read_text()


def test_nothing_is_written_without_being_asked(tmp_path, monkeypatch):
    monkeypatch.delenv("WAVES", raising=False)
    monkeypatch.chdir(tmp_path)
    simulate(Blinker())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("test, code, says", [("tests/accel/test_stage.py::test_rate", 0, "waveform: "),
                                              ("tests/spec/test_tables.py", 1, "no waveform: ")])
def test_a_run_names_its_files_or_fails(tmp_path, test, code, says):
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test], cwd=ROOT, text=True,
                          capture_output=True,
                          env={**os.environ, "WAVES": str(tmp_path)})
    assert done.returncode == code and says in done.stdout
    assert bool(list(tmp_path.glob("*.vcd"))) == (code == 0)
