"""A function table with linear interpolation: llama2_spec.tables in block RAM and one multiplier."""
from amaranth.hdl import Array, Module, Mux, signed
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from accel.lib.pipeline import Pipeline


class InterpolatedTable(wiring.Component):
    """``value = table(index, t)`` of a :class:`llama2_spec.tables.Table`, ``latency`` cycles later, one a cycle.

    Parameters
    ----------
    distributed : bool
        Keep the table in look-up tables of six inputs, five of them a bit for 256 segments; takes a latency of 4 at
        least.
    latency : int
        3, or more with registers between block RAM and multiplier, which take long to go through in one cycle.

    Members
    -------
    index, t : In(table.index_bits), In(table.t_bits)
        Segment and position in it.
    value : Out(value_bits)
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
        pipe = Pipeline(m)
        index, t = pipe.carry("index", pipe.enter(self.index)), pipe.carry("t", pipe.enter(self.t))
        found = (self._distributed if self.distributed else self._block_ram)(m, pipe, index, init,
                                                                             base_bits + slope_bits)
        segment = pipe.later("segment", found, self.latency - 2 - found.stage)
        base = pipe.later("base", segment[:base_bits])
        product = pipe.register("product", pipe.combine(lambda slope, t: slope.as_signed() * t, segment[base_bits:],
                                                        t.beside(segment)),
                                signed(slope_bits + table.t_bits + 1))
        m.d.sync += self.value.eq((base + (product >> table.shift)).plain)
        return m

    def _block_ram(self, m, pipe, index, init, width):
        """The segment, as the memory answers."""
        size = 1 << self.table.index_bits
        # little beyond a power of two is worth look-up tables, not as much block RAM again
        split = len(init) - size // 2 <= size // 8
        m.submodules.rom = rom = memory.Memory(shape=width, depth=size >> split, init=init[:size >> split])
        port = rom.read_port()
        m.d.comb += port.addr.eq(self.index)
        read = pipe.enter(port.data, 1)
        if split:
            m.submodules.rest = rest = memory.Memory(shape=width, depth=size // 8, init=init[size // 2:],
                                                     attrs={"rom_style": "distributed"})
            rest_port = rest.read_port()
            m.d.comb += rest_port.addr.eq(self.index)
            read = pipe.combine(Mux, index.beside(read)[-1], pipe.enter(rest_port.data, read.stage), read)
        return read

    def _distributed(self, m, pipe, index, init, width):
        """The segment, two cycles after the index: of 64 each, then of all."""
        parts = [pipe.register(f"part{at}", pipe.combine(lambda i, at=at: Array(init[at:at + 64])[i[:6]], index.at(0)),
                               width, attrs={"rom_style": "distributed"}) for at in range(0, len(init), 64)]
        return pipe.register("segment", pipe.combine(lambda i, *parts: Array(parts)[i[6:]], index.beside(parts[0]),
                                                     *parts), width)
