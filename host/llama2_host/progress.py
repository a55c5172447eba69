"""Progress of long work on stderr: one line that moves on a terminal, a few plain lines in a log."""
import sys
import time
from typing import TextIO

from llama2_host import screen
from llama2_host.screen import Verbosity, verbosity
from llama2_host.terminal import plain

TERMINAL_INTERVAL_S = 0.1
LOG_INTERVAL_S = 5.0
BAR_WIDTH = 30


class Progress:
    """The sink of progress and notes. ``Progress.silent`` prints nothing."""

    silent: "Progress"

    def __init__(self, stream: TextIO | None = None):
        self.stream = stream
        self._open_line = False

    @classmethod
    def stderr(cls) -> "Progress":
        return cls(sys.stderr)

    @property
    def on_terminal(self) -> bool:
        return screen.dressed(self.stream)

    def note(self, text: str) -> None:
        """One line of its own; not with -q."""
        if verbosity() > Verbosity.QUIET:
            self._line(text)

    def warn(self, text: str) -> None:
        """One line that nobody should miss, with -q either."""
        if verbosity() == Verbosity.QUIET:
            self._line(text)
        else:
            self.note(text)

    def detail(self, text: str) -> None:
        """One line for -v."""
        if verbosity() == Verbosity.VERBOSE:
            self.note(text)

    def _line(self, text: str) -> None:
        if self.stream is None:
            return
        # A note may quote a file's or a device's name.
        self.stream.write(("\n" if self._open_line else "") + plain(text) + "\n")
        self.stream.flush()
        self._open_line = False

    def bar(self, label: str, total: int, unit: str = "B", *, patience_s: float = 0.0, start: int = 0) -> "Bar":
        """Work that ends within ``patience_s`` shows no bar. ``start`` counts work that was done earlier, which says
        nothing about the rate."""
        return Bar(self, label, total, unit, patience_s, start)


class Bar:
    """Progress towards ``total``; a context manager that ends its line."""

    def __init__(self, progress: Progress, label: str, total: int, unit: str, patience_s: float = 0.0, start: int = 0):
        self.progress, self.label, self.total, self.unit = progress, label, total, unit
        self.done, self.start, self.patience_s = start, start, patience_s
        self.start_s = time.monotonic()
        # A log says nothing about what is over at once, but its end.
        self._shown_s = float("-inf") if progress.on_terminal else self.start_s

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self._show(time.monotonic(), final=True)

    def update(self, done: int) -> None:
        """Set how much is done; shown at most ten times a second."""
        self.done = done
        now = time.monotonic()
        if now - self._shown_s >= (TERMINAL_INTERVAL_S if self.progress.on_terminal else LOG_INTERVAL_S):
            self._show(now)

    def _show(self, now: float, final: bool = False) -> None:
        stream = self.progress.stream
        if stream is None or verbosity() == Verbosity.QUIET or now - self.start_s < self.patience_s:
            return
        self._shown_s = now
        if self.progress.on_terminal:
            stream.write("\r\x1b[K" + self.line(now - self.start_s) + ("\n" if final else ""))
            self.progress._open_line = not final
        else:
            stream.write(self.line(now - self.start_s) + "\n")
        stream.flush()

    def line(self, elapsed_s: float) -> str:
        stream = self.progress.stream or sys.stderr
        fraction = self.done / self.total if self.total else 1.0
        rate = (self.done - self.start) / elapsed_s if elapsed_s > 0 else 0.0
        left = f", {(self.total - self.done) / rate:.0f} s left" if 0 < self.done < self.total and rate else ""
        return (f"{self.label} {screen.bar(self.done, self.total, BAR_WIDTH, stream)} {100 * fraction:3.0f} % of "
                f"{quantity(self.total, self.unit)}, {quantity(rate, self.unit)}/s{left}")


def quantity(value: float, unit: str = "B") -> str:
    """``58.2 MiB`` for bytes, plain numbers for other units."""
    if unit != "B":
        return f"{value / 1e6:.1f} million {unit}" if value >= 1e6 else f"{value:.0f} {unit}"
    for name in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} B" if name == "B" else f"{value:.1f} {name}"
        value /= 1024
    return f"{value:.1f} GiB"


Progress.silent = Progress()
