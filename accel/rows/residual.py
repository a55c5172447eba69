"""The residual stream: adds rows, gathers the sum of squares, hands x * gain to the quantiser, yields 1/rms.

Computes the residual half of :meth:`llama2_spec.golden.Golden._residual` and :meth:`_normalise`.
Ref: Zhang & Sennrich 2019, Root Mean Square Layer Normalization.
"""
from types import SimpleNamespace

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.interfaces import Beats, ModelConstants, Norms, Row, Wide
from accel.lib.numeric import UNCHECKED, credits, delay, saturate
from accel.lib.pipeline import Pipeline
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
        self._take(m, s)
        self._add(m, s)
        self._multiply(m, s)
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
        m.d.comb += self.gains.ready.eq(upper)
        m.d.sync += upper.eq(self.gains.valid & ~upper)
        pipe = Pipeline(m)                  # from the stream of beats on
        half = pipe.later("half", pipe.enter(Mux(upper, self.gains.payload[64:], self.gains.payload[:64])), 2)
        valid = pipe.carry("gain_valid", pipe.enter(self.gains.valid), valid=True).beside(half)
        pipe.write(gain_write, pipe.enter(gain_at, half.stage), half, valid)
        with m.If(self.gain_start):
            m.d.sync += gain_at.eq(0)
        with m.Elif(valid.plain):
            m.d.sync += gain_at.eq(gain_at + 1)

    def _take(self, m, s):
        """Rows come, while there is room for their results."""
        s.out, take = self.values, self.rows.valid & self.rows.ready
        given = delay(m, s.out.valid & s.out.ready, 1, "given", valid=True)
        s.room, some_room = credits(m, DEPTH, take, given)
        m.d.comb += self.rows.ready.eq(some_room)
        s.pipe = pipe = Pipeline(m)
        row = pipe.enter(self.rows.payload)
        s.column, s.row, s.dest, s.value = (pipe.carry(name, value, shift_register=True) for name, value in (
            ("column", row.column), ("row", row.row[:13]), ("dest", row.dest), ("value", row.value)))
        s.valid = pipe.carry("valid", pipe.enter(take), valid=True, shift_register=True)

    def _add(self, m, s):
        """Rows are added and stored."""
        # 1: read; 2, 3: added; 4: clamped, stored
        pipe, s.bits = s.pipe, (s.depth - 1).bit_length()

        def place(row, column):
            return Cat(row[:s.bits], column)
        stored = pipe.read(s.x_read, pipe.combine(place, s.row.at(0), s.column.at(0)))
        old = pipe.register("old", pipe.combine(Mux, s.dest.beside(stored) == Dest.EMBEDDING, 0, stored), signed(32))
        s.total = total = pipe.register("total", s.value.beside(old) + old, signed(33))
        clamped, flag = pipe.combine(lambda total: saturate(m, total, 32), total)
        s.x = pipe.register("added", clamped)
        s.again = pipe.register("again", clamped, attrs={"keep": "true"})   # x once more, near its multipliers
        pipe.write(s.x_write, pipe.combine(place, s.row.beside(s.x), s.column.beside(s.x)), s.x, s.valid.beside(s.x))
        pipe.drive((self.saturated, s.valid.beside(total) & flag))

    def _multiply(self, m, s):
        """What is stored is multiplied by its gain, and squared."""
        # 5, 6: products
        pipe = s.pipe
        last_row = Signal(13)
        gains = pipe.register("gains", pipe.read(s.gain_read, s.row.at(0)[2:s.bits]).as_value())
        row = s.row.beside(gains)
        chosen = pipe.combine(lambda x, row: Array(data.View(s.gain.shape, x))[row[:2]], gains, row)
        gain = pipe.register("gain", chosen, signed(16))
        s.product = pipe.product("product", s.x, pipe.carry("gain", gain, shift_register=True).beside(s.x))

        def parts(x):       # x**2 = high**2 * 2**32 + high * low * 2**17 + low**2, the outer two do not overlap
            low, high = Cat(x[:16], Const(0, 1)).as_signed(), x[16:].as_signed()
            return Cat((low * low)[:32], (high * high)[:32]), high * low
        outer, middle = pipe.combine(parts, s.again)
        squares, middle = pipe.register("squares", outer), pipe.register("middle", middle, signed(33))
        s.square = pipe.register("square", squares + (middle << 17), 64)
        m.d.sync += last_row.eq(self.model.dim - 1)
        first, last = pipe.register("first", row == 0), pipe.register("last", row == last_row)
        end = pipe.register("end", (s.row.beside(last)[:5] == 31) | last)
        s.first, s.last, s.end = (pipe.carry(name, value, shift_register=True)
                                  for name, value in (("first", first), ("last", last), ("end", end)))

    def _results(self, m, s):
        """Products wait for the quantiser."""
        kept = data.StructLayout({"value": signed(48), "column": range(max(s.C, 2)), "index": 13, "end": 1, "dest": 3})
        m.submodules.results = results = Queue(kept.size, depth=DEPTH)
        into, oldest = data.View(kept, results.data), data.View(kept, results.output.payload)
        at = s.pipe.drive((results.write, s.valid.beside(s.product)), (into.value, s.product),
                          *((into[name], value.beside(s.product)) for name, value in (
                              ("column", s.column), ("index", s.row), ("end", s.end), ("dest", s.dest))))
        assert at == self.latency
        m.d.comb += [s.out.valid.eq(results.output.valid), results.output.ready.eq(s.out.ready),
                     *(getattr(s.out.payload, name).eq(getattr(oldest, name)) for name, _ in kept)]

    def _squares(self, m, s):
        """Sums of squares, a column each."""
        # Sum of squares, then 1/sqrt: normalise by pairs of bits, look up
        s.sums = [Signal(SUM_BITS, name=f"sum{c}", reset_less=True) for c in range(s.C)]
        s.pending = Signal(s.C)
        valid, column, first, last = (each.beside(s.square) for each in (s.valid, s.column, s.first, s.last))
        so_far = s.pipe.named("so_far", s.pipe.combine(
            lambda first, column: Mux(first, self.model.epsilon, Array(s.sums)[column]), first, column), SUM_BITS)
        total = s.pipe.named("total", s.square + so_far, SUM_BITS)
        for c in range(s.C):
            with m.If((valid & (column == c)).plain):
                m.d.sync += s.sums[c].eq(total.plain)
                with m.If(last.plain):
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
