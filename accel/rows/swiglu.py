"""SiLU(gate) * up of row pairs. Ref: Shazeer 2020, GLU variants improve transformer; llama2_spec.tables.silu."""
from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from accel.interfaces import Row, Wide
from accel.lib.numeric import credits, delay, saturate
from accel.lib.pipeline import Pipeline
from accel.lib.stream import Queue
from accel.lib.table import InterpolatedTable
from llama2_spec.numerics import HIDDEN_FRACTION, ROW_FRACTION, WIDE
from llama2_spec.tables import SILU_SAG

DROPPED = 2 * ROW_FRACTION - HIDDEN_FRACTION
DEPTH = 16          # pairs on their way; the pipe is 13 deep, a pair takes two cycles
LIMIT = (16 << ROW_FRACTION) - 1        # beyond 16 the sag is as at 16: below one unit


class SwiGlu(wiring.Component):
    """Computes SwiGLU as :class:`llama2_spec.golden.Golden` does, bit for bit. One pair every two cycles, since one
    multiplier makes the two halves of its product. A row is taken only while the queue behind the pipe has a place for
    its result, so the pipe never stops.

    Members
    -------
    rows : In(stream of Row)
        Gate row, then up row, of one column.
    busy : Out(1)
        Work is in flight; a fence waits for its end.
    saturated : Out(1)
        A result was clamped in this cycle.
    values : Out(stream of Wide)
        SiLU(gate) * up, one for each pair; held until taken.
    """
    latency = 12        #: from the up row to its result's place in the queue
    budget_lut = 413

    def __init__(self, *, columns):
        self.columns = columns
        super().__init__({"busy": Out(1), "saturated": Out(1), "rows": In(stream.Signature(Row(columns))),
                          "values": Out(stream.Signature(Wide(columns)))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.results = results = Queue(Wide(self.columns), depth=DEPTH)
        rows, row = self.rows, self.rows.payload
        take = Signal()
        given = delay(m, self.values.valid & self.values.ready, 1, "given", valid=True)
        room, some_room = credits(m, DEPTH, take & ~row.odd, given)
        m.d.comb += [rows.ready.eq(row.odd | some_room), take.eq(rows.ready & rows.valid), self.busy.eq(room != DEPTH)]
        wiring.connect(m, results.output, wiring.flipped(self.values))
        pipe = Pipeline(m)
        up, clamped = self._product(m, pipe, *self._silu(m, pipe, take))
        assert clamped.stage == self.latency
        self._leave(m, pipe, results, up, clamped)
        return m

    def _silu(self, m, pipe, take):
        """(a row, whether it is a row, silu of the gate row before) of one stage: the sag from a table, taken off the
        gate."""
        m.submodules.table = table = InterpolatedTable(SILU_SAG, latency=4)
        row = pipe.enter(self.rows.payload)
        magnitude = pipe.register("magnitude", pipe.combine(lambda x: Mux(x[-1], -x, x), row.value), 32)
        z = pipe.register("z", pipe.combine(lambda x: Mux(x > LIMIT, LIMIT, x), magnitude), 22)

        def look_up(z):
            near = ~z[21]
            m.d.comb += [table.index.eq(Mux(near, z[11:21], 1024 + z[14:21])),
                         table.t.eq(Mux(near, z[:11] << 3, z[:14]))]
            return table.value
        sag = pipe.combine(look_up, z, latency=table.latency)
        value, odd = pipe.carry("value", row.value).beside(sag), pipe.carry("odd", row.odd).beside(sag)
        valid = pipe.carry("valid", pipe.enter(take), valid=True).beside(sag)
        silu = Signal(signed(33), reset_less=True)      # waits for its up row
        with m.If((valid & ~odd).plain):
            m.d.sync += silu.eq(pipe.combine(lambda x, sag: Mux(x[-1], 0, x) - sag, value, sag).plain)
        return value, valid & odd, silu

    def _product(self, m, pipe, value, up, silu):
        """(whether there is a result, silu * up) of one stage: by the up row's lower half, then, while the next gate
        may come, its upper half."""
        a = Signal(signed(33), reset_less=True)
        with m.If(up.plain):
            m.d.sync += a.eq(silu)
        # the upper half's turn comes a cycle after the lower half's
        later = pipe.carry("value7", value).at(value.stage + 1)
        b = pipe.register("b",
                          pipe.enter(Mux(up.plain, Cat(value.plain[:16], Const(0, 1)).as_signed(),
                                         later.plain[16:].as_signed()),
                                          value.stage), signed(17))
        half = pipe.product("half", a, b)
        low = pipe.carry("low", half)
        # From here on a stage is counted from the upper half
        upper = pipe.enter(half.plain, half.stage + 1)
        product = pipe.register("product", (upper << 16) + low.beside(upper), signed(65))
        rounded = pipe.register("rounded", (product >> DROPPED) + product[DROPPED - 1], signed(66 - DROPPED))
        return pipe.carry("up", up, valid=True).beside(rounded), rounded

    def _leave(self, m, pipe, results, up, rounded):
        """Clamped, with its place, into the queue."""
        row, p = pipe.enter(self.rows.payload), results.data
        clamped, flag = pipe.combine(lambda x: saturate(m, x, WIDE), rounded)
        for field, value in (("column", row.column), ("index", row.row >> 1), ("end", (row.row[1:6] == 31) | row.last),
                             ("dest", row.dest)):
            m.d.comb += p[field].eq(pipe.carry(field, value).beside(rounded).plain)
        m.d.comb += [results.write.eq(up.plain), p.value.eq(clamped.plain), self.saturated.eq((up & flag).plain)]
