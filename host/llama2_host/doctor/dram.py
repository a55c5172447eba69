"""Recognises faults of a DRAM: byte lanes without a good window for training, and places that forget.

The faults that users of LiteX report (enjoy-digital/litex issues 922, 925 and 1432, litedram 103 and 296) look alike
from outside, "memtest failed". Here they have names:

- stuck lane: a byte lane reads wrong at every delay and bitslip, and alike at all: a pin, its solder joint, or its
  place in the platform's file;
- no window: it reads wrong everywhere, but not alike: clocks, termination, the DRAM's voltage;
- shifted window: it reads right at the end of the delays only: a window that goes on where the delays do not reach; the
  clock's phase;
- wrong delay: there is a window, and training chose a delay outside of it;
- narrow window: fewer good delays than a quarter of what is usual;
- bad row: one row of one bank does not hold what is written;
- bad places: more than one; with ``bits``, of which lanes.
"""
from collections.abc import Sequence
from dataclasses import dataclass

from llama2_spec.protocol import Board, Eye, Tested

ALIKE = 0.1             #: of its bits, by which the errors of a stuck lane differ from delay to delay at most
NARROW = 3              #: good delays in a row: with fewer, training's choice has no good neighbour on both sides


@dataclass(frozen=True)
class Window:
    """Consecutive delays of one bitslip at which a lane reads right."""
    bitslip: int
    first: int
    last: int

    @property
    def width(self) -> int:
        return self.last - self.first + 1

    def __str__(self) -> str:
        return f"delays {self.first} to {self.last} of bitslip {self.bitslip}"


@dataclass(frozen=True)
class LaneFinding:
    """One byte lane: ``eyes`` by bitslip, its widest window, and its fault, if it has one."""
    lane: int
    bits: int                   #: of the lane, that were read at each delay
    eyes: tuple[Eye, ...]
    window: Window | None
    fault: str | None

    @property
    def chosen(self) -> tuple[int, int]:
        """Bitslip and delay, as training left them."""
        return self.eyes[0].bitslip, self.eyes[0].delay

    @property
    def errors(self) -> int:
        """Wrong bits where training left it."""
        bitslip, delay = self.chosen
        return (self.eyes[bitslip].errors[delay] if bitslip < len(self.eyes) and delay < len(self.eyes[bitslip].errors)
                else self.bits)

    def text(self) -> str:
        bitslip, delay = self.chosen
        window = f"reads right at {self.window} ({self.window.width} wide)" if self.window else "reads right nowhere"
        return (f"lane {self.lane}: {window}; trained to delay {delay} of bitslip {bitslip}, {self.errors} of "
                f"{self.bits} bits wrong{f': {self.fault}' if self.fault else ''}")

    def picture(self) -> list[str]:
        """A line for each bitslip: ``.`` reads right, ``x`` wrong, in brackets what training chose."""
        lines = []
        for bitslip, eye in enumerate(self.eyes):
            marks = [("x" if errors else ".") for errors in eye.errors]
            if bitslip == self.chosen[0] and self.chosen[1] < len(marks):
                marks[self.chosen[1]] = f"[{marks[self.chosen[1]]}]"
            lines.append(f"  bitslip {bitslip}: {''.join(marks)}")
        return lines

    def to_json(self) -> dict:
        window = self.window
        return {"lane": self.lane, "bitslip": self.chosen[0], "delay": self.chosen[1], "errors": self.errors,
                "bits": self.bits,
                "window": [window.bitslip, window.first, window.last] if window else None, "fault": self.fault,
                "eye": [list(eye.errors) for eye in self.eyes]}


def lane_mask(lane: int, lanes: int) -> int:
    """Bits of a 32-bit word that a lane carries; with more lanes than bytes in it, of two words in turn: all of its
    byte."""
    return sum(0xff << 8 * byte for byte in range(4) if byte % lanes == lane % min(lanes, 4))


def judge_lane(lane: int, lanes: int, eyes: Sequence[Eye]) -> LaneFinding:
    """Find a lane's widest window, and its fault."""
    windows = [Window(bitslip, *ends) for bitslip, eye in enumerate(eyes) for ends in _runs(eye.errors)]
    window = max(windows, key=lambda one: one.width, default=None)
    bits = eyes[0].words * lane_mask(lane, lanes).bit_count()
    return LaneFinding(lane, bits, tuple(eyes), window, _fault(eyes, window, bits))


def _fault(eyes: Sequence[Eye], window: Window | None, bits: int) -> str | None:
    errors = [count for eye in eyes for count in eye.errors]
    if window is None:
        return "stuck lane" if max(errors) - min(errors) <= ALIKE * bits else "no window"
    bitslip, delay = eyes[0].bitslip, eyes[0].delay
    if bitslip >= len(eyes) or delay >= len(eyes[bitslip].errors) or eyes[bitslip].errors[delay]:
        return "wrong delay"
    if window.width < NARROW:
        return "shifted window" if _at_the_end(window, eyes) else "narrow window"
    return None


def _at_the_end(window: Window, eyes: Sequence[Eye]) -> bool:
    """Returns whether the window touches the first or the last delay, so that it may continue beyond all delays."""
    return ((window.bitslip, window.first) == (0, 0) or (window.bitslip, window.last) ==
            (len(eyes) - 1, len(eyes[-1].errors) - 1))


def _runs(errors: Sequence[int]) -> list[tuple[int, int]]:
    """First and last index of each run of zeros."""
    runs, first = [], None
    for index, count in enumerate([*errors, 1]):
        if count == 0 and first is None:
            first = index
        elif count and first is not None:
            runs.append((first, index - 1))
            first = None
    return runs


def wrong_lanes(bits: int, lanes: int) -> list[int]:
    """Byte lanes that these wrong bits of a 32-bit word are of."""
    return sorted({byte % lanes for byte in range(4) if bits >> 8 * byte & 0xff}) if lanes else []


def row_of(offset: int, board: Board) -> str:
    """Bank and row of a byte in the chip."""
    row = offset // (board.row_bytes or 1)
    return f"bank {row % (board.banks or 1)}, row {row // (board.banks or 1)}"


def judge_rows(found: Sequence[Tested], board: Board) -> tuple[str | None, str]:
    """The fault of tested places, of which there is at least one in every row: (fault, text)."""
    tested, bad = sum(one.tested for one in found), [one for one in found if one.bad]
    if not bad:
        return None, f"{tested:,} places hold what is written"
    first, last = min(one.first for one in bad), max(one.last for one in bad)
    bits = 0
    for one in bad:
        bits |= one.bits
    lanes = wrong_lanes(bits, board.lanes)
    where = f"bits {bits:#010x} of a word" + (f", byte lane {', '.join(map(str, lanes))}" if lanes else "")
    if first // (board.row_bytes or 1) == last // (board.row_bytes or 1):
        start = first // board.row_bytes * board.row_bytes
        return "bad row", (f"one row does not hold what is written: bytes {start:#x} to "
                           f"{start + board.row_bytes - 1:#x} ({row_of(first, board)}), {where}")
    return "bad places", (f"{sum(one.bad for one in bad):,} of {tested:,} places do not hold what is written, from "
                          f"{first:#x} to {last:#x}, {where}")
