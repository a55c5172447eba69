"""Decides how much the client prints, and how: ``-q`` and ``-v``, colours and tables on a terminal, plain text
everywhere else.

Colours are left out where NO_COLOR is set (https://no-color.org) or the terminal is a dumb one.
"""
import io
import os
import sys
from collections.abc import Sequence
from enum import IntEnum
from typing import TextIO

from llama2_host.terminal import is_terminal, line


class Verbosity(IntEnum):
    """The amount of text that goes to stderr beside errors."""
    QUIET = 0       #: nothing
    NORMAL = 1      #: progress and notes
    VERBOSE = 2     #: details, too


_verbosity = Verbosity.NORMAL


def set_verbosity(value: Verbosity) -> None:
    """Set the verbosity of the whole process; the command line does it once."""
    global _verbosity
    _verbosity = value


def verbosity() -> Verbosity:
    return _verbosity


def dressed(stream: TextIO | None) -> bool:
    """Returns whether this stream may have colours and moving lines."""
    return is_terminal(stream) and os.environ.get("TERM") != "dumb"


def console(stream: TextIO):
    """A rich console that writes there as the terminal can show it; None where plain text is wanted, or rich is
    missing."""
    if not dressed(stream):
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(file=stream, highlight=False, emoji=False, markup=False)


def styled(text: str, style: str, stream: TextIO | None = None) -> str:
    """``text`` in a style of rich's, where colours may be; its own control characters are the caller's business."""
    made = console(stream or sys.stdout)
    if made is None or made.no_color:
        return text
    with made.capture() as captured:
        made.print(text, style=style, end="", soft_wrap=True)
    return captured.get()


def bar(done: float, total: float, width: int, stream: TextIO) -> str:
    """A bar of ``width`` cells."""
    made = console(stream)
    if made is None or made.no_color:
        filled = round(width * (done / total if total else 1.0))
        return f"[{'#' * filled}{'.' * (width - filled)}]"
    from rich.progress_bar import ProgressBar
    with made.capture() as captured:
        made.print(ProgressBar(total=total or 1, completed=done if total else 1, width=width), end="")
    return captured.get().rstrip("\n")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], stream: TextIO | None = None) -> list[str]:
    """Lines of a table: drawn where a person looks, else columns of spaces. Columns of numbers stand to the right."""
    rows = [[line(str(cell)) for cell in row] for row in rows]
    right = [all(_number(row[column]) for row in rows) and bool(rows) for column in range(len(head))]
    made = console(stream or sys.stdout)
    if made is None:
        return _columns([list(head), *rows], right)
    from rich import box
    from rich.table import Table
    drawn = Table(box=box.SIMPLE, pad_edge=False)
    for name, to_right in zip(head, right):
        drawn.add_column(name, justify="right" if to_right else "left")
    for row in rows:
        drawn.add_row(*row)
    with made.capture() as captured:
        made.print(drawn)
    return captured.get().strip("\n").split("\n")


def _number(text: str) -> bool:
    return text.replace(",", "").replace(".", "").replace("-", "").replace(" %", "").strip().isdigit() or not text


def _columns(rows: Sequence[Sequence[str]], right: Sequence[bool]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(right))]
    made = io.StringIO()
    for row in rows:
        cells = [cell.rjust(width) if to_right else cell.ljust(width)
                 for cell, width, to_right in zip(row, widths, right)]
        made.write("  ".join(cells).rstrip() + "\n")
    return made.getvalue().splitlines()
