"""A function table with linear interpolation: spec.tables in block RAM and one multiplier."""
from amaranth.hdl import Module, Signal, signed
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from accel.numeric import delay


class InterpolatedTable(wiring.Component):
    """``value = table(index, t)`` of a :class:`spec.tables.Table`, ``latency`` cycles later, one a cycle.

    Parameters
    ----------
    latency : int
        3, or 4 with a register between block RAM and multiplier, which take long to go through in one cycle.

    Members
    -------
    index, t : In
        Segment and position in it.
    value : Out
        Bit for bit ``table(index, t)``.
    """
    latency = 3

    def __init__(self, table, *, latency=3):
        if latency not in (3, 4):
            raise ValueError(f"A table answers after 3 or 4 cycles, not {latency}")
        self.table, self.latency = table, latency
        self.value_bits = max(table.base_bits, 17)
        super().__init__({"index": In(table.index_bits), "t": In(table.t_bits), "value": Out(self.value_bits)})

    def elaborate(self, platform):
        m = Module()
        table = self.table
        base_bits, slope_bits = table.base_bits, table.slope_bits
        init = [b | (s & (1 << slope_bits) - 1) << base_bits for b, s in zip(table.base, table.slope)]
        m.submodules.rom = rom = memory.Memory(shape=base_bits + slope_bits, depth=1 << table.index_bits, init=init)
        port = rom.read_port()
        segment = delay(m, port.data, self.latency - 3, "segment")
        t = delay(m, self.t, self.latency - 2, "t")
        base = delay(m, segment[:base_bits], 1, "base")
        product = Signal(signed(slope_bits + table.t_bits + 1), reset_less=True)
        m.d.comb += port.addr.eq(self.index)
        m.d.sync += [product.eq(segment[base_bits:].as_signed() * t), self.value.eq(base + (product >> table.shift))]
        return m
