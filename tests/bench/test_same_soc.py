"""What carries the records of a simulated SoC over to other sources: all that they generate is the same."""
import json
import shutil
from types import MappingProxyType

import pytest

from bench import records, same_core, same_soc, soak
from targets import sim

OLD = {"sim.v": b"module sim;\nendmodule\n", "sim_rom.init": b"00000013\n"}


@pytest.mark.parametrize("new, lines", [
    (OLD, []), ({**OLD, "sim_rom.init": b"00000093\n"}, ["sim_rom.init differs"]),
    ({"sim.v": OLD["sim.v"]}, ["sim_rom.init is in one only"]), ({**OLD, "more.v": b""}, ["more.v is in one only"])])
def test_what_differs(new, lines):
    assert same_soc.differences(OLD, new) == lines == same_soc.differences(new, OLD)


@pytest.mark.parametrize("names, good", [
    (["targets/sim.py", "soc/sim/compile.py"], True), (["firmware/store.c"], True), ([], True),
    (["soc/sim/simulator.py"], False), (["spec/llama2_spec/golden.py"], False),
    (["soc/sim/dram.py", "accel/core.py"], False), (["requirements.txt", "targets/sim.py"], False),
    (["host/llama2_host/device/device.py"], False)])
def test_which_changes_may_leave_a_record_as_good_as_it_was(names, good):
    assert same_soc.carried(names) == good


@pytest.fixture
def generated(monkeypatch, tmp_path):
    """What both trees generate, by the name of the tree's folder; nothing is built, a record's kinds had other digests
    before, and pairs go into a file apart."""
    found = {"tree": dict(OLD), records.ROOT.name: dict(OLD)}
    monkeypatch.setattr(same_soc, "generated", lambda tree, out, options: found[tree.name])
    monkeypatch.setattr(same_soc, "python", lambda tree, code: json.dumps({kind.name: f"before, {kind.name}"
                                                                           for kind in records.KINDS}))
    monkeypatch.setattr(records, "SOCS", tmp_path/"same_socs.json")
    return found


@pytest.mark.parametrize("source, kinds", [
    ("targets/sim.py", {"cycles*", "soak"}), ("spec/llama2_spec/golden.py", {"cycles*"}),
    ("soc/sim/simulator.py", set())])
def test_pairs_are_of_kinds_that_a_change_left_the_same(generated, monkeypatch, source, kinds):
    def changed(tree, kind):
        return [source] if records.ROOT/source in records.sources(kind) else []
    monkeypatch.setattr(same_soc, "changed", changed)
    assert same_soc.main(["HEAD", "--record"]) == 0
    pairs = json.loads(records.SOCS.read_text()) if records.SOCS.exists() else []
    of = {pair["before"]: pair["after"] for pair in pairs}
    assert {name for name in ("cycles*", "soak") if f"before, {name}" in of} == kinds
    assert all(of[f"before, {name}"] == records.digest(records.kind_of(name)) for name in kinds)
    # nothing of them is simulated, or they tell how fast it is
    assert not set(of) & {f"before, {name}" for name in ("golden", "resources", "simulator", "server-latency")}


def test_sources_that_say_other_things_are_found(tmp_path):
    shutil.copytree(records.ROOT/"spec", tmp_path/"tree"/"spec", ignore=shutil.ignore_patterns("__pycache__"))
    kind = records.kind_of("golden")
    gone, other, *_ = [path.relative_to(records.ROOT).as_posix() for path in records.sources(kind)
                       if path.name != "__init__.py"]
    (tmp_path/"tree"/gone).unlink()
    (tmp_path/"tree"/other).write_text("x = 1\n")
    shutil.copy(records.ROOT/"requirements.txt", tmp_path/"tree")
    assert same_soc.changed(tmp_path/"tree", kind) == [gone, other]
    (tmp_path/"tree"/"requirements.txt").write_text("litex==0\n")
    assert same_soc.changed(tmp_path/"tree", kind) == ["requirements.txt", gone, other]


def test_a_difference_is_told_and_nothing_is_carried_over(generated, capsys):
    generated["tree"]["sim.v"] = b"another"
    assert same_soc.main(["HEAD", "--record"]) == 1
    assert capsys.readouterr().out.splitlines()[0] == "default: sim.v differs"
    assert not records.SOCS.exists()


def test_a_part_of_the_builds_carries_nothing_over(capsys):
    with pytest.raises(SystemExit):
        same_soc.main(["HEAD", "--record", "--builds", "default"])
    assert "leave --builds out" in capsys.readouterr().err


def test_what_is_no_commit_ends_in_a_line(monkeypatch):
    for bench in (same_soc, same_core):
        with pytest.raises(SystemExit, match="^none-such is no commit of this repository: name one"):
            bench.main(["none-such"])


def test_all_builds_of_the_records_are_compared():
    """Every record of cycles and slots, and every session of the soak, was made in a build that is among them."""
    def whole(columns=sim.COLUMNS, variant=MappingProxyType({})):
        return {"columns": columns, **sim.USUAL, **variant}
    options = {"--columns": "columns", "--attention-lanes": "attention_lanes", "--softmax-pipes": "softmax_pipes",
               "--max-dim": "max_dim", "--candidate-sets": "candidate_sets"}
    known = [whole(**build) for build in same_soc.BUILDS.values() if "with_board_pins" not in build]
    made  = [(name, whole(**build)) for name, build in soak.BUILDS.items()]
    for path in [*records.RESULTS.glob("cycles-*.json"), *records.RESULTS.glob("slots-*.json")]:
        words = json.loads(path.read_text())["command"].split()
        made.append((path.name, whole() | {options[word]: int(value) for word, value in zip(words, words[1:])
                                           if word in options}))
    assert len(made) > 30
    assert [(name, build) for name, build in made if build not in known] == []
