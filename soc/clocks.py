"""Says which system clocks a board's clock generator can make, and the nearest ones to a clock that it cannot make."""
import contextlib
import logging
import math
from dataclasses import dataclass
from typing import Callable

from migen import *

MARGIN = 1e-2    # of LiteX's generators


def mhz(freq):
    return f"{freq/1e6:.6g} MHz"


def option(freq):
    """``freq`` in the form of the command line."""
    return f"{freq/1e6:.6g}e6"


@contextlib.contextmanager
def quiet():
    """A context in which LiteX's generators do not log every request."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


@dataclass(frozen=True)
class Clocks:
    """The clocks that a board makes from its oscillator.

    ``create_pll()`` yields LiteX's generator, ``multiples`` are those of the system clock that it makes beside the
    frequencies in ``fixed`` (Hz), ``lowest`` and ``highest`` bound the system clock (Hz), and ``bounds`` says why.
    """
    create_pll: Callable
    oscillator: float
    multiples: tuple
    fixed: tuple
    lowest: float
    highest: float
    bounds: str

    def makes(self, freq):
        """Returns whether LiteX finds a setting of the generator for this system clock."""
        try:
            pll = self.create_pll()
            pll.register_clkin(Signal(), self.oscillator)
            for wanted in (*(freq*multiple for multiple in self.multiples), *self.fixed):
                pll.create_clkout(ClockDomain("any"), wanted, with_reset=False)
            pll.compute_config()
        except (ValueError, AssertionError):    # LiteX's ways to say no
            return False
        return True

    def _oscillations(self):
        """Frequencies of the generator's own oscillator (Hz) from which it can make the fixed clocks."""
        pll = self.create_pll()
        low, high = pll.vco_freq_range
        found = {self.oscillator*m/d for d in range(1, 57) for m in range(1, 129) if low <= self.oscillator*m/d <= high}
        return {vco for vco in found if all(abs(vco/max(round(vco/wanted), 1) - wanted) <= wanted*MARGIN/2
                                            for wanted in self.fixed)}

    def nearest(self, freq):
        """The nearest system clocks that work: one below ``freq`` and one above, if they exist."""
        top = max(self.multiples)
        candidates = sorted({vco/divide/top for vco in self._oscillations() for divide in range(1, 129)})
        candidates = [f for f in candidates if self.lowest <= f <= self.highest]
        below = next((f for f in reversed(candidates) if f < freq and self.makes(f)), None)
        above = next((f for f in candidates if f > freq and self.makes(f)), None)
        return [f for f in (below, above) if f is not None]

    def refusal(self, freq):
        """One line that says why the board cannot make this system clock, and which ones it can; None if it can."""
        with quiet():
            return self._refusal(freq)

    def _refusal(self, freq):
        if math.isfinite(freq) and self.lowest <= freq <= self.highest:
            if self.makes(freq):
                return None
            why = f"the clock generator makes no {mhz(freq)} beside the other clocks from the board's " \
                  f"{mhz(self.oscillator)}"
        else:
            why = f"the system clock of this board is {mhz(self.lowest)} to {mhz(self.highest)} ({self.bounds})"
        near = self.nearest(freq if not math.isnan(freq) else math.inf)
        return f"{why}: the nearest that work are {' and '.join(map(option, near))}" if len(near) > 1 else \
               f"{why}: the nearest that works is {option(near[0])}"
