"""The residual stream: adds rows, gathers the sum of squares, hands x * gain to the quantiser, yields 1/rms.

Computes the residual half of :meth:`llama2_spec.golden.Golden._residual` and :meth:`_normalise`.
Ref: Zhang & Sennrich 2019, Root Mean Square Layer Normalization.
"""
from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.numeric import UNCHECKED, credits, delay, product_of, saturate
from accel.quantiser import wide_layout
from accel.row_scale import EMBEDDING, row_layout
from accel.stage import Queue
from accel.table import InterpolatedTable
from llama2_spec.tables import RSQRT

DEPTH    = 16       # rows on their way; the pipe is 6 deep
SUM_BITS = 76       # 2**12 squares of 2**62 and epsilon: 75 bits, and an even number for the normalisation by pairs


class Residual(wiring.Component):
    """One row a cycle; results wait in a FIFO that is never overrun.

    Members
    -------
    rows : In(stream)
        RESIDUAL rows are added; embedding rows replace.
    gains : In(stream)
        Beats of eight int16, one in two cycles, ``ready`` only when it is there, after ``gain_start``; must not come while rows are.
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
        m.submodules.x = x = memory.Memory(shape=signed(32), depth=C * depth, init=[], attrs=UNCHECKED)
        x_read, x_write = x.read_port(), x.write_port()
        # Half a beat at a time: then the gains fit one block RAM
        m.submodules.gain = gain = memory.Memory(shape=data.ArrayLayout(signed(16), 4), depth=depth // 4, init=[],
                                                    attrs=UNCHECKED)
        gain_write, gain_read = gain.write_port(), gain.read_port()
        gain_at, upper = Signal(range(depth // 4 + 1)), Signal()        # ``upper`` lies near who brings the beats
        gain_valid2 = delay(m, self.gains.valid, 2, "gain_valid", valid=True)
        m.d.comb += [
            gain_write.addr.eq(gain_at), gain_write.en.eq(gain_valid2), self.gains.ready.eq(upper),
            gain_write.data.eq(delay(m, Mux(upper, self.gains.payload[64:], self.gains.payload[:64]), 2, "half")),
        ]
        m.d.sync += upper.eq(self.gains.valid & ~upper)
        with m.If(self.gain_start):
            m.d.sync += gain_at.eq(0)
        with m.Elif(gain_valid2):
            m.d.sync += gain_at.eq(gain_at + 1)

        # 1: read; 2, 3: added; 4: clamped, stored; 5, 6: products ------------------------------------------------
        out = self.values
        given = delay(m, out.valid & out.ready, 1, "given", valid=True)
        room, some_room = credits(m, DEPTH, self.rows.valid & self.rows.ready, given)
        m.d.comb += self.rows.ready.eq(some_room)
        p0 = self.rows.payload
        bits = (depth - 1).bit_length()
        tag = data.StructLayout({"column": range(max(C, 2)), "row": 13, "dest": 3, "end": 1, "first": 1, "last": 1})
        valids = [Signal(name=f"v{i}") for i in range(1, 7)]
        v1, v2, v3, v4, v5, v6 = valids
        p1, p2, p3, p4, p5, p6 = (Signal(tag, name=f"p{i}", reset_less=True) for i in range(1, 7))
        m.d.comb += [x_read.addr.eq(Cat(p0.row[:bits], p0.column)), gain_read.addr.eq(p0.row[2:bits])]
        row1, row2, old2, total3, x4 = (Signal(signed(width), name=name, reset_less=True) for name, width in (
            ("row1", 32), ("row2", 32), ("old2", 32), ("total3", 33), ("x4", 32)))
        gains2, gain3, gain4 = Signal(64, reset_less=True), Signal(signed(16), reset_less=True), Signal(signed(16), reset_less=True)
        clamped, flag = saturate(m, total3, 32)
        product6 = product_of(m, x4, gain4, "product")
        # x**2 = high**2 * 2**32 + high * low * 2**17 + low**2: three multipliers, and the outer two do not overlap
        again4 = Signal(signed(32), reset_less=True, attrs={"keep": "true"})    # x4 once more, near its multipliers
        high4, low4 = again4[16:].as_signed(), Cat(again4[:16], Const(0, 1)).as_signed()
        squares, middle, square6 = Signal(64, reset_less=True), Signal(signed(33), reset_less=True), Signal(64, reset_less=True)
        last_row = Signal(13)
        m.d.sync += last_row.eq(self.dim - 1)
        m.d.comb += [
            x_write.addr.eq(Cat(p4.row[:bits], p4.column)), x_write.data.eq(x4), x_write.en.eq(v4),
            self.saturated.eq(v3 & flag),
        ]
        m.d.sync += [
            Cat(*valids).eq(Cat(self.rows.valid & self.rows.ready, *valids)), Cat(p2, p3, p4, p5, p6).eq(Cat(p1, p2, p3, p4, p5)),
            p1.column.eq(p0.column), p1.row.eq(p0.row), p1.dest.eq(p0.dest), row1.eq(p0.value),
            row2.eq(row1), old2.eq(Mux(p1.dest == EMBEDDING, 0, x_read.data)), gains2.eq(gain_read.data),
            total3.eq(row2 + old2), gain3.eq(Array(data.View(gain.shape, gains2))[p2.row[:2]]),
            p3.first.eq(p2.row == 0), p3.last.eq(p2.row == last_row),
            x4.eq(clamped), again4.eq(clamped), gain4.eq(gain3), p4.end.eq((p3.row[:5] == 31) | p3.last),
            squares.eq(Cat((low4 * low4)[:32], (high4 * high4)[:32])), middle.eq(high4 * low4),
            square6.eq(squares + (middle << 17)),
        ]
        kept = data.StructLayout({"value": signed(48), "column": range(max(C, 2)), "index": 13, "end": 1, "dest": 3})
        m.submodules.results = results = Queue(kept.size, depth=DEPTH)
        into, oldest = data.View(kept, results.data), data.View(kept, results.output.payload)
        m.d.comb += [results.write.eq(v6), into.value.eq(product6), into.column.eq(p6.column), into.index.eq(p6.row),
                     into.end.eq(p6.end), into.dest.eq(p6.dest),
                     out.valid.eq(results.output.valid), results.output.ready.eq(out.ready),
                     *(getattr(out.payload, name).eq(getattr(oldest, name)) for name, _ in kept)]

        # Sum of squares, then 1/sqrt: normalise by pairs of bits, look up ---------------------------------
        sums = [Signal(SUM_BITS, name=f"sum{c}", reset_less=True) for c in range(C)]
        pending = Signal(C)
        total, so_far = Signal(SUM_BITS), Signal(SUM_BITS)
        m.d.comb += [so_far.eq(Mux(p6.first, self.epsilon, Array(sums)[p6.column])), total.eq(square6 + so_far)]
        for c in range(C):
            with m.If(v6 & (p6.column == c)):
                m.d.sync += sums[c].eq(total)
                with m.If(p6.last):
                    m.d.sync += pending[c].eq(1)
        m.submodules.rsqrt = table = InterpolatedTable(RSQRT, latency=4)
        f, half, column, wait = Signal(SUM_BITS, reset_less=True), Signal(6), Signal(range(max(C, 2))), Signal(range(table.latency + 1))
        near, done = Signal(), Signal()         # for a shift by a pair, for none: known with f
        m.d.comb += [table.index.eq(f[SUM_BITS - 10:]), table.t.eq(f[SUM_BITS - 22:SUM_BITS - 10])]
        # A sum, or f moved up: encoded, so that a bit of it is one look-up table
        pick, change = Signal(range(C + 2)), Signal()
        choices = [*sums, (f << 2)[:SUM_BITS], (f << 16)[:SUM_BITS]]
        with m.If(change):
            m.d.sync += [
                f.eq(Array(choices)[pick]), near.eq(Array([each[SUM_BITS - 16:].any() for each in choices])[pick]),
                done.eq(Array([*(each[SUM_BITS - 2:].any() for each in sums),
                               choices[C][SUM_BITS - 2:].any() | (half == 1), choices[C + 1][SUM_BITS - 2:].any() | (half == 8)])[pick]),
            ]
        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.sync += half.eq(SUM_BITS // 2)
                for c in reversed(range(C)):
                    with m.If(pending[c]):
                        m.d.sync += column.eq(c)
                with m.If(pending.any()):
                    m.next = "LOAD"
            with m.State("LOAD"):
                m.d.comb += [pick.eq(column), change.eq(1)]
                m.d.sync += wait.eq(0)
                m.next = "NORMALISE"
            with m.State("NORMALISE"):
                m.d.comb += [pick.eq(Mux(near, C, C + 1)), change.eq(~done)]
                with m.If(done):
                    m.next = "LOOK-UP"
                with m.Else():
                    m.d.sync += half.eq(half - Mux(near, 1, 8))
            with m.State("LOOK-UP"):
                m.d.sync += wait.eq(wait + 1)
                with m.If(wait == table.latency):
                    for c in range(C):
                        with m.If(column == c):
                            m.d.sync += [self.factors[c].eq(table.value), self.halves[c].eq(half), pending[c].eq(0)]
                    m.next = "IDLE"
        m.d.comb += self.busy.eq((room != DEPTH) | pending.any() | ~fsm.ongoing("IDLE"))
        return m
