"""Measures what a larger core costs in an Artix-7: ``python -m bench.variations`` maps the core alone, as the one
configuration has it and as each of ``VARIATIONS``, by Yosys; minutes for each.

The core is mapped as bench.resources maps it in a board's SoC, unit by unit, and block RAM is counted by the same rule.
So a unit that is mapped alone costs what it costs among the others.
"""
import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from bench import memories, records
from bench.resources import KINDS
from bench.synthesis import BETWEEN, CORE, cost, synthesise
from soc.amaranth import verilog_file
from soc.configuration import create_core

ROOT   = Path(__file__).resolve().parent.parent
RESULT = ROOT/"bench"/"results"/"variations.json"
FAMILY = "xc7"


@dataclass(frozen=True)
class Variation:
    """A core with ``parameters`` instead of soc.configuration's. Where they change one ``unit``, that is mapped alone,
    and the others are those of the variation ``beside``."""
    parameters: dict
    unit: str | None = None
    beside: str = "as configured"


#: By name. The first one is what the others are compared with.
VARIATIONS = {
    "as configured":                     Variation({}),
    "16 lanes":                          Variation({"attention_lanes": 16}, "attention"),
    "16 lanes, 2 softmax pipes":         Variation({"attention_lanes": 16, "softmax_pipes": 2}, "attention"),
    "32 lanes":                          Variation({"attention_lanes": 32}, "attention"),
    "2 sets of candidates":              Variation({"candidate_sets": 2}, "logits"),
    "4 columns":                         Variation({"columns": 4}),
    "4 columns, 4 sets of candidates":   Variation({"columns": 4, "candidate_sets": 4}, "logits", "4 columns"),
}


def measure(name: str, known: dict) -> dict:
    """Resources of the core alone, as one of ``VARIATIONS``; ``known`` are the results so far."""
    one = VARIATIONS[name]
    if one.unit and one.beside not in known:
        raise RuntimeError(f"{name!r} differs from {one.beside!r} in one unit: measure that first")
    sources = [verilog_file(create_core(**one.parameters), CORE)]
    out = ROOT/"build"/"variations"/name.replace(", ", "-").replace(" ", "-")
    if one.unit:
        units = {**known[one.beside]["units"], one.unit: mapped(sources, f"{CORE}.{one.unit}", out)[BETWEEN]}
    else:
        units = mapped(sources, CORE, out)
    return {"command": f"python -m bench.variations --only '{name}'", "parameters": one.parameters,
            **{kind: sum(unit[kind] for unit in units.values()) for kind in KINDS}, "units": units}


def mapped(sources, top: str, out: Path) -> dict:
    """Resources of the module ``top``, by unit; what is in none of them is ``BETWEEN``."""
    # What bench.synthesis calls the SoC is the rest of the top module.
    units = {BETWEEN if unit == "soc" else unit: cost(counts)
             for unit, counts in synthesise(sources, top, FAMILY, out, directory=out).items()}
    for unit in units.values():
        unit["bram36"] = 0
    for memory in memories.find(sources, top, out, out):
        units[unit_of(memory, units)]["bram36"] += memory.block_rams
    return units


def unit_of(memory, units) -> str:
    """The one of ``units`` to which a memory of the flat core belongs."""
    unit = memory.name.replace("$flatten", "").replace("\\", "").split(".")[0]
    return unit if unit in units else BETWEEN


def table_rows(results: dict) -> list:
    """(name, then for each kind what is taken more than by the first, and at last the first's own)."""
    first = next(iter(VARIATIONS))
    base = results[first]
    more = [(name, *(f"{results[name][kind] - base[kind]:+,g}" for kind in KINDS))
            for name in VARIATIONS if name in results and name != first]
    return [*more, (f"the core {first}", *(f"{base[kind]:,g}" for kind in KINDS))]


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m bench.variations", description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", nargs="+", choices=VARIATIONS, metavar="VARIATION", default=list(VARIATIONS),
                        help=f"of {', '.join(map(repr, VARIATIONS))}")
    parser.add_argument("--json", type=Path, default=RESULT, help="the record that they are put into (%(default)s)")
    args = parser.parse_args(argv)
    known = json.loads(args.json.read_text()) if args.json.exists() else {}
    for name in args.only:
        try:
            result = measure(name, known)
        except RuntimeError as error:
            print(f"{parser.prog}: {error}", file=sys.stderr)
            return 1
        known = records.write_part(args.json, "variations", name, result, VARIATIONS)
        print(f"{name}: " + ", ".join(f"{result[kind]:,g} {kind}" for kind in KINDS), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
