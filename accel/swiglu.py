"""SiLU(gate) * up of row pairs. Ref: Shazeer 2020, GLU variants improve transformer; spec.tables.silu."""
from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.numeric import saturate
from accel.quantiser import wide_layout
from accel.row_scale import row_layout
from accel.table import InterpolatedTable
from spec.numerics import HIDDEN_FRACTION, ROW_FRACTION, WIDE
from spec.tables import SILU_SAG

DROPPED = 2 * ROW_FRACTION - HIDDEN_FRACTION
LIMIT = (16 << ROW_FRACTION) - 1        # beyond 16 the sag is as at 16: below one unit


class SwiGlu(wiring.Component):
    """Pipelined: a pair every two cycles; results wait in a FIFO that is never overrun.

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
        m.submodules.results = results = fifo.SyncFIFO(width=layout.size, depth=8)
        rows, row = self.rows, self.rows.payload
        room = Signal(range(9), init=8)
        accept, done = Signal(), Signal()
        m.d.comb += [rows.ready.eq(row.odd | (room != 0)), accept.eq(rows.ready & rows.valid & ~row.odd),
                     done.eq(self.values.valid & self.values.ready)]
        m.d.sync += room.eq(room - accept + done)
        m.submodules.table = table = InterpolatedTable(SILU_SAG)

        # 1: |gate|; 2: index; 3-5: table; 6: silu; then the up row is there, and the product follows
        gate1, magnitude = Signal(signed(32)), Signal(32)
        m.d.comb += magnitude.eq(Mux(row.value[-1], -row.value, row.value))
        z = Signal(22)
        near = Signal()
        m.d.sync += [gate1.eq(row.value), z.eq(Mux(magnitude > LIMIT, LIMIT, magnitude))]
        m.d.comb += near.eq(~z[21])
        m.d.comb += [table.index.eq(Mux(near, z[11:21], 1024 + z[14:21])), table.t.eq(Mux(near, z[:11] << 3, z[:14]))]
        gates, ups, valids, tags = [gate1], [], [], []
        for i in range(1, 4):
            g = Signal(signed(32), name=f"gate{i + 1}", reset_less=True)
            m.d.sync += g.eq(gates[-1])
            gates.append(g)
        silu = Signal(signed(33))
        m.d.sync += silu.eq(Mux(gates[3][-1], 0, gates[3]) - table.value)
        # The up row may come any time after its gate: pairs meet in two small queues
        m.submodules.silus = silus = fifo.SyncFIFO(width=33, depth=8)
        m.submodules.ups = upq = fifo.SyncFIFO(width=32 + layout.size - WIDE, depth=8)
        valid = accept
        for i in range(5):
            v = Signal(name=f"valid{i}")
            m.d.sync += v.eq(valid)
            valids.append(v)
            valid = v
        entry = Signal(layout)
        m.d.comb += [
            silus.w_en.eq(valid), silus.w_data.eq(silu),
            entry.column.eq(row.column), entry.index.eq(row.row >> 1), entry.dest.eq(row.dest),
            entry.end.eq((row.row[1:6] == 31) | row.last),
            upq.w_en.eq(rows.valid & rows.ready & row.odd),
        ]
        m.d.comb += upq.w_data.eq(entry.as_value()[WIDE:] << 32 | row.value.as_unsigned())
        both = Signal()
        m.d.comb += [both.eq(silus.r_rdy & upq.r_rdy), silus.r_en.eq(both), upq.r_en.eq(both)]
        a, b = Signal(signed(33), reset_less=True), Signal(signed(32), reset_less=True)
        product = Signal(signed(65), reset_less=True)
        rounded = Signal(signed(66 - DROPPED), reset_less=True)
        tag1, tag2, tag3 = (Signal(layout.size - WIDE, name=f"tag{i}", reset_less=True) for i in range(3))
        v1, v2, v3 = (Signal(name=f"v{i}") for i in range(1, 4))
        m.d.sync += [
            a.eq(silus.r_data.as_signed()), b.eq(upq.r_data[:32].as_signed()), tag1.eq(upq.r_data[32:]), v1.eq(both),
            product.eq(a * b), tag2.eq(tag1), v2.eq(v1),
            rounded.eq((product + (1 << DROPPED - 1)) >> DROPPED), tag3.eq(tag2), v3.eq(v2),
        ]
        clamped, flag = saturate(m, rounded, WIDE)
        m.d.comb += [
            results.w_en.eq(v3), results.w_data.eq(tag3 << WIDE | clamped.as_unsigned()), self.saturated.eq(v3 & flag),
            self.values.valid.eq(results.r_rdy), self.values.payload.eq(results.r_data), results.r_en.eq(self.values.ready),
            self.busy.eq(room != 8),
        ]
        return m
