"""Rotary position embedding of row pairs. Computes :func:`spec.golden.rotate`. Ref: Su et al. 2021, RoFormer."""
from types import SimpleNamespace

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from accel.interfaces import FrequencyRead, ModelConstants, Row, Wide
from accel.lib.numeric import credits, delay, product_of
from accel.lib.stream import Queue
from accel.lib.table import InterpolatedTable
from spec.numerics import WIDE
from spec.registers import Dest
from spec.tables import SINE

DEPTH = 32          #: rows on their way; the pipe is 17 deep
ROTATED = 34        #: bits of a rotated element


class Rope(wiring.Component):
    """Rotates Q and K rows, lets V rows pass, and cuts all three into heads for the quantiser. Computes :func:`spec.golden.rotate`. One row per cycle,
    taken only while the queue behind the pipe has a place for its result, so the pipe never stops.

    An even row looks up the sine of its pair's angle, the odd row that follows the cosine; V has sine 0 and cosine 1.

    Members
    -------
    rows : In(stream of Row)
        Pairs (even, odd) of one column.
    position : In(17)
        Position of column 0; elements of a head.
    busy : Out(1)
        Work is in flight; a fence waits for its end.
    model : In(ModelConstants)
        Constants of the model, see the interface.
    values : Out(stream of Wide)
        Rotated Q and K rows, V rows as they came, cut into heads; held until taken.
    frequencies : Out(FrequencyRead)
        Turns per position of the pair being rotated.
    """
    latency = 15        #: from a pair's odd row to its even result's place in the queue

    def __init__(self, *, columns):
        self.columns = columns
        super().__init__({
            "busy": Out(1), "position": In(17), "model": In(ModelConstants()),
            "rows": In(stream.Signature(Row(columns))), "values": Out(stream.Signature(Wide(columns))),
            "frequencies": Out(FrequencyRead()),
        })

    def elaborate(self, platform):
        m = Module()
        s = SimpleNamespace()             # what several steps share
        self._enter(m, s)
        self._place(m, s)
        self._angle(m, s)
        self._pair(m, s)
        self._rotate(m, s)
        return m

    def _enter(self, m, s):
        """Rows come, while there is room for the results."""
        rows, s.out = self.rows, self.values.payload
        s.layout = Wide(self.columns)
        m.submodules.results = s.results = Queue(s.layout.size - WIDE + ROTATED, depth=DEPTH)
        enter, given = Signal(), delay(m, self.values.valid & self.values.ready, 1, "given", valid=True)
        s.room, some_room = credits(m, DEPTH, enter, given)
        m.d.comb += [rows.ready.eq(some_room), enter.eq(rows.ready & rows.valid)]
        s.take, s.row, s.first = delay(m, enter, 1, "take", valid=True), delay(m, rows.payload, 1, "row"), delay(m, rows.payload.row == 0, 1, "first")
        s.valid10 = delay(m, s.take, 10, "valid", valid=True)

    def _place(self, m, s):
        """Place in the head."""
        # 1: place in the head, counted, for head_dim need not be a power of two; pairs come column by column ----
        # one after the other, so that a pair's last bit tells whether it is a new one
        pair, place, last_in_head = Signal(), Signal(8), Signal()
        m.d.comb += last_in_head.eq(place + 2 == self.model.head_dim)
        with m.If(s.take & ~s.row.odd):
            m.d.sync += [pair.eq(s.row.row[1]),
                         place.eq(Mux(s.first, 0, Mux(s.row.row[1] == pair, place, Mux(last_in_head, 0, place + 2))))]
        s.row1, s.position1 = delay(m, s.row, 1, "row1"), Signal(17, reset_less=True)
        m.d.sync += s.position1.eq(self.position + s.row.column)
        m.d.comb += self.frequencies.index.eq(place >> 1)
        tag1 = Signal(s.layout)
        m.d.comb += [tag1.column.eq(s.row1.column), tag1.index.eq(s.row1.row), tag1.end.eq(last_in_head & s.row1.odd),
                     tag1.dest.eq(s.row1.dest)]
        s.tag10 = delay(m, tag1, 9, "tag")

    def _angle(self, m, s):
        """The angle of this row; sine or cosine."""
        # 2: frequency; 3, 4: times position; 5: the angle of this row's lookup; 6 to 9: table; 10: sine or cosine --
        position2 = delay(m, s.position1, 1, "position2")
        product4 = product_of(m, Cat(self.frequencies.value, Const(0, 1)).as_signed(), Cat(position2, Const(0, 1)).as_signed(), "turns")
        odd4 = delay(m, s.row1.odd, 3, "odd")
        angle5, x = Signal(32, reset_less=True), Signal(30)
        m.d.sync += angle5.eq(product4[:32] + (odd4 << 30))
        m.submodules.table = table = InterpolatedTable(SINE, latency=4)
        m.d.comb += [x.eq(Mux(angle5[30], ~angle5[:30], angle5[:30])), table.index.eq(x[21:]), table.t.eq(x[9:21])]
        negative9 = delay(m, angle5[31], 4, "negative")
        odd9, passing9 = delay(m, odd4, 5, "odd_found"), delay(m, s.row1.dest == Dest.V, 8, "passing")
        s.factor10 = Signal(signed(18), reset_less=True)
        m.d.sync += s.factor10.eq(Mux(passing9, odd9 << 16, Mux(negative9, -table.value, table.value)))
        s.value10 = delay(m, s.row1.value, 9, "value")

    def _pair(self, m, s):
        """The pair is complete."""
        # 11: the pair is complete, with the factors of its even row, then of its odd row; 12, 13: products; 14: their sum --
        held, held_factor = Signal(signed(32), reset_less=True), Signal.like(s.factor10, reset_less=True)
        s.even, s.odd = Signal.like(held, reset_less=True), Signal.like(held, reset_less=True)
        s.of_even, s.of_odd = Signal.like(s.factor10, reset_less=True), Signal.like(s.factor10, reset_less=True)
        s.tag = Signal(s.layout, reset_less=True)
        complete = s.valid10 & s.tag10.index[0]
        s.first11 = delay(m, complete, 1, "first11", valid=True)
        s.second11 = delay(m, s.first11, 1, "second11", valid=True)
        with m.If(s.valid10):
            m.d.sync += [held.eq(s.value10), held_factor.eq(s.factor10)]
        with m.If(complete):
            m.d.sync += [s.even.eq(held), s.odd.eq(s.value10), s.of_even.eq(s.factor10), s.of_odd.eq(held_factor), s.tag.eq(s.tag10)]
        with m.Elif(s.first11):
            m.d.sync += [s.of_even.eq(s.of_odd), s.of_odd.eq(s.of_even)]

    def _rotate(self, m, s):
        """The rotated element."""
        even13, odd13 = product_of(m, s.even, s.of_even, "even_product"), product_of(m, s.odd, s.of_odd, "odd_product")
        valid14 = delay(m, s.first11 | s.second11, 3, "valid14", valid=True)
        second13, tag14 = delay(m, s.second11, 2, "second13"), delay(m, s.tag, 3, "tag14")
        second14 = delay(m, second13, 1, "second14")
        total14 = Signal(signed(51), reset_less=True)
        minus = ~second13                   # a difference as a sum with a carry: one adder
        m.d.sync += total14.eq((Cat(1, even13).as_signed() + Cat(minus, odd13 ^ minus.replicate(len(odd13))).as_signed()) >> 1)
        result = Signal(s.layout)
        m.d.comb += [
            result.eq(tag14), result.value.eq((total14 >> 16) + total14[15]), result.index[0].eq(second14),
            result.end.eq(tag14.end & second14),
            s.results.write.eq(valid14), s.results.data.eq(Cat(result.value[:ROTATED], result.as_value()[len(result.value):])),
            s.out.as_value().eq(Cat(s.results.output.payload[:ROTATED], s.results.output.payload[ROTATED - 1].replicate(WIDE - ROTATED),
                                  s.results.output.payload[ROTATED:])),
            self.values.valid.eq(s.results.output.valid), s.results.output.ready.eq(self.values.ready), self.busy.eq(s.room != DEPTH),
        ]
