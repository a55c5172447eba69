"""The tables of docs/coverage.md, from bench/results/coverage.json and the reasons in the sources."""
import json

from bench import coverage
from bench.coverage import Counted
from llama2_spec.emit_docs import table


def row(name, figures, bold=""):
    one = Counted(**figures)
    return (f"{bold}{name}{bold}", f"{one.branches_taken:,} of {one.branches:,}", f"{bold}{one.percent:.1f} %{bold}",
            f"{one.lines_reached:,} of {one.lines:,}")


def coverage_table():
    """Each package and file, below its room."""
    found = json.loads(coverage.RESULTS.read_text())
    rows = []
    for room, figures in found["rooms"].items():
        rows.append(row(f"`{room}/`", figures, "**"))
        rows += [row(f"`{name}`", figures) for name, figures in found["packages"].items()
                 if name.split("/")[0] == room and (room == "firmware" or len(found["packages"]) > 1)]
    return table(("", "Branches taken", "", "Lines reached"), rows)


def untaken_table():
    """Lines of the firmware with a branch that a PC cannot take, by the reason."""
    grouped: dict[str, list[str]] = {}
    for (name, text), reason in coverage.reasons().items():
        grouped.setdefault(reason, []).append(f"`{name}`: `{text}`")
    return table(("Why", "Lines"), [(reason, "<br>".join(lines)) for reason, lines in grouped.items()])


TABLES = {"coverage": coverage_table, "untaken": untaken_table}
