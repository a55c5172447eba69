"""Says for each cycle of the simulated SoC why no beat of the stream arrived; the counts are printed with every result.

It looks at the ports of the core and at the DFI from outside. A cycle is judged where its beat would have arrived: what
the DRAM did is delayed by the time that a read takes to come back.
"""
from functools import reduce
from operator import add, or_

from migen import *
from migen.fhdl.structure import Display

from litex.gen import *

from soc.sim.simulator import WATCH_CAUSES
from llama2_spec.registers import Phase

STREAM_PORTS = ("read0", "read1")

# StreamWatch --------------------------------------------------------------------------------------

class StreamWatch(LiteXModule):
    """Counts the cycles of each cause of :data:`soc.sim.simulator.WATCH_CAUSES`; one of them holds in every cycle.

    ``core`` has the ports of accel.core.Core; ``read_latency`` is that of the PHY, in cycles.
    """
    def __init__(self, core, dfi, read_latency):
        self.cause = cause = Signal(max=len(WATCH_CAUSES))
        names      = list(WATCH_CAUSES)
        self.stray = Signal()    # a beat arrived without a read: read_latency is wrong

        # # #

        # What the DRAM does -----------------------------------------------------------------------
        def command(ras_n, cas_n, we_n):
            return [~phase.cs_n & (phase.ras_n == ras_n) & (phase.cas_n == cas_n) & (phase.we_n == we_n)
                    for phase in dfi.phases]
        read      = reduce(or_, command(1, 0, 1))
        write     = reduce(or_, command(1, 0, 0))
        precharge = reduce(or_, [hit & phase.address[10] for hit, phase in zip(command(0, 1, 0), dfi.phases)])
        # A refresh begins with a precharge of all banks, and its rows have to be opened again.
        refreshing, writing = Signal(), Signal()
        now_refreshing      = precharge | refreshing & ~read & ~write
        now_writing         = write | writing & ~read & ~precharge
        self.sync += [refreshing.eq(now_refreshing), writing.eq(now_writing)]

        # What the core asks for -------------------------------------------------------------------
        def of(port, name):
            return getattr(core, f"{port}__{name}")
        beat  = reduce(or_, [of(port, "rdata_valid") for port in STREAM_PORTS])
        asked = Signal(2)        # of its own: Verilog would make a sum in a concatenation as wide as its terms
        self.comb += asked.eq(reduce(add, [of(port, "cmd_valid") & of(port, "cmd_ready") for port in STREAM_PORTS]))
        then  = Cat(asked, read, now_refreshing, now_writing)
        for _ in range(read_latency):
            later = Signal(len(then))
            self.sync += later.eq(then)
            then = later
        asked_then, read_then, refreshing_then, writing_then = then[:-3], then[-3], then[-2], then[-1]
        due = Signal(8)          # beats that could have come
        self.sync += due.eq(due + asked_then - beat)

        # What the core does -----------------------------------------------------------------------
        phase, executing, fenced, reading = core.watch[:4], core.watch[4], core.watch[5], core.watch[6]

        def is_(name):
            return cause.eq(names.index(name))
        self.comb += [
            self.stray.eq(beat & ~read_then),
            If(beat, is_("beats")
            ).Elif(read_then & core.embed__rdata_valid,               is_("embedding")
            ).Elif(read_then,                                         is_("cpu")
            ).Elif((due != 0) & refreshing_then,                      is_("refresh")
            ).Elif((due != 0) & writing_then,                         is_("store")
            ).Elif(due != 0,                                          is_("row")
            ).Elif(~executing,                                        is_("idle")
            ).Elif(phase == Phase.EMBED,                              is_("turnaround")
            ).Elif(phase == Phase.S2_ATTEND,                          is_("attention")
            ).Elif(fenced,                                            is_("vector")
            ).Elif(reading,                                           is_("compute")
            ).Elif(phase == Phase.CLASSIFY,                           is_("turnaround")
            ).Else(                                                   is_("commands")),
        ]

        # Counts -----------------------------------------------------------------------------------
        cycles, strays = Signal(48), Signal(32)
        counts         = [Signal(48, name=f"count_{name}") for name in WATCH_CAUSES]
        result         = Signal()
        self.sync += [
            cycles.eq(cycles + 1),
            strays.eq(strays + self.stray),
            *[If(cause == i, count.eq(count + 1)) for i, count in enumerate(counts)],
            result.eq(core.irq),
            If(core.irq & ~result,
                Display("[watch] cycles %0d strays %0d" + "".join(f" {name} %0d" for name in WATCH_CAUSES), cycles,
                        strays, *counts)),
        ]
