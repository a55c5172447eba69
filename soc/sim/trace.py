"""Describes the part of a simulation that goes into a waveform: from one moment to another, each a cycle or a token."""
import argparse
import re
from dataclasses import dataclass
from pathlib import Path

RECORDED = re.compile(r"^\[trace\] (?:from (\d+) to (\d+) ps|nothing)$", re.MULTILINE)


@dataclass(frozen=True)
class Moment:
    """A cycle of the system clock, counted from the start of the simulation, or a token, counted from 1 as the core
    makes them.

    A token is a result of the core: one for each position that is classified.
    """
    number: int
    is_token: bool = False

    @classmethod
    def parse(cls, text: str) -> "Moment":
        """The moment in a text such as ``"12000"`` or ``"token:3"``, for argparse."""
        match = re.fullmatch(r"(token:)?(\d+)", text)
        if not match or (match[1] and int(match[2]) == 0):
            raise argparse.ArgumentTypeError(f"{text!r}: expected a cycle, as in 12000, or a token from 1 on, as in "
                                             "token:3")
        return cls(int(match[2]), bool(match[1]))


@dataclass(frozen=True)
class Trace:
    """A waveform file (FST) and its part of the simulation: ``first`` and ``last`` belong to it; None is where the
    simulation begins or ends.

    From token n on means: from when token n - 1 was there; to token n: until that is there.
    """
    path: Path
    first: Moment | None = None
    last: Moment | None = None

    def arguments(self, clk_freq) -> list[str]:
        """Those of Vsim; see trace.h. ``clk_freq`` in Hz."""
        arguments = [f"+trace={self.path.resolve()}"]
        if self.first:
            arguments.append(f"+trace_from_result={self.first.number - 1}" if self.first.is_token
                             else f"+trace_from_ps={self.first.number*round(1e12/clk_freq)}")
        if self.last:
            arguments.append(f"+trace_to_result={self.last.number}" if self.last.is_token
                             else f"+trace_to_ps={(self.last.number + 1)*round(1e12/clk_freq) - 1}")
        return arguments


def recorded_cycles(output: str, clk_freq) -> tuple[int, int] | None:
    """First and last cycle of the waveform that a simulator's ``output`` tells of; None if it recorded nothing."""
    match = RECORDED.search(output)
    if not match or match[1] is None:
        return None
    return tuple(int(ps)//round(1e12/clk_freq) for ps in match.groups())
