"""Resets the SoC when the firmware asks for it, or is silent for too long, and remembers which it was."""
from types import SimpleNamespace

from migen import *

from litex.gen import *

from litex.soc.interconnect.csr import *

TIME_BIT = 27    # of the core's cycle counter: it falls every 2**28 cycles, 2.7 s at 100 MHz

# Watchdog -----------------------------------------------------------------------------------------

class Watchdog(LiteXModule):
    """The SoC's ``ctrl``: LiteX joins ``soc_rst`` to the clock domains' reset and ``bus_error`` to the bus.

    A falling edge of ``time`` is a tick. The first write to ``alive`` arms it. A tick that found no write since the
    tick before raises the interrupt, by which the firmware records where it is, and the next one resets the SoC:
    a firmware that stands still has between one and two ticks until the interrupt, and one more until the reset.
    A time of its own would take 28 flip-flops and their carry chain; the core counts cycles already.

    ``events`` outlives the reset, as the firmware's memory does, so that the firmware can tell why it began anew.

    Parameters
    ----------
    time : Signal
        One bit of a counter of cycles, which the reset clears.

    Attributes
    ----------
    soc_rst : Signal(1), out
        One cycle: reset everything but DRAM's content.
    bus_error : Signal(1), in
        One cycle for each access that nothing answered.
    ev.irq : Signal(1), out
        High from a missed tick until ``alive`` is written.
    """
    def __init__(self, time):
        self._reset  = CSR(name="reset")
        self._alive  = CSR(name="alive")
        self._events = CSR(2, name="events")
        self.soc_rst   = Signal()
        self.bus_error = Signal()
        self.ev        = SimpleNamespace(irq=Signal())    # as an EventManager's, without its registers

        # # #

        # Time -------------------------------------------------------------------------------------
        before, tick = Signal(), Signal()
        self.sync += before.eq(time)
        self.comb += tick.eq(before & ~time)

        # Patience ---------------------------------------------------------------------------------
        armed, fed, late, expired = (Signal(name=name) for name in ("armed", "fed", "late", "expired"))
        self.sync += [
            If(tick,
                fed.eq(0),
                late.eq(armed & ~fed),
            ),
            If(self._alive.re,
                armed.eq(1),
                fed.eq(1),
                late.eq(0),
            ),
        ]
        self.comb += [
            expired.eq(tick & late & ~fed),
            self.ev.irq.eq(late),
        ]
        # a register: a glitch of logic would reset the PLL
        self.sync += self.soc_rst.eq(self._reset.re | expired)

        # Events: bit 0 that time was up, bit 1 that an access found nothing; a write forgets both ---
        events = Signal(2, reset_less=True)
        self.sync += [
            If(self._events.re, events.eq(0)),
            If(expired, events[0].eq(1)),
            If(self.bus_error, events[1].eq(1)),
        ]
        self.comb += self._events.w.eq(events)
