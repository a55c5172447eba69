"""Rotary position embedding of row pairs. Computes :func:`spec.golden.rotate`. Ref: Su et al. 2021, RoFormer."""
from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from accel.quantiser import wide_layout
from accel.row_scale import row_layout
from accel.table import InterpolatedTable
from spec.registers import Dest
from spec.tables import SINE


class Rope(wiring.Component):
    """Rotates Q and K rows, lets V rows pass, and cuts all three into heads for the quantiser.

    Members
    -------
    rows : In(stream)
        Pairs (even, odd) of one column.
    position, head_dim : In
        Position of column 0; elements of a head.
    frequency_index, frequency : Out, In
        Turns per position as a fraction of 2**32, one cycle after its index.
    """
    def __init__(self, *, columns):
        self.columns = columns
        super().__init__({
            "busy": Out(1), "position": In(17), "head_dim": In(8),
            "rows": In(stream.Signature(row_layout(columns))), "values": Out(stream.Signature(wide_layout(columns))),
            "frequency_index": Out(6), "frequency": In(32),
        })

    def elaborate(self, platform):
        m = Module()
        rows, row = self.rows, self.rows.payload
        out = self.values.payload
        even = Signal(signed(32))
        odd = Signal(signed(32))
        tag = Signal.like(row.as_value())
        taken = Signal(row_layout(self.columns))
        m.d.comb += taken.as_value().eq(tag)
        # Place in the head: counted, for head_dim need not be a power of two
        place = Signal(8)
        last_in_head = Signal()
        m.d.comb += last_in_head.eq(place + 2 == self.head_dim)

        m.submodules.table = table = InterpolatedTable(SINE)
        product = Signal(32)
        angle = Signal(32)
        quadrant_x = Signal(30)
        m.d.comb += [
            self.frequency_index.eq(place >> 1),
            quadrant_x.eq(Mux(angle[30], ~angle[:30], angle[:30])),
            table.index.eq(quadrant_x[21:]), table.t.eq(quadrant_x[9:21]),
        ]
        signs = [Signal(name=f"sign{i}") for i in range(4)]
        m.d.sync += [signs[0].eq(angle[31])] + [b.eq(a) for a, b in zip(signs, signs[1:])]
        sine, cosine = Signal(signed(18)), Signal(signed(18))
        lookup = Signal(signed(18))
        m.d.comb += lookup.eq(Mux(signs[2], -table.value, table.value))
        p1, p2 = Signal(signed(50)), Signal(signed(50))
        total = Signal(signed(51))
        rounded = Signal(signed(35))
        m.d.comb += rounded.eq((total + (1 << 15)) >> 16)
        pair_position = Signal(17)
        # pairs come column by column: advance the place after the last active column, when the row number moves
        previous_row = Signal(18)
        m.d.comb += [out.column.eq(taken.column), out.dest.eq(taken.dest)]
        passing = row.dest == Dest.V
        step = Signal(3)
        with m.FSM() as fsm:
            with m.State("EVEN"):
                with m.If(rows.valid & passing):
                    m.d.comb += rows.ready.eq(1)
                    m.d.sync += [tag.eq(row), odd.eq(row.value)]
                    m.next = "PASS"
                with m.Elif(rows.valid):
                    m.d.comb += rows.ready.eq(1)
                    m.d.sync += [tag.eq(row), even.eq(row.value), pair_position.eq(self.position + row.column)]
                    m.next = "PLACE"
            with m.State("PLACE"):
                with m.If(taken.row == 0):
                    m.d.sync += place.eq(0)
                with m.Elif(taken.row != previous_row):
                    m.d.sync += place.eq(Mux(last_in_head, 0, place + 2))
                m.d.sync += previous_row.eq(taken.row)
                m.next = "FREQUENCY"
            with m.State("FREQUENCY"):
                m.next = "MULTIPLY"
            with m.State("MULTIPLY"):
                m.d.sync += [product.eq(self.frequency * pair_position), step.eq(0)]
                m.next = "LOOKUP"
            with m.State("LOOKUP"):
                m.d.sync += [angle.eq(Mux(step == 0, product, product + (1 << 30))), step.eq(step + 1)]
                with m.If(step == 4):
                    m.d.sync += sine.eq(lookup)
                with m.If(step == 5):
                    m.d.sync += cosine.eq(lookup)
                    m.next = "ODD"
            with m.State("ODD"):
                m.d.comb += rows.ready.eq(1)
                with m.If(rows.valid):
                    m.d.sync += odd.eq(row.value)
                    m.next = "PRODUCTS"
            with m.State("PRODUCTS"):
                m.d.sync += [p1.eq(even * cosine), p2.eq(odd * sine)]
                m.next = "PRODUCTS-2"
            with m.State("PRODUCTS-2"):
                m.d.sync += [p1.eq(even * sine), p2.eq(odd * cosine), total.eq(p1 - p2)]
                m.next = "SEND-EVEN"
            with m.State("SEND-EVEN"):
                m.d.comb += [self.values.valid.eq(1), out.value.eq(rounded), out.index.eq(taken.row), out.end.eq(0)]
                with m.If(self.values.ready):
                    m.d.sync += total.eq(p1 + p2)
                    m.next = "SEND-ODD"
            with m.State("SEND-ODD"):
                m.d.comb += [self.values.valid.eq(1), out.value.eq(rounded), out.index.eq(taken.row | 1),
                             out.end.eq(last_in_head)]
                with m.If(self.values.ready):
                    m.next = "EVEN"
            with m.State("PASS"):
                # V: place follows the row as above, one row at a time
                with m.If(~taken.odd):
                    with m.If(taken.row == 0):
                        m.d.sync += place.eq(0)
                    with m.Elif(taken.row != previous_row):
                        m.d.sync += place.eq(Mux(last_in_head, 0, place + 2))
                    m.d.sync += previous_row.eq(taken.row)
                m.next = "SEND"
            with m.State("SEND"):
                m.d.comb += [self.values.valid.eq(1), out.value.eq(odd), out.index.eq(taken.row),
                             out.end.eq(last_in_head & taken.odd)]
                with m.If(self.values.ready):
                    m.next = "EVEN"
        m.d.comb += self.busy.eq(~fsm.ongoing("EVEN"))
        return m


