"""The residual stream: adds rows, gathers the sum of squares, hands x * gain to the quantiser, yields 1/rms.

Computes the residual half of :meth:`llama2_spec.golden.Golden._residual` and :meth:`_normalise`.
Ref: Zhang & Sennrich 2019, Root Mean Square Layer Normalization.
"""
from types import SimpleNamespace

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.interfaces import Beats, ModelConstants, Norms, Row, Wide
from accel.lib.numeric import UNCHECKED, credits, delay, product_of, saturate
from accel.lib.stream import Queue
from accel.lib.table import InterpolatedTable
from llama2_spec.registers import Dest
from llama2_spec.tables import RSQRT

DEPTH    = 16       # rows on their way; the pipe is 6 deep
SUM_BITS = 76       # 2**12 squares of 2**62 and epsilon: 75 bits, and an even number for the normalisation by pairs


class Residual(wiring.Component):
    """Computes the residual half of :class:`llama2_spec.golden.Golden`. One row per cycle, taken only while the queue
    behind the pipe has a place for its result, so the pipe never stops.

    Members
    -------
    rows : In(stream of Row)
        RESIDUAL rows are added; embedding rows replace.
    gains : In(Beats)
        Beats of eight int16, one in two cycles, ``ready`` only when it is there, after ``gain_start``; must not come
        while rows are.
    busy : Out(1)
        Work is in flight; a fence waits for its end.
    model : In(ModelConstants)
        Constants of the model, see the interface.
    saturated : Out(1)
        A result was clamped in this cycle.
    values : Out(stream of Wide)
        x * gain of each row; held until taken.
    gain_start : In(1)
        Gains come, from the first on.
    norms : Out(Norms)
        Of each column, once its last row has come.
    """
    latency = 6         #: from a row to its result's place in the queue
    budget_lut = 546

    def __init__(self, *, columns, max_dim):
        self.columns, self.max_dim = columns, max_dim
        super().__init__({
            "busy": Out(1), "model": In(ModelConstants()), "saturated": Out(1),
            "rows": In(stream.Signature(Row(columns))), "values": Out(stream.Signature(Wide(columns))),
            "gain_start": In(1), "gains": In(Beats()), "norms": Out(Norms(columns)),
        })

    def elaborate(self, platform):
        m = Module()
        s = SimpleNamespace()               # signals that several steps share
        self._gains(m, s)
        self._stages(m, s)
        self._add(m, s)
        self._results(m, s)
        self._squares(m, s)
        self._normalise_registers(m, s)
        self._normalise(m, s)
        return m

    def _gains(self, m, s):
        """The gains, half a beat at a time."""
        s.C, s.depth = self.columns, self.max_dim
        m.submodules.x = x = memory.Memory(shape=signed(32), depth=s.C * s.depth, init=[], attrs=UNCHECKED)
        s.x_read, s.x_write = x.read_port(), x.write_port()
        # Half a beat at a time: then the gains fit one block RAM
        m.submodules.gain = s.gain = memory.Memory(shape=data.ArrayLayout(signed(16), 4), depth=s.depth // 4, init=[],
                                                    attrs=UNCHECKED)
        gain_write, s.gain_read = s.gain.write_port(), s.gain.read_port()
        # ``upper`` is chosen before the two registers: stream's beats -> gain memory
        gain_at = Signal(range(s.depth // 4 + 1))
        upper = Signal()
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

    def _stages(self, m, s):
        """The registers of the pipeline."""
        # 1: read; 2, 3: added; 4: clamped, stored; 5, 6: products
        s.out = self.values
        given = delay(m, s.out.valid & s.out.ready, 1, "given", valid=True)
        s.room, some_room = credits(m, DEPTH, self.rows.valid & self.rows.ready, given)
        m.d.comb += self.rows.ready.eq(some_room)
        s.p0 = self.rows.payload
        s.bits = (s.depth - 1).bit_length()
        tag = data.StructLayout({"column": range(max(s.C, 2)), "row": 13, "dest": 3, "end": 1, "first": 1, "last": 1})
        s.valids = [Signal(name=f"v{i}") for i in range(1, 7)]
        v1, v2, s.v3, s.v4, v5, s.v6 = s.valids
        s.p1, s.p2, s.p3, s.p4, s.p5, s.p6 = (Signal(tag, name=f"p{i}", reset_less=True) for i in range(1, 7))
        m.d.comb += [s.x_read.addr.eq(Cat(s.p0.row[:s.bits], s.p0.column)), s.gain_read.addr.eq(s.p0.row[2:s.bits])]
        s.row1, s.row2, s.old2, s.total3, s.x4 = (Signal(signed(width), name=name, reset_less=True) for name, width in (
            ("row1", 32), ("row2", 32), ("old2", 32), ("total3", 33), ("x4", 32)))
        s.gains2 = Signal(64, reset_less=True)
        s.gain3 = Signal(signed(16), reset_less=True)
        s.gain4 = Signal(signed(16), reset_less=True)
        s.clamped, s.flag = saturate(m, s.total3, 32)
        s.product6 = product_of(m, s.x4, s.gain4, "product")
        # x**2 = high**2 * 2**32 + high * low * 2**17 + low**2: three multipliers, and the outer two do not overlap
        s.again4 = Signal(signed(32), reset_less=True, attrs={"keep": "true"})    # x4 once more, near its multipliers
        s.high4, s.low4 = s.again4[16:].as_signed(), Cat(s.again4[:16], Const(0, 1)).as_signed()
        s.squares = Signal(64, reset_less=True)
        s.middle = Signal(signed(33), reset_less=True)
        s.square6 = Signal(64, reset_less=True)

    def _add(self, m, s):
        """Rows are added, stored, squared and multiplied."""
        last_row = Signal(13)
        m.d.sync += last_row.eq(self.model.dim - 1)
        m.d.comb += [
            s.x_write.addr.eq(Cat(s.p4.row[:s.bits], s.p4.column)), s.x_write.data.eq(s.x4), s.x_write.en.eq(s.v4),
            self.saturated.eq(s.v3 & s.flag),
        ]
        m.d.sync += [
            Cat(*s.valids).eq(Cat(self.rows.valid & self.rows.ready, *s.valids)),
            Cat(s.p2, s.p3, s.p4, s.p5, s.p6).eq(Cat(s.p1, s.p2, s.p3, s.p4, s.p5)),
            s.p1.column.eq(s.p0.column), s.p1.row.eq(s.p0.row), s.p1.dest.eq(s.p0.dest), s.row1.eq(s.p0.value),
            s.row2.eq(s.row1), s.old2.eq(Mux(s.p1.dest == Dest.EMBEDDING, 0, s.x_read.data)),
            s.gains2.eq(s.gain_read.data),
            s.total3.eq(s.row2 + s.old2), s.gain3.eq(Array(data.View(s.gain.shape, s.gains2))[s.p2.row[:2]]),
            s.p3.first.eq(s.p2.row == 0), s.p3.last.eq(s.p2.row == last_row),
            s.x4.eq(s.clamped), s.again4.eq(s.clamped), s.gain4.eq(s.gain3),
            s.p4.end.eq((s.p3.row[:5] == 31) | s.p3.last),
            s.squares.eq(Cat((s.low4 * s.low4)[:32], (s.high4 * s.high4)[:32])), s.middle.eq(s.high4 * s.low4),
            s.square6.eq(s.squares + (s.middle << 17)),
        ]

    def _results(self, m, s):
        """Products wait for the quantiser."""
        kept = data.StructLayout({"value": signed(48), "column": range(max(s.C, 2)), "index": 13, "end": 1, "dest": 3})
        m.submodules.results = results = Queue(kept.size, depth=DEPTH)
        into, oldest = data.View(kept, results.data), data.View(kept, results.output.payload)
        m.d.comb += [results.write.eq(s.v6), into.value.eq(s.product6), into.column.eq(s.p6.column),
                     into.index.eq(s.p6.row), into.end.eq(s.p6.end), into.dest.eq(s.p6.dest),
                     s.out.valid.eq(results.output.valid), results.output.ready.eq(s.out.ready),
                     *(getattr(s.out.payload, name).eq(getattr(oldest, name)) for name, _ in kept)]

    def _squares(self, m, s):
        """Sums of squares, a column each."""
        # Sum of squares, then 1/sqrt: normalise by pairs of bits, look up
        s.sums = [Signal(SUM_BITS, name=f"sum{c}", reset_less=True) for c in range(s.C)]
        s.pending = Signal(s.C)
        total = Signal(SUM_BITS)
        so_far = Signal(SUM_BITS)
        m.d.comb += [so_far.eq(Mux(s.p6.first, self.model.epsilon, Array(s.sums)[s.p6.column])),
                     total.eq(s.square6 + so_far)]
        for c in range(s.C):
            with m.If(s.v6 & (s.p6.column == c)):
                m.d.sync += s.sums[c].eq(total)
                with m.If(s.p6.last):
                    m.d.sync += s.pending[c].eq(1)
        m.submodules.rsqrt = s.table = InterpolatedTable(RSQRT, latency=4)

    def _normalise_registers(self, m, s):
        """The sum that is normalised by pairs of bits."""
        f = Signal(SUM_BITS, reset_less=True)
        s.half = Signal(6)
        s.column = Signal(range(max(s.C, 2)))
        s.wait = Signal(range(s.table.latency + 1))
        # For a shift by a pair, for none: known with f.
        s.near = Signal()
        s.done = Signal()
        m.d.comb += [s.table.index.eq(f[SUM_BITS - 10:]), s.table.t.eq(f[SUM_BITS - 22:SUM_BITS - 10])]
        # A sum, or f moved up: encoded, so that a bit of it is one look-up table
        s.pick = Signal(range(s.C + 2))
        s.change = Signal()
        choices = [*s.sums, (f << 2)[:SUM_BITS], (f << 16)[:SUM_BITS]]
        with m.If(s.change):
            m.d.sync += [
                f.eq(Array(choices)[s.pick]),
                s.near.eq(Array([each[SUM_BITS - 16:].any() for each in choices])[s.pick]),
                s.done.eq(Array([*(each[SUM_BITS - 2:].any() for each in s.sums),
                               choices[s.C][SUM_BITS - 2:].any() | (s.half == 1),
                                 choices[s.C + 1][SUM_BITS - 2:].any() | (s.half == 8)])[s.pick]),
            ]

    def _normalise(self, m, s):
        """1/sqrt: normalise, then look up."""
        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.sync += s.half.eq(SUM_BITS // 2)
                for c in reversed(range(s.C)):
                    with m.If(s.pending[c]):
                        m.d.sync += s.column.eq(c)
                with m.If(s.pending.any()):
                    m.next = "LOAD"
            with m.State("LOAD"):
                m.d.comb += [s.pick.eq(s.column), s.change.eq(1)]
                m.d.sync += s.wait.eq(0)
                m.next = "NORMALISE"
            with m.State("NORMALISE"):
                m.d.comb += [s.pick.eq(Mux(s.near, s.C, s.C + 1)), s.change.eq(~s.done)]
                with m.If(s.done):
                    m.next = "LOOK-UP"
                with m.Else():
                    m.d.sync += s.half.eq(s.half - Mux(s.near, 1, 8))
            with m.State("LOOK-UP"):
                m.d.sync += s.wait.eq(s.wait + 1)
                with m.If(s.wait == s.table.latency):
                    for c in range(s.C):
                        with m.If(s.column == c):
                            m.d.sync += [self.norms.factors[c].eq(s.table.value), self.norms.halves[c].eq(s.half),
                                         s.pending[c].eq(0)]
                    m.next = "IDLE"
        m.d.comb += self.busy.eq((s.room != DEPTH) | s.pending.any() | ~fsm.ongoing("IDLE"))
