"""Measures what each board's SoC costs in its FPGA, unit by unit, as Yosys maps it: ``make resources``.

Writes bench/results/resources.json, from which `make docs` writes the tables in docs/boards.md. It places nothing: a
vendor's tool packs look-up tables more tightly (two small ones into one site), so ``lut`` is on the safe side. Block
RAM of a Xilinx device is counted by Vivado's rule, not by Yosys': :mod:`bench.memories`. On the smallest board each
unit has a budget of look-up tables, the attribute ``budget_lut`` beside its ``latency``; the command names each unit
above its budget, and then ends with 1.
"""
import argparse
import re
import subprocess
import sys
import warnings
from pathlib import Path

from bench import memories, records
from bench.synthesis import BETWEEN, CORE, JOINTS, LIMITS, cost, synthesise

ROOT    = Path(__file__).resolve().parent.parent
RESULT  = ROOT/"bench"/"results"/"resources.json"
KINDS   = ("lut", "ff", "bram36", "dsp")

#: Name: target, its options, top module, Yosys' family, device, further devices that take the same design.
BUDGETED = "arty-a7-35"
TARGETS = {
    "arty-a7-35":  ("targets/arty.py", [], "digilent_arty", "xc7", "XC7A35T"),
    "arty-a7-100": ("targets/arty.py", ["--variant", "a7-100"], "digilent_arty", "xc7", "XC7A100T"),
    "ecpix5-85f":  ("targets/ecpix5.py", [], "lambdaconcept_ecpix5", "ecp5", "LFE5UM5G-85F"),
}


def generate(target, options, out: Path) -> list:
    """Generate the design as for its bitstream; returns its Verilog files."""
    log = out/"generate.log"
    out.mkdir(parents=True, exist_ok=True)
    with open(log, "w") as file:
        done = subprocess.run([sys.executable, target, "--build", "--no-compile-gateware", "--output-dir", str(out),
                               *options],
                              cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
    if done.returncode:
        raise RuntimeError(f"{target} did not generate, see {log}")
    script = next((out/"gateware").glob("*.tcl"), None) or next((out/"gateware").glob("*.ys"))
    return [out/"gateware"/name for name in re.findall(r"^read_verilog (?:-\S+ )*\{?([^\s{}]+\.v)\}?",
                                                       script.read_text(), re.M)]


def unit_of(memory, units) -> str:
    """The one of ``units`` to which a memory of the flat design belongs."""
    path = memory.name.replace("$flatten", "").replace("\\", "").split(".")
    if path[0] != CORE:
        return "soc"
    return path[1] if path[1] in units else BETWEEN


def measure(name: str) -> dict:
    """Resources of one of ``TARGETS``."""
    target, options, top, family, device = TARGETS[name]
    out = ROOT/"build"/"resources"/name
    sources = generate(target, options, out)
    cells = synthesise(sources, top, family, out/"synthesis", directory=out/"gateware")
    units = {unit: cost(counts) for unit, counts in cells.items()}
    if family == "xc7":
        for unit in units.values():
            unit["bram36"] = 0
        for memory in memories.find(sources, top, out/"synthesis", out/"gateware"):
            units[unit_of(memory, units)]["bram36"] += memory.block_rams
    total = {kind: sum(unit[kind] for unit in units.values()) for kind in (*KINDS, "lut_memory")}
    return {"command": f"python -m bench.resources {name}", "device": device, **total,
            **{f"limit_{kind}": LIMITS[device][kind] for kind in KINDS}, "units": units}


def budgets() -> dict:
    """{unit: look-up tables that it may take on the board ``BUDGETED``}; a plain register stage has no budget."""
    from amaranth.hdl import UnusedElaboratable
    from accel.stations import make_stations
    from soc.configuration import create_core
    warnings.simplefilter("ignore", UnusedElaboratable)     # only their attributes are read
    core = create_core()
    units = {BETWEEN: core, **{name: unit for name, unit in vars(make_stations(core)).items() if name not in JOINTS}}
    return {name: unit.budget_lut for name, unit in units.items() if hasattr(unit, "budget_lut")}


def over_budget(units: dict, allowed: dict) -> list:
    """A line for each of ``units`` that takes more look-up tables than ``allowed``."""
    return [f"{unit} takes {units[unit]['lut']} look-up tables, its budget is {lut}"
            for unit, lut in allowed.items() if units[unit]["lut"] > lut]


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m bench.resources", description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET",
                        help=f"of {', '.join(TARGETS)}; all of them if none is named")
    args = parser.parse_args(argv)
    unknown = set(args.targets) - set(TARGETS)
    if unknown:
        parser.error(f"unknown target {', '.join(sorted(unknown))}: choose from {', '.join(TARGETS)}")
    try:
        for name in args.targets or TARGETS:
            results = records.write_part(RESULT, "resources", name, measure(name), TARGETS)
    except RuntimeError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    for name, result in results.items():
        used = [f"{result[kind]:,g} of {result[f'limit_{kind}']:,} {kind.upper()}" for kind in KINDS]
        print(f"{name}: {', '.join(used)}")
    over = over_budget(results[BUDGETED]["units"], budgets())
    for line in over:
        print(f"{parser.prog}: {line}: make it smaller, or change ``budget_lut`` beside it and say why",
              file=sys.stderr)
    return int(bool(over))

if __name__ == "__main__":
    sys.exit(main())
