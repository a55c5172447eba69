"""Rotary position embedding of row pairs. Computes :func:`llama2_spec.golden.rotate`. Ref: Su et al. 2021, RoFormer."""
from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from accel.numeric import credits, delay, product_of
from accel.quantiser import wide_layout
from accel.row_scale import row_layout
from accel.stage import Queue
from accel.table import InterpolatedTable
from llama2_spec.numerics import WIDE
from llama2_spec.registers import Dest
from llama2_spec.tables import SINE

DEPTH = 32          #: rows on their way; the pipe is 17 deep
ROTATED = 34        #: bits of a rotated element


class Rope(wiring.Component):
    """A row a cycle: rotates Q and K rows, lets V rows pass, and cuts all three into heads for the quantiser.

    An even row looks up the sine of its pair's angle, the odd row that follows the cosine; V has sine 0 and cosine 1.

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
        rows, out = self.rows, self.values.payload
        layout = wide_layout(self.columns)
        m.submodules.results = results = Queue(layout.size - WIDE + ROTATED, depth=DEPTH)
        enter, given = Signal(), delay(m, self.values.valid & self.values.ready, 1, "given", valid=True)
        room, some_room = credits(m, DEPTH, enter, given)
        m.d.comb += [rows.ready.eq(some_room), enter.eq(rows.ready & rows.valid)]
        take, row, first = delay(m, enter, 1, "take", valid=True), delay(m, rows.payload, 1, "row"), delay(m, rows.payload.row == 0, 1, "first")
        valid10 = delay(m, take, 10, "valid", valid=True)

        # 1: place in the head, counted, for head_dim need not be a power of two; pairs come column by column ----
        # one after the other, so that a pair's last bit tells whether it is a new one
        pair, place, last_in_head = Signal(), Signal(8), Signal()
        m.d.comb += last_in_head.eq(place + 2 == self.head_dim)
        with m.If(take & ~row.odd):
            m.d.sync += [pair.eq(row.row[1]),
                         place.eq(Mux(first, 0, Mux(row.row[1] == pair, place, Mux(last_in_head, 0, place + 2))))]
        row1, position1 = delay(m, row, 1, "row1"), Signal(17, reset_less=True)
        m.d.sync += position1.eq(self.position + row.column)
        m.d.comb += self.frequency_index.eq(place >> 1)
        tag1 = Signal(layout)
        m.d.comb += [tag1.column.eq(row1.column), tag1.index.eq(row1.row), tag1.end.eq(last_in_head & row1.odd),
                     tag1.dest.eq(row1.dest)]
        tag10 = delay(m, tag1, 9, "tag")

        # 2: frequency; 3, 4: times position; 5: the angle of this row's lookup; 6 to 9: table; 10: sine or cosine --
        position2 = delay(m, position1, 1, "position2")
        product4 = product_of(m, Cat(self.frequency, Const(0, 1)).as_signed(), Cat(position2, Const(0, 1)).as_signed(), "turns")
        odd4 = delay(m, row1.odd, 3, "odd")
        angle5, x = Signal(32, reset_less=True), Signal(30)
        m.d.sync += angle5.eq(product4[:32] + (odd4 << 30))
        m.submodules.table = table = InterpolatedTable(SINE, latency=4)
        m.d.comb += [x.eq(Mux(angle5[30], ~angle5[:30], angle5[:30])), table.index.eq(x[21:]), table.t.eq(x[9:21])]
        negative9 = delay(m, angle5[31], 4, "negative")
        odd9, passing9 = delay(m, odd4, 5, "odd_found"), delay(m, row1.dest == Dest.V, 8, "passing")
        factor10 = Signal(signed(18), reset_less=True)
        m.d.sync += factor10.eq(Mux(passing9, odd9 << 16, Mux(negative9, -table.value, table.value)))
        value10 = delay(m, row1.value, 9, "value")

        # 11: the pair is complete, with the factors of its even row, then of its odd row; 12, 13: products; 14: their sum --
        held, held_factor = Signal(signed(32), reset_less=True), Signal.like(factor10, reset_less=True)
        even, odd = Signal.like(held, reset_less=True), Signal.like(held, reset_less=True)
        of_even, of_odd = Signal.like(factor10, reset_less=True), Signal.like(factor10, reset_less=True)
        tag = Signal(layout, reset_less=True)
        complete = valid10 & tag10.index[0]
        first11 = delay(m, complete, 1, "first11", valid=True)
        second11 = delay(m, first11, 1, "second11", valid=True)
        with m.If(valid10):
            m.d.sync += [held.eq(value10), held_factor.eq(factor10)]
        with m.If(complete):
            m.d.sync += [even.eq(held), odd.eq(value10), of_even.eq(factor10), of_odd.eq(held_factor), tag.eq(tag10)]
        with m.Elif(first11):
            m.d.sync += [of_even.eq(of_odd), of_odd.eq(of_even)]
        even13, odd13 = product_of(m, even, of_even, "even_product"), product_of(m, odd, of_odd, "odd_product")
        valid14 = delay(m, first11 | second11, 3, "valid14", valid=True)
        second13, tag14 = delay(m, second11, 2, "second13"), delay(m, tag, 3, "tag14")
        second14 = delay(m, second13, 1, "second14")
        total14 = Signal(signed(51), reset_less=True)
        minus = ~second13                   # a difference as a sum with a carry: one adder
        m.d.sync += total14.eq((Cat(1, even13).as_signed() + Cat(minus, odd13 ^ minus.replicate(len(odd13))).as_signed()) >> 1)
        result = Signal(layout)
        m.d.comb += [
            result.eq(tag14), result.value.eq((total14 >> 16) + total14[15]), result.index[0].eq(second14),
            result.end.eq(tag14.end & second14),
            results.write.eq(valid14), results.data.eq(Cat(result.value[:ROTATED], result.as_value()[len(result.value):])),
            out.as_value().eq(Cat(results.output.payload[:ROTATED], results.output.payload[ROTATED - 1].replicate(WIDE - ROTATED),
                                  results.output.payload[ROTATED:])),
            self.values.valid.eq(results.output.valid), results.output.ready.eq(self.values.ready), self.busy.eq(room != DEPTH),
        ]
        return m
