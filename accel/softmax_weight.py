"""The softmax weight 2**d of a score difference. Computes :func:`spec.tables.weight`."""
from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from accel.table import InterpolatedTable
from spec.tables import EXP2


class SoftmaxWeight(wiring.Component):
    """``p`` follows ``d`` (log2 units, Q.16, below 2) by ``latency`` cycles, one a cycle; 2**14 is 1.0."""
    latency = InterpolatedTable.latency + 1

    def __init__(self, *, width=34):
        self.width = width
        super().__init__({"d": In(signed(width)), "p": Out(17)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.table = table = InterpolatedTable(EXP2)
        m.d.comb += [table.index.eq(self.d[8:16]), table.t.eq(self.d[:8])]
        shift = Signal(signed(self.width - 14))
        m.d.comb += shift.eq(1 - (self.d >> 16))
        short = Mux(shift > 31, 31, shift[:5])
        for i in range(InterpolatedTable.latency):
            s = Signal(5, name=f"shift{i}")
            m.d.sync += s.eq(short)
            short = s
        doubled = Signal(18)
        m.d.comb += doubled.eq((table.value << 1) >> short)
        m.d.sync += self.p.eq((doubled >> 1) + doubled[0])
        return m
