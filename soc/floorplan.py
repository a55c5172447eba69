"""Gives the decoder's multipliers their places on an ECP5-85: ``python -m soc.floorplan NETLIST``.

They take two thirds of the die's, which lie in three rows across it, and nextpnr puts each where one is free: then the
products of a unit are a die's width apart, and every adder behind them is slow. This writes a site into each MULT18X18D
of Yosys' JSON netlist, unit by unit, those of a lane side by side; look-up tables and registers follow them by
themselves.
"""
import argparse
import re
import sys
from pathlib import Path

from soc.netlist import rewrite

TOP, MIDDLE, BOTTOM = 10, 34, 58        # the rows of an LFE5U(M)-85F. Ref: the grid of Project Trellis.


def blocks(row, *numbers):
    """The sites of some of a row's blocks, 0 (left) to 12 (right): four multipliers each."""
    return [f"X{9 * block + 2 * (block > 6) + column}/Y{row}/MULT18_{z}"
            for block in numbers for column, z in ((4, 0), (5, 1), (8, 4), (9, 5))]


#: Unit: what the names of its cells contain, and its sites. The engine's two columns of lanes lie below each other,
#: what their sums go through between their halves; attention, which takes K/V rows from the same reader, on their left;
#: the rest above.
PLAN = {
    "lanes0":    (r"matvec\.lanes0\.",       blocks(MIDDLE, 4, 5, 6, 7, 9, 10, 11, 12)),
    "lanes1":    (r"matvec\.lanes1\.",       blocks(BOTTOM, 4, 5, 6, 7, 9, 10, 11, 12)),
    "sums":      (r"matvec\.sums\d\.",       blocks(MIDDLE, 8)),
    "row_scale": (r"row_scale\.",            blocks(BOTTOM, 8)),
    "values":    (r"attention\.values\.",    blocks(BOTTOM, 0, 1)),
    "scores":    (r"attention\.scores\.",    blocks(BOTTOM, 2, 3) + blocks(MIDDLE, 1)),
    "output":    (r"attention\.output\.",    blocks(MIDDLE, 0)),
    "rope":      (r"rope\.",                 blocks(MIDDLE, 2, 3)),
    "swiglu":    (r"swiglu\.",               blocks(TOP, 5)),
    "residual":  (r"residual\.",             blocks(TOP, 6, 7)),
    "embed":     (r"embed_fetch\.",          blocks(TOP, 8)),
    "logits":    (r"logits\.",               blocks(TOP, 9)),
}


def _lane(product: str):
    """Sorts products: by pairs of lanes, whose sum is the first, the low rows' before the high ones'; then those of no
    lane."""
    found = re.search(r"(low|high)?_?product(\d+)$", product)
    if not found:
        return sys.maxsize, product
    lane = int(found[2])
    return lane // 2, found[1] == "high", lane


def place(netlist: Path) -> dict:
    """Rewrite ``netlist`` (Yosys' JSON, after ``synth_ecp5``); {cell: site}. What the plan does not name stays as it
    is.

    Raises ValueError where a unit has more multipliers than sites.
    """
    return rewrite(netlist, lambda design: _place(design["modules"].values()))


def _place(modules) -> dict:
    placed = {}
    for module in modules:
        multipliers = {name: cell for name, cell in module["cells"].items() if cell["type"] == "MULT18X18D"}
        names = {}
        for name, net in module["netnames"].items():
            for bit in net["bits"]:
                names.setdefault(bit, name)
        for unit, (pattern, sites) in PLAN.items():
            mine = [name for name in multipliers if re.search(rf"(^|\.){pattern}", name)]
            if len(mine) > len(sites):
                raise ValueError(f"{unit} has {len(mine)} multipliers, its place in soc/floorplan.py {len(sites)}")
            mine.sort(key=lambda name: (_lane(names[multipliers[name]["connections"]["P0"][0]]), name))
            placed.update(zip(mine, sites))
        for name in multipliers.keys() & placed.keys():
            multipliers[name]["attributes"]["BEL"] = placed[name]
    return placed


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m soc.floorplan", description=__doc__.splitlines()[0])
    parser.add_argument("netlist", type=Path)
    try:
        placed = place(parser.parse_args(argv).netlist)
    except ValueError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    print(f"{len(placed)} multipliers have their places")
    return 0

if __name__ == "__main__":
    sys.exit(main())
