"""SiLU(gate) * up of row pairs. Ref: Shazeer 2020, GLU variants improve transformer; llama2_spec.tables.silu."""
from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from accel.numeric import credits, delay, product_of, saturate
from accel.quantiser import wide_layout
from accel.row_scale import row_layout
from accel.stage import Queue
from accel.table import InterpolatedTable
from llama2_spec.numerics import HIDDEN_FRACTION, ROW_FRACTION, WIDE
from llama2_spec.tables import SILU_SAG

DROPPED = 2 * ROW_FRACTION - HIDDEN_FRACTION
DEPTH = 16          # pairs on their way; the pipe is 13 deep, a pair takes two cycles
LIMIT = (16 << ROW_FRACTION) - 1        # beyond 16 the sag is as at 16: below one unit


class SwiGlu(wiring.Component):
    """Pipelined: a pair every two cycles, whose product takes one multiplier two; results wait in a FIFO that is never overrun.

    Members
    -------
    rows : In(stream)
        Gate row, then up row, of one column.
    """
    def __init__(self, *, columns):
        self.columns = columns
        super().__init__({"busy": Out(1), "saturated": Out(1), "rows": In(stream.Signature(row_layout(columns))),
                          "values": Out(stream.Signature(wide_layout(columns)))})

    def elaborate(self, platform):
        m = Module()
        layout = wide_layout(self.columns)
        m.submodules.results = results = Queue(layout.size, depth=DEPTH)
        rows, row = self.rows, self.rows.payload
        take, given = Signal(), delay(m, self.values.valid & self.values.ready, 1, "given", valid=True)
        room, some_room = credits(m, DEPTH, take & ~row.odd, given)
        m.d.comb += [rows.ready.eq(row.odd | some_room), take.eq(rows.ready & rows.valid)]
        entry = Signal(layout)
        m.d.comb += [entry.column.eq(row.column), entry.index.eq(row.row >> 1), entry.dest.eq(row.dest),
                     entry.end.eq((row.row[1:6] == 31) | row.last)]

        # 1: |gate|; 2: at most the limit; 2 to 6: table; 7: silu, which waits for its up row --------------------
        m.submodules.table = table = InterpolatedTable(SILU_SAG, latency=4)
        magnitude, z = Signal(32, reset_less=True), Signal(22, reset_less=True)
        near = ~z[21]
        m.d.sync += [magnitude.eq(Mux(row.value[-1], -row.value, row.value)), z.eq(Mux(magnitude > LIMIT, LIMIT, magnitude))]
        m.d.comb += [table.index.eq(Mux(near, z[11:21], 1024 + z[14:21])), table.t.eq(Mux(near, z[:11] << 3, z[:14]))]
        value6, odd6 = delay(m, row.value, 6, "value"), delay(m, row.odd, 6, "odd")
        valid6 = delay(m, take, 6, "valid", valid=True)
        silu = Signal(signed(33), reset_less=True)
        with m.If(valid6 & ~odd6):
            m.d.sync += silu.eq(Mux(value6[-1], 0, value6) - table.value)

        # 7: lower half of the up row; 8: its upper half, while the next gate may come; 9, 10: products; 11: their sum --
        up6 = valid6 & odd6
        value7, up11 = delay(m, value6, 1, "value7"), delay(m, up6, 5, "up", valid=True)
        a, b = Signal(signed(33), reset_less=True), Signal(signed(17), reset_less=True)
        with m.If(up6):
            m.d.sync += a.eq(silu)
        m.d.sync += b.eq(Mux(up6, Cat(value6[:16], Const(0, 1)).as_signed(), value7[16:].as_signed()))
        half = product_of(m, a, b, "half")
        low10 = delay(m, half, 1, "low")
        product, rounded = Signal(signed(65), reset_less=True), Signal(signed(66 - DROPPED), reset_less=True)
        m.d.sync += [product.eq((half << 16) + low10), rounded.eq((product >> DROPPED) + product[DROPPED - 1])]
        tag12, valid12 = delay(m, entry.as_value()[WIDE:], 12, "tag"), delay(m, up11, 1, "valid12", valid=True)
        clamped, flag = saturate(m, rounded, WIDE)
        m.d.comb += [
            results.write.eq(valid12), results.data.eq(Cat(clamped, tag12)), self.saturated.eq(valid12 & flag),
            self.values.valid.eq(results.output.valid), self.values.payload.eq(results.output.payload),
            results.output.ready.eq(self.values.ready),
            self.busy.eq(room != DEPTH),
        ]
        return m
