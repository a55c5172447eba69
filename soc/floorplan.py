"""Gives the decoder's multipliers their places on an ECP5-85: ``python -m soc.floorplan NETLIST``.

They take two thirds of the die's multipliers, which lie in three rows across it. By itself nextpnr puts each of them on
any free site: then the products of one unit lie a die's width apart, and every adder behind them is slow. This writes a
site into each MULT18X18D of Yosys' JSON netlist, unit by unit, those of a lane side by side; look-up tables and
registers follow them by themselves.
"""
import argparse
import re
import sys
from pathlib import Path

from soc.netlist import rewrite

TOP, MIDDLE, BOTTOM = 10, 34, 58        # the rows of an LFE5U(M)-85F. Ref: the grid of Project Trellis.


def blocks(row, *numbers):
    """Sites of some blocks of a row, which are numbered from 0 (left) to 12 (right); a block has four multipliers."""
    return [f"X{9 * block + 2 * (block > 6) + column}/Y{row}/MULT18_{z}"
            for block in numbers for column, z in ((4, 0), (5, 1), (8, 4), (9, 5))]


#: Unit: a pattern for the names of its cells, and its sites. The engine's two columns of lanes lie below each other,
#: and the multipliers that their sums go through lie between the halves. Attention, which takes K/V rows from the same
#: reader, lies on their left, and all else above.
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
    """Sort key of a product: pairs of lanes come first, because they are added first, low rows before high rows;
    products of no lane follow."""
    found = re.search(r"(low|high)?_?product(\d+)$", product)
    if not found:
        return sys.maxsize, product
    lane = int(found[2])
    return lane // 2, found[1] == "high", lane


def place(netlist: Path, *, whole: bool = False) -> dict:
    """Rewrite ``netlist`` (Yosys' JSON, after ``synth_ecp5``); returns {cell: site}. Cells outside the core stay as
    they are.

    Raises ValueError if a unit has more multipliers than sites. ``whole`` says that the netlist holds the whole core;
    then it also raises if a unit of the plan has no multiplier, or a multiplier of the core belongs to no unit.
    """
    return rewrite(netlist, lambda design: _place(design["modules"].values(), whole))


def _check(found: dict, multipliers) -> None:
    """``found``: {unit: {cell: where the core's name ends in the cell's}}."""
    missing = [unit for unit, mine in found.items() if not mine]
    if missing:
        raise ValueError(f"no multiplier is of {', '.join(missing)}: "
                         "the names in soc/floorplan.py are no longer those of the netlist")
    cores = {name[:end] for mine in found.values() for name, end in mine.items()} - {""}
    stray = [name for name in multipliers if name.startswith(tuple(cores))
             and not any(name in mine for mine in found.values())]
    if stray:
        raise ValueError(f"{len(stray)} multipliers of the core have no place in soc/floorplan.py, {stray[0]} for one")


def _place(modules, whole) -> dict:
    placed, found, seen = {}, {unit: {} for unit in PLAN}, set()
    for module in modules:
        multipliers = {name: cell for name, cell in module["cells"].items() if cell["type"] == "MULT18X18D"}
        names = {}
        for name, net in module["netnames"].items():
            for bit in net["bits"]:
                names.setdefault(bit, name)
        for unit, (pattern, sites) in PLAN.items():
            matches = {name: re.search(rf"(?:^|\.)(?={pattern})", name) for name in multipliers}
            found[unit].update((name, match.end()) for name, match in matches.items() if match)
            mine = [name for name, match in matches.items() if match]
            if len(mine) > len(sites):
                raise ValueError(f"{unit} has {len(mine)} multipliers, its place in soc/floorplan.py {len(sites)}")
            mine.sort(key=lambda name: (_lane(names[multipliers[name]["connections"]["P0"][0]]), name))
            placed.update(zip(mine, sites))
        for name in multipliers.keys() & placed.keys():
            multipliers[name]["attributes"]["BEL"] = placed[name]
        seen |= multipliers.keys()
    if whole:
        _check(found, seen)
    return placed


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m soc.floorplan", description=__doc__.splitlines()[0])
    parser.add_argument("netlist", type=Path)
    try:
        placed = place(parser.parse_args(argv).netlist, whole=True)
    except ValueError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    print(f"{len(placed)} multipliers have their places")
    return 0

if __name__ == "__main__":
    sys.exit(main())
