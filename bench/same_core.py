"""Proves that the core is the same hardware as at another commit, or shows how it differs: ``python -m bench.same_core
COMMIT``.

It is for changes that move or rename. Both cores become netlists of one-bit gates and registers
(Yosys: `flatten`, `simplemap`). Nets fall into classes: two nets are of one class if cells of one kind drive them from
nets of the same classes. Refined until no class falls apart, this is a bisimulation: if the outputs' classes are the
same, the two cores do the same in every cycle, and if the classes have as many cells each, they consist of the same
cells. Names and hierarchy do not matter; initial values, memory contents and attributes that mapping obeys do.

With ``--record`` a pair of cores that are the same in all sets goes into bench/same_cores.json, and records of the
simulated SoC that were measured on one are good for the other.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from bench import records
from bench.synthesis import run_yosys
from bench.trees import check_out
from llama2_spec.maxima import CORE

ROOT = Path(__file__).resolve().parent.parent

#: Cores that differ in what `elaborate` does with their parameters.
SETS = {
    "board":   {"columns": 2, **CORE, "multiplier_bits": 25},
    "ecp5":    {"columns": 2, **CORE, "multiplier_bits": 18},
    "one":     {"columns": 1, "max_dim": 128, "max_hidden_dim": 128, "max_kv_dim": 128, "max_heads": 8},
    "four":    {"columns": 4, "max_dim": 512, "max_hidden_dim": 1024, "max_kv_dim": 256, "max_heads": 16,
                "candidate_sets": 4},
    "lanes":   {"columns": 2, "max_dim": 512, "max_hidden_dim": 1024, "max_kv_dim": 256, "max_heads": 16,
                "attention_lanes": 16, "softmax_pipes": 2},
    "wide":    {"columns": 1, "max_dim": 2048, "max_hidden_dim": 4096, "max_kv_dim": 512, "max_heads": 32,
                "attention_lanes": 32},
}
OBEYED = ("init", "keep", "shreg_extract", "ram_style", "rom_style", "no_rw_check")    # attributes that mapping obeys

CONVERT = """
import sys, json
from amaranth.back import verilog
from amaranth.hdl import ClockDomain
from accel.core import Core
from soc.memories import Styles
for path, parameters in json.loads(sys.argv[1]).items():
    open(path, "w").write(verilog.convert(Core(**parameters), name="core", platform=Styles(), emit_src=False,
                                          strip_internal_attrs=True,
                                          missing_domain=lambda domain: ClockDomain(domain, reset_less=True)))
"""


def convert(tree: Path, out: Path, sets: dict) -> dict:
    """Verilog of the cores that the sources in ``tree`` make; {set: path}."""
    out.mkdir(parents=True)
    paths = {name: out/f"{name}.v" for name in sets}
    subprocess.run([sys.executable, "-c", CONVERT, json.dumps({str(paths[name]): sets[name] for name in sets})],
                   cwd=tree, env={**os.environ, "PYTHONPATH": str(tree/"spec")}, check=True)    # not what is installed
    return paths


def netlist(verilog: Path) -> dict:
    """The flat module, in gates."""
    path = verilog.with_suffix(".json")
    run_yosys([f"read_verilog {verilog}", "hierarchy -top core", "proc", "flatten", "opt_expr -keepdc",
               "memory_collect", "simplemap", "opt_clean -purge", f"write_json {path}"], verilog.with_suffix(".log"))
    return json.loads(path.read_text())["modules"]["core"]


def _parts(module):
    """(cells, inputs, outputs): a cell is (what it is, its input bits, {port: output bits})."""
    marks = {}
    for net in module["netnames"].values():
        kept = {key: value for key, value in net["attributes"].items() if key in OBEYED}
        for i, bit in enumerate(net["bits"]):
            for key, value in kept.items():
                mark = value[-1 - i] if key == "init" else value
                if (key, mark) != ("init", "x"):        # as where another name of the bit states it
                    marks.setdefault(bit, set()).add((key, mark))
    cells = []
    for cell in module["cells"].values():
        directions = cell["port_directions"]
        given = [(port, bits) for port, bits in sorted(cell["connections"].items()) if directions[port] == "input"]
        made = {port: bits for port, bits in cell["connections"].items() if directions[port] == "output"}
        parameters = {key: value for key, value in cell["parameters"].items() if key != "MEMID"}
        obeyed = {key: value for key, value in cell["attributes"].items() if key in OBEYED}
        own = sorted({mark for bits in made.values() for bit in bits for mark in marks.get(bit, ())})
        cells.append((repr((cell["type"], sorted(parameters.items()), sorted(obeyed.items()), own,
                            [(port, len(bits)) for port, bits in given])),
                      [bit for _, bits in given for bit in bits], made))
    ports = module["ports"].items()
    inputs = {bit: hash((name, i)) for name, port in ports if port["direction"] == "input"
              for i, bit in enumerate(port["bits"])}
    return cells, inputs, {name: port["bits"] for name, port in ports if port["direction"] == "output"}


def classes(modules) -> list:
    """For each module: ({output port: its bits' classes}, how many cells each class has), by classes that hold for all
    of them."""
    parts = [_parts(module) for module in modules]
    values = [dict(inputs) for _, inputs, _ in parts]
    kinds = [[hash(kind) for kind, _, _ in cells] for cells, _, _ in parts]
    before = 0
    while True:
        found = []
        for (cells, _, _), value, kind in zip(parts, values, kinds):
            mine = [hash((k, *(value.get(bit, bit if isinstance(bit, str) else 0) for bit in given)))
                    for k, (_, given, _) in zip(kind, cells)]
            found.append(mine)
            value.update((bit, hash((own, port, i))) for own, (_, _, made) in zip(mine, cells)
                         for port, bits in made.items() for i, bit in enumerate(bits))
        count = len(set().union(*found))
        if count == before:
            return [({name: [value.get(bit, bit) for bit in bits] for name, bits in outputs.items()}, Counter(mine))
                    for (_, _, outputs), value, mine in zip(parts, values, found)]
        before = count


def differences(old: dict, new: dict) -> list[str]:
    """Lines that say how the modules differ; none if they are the same hardware."""
    (old_outputs, old_cells), (new_outputs, new_cells) = classes([old, new])
    lines = [f"output {name} differs" for name in sorted(old_outputs.keys() | new_outputs.keys())
             if old_outputs.get(name) != new_outputs.get(name)]
    if old_cells != new_cells:
        def types(module):
            return Counter(cell["type"] for cell in module["cells"].values())
        more, less = types(new) - types(old), types(old) - types(new)
        lines.append(f"{(old_cells - new_cells).total()} cells of {old_cells.total()} have no counterpart; "
                     f"more {dict(more) or 'of none'}, less {dict(less) or 'of none'}")
    return lines


def compare(commit: str, sets: dict) -> tuple[str, dict]:
    """Digest of the core at ``commit``; {set: differences} of the core in this tree and that one."""
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch)/"tree"
        check_out(commit, tree, "accel", "spec", "soc/memories.py")
        old, new = convert(tree, Path(scratch)/"old", sets), convert(ROOT, Path(scratch)/"new", sets)
        return records.core_digest(tree), {name: differences(netlist(old[name]), netlist(new[name])) for name in sets}


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m bench.same_core", description=__doc__.splitlines()[0])
    parser.add_argument("commit")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), metavar="SET",
                        help=f"of {', '.join(SETS)}; default: all")
    parser.add_argument("--record", action="store_true", help="carry records of the simulated SoC over; needs all sets")
    args = parser.parse_args(argv)
    if args.record and set(args.sets) != set(SETS):
        parser.error("--record is for cores that are the same in all sets: leave --sets out")
    before, found = compare(args.commit, {name: SETS[name] for name in args.sets})
    for name, lines in found.items():
        print(f"{name}: {'; '.join(lines) or 'the same'}")
    if args.record and not any(found.values()):
        records.carry_over(before, args.commit)
    return int(any(found.values()))

if __name__ == "__main__":
    sys.exit(main())
