"""Four LEDs that tell, without a host, how far a board has come: clock, DRAM, core, serial line."""
from migen import *

from migen.genlib.cdc import MultiReg

from litex.gen import *

HOLD_S = 0.05    # the least time for which an event is shown, so that the eye sees it

# StatusLeds ---------------------------------------------------------------------------------------

class StatusLeds(LiteXModule):
    """Drive four LEDs, 1 = lit.

    ==  ======  ===========================================================
    0   clock   blinks once a second: the bitstream runs
    1   DRAM    lit: trained and tested; blinks fast: failed; dark: not done
    2   core    a command is being executed
    3   serial  bytes come or go
    ==  ======  ===========================================================

    ``dram_done``, ``dram_failed`` and ``busy`` are levels; ``rx`` and ``tx`` are the idle-high serial lines, in any
    clock domain.
    """
    def __init__(self, pads, sys_clk_freq):
        self.dram_done   = Signal()
        self.dram_failed = Signal()
        self.busy        = Signal()
        self.rx          = Signal(reset=1)
        self.tx          = Signal(reset=1)

        # # #

        assert len(pads) == 4
        second = round(sys_clk_freq)
        count  = Signal(max=second)
        self.sync += If(count == second - 1, count.eq(0)).Else(count.eq(count + 1))
        slow, fast = Signal(), Signal()    # 1 Hz, and 6 to 16 Hz
        self.comb += [
            slow.eq(count < second//2),
            fast.eq(count[max(len(count) - 4, 0)]),
        ]
        line = Signal()
        self.specials += MultiReg(~self.rx | ~self.tx, line)
        self.comb += pads.eq(Cat(
            slow,
            self.dram_done & (~self.dram_failed | fast),
            self.hold(self.busy, sys_clk_freq),
            self.hold(line, sys_clk_freq),
        ))

    def hold(self, event, sys_clk_freq):
        """High from ``event`` until ``HOLD_S`` after its last cycle."""
        cycles = max(round(sys_clk_freq*HOLD_S), 1)
        left   = Signal(max=cycles + 1)
        self.sync += If(event, left.eq(cycles)).Elif(left != 0, left.eq(left - 1))
        return left != 0
