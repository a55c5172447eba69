"""The residual stream: adds rows, gathers the sum of squares, hands x * gain to the quantiser, yields 1/rms.

Computes the residual half of :meth:`spec.golden.Golden._residual` and :meth:`_normalise`.
Ref: Zhang & Sennrich 2019, Root Mean Square Layer Normalization.
"""
from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.numeric import saturate
from accel.quantiser import wide_layout
from accel.row_scale import EMBEDDING, row_layout
from accel.table import InterpolatedTable
from spec.tables import RSQRT

SUM_BITS = 76       # 2**12 squares of 2**62 and epsilon: 75 bits, and an even number for the normalisation by pairs


class Residual(wiring.Component):
    """One row a cycle.

    Members
    -------
    rows : In(stream)
        RESIDUAL rows are added; embedding rows replace.
    gains : In(stream)
        Beats of eight int16, after ``gain_start``; must not come while rows are.
    factors, halves : Out
        Per column: mantissa of 1/sqrt(sum of squares + epsilon), 2**15 .. 2**16, and h in ``2**(-15 - h)``.
    """
    def __init__(self, *, columns, max_dim):
        self.columns, self.max_dim = columns, max_dim
        super().__init__({
            "busy": Out(1), "dim": In(13), "epsilon": In(32), "saturated": Out(1),
            "rows": In(stream.Signature(row_layout(columns))), "values": Out(stream.Signature(wide_layout(columns))),
            "gain_start": In(1), "gains": In(stream.Signature(128)),
            "factors": Out(data.ArrayLayout(17, columns)), "halves": Out(data.ArrayLayout(6, columns)),
        })

    def elaborate(self, platform):
        m = Module()
        C, depth = self.columns, self.max_dim
        m.submodules.x = x = memory.Memory(shape=signed(32), depth=C * depth, init=[])
        x_read, x_write = x.read_port(), x.write_port()
        m.submodules.gain = gain = memory.Memory(shape=data.ArrayLayout(signed(16), 8), depth=depth // 8, init=[])
        gain_write, gain_read = gain.write_port(), gain.read_port()
        gain_at = Signal(range(depth // 8 + 1))
        m.d.comb += [gain_write.addr.eq(gain_at), gain_write.data.eq(self.gains.payload), self.gains.ready.eq(1),
                     gain_write.en.eq(self.gains.valid)]
        with m.If(self.gain_start):
            m.d.sync += gain_at.eq(0)
        with m.Elif(self.gains.valid):
            m.d.sync += gain_at.eq(gain_at + 1)

        # read, add, multiply, send: the whole pipe moves when its end can ---------------------------------
        advance = Signal()
        out = self.values
        m.d.comb += [advance.eq(~out.valid | out.ready), self.rows.ready.eq(advance)]
        p0 = self.rows.payload
        bits = (depth - 1).bit_length()
        m.d.comb += [x_read.addr.eq(Cat(p0.row[:bits], p0.column)), x_read.en.eq(advance),
                     gain_read.addr.eq(p0.row[3:bits]), gain_read.en.eq(advance)]
        v1, v2, v3, v4 = (Signal(name=f"v{i}") for i in range(1, 5))
        p1, p2, p3, p4 = (Signal(row_layout(C), name=f"p{i}") for i in range(1, 5))
        total = Signal(signed(33))
        added, flag = saturate(m, total, 32)
        x2 = Signal(signed(32))
        gain2, product = Signal(signed(16)), Signal(signed(48))
        # x**2 = high**2 * 2**32 + high * low * 2**17 + low**2: three multipliers, and the outer two do not overlap
        high2, low2 = x2[16:].as_signed(), Cat(x2[:16], Const(0, 1)).as_signed()
        squares, middle, square4 = Signal(64), Signal(signed(33)), Signal(64)
        product4 = Signal(signed(48))
        m.d.comb += [
            total.eq(p1.value + Mux(p1.dest == EMBEDDING, 0, x_read.data)),
            x_write.addr.eq(Cat(p1.row[:bits], p1.column)), x_write.data.eq(added), x_write.en.eq(v1 & advance),
            self.saturated.eq(v1 & advance & flag),
        ]
        with m.If(advance):
            m.d.sync += [
                v1.eq(self.rows.valid), p1.eq(p0),
                v2.eq(v1), p2.eq(p1), x2.eq(added), gain2.eq(Array(gain_read.data)[p1.row[:3]]),
                v3.eq(v2), p3.eq(p2), product.eq(x2 * gain2),
                squares.eq(Cat((low2 * low2)[:32], (high2 * high2)[:32])), middle.eq(high2 * low2),
                v4.eq(v3), p4.eq(p3), product4.eq(product), square4.eq(squares + (middle << 17)),
            ]
        o = out.payload
        m.d.comb += [out.valid.eq(v4), o.value.eq(product4), o.column.eq(p4.column), o.index.eq(p4.row),
                     o.end.eq((p4.row[:5] == 31) | (p4.row == self.dim - 1)), o.dest.eq(p4.dest)]

        # Sum of squares, then 1/sqrt: normalise by pairs of bits, look up ---------------------------------
        sums = [Signal(SUM_BITS, name=f"sum{c}") for c in range(C)]
        pending = Signal(C)
        take = Signal()
        m.d.comb += take.eq(v4 & advance)
        for c in range(C):
            with m.If(take & (p4.column == c)):
                m.d.sync += sums[c].eq(square4 + Mux(p4.row == 0, self.epsilon, sums[c]))
                with m.If(p4.row == self.dim - 1):
                    m.d.sync += pending[c].eq(1)
        m.submodules.rsqrt = table = InterpolatedTable(RSQRT)
        f, half, column, wait = Signal(SUM_BITS), Signal(6), Signal(range(max(C, 2))), Signal(2)
        m.d.comb += [table.index.eq(f[SUM_BITS - 10:]), table.t.eq(f[SUM_BITS - 22:SUM_BITS - 10])]
        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.sync += half.eq(SUM_BITS // 2)
                for c in reversed(range(C)):
                    with m.If(pending[c]):
                        m.d.sync += [column.eq(c), f.eq(sums[c])]
                with m.If(pending.any()):
                    m.next = "NORMALISE"
            with m.State("NORMALISE"):
                m.d.sync += wait.eq(0)
                with m.If(f[SUM_BITS - 2:].any() | (half == 0)):
                    m.next = "LOOK-UP"
                with m.Elif(f[SUM_BITS - 16:].any()):
                    m.d.sync += [f.eq(f << 2), half.eq(half - 1)]
                with m.Else():
                    m.d.sync += [f.eq(f << 16), half.eq(half - 8)]
            with m.State("LOOK-UP"):
                m.d.sync += wait.eq(wait + 1)
                with m.If(wait == 3):
                    for c in range(C):
                        with m.If(column == c):
                            m.d.sync += [self.factors[c].eq(table.value), self.halves[c].eq(half), pending[c].eq(0)]
                    m.next = "IDLE"
        m.d.comb += self.busy.eq(v1 | v2 | v3 | v4 | pending.any() | ~fsm.ongoing("IDLE"))
        return m
