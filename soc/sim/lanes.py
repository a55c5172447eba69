"""Byte lanes between LiteDRAM's PHY model and its controller: reads are right only at some delays, and faults can be
planted.

The registers are those of LiteDRAM's PHYs for boards, so that liblitedram's read leveling trains it as it trains them.
It models what training sees, not any one chip: a lane has one window of delays in which it reads right; outside the
window each bit reads as its neighbour's of one bit time before. Writes need no training here. The simulator's command
line chooses:

- nothing: register ``trained`` says what training would choose, and the firmware takes its word;
- ``+dram_train``: it says nothing, and liblitedram trains;
- ``+dram_fault=stuck``: lane 1 reads ones, whatever DRAM sent; ``shifted``: its window is out of reach but for two
  delays; ``row``: one row of one bank reads ones in two bits (dram_bank.v). Training is on with all of them.
"""
from pathlib import Path

from migen import *

from litex.gen import *

from litex.soc.interconnect.csr import *

from litedram.phy import dfi

HERE     = Path(__file__).resolve().parent
DELAYS   = 8     # taps, one bit time
BITSLIPS = 2
BAD_ROW  = 1000    # of dram_bank.v, in the order of the address space

# Lane ---------------------------------------------------------------------------------------------

class Lane(LiteXModule):
    """One lane's delay and bitslip, moved by strobes while ``selected``, as a board's PHY does."""
    def __init__(self, selected, delay_rst, delay_inc, bitslip_rst, bitslip_inc):
        self.delay   = delay   = Signal(max=DELAYS)
        self.bitslip = bitslip = Signal(max=BITSLIPS)
        self.sync += If(selected,
            If(delay_rst,   delay.eq(0)).Elif(delay_inc,     delay.eq(delay + 1)),
            If(bitslip_rst, bitslip.eq(0)).Elif(bitslip_inc, bitslip.eq(bitslip + 1)),
        )

# PHY ----------------------------------------------------------------------------------------------

class LanePHY(LiteXModule):
    """``phy``, an SDRAMPHYModel of 16 bits, behind two byte lanes that have to be trained."""
    def __init__(self, platform, phy):
        self.phy      = phy
        self.settings = phy.settings
        self.settings.read_leveling, self.settings.delays, self.settings.bitslips = True, DELAYS, BITSLIPS
        lanes         = self.settings.strobes
        inner         = phy.dfi
        if len(Cat(phase.rddata for phase in inner.phases)) != 128 or lanes != 2:
            raise ValueError("dram_lanes.v is for two byte lanes and 128 bits")
        self.dfi = dfi.Interface(len(inner.p0.address), len(inner.p0.bank), len(inner.p0.cs_n), len(inner.p0.rddata),
                                 len(inner.phases))

        self._dly_sel             = CSRStorage(lanes)
        self._rdly_dq_rst         = CSR()
        self._rdly_dq_inc         = CSR()
        self._rdly_dq_bitslip_rst = CSR()
        self._rdly_dq_bitslip     = CSR()
        self._trained             = CSRStatus(16, description="What training would choose, a byte per lane: bitslip, "
                                                              "delay; 0: train.")

        # # #

        found = []
        for n in range(lanes):
            lane = Lane(self._dly_sel.storage[n], self._rdly_dq_rst.re, self._rdly_dq_inc.re,
                        self._rdly_dq_bitslip_rst.re, self._rdly_dq_bitslip.re)
            self.add_module(f"lane{n}", lane)
            found.append(lane)
        for outer_phase, inner_phase in zip(self.dfi.phases, inner.phases):
            self.comb += [
                outer_phase.connect(inner_phase, omit={"rddata", "rddata_valid"}),
                # The model flags valid data for phase 0 only, but liblitedram reads every phase's register.
                outer_phase.rddata_valid.eq(inner.phases[0].rddata_valid),
            ]
        self.specials += Instance("dram_lanes",
            p_TAPS    = DELAYS,
            i_delay   = Cat(Cat(lane.delay, C(0, 4 - len(lane.delay))) for lane in found),
            i_bitslip = Cat(Cat(lane.bitslip, C(0, 4 - len(lane.bitslip))) for lane in found),
            i_sent    = Cat(phase.rddata for phase in inner.phases),
            o_seen    = Cat(phase.rddata for phase in self.dfi.phases),
            o_trained = self._trained.status,
        )
        platform.add_source(str(HERE/"dram_lanes.v"))
