"""A function table with linear interpolation: llama2_spec.tables in block RAM and one multiplier."""
from amaranth.hdl import Array, Module, Mux, Signal, signed
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from accel.numeric import delay


class InterpolatedTable(wiring.Component):
    """``value = table(index, t)`` of a :class:`llama2_spec.tables.Table`, ``latency`` cycles later, one a cycle.

    Parameters
    ----------
    distributed : bool
        Keep the table in look-up tables of six inputs, five of them a bit for 256 segments; takes a latency of 4 at least.
    latency : int
        3, or more with registers between block RAM and multiplier, which take long to go through in one cycle.

    Members
    -------
    index, t : In
        Segment and position in it.
    value : Out
        Bit for bit ``table(index, t)``.
    """
    latency = 3

    def __init__(self, table, *, latency=3, distributed=False):
        if latency < 3 + distributed:
            raise ValueError(f"A table answers after {3 + distributed} cycles or more, not {latency}")
        self.table, self.latency, self.distributed = table, latency, distributed
        self.value_bits = max(table.base_bits, 17)
        super().__init__({"index": In(table.index_bits), "t": In(table.t_bits), "value": Out(self.value_bits)})

    def elaborate(self, platform):
        m = Module()
        table = self.table
        base_bits, slope_bits = table.base_bits, table.slope_bits
        init = [b | (s & (1 << slope_bits) - 1) << base_bits for b, s in zip(table.base, table.slope)]
        if self.distributed:
            segment = delay(m, self._distributed(m, init, base_bits + slope_bits), self.latency - 4, "segment_again")
        else:
            segment = self._block_ram(m, init, base_bits + slope_bits)
        t = delay(m, self.t, self.latency - 2, "t")
        base = delay(m, segment[:base_bits], 1, "base")
        product = Signal(signed(slope_bits + table.t_bits + 1), reset_less=True)
        m.d.sync += [product.eq(segment[base_bits:].as_signed() * t), self.value.eq(base + (product >> table.shift))]
        return m

    def _block_ram(self, m, init, width):
        """The segment, ``latency`` - 2 cycles after the index."""
        size = 1 << self.table.index_bits
        split = len(init) - size // 2 <= size // 8      # little beyond a power of two is worth look-up tables, not as much block RAM again
        m.submodules.rom = rom = memory.Memory(shape=width, depth=size >> split, init=init[:size >> split])
        port = rom.read_port()
        m.d.comb += port.addr.eq(self.index)
        read = port.data
        if split:
            m.submodules.rest = rest = memory.Memory(shape=width, depth=size // 8, init=init[size // 2:],
                                                     attrs={"rom_style": "distributed"})
            rest_port = rest.read_port()
            m.d.comb += rest_port.addr.eq(self.index)
            read = Mux(delay(m, self.index[-1], 1, "beyond"), rest_port.data, port.data)
        return delay(m, read, self.latency - 3, "segment")

    def _distributed(self, m, init, width):
        """The segment, two cycles after the index: of 64 each, then of all."""
        parts = []
        for at in range(0, len(init), 64):
            part = Signal(width, name=f"part{at}", reset_less=True, attrs={"rom_style": "distributed"})
            m.d.sync += part.eq(Array(init[at:at + 64])[self.index[:6]])
            parts.append(part)
        segment = Signal(width, reset_less=True)
        m.d.sync += segment.eq(Array(parts)[delay(m, self.index[6:], 1, "part")])
        return segment
