"""Reads the routed design's timing from a tool's report: Vivado's summary, or nextpnr's JSON."""
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

#: Columns of Vivado's tables, and their meaning. Ref: AMD UG906, Report Timing Summary.
SLACKS = {"WNS(ns)": "setup", "WHS(ns)": "hold", "WPWS(ns)": "pulse width"}


class UnreadableReport(Exception):
    """The report says nothing of timing; the message says why."""


@dataclass(frozen=True)
class Slack:
    """The least slack of one kind of check: ``ns`` is negative where a constraint is missed."""
    ns: float
    what: str

    def __str__(self):
        return f"{self.ns:+.3f} ns ({self.what})"


@dataclass(frozen=True)
class Timing:
    """All slacks that a report names, and whether it says in words that constraints are missed."""
    slacks: tuple
    violated: bool

    @property
    def worst(self):
        return min(self.slacks, key=lambda slack: slack.ns)

    @property
    def met(self):
        return not self.violated and self.worst.ns >= 0

    def __str__(self):
        return f"timing {'met' if self.met else 'NOT met'}, worst slack {self.worst}"

# Vivado -------------------------------------------------------------------------------------------

def _row(line, columns):
    """{title: text} of a row: one field per column, or else each field belongs to the column it stands below."""
    fields = [(match[0], *match.span()) for match in re.finditer(r"\S+", line)]
    if len(fields) == len(columns):
        return {title: text for (title, *_), (text, *_) in zip(columns, fields)}
    def apart(field, column):
        (_, begin, end), (_, first, last) = field, column
        return max(begin - last, first - end)
    return {min(columns, key=lambda column: apart(field, column))[0]: field[0] for field in fields}


def _rows(lines, at):
    """Rows of the table whose titles are in line ``at``, dashes below them: up to an empty line or the next table."""
    columns, rows = [(lines[at][slice(*match.span())].strip(), *match.span())
                     for match in re.finditer("-+", lines[at + 1])], []
    for line in lines[at + 2:]:
        if line.startswith("---") or (rows and not line.strip()):
            break
        if line.strip():
            rows.append(_row(line, columns))
    return rows


def _number(text):
    """A field as a number; None for one that is empty, NA or the like."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def parse_vivado(text: str) -> Timing:
    """The slacks of every table of ``report_timing_summary``, and of every path in it.

    Raises :class:`UnreadableReport`.
    """
    lines, slacks = text.splitlines(), []
    for at, line in enumerate(lines[:-1]):
        if not set(line.split()) & set(SLACKS) or not re.fullmatch(r"[\s-]*-[\s-]*", lines[at + 1]):
            continue
        for row in _rows(lines, at):
            clocks = [row[title] for title in ("Path Group", "Clock", "From Clock", "To Clock") if row.get(title)]
            for title, kind in SLACKS.items():
                if (ns := _number(row.get(title, ""))) is not None:
                    slacks.append(Slack(ns,
                                        ", ".join([kind, *(["clock " + " to ".join(dict.fromkeys(clocks))] if clocks
                                                           else [])])))
    for found in re.finditer(r"^Slack(?: \((\w+)\))?\s*:\s*(-?[\d.]+)\s*ns", text, re.M):
        slacks.append(Slack(float(found[2]), "a path"))
    violated = bool(re.search(r"Timing constraints are not met|^Slack \(VIOLATED\)", text, re.M))
    if not slacks and not violated:
        raise UnreadableReport("it names no slack: nothing was constrained, or it is not a timing summary")
    return Timing(tuple(slacks or [Slack(-math.inf, "constraints are not met, it says")]), violated)

# nextpnr ------------------------------------------------------------------------------------------

def parse_nextpnr(text: str) -> Timing:
    """The setup slack of every clock of nextpnr's ``--report``. Raises :class:`UnreadableReport`."""
    try:
        clocks = json.loads(text)["fmax"]
        slacks = [Slack(1e3/clock["constraint"] - 1e3/clock["achieved"],
                        f"setup, clock {name.removeprefix('$glbnet$')}")
                  for name, clock in clocks.items()]
    except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError):
        raise UnreadableReport("it is not a report of nextpnr with the clocks that were reached") from None
    if not slacks or not all(math.isfinite(slack.ns) for slack in slacks):
        raise UnreadableReport("it names no clock that was reached")
    return Timing(tuple(slacks), False)


def read(path: Path) -> Timing:
    """The timing in the report at ``path``, which is nextpnr's if it is JSON. Raises :class:`UnreadableReport` and
    OSError."""
    text = path.read_text(errors="replace")
    return parse_nextpnr(text) if path.suffix == ".json" else parse_vivado(text)
