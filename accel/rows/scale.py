"""Row sums to 32-bit fixed point: times 1/rms, right shift, saturate. Computes
:func:`llama2_spec.golden.scale_rows`."""
import enum

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from accel.interfaces import Norms, Row, RowSum
from accel.lib.numeric import coarse_shift, credits, delay, fine_shift
from accel.lib.pipeline import Pipeline
from accel.lib.stream import Queue, Skid
from llama2_spec.numerics import WIDE
from llama2_spec.registers import Dest

DEPTH = 16      # rows on their way; the pipe is 6 deep


class To(enum.IntEnum):
    """The unit that takes a row."""
    ROPE, SWIGLU, LOGITS, RESIDUAL = range(4)


class RowScale(wiring.Component):
    """``rows = saturate32(round_shift(sums * factor[column], shift))``, one a cycle; they wait in a FIFO that is never
    overrun.

    RESIDUAL and embedding rows take the factor 2**15 instead of 1/rms.

    Members
    -------
    norms : In(Norms)
        1/rms by column.
    sums : In(stream of RowSum)
        Taken while there is room for the result.
    rows : Out(stream of Row)
        In the order of ``sums``; held until taken.
    busy : Out(1)
        Work is in flight; a fence waits for its end.
    saturated : Out(1)
        A result was clamped in this cycle.
    """
    latency = 6         #: from a sum to its place in the queue
    budget_lut = 371

    def __init__(self, *, columns):
        self.columns = columns
        super().__init__({
            "norms": In(Norms(columns)), "sums": In(stream.Signature(RowSum(columns))),
            "rows": Out(stream.Signature(Row(columns))), "busy": Out(1), "saturated": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        layout = Row(self.columns)
        m.submodules.results = results = Queue(layout.size, depth=DEPTH)
        # queue -> dispatch -> every row unit: the path ends in registers on both sides
        m.submodules.out = out = Skid(layout)
        wiring.connect(m, out.output, wiring.flipped(self.rows))
        take = Signal()
        given = delay(m, self.rows.valid & self.rows.ready, 1, "given", valid=True)
        room, some_room = credits(m, DEPTH, take, given)
        m.d.comb += [self.sums.ready.eq(some_room), take.eq(self.sums.valid & self.sums.ready),
                     self.busy.eq(room != DEPTH)]
        scaled = self._scale(m, take, results)
        assert scaled.stage == self.latency
        m.d.comb += [
            out.input.valid.eq(results.output.valid), out.input.payload.as_value().eq(results.output.payload),
            results.output.ready.eq(out.input.ready),
        ]
        return m

    def _scale(self, m, take, results):
        """A sum's way to ``results``; returns the scaled value."""
        pipe = Pipeline(m)
        p, valid = pipe.enter(self.sums.payload), pipe.carry("valid", pipe.enter(take), valid=True)
        shift = pipe.carry("shift", p.shift)
        value = pipe.register("value", p.value, signed(WIDE))
        factor = pipe.register("factor", pipe.enter(self._factor()), 17)
        product = pipe.product("product", value, factor)
        coarse = pipe.register("coarse",
                               pipe.combine(lambda x, by: coarse_shift(m, x, by, 32), product, shift.beside(product)),
                               signed(32 + 18))
        fine = pipe.register("fine", coarse >> shift.beside(coarse)[:4], coarse.plain.shape())
        narrow, flag = pipe.combine(lambda x: fine_shift(m, x, Const(0, 4), 32), fine)
        scaled = pipe.register("scaled", narrow, signed(32))
        row = Signal(Row(self.columns), name="row")
        m.d.comb += [*(row[name].eq(self.sums.payload[name]) for name in ("column", "row", "odd", "last", "dest")),
                     row.to.eq(self._unit(m))]
        # all but the value, which is the lowest field
        tag = pipe.carry("tag", pipe.enter(row.as_value()[32:])).beside(scaled)
        m.d.sync += self.saturated.eq((valid.beside(flag) & flag).plain)
        m.d.comb += [results.write.eq(valid.beside(scaled).plain), results.data.eq(Cat(scaled.plain, tag.plain))]
        return scaled

    def _factor(self):
        p = self.sums.payload
        fixed = (p.dest == Dest.RESIDUAL) | (p.dest == Dest.EMBEDDING)
        return Mux(fixed, 1 << 15, Array(self.norms.factors)[p.column])

    def _unit(self, m):
        """The :class:`To` of the sum's destination."""
        to = Signal(2, init=To.RESIDUAL)
        with m.Switch(self.sums.payload.dest):
            with m.Case(Dest.Q, Dest.K, Dest.V):
                m.d.comb += to.eq(To.ROPE)
            with m.Case(Dest.SWIGLU):
                m.d.comb += to.eq(To.SWIGLU)
            with m.Case(Dest.LOGITS):
                m.d.comb += to.eq(To.LOGITS)
        return to
