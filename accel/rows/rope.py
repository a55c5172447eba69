"""Rotary position embedding of row pairs. Computes :func:`llama2_spec.golden.rotate`. Ref: Su et al. 2021, RoFormer."""
from types import SimpleNamespace

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.interfaces import FrequencyRead, ModelConstants, Row, Wide
from accel.lib.numeric import credits, delay
from accel.lib.pipeline import Pipeline
from accel.lib.stream import Queue
from accel.lib.table import InterpolatedTable
from llama2_spec.numerics import WIDE
from llama2_spec.registers import Dest
from llama2_spec.tables import SINE

DEPTH = 32          #: rows on their way; the pipe is 17 deep
ROTATED = 34        #: bits of a rotated element


class Rope(wiring.Component):
    """Rotates Q and K rows, lets V rows pass, and cuts all three into heads for the quantiser. Computes
    :func:`llama2_spec.golden.rotate`. One row per cycle, taken only while the queue behind the pipe has a place for its
    result, so the pipe never stops.

    An even row looks up the sine of its pair's angle, the odd row that follows the cosine; V has sine 0 and cosine 1.

    Members
    -------
    rows : In(stream of Row)
        Pairs (even, odd) of one column.
    positions : In(array of 17 by column)
        Position of each column; constant while rows of Q or K come.
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
    budget_lut = 244

    def __init__(self, *, columns):
        self.columns = columns
        super().__init__({
            "busy": Out(1), "positions": In(data.ArrayLayout(17, columns)), "model": In(ModelConstants()),
            "rows": In(stream.Signature(Row(columns))), "values": Out(stream.Signature(Wide(columns))),
            "frequencies": Out(FrequencyRead()),
        })

    def elaborate(self, platform):
        m = Module()
        s = SimpleNamespace()               # signals that several steps share
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
        enter = Signal()
        given = delay(m, self.values.valid & self.values.ready, 1, "given", valid=True)
        s.room, some_room = credits(m, DEPTH, enter, given)
        m.d.comb += [rows.ready.eq(some_room), enter.eq(rows.ready & rows.valid)]
        s.take, s.row = delay(m, enter, 1, "take", valid=True), delay(m, rows.payload, 1, "row")
        s.starts = delay(m, rows.payload.row == 0, 1, "first")
        s.pipe = Pipeline(m)

    def _place(self, m, s):
        """Place in the head."""
        # 1: place in the head, counted, for head_dim need not be a power of two; pairs come column by column
        # one after the other, so that a pair's last bit tells whether it is a new one
        pair = Signal()
        place = Signal(8)
        last_in_head = Signal()
        m.d.comb += last_in_head.eq(place + 2 == self.model.head_dim)
        with m.If(s.take & ~s.row.odd):
            m.d.sync += [pair.eq(s.row.row[1]),
                         place.eq(Mux(s.starts, 0, Mux(s.row.row[1] == pair, place, Mux(last_in_head, 0, place + 2))))]
        s.row1 = s.pipe.carry("row", s.pipe.enter(s.row)).at(1)
        position = self.positions[s.row.column] if self.columns > 1 else self.positions[0]
        s.position = s.pipe.register("position", s.pipe.enter(position), 17)
        m.d.comb += self.frequencies.index.eq(place >> 1)
        tag, row = Signal(s.layout, name="place_tag"), s.row1.plain
        m.d.comb += [tag.column.eq(row.column), tag.index.eq(row.row), tag.end.eq(last_in_head & row.odd),
                     tag.dest.eq(row.dest)]
        s.place_tag = s.pipe.carry("place_tag", s.pipe.enter(tag, s.row1.stage))

    def _angle(self, m, s):
        """Sine of the angle for an even row, cosine for an odd one; V passes by 0 and 1."""
        pipe, row, odd = s.pipe, s.row1, s.pipe.carry("odd", s.row1.odd)
        # a cycle after its index, which is of the position's stage
        frequency = pipe.enter(self.frequencies.value, s.position.stage + 1)
        turns = pipe.product("turns", *(pipe.combine(lambda x: Cat(x, Const(0, 1)).as_signed(), x) for x in (
            frequency, pipe.carry("position", s.position).beside(frequency))))
        angle = pipe.register("angle", turns[:32] + (odd.beside(turns) << 30), 32)
        m.submodules.table = table = InterpolatedTable(SINE, latency=4)

        def look_up(angle):
            x = Signal(30, name="x")
            m.d.comb += [x.eq(Mux(angle[30], ~angle[:30], angle[:30])), table.index.eq(x[21:]), table.t.eq(x[9:21])]
            return table.value
        sine = pipe.combine(look_up, angle, latency=table.latency)
        factor = pipe.combine(lambda passing, odd, negative, sine: Mux(passing, odd << 16, Mux(negative, -sine, sine)),
                              pipe.carry("passing", row.dest == Dest.V).beside(sine), odd.beside(sine),
                              pipe.carry("negative", angle[31]).beside(sine), sine)
        s.factor = pipe.register("factor", factor, signed(18))

    def _pair(self, m, s):
        """The pair is complete."""
        value, tag = s.pipe.carry("value", s.row1.value).beside(s.factor).plain, s.place_tag.beside(s.factor).plain
        valid, factor = s.pipe.carry("valid", s.pipe.enter(s.take), valid=True).beside(s.factor).plain, s.factor.plain
        # Its two rows with the factors of the even row, then with those of the odd one
        held = Signal(signed(32), reset_less=True)
        held_factor = Signal.like(factor, reset_less=True)
        s.even = Signal.like(held, reset_less=True)
        s.odd = Signal.like(held, reset_less=True)
        s.of_even = Signal.like(factor, reset_less=True)
        s.of_odd = Signal.like(factor, reset_less=True)
        s.tag = Signal(s.layout, reset_less=True)
        complete = valid & tag.index[0]
        s.first = delay(m, complete, 1, "first", valid=True)
        s.second = delay(m, s.first, 1, "second", valid=True)
        with m.If(valid):
            m.d.sync += [held.eq(value), held_factor.eq(factor)]
        with m.If(complete):
            m.d.sync += [s.even.eq(held), s.odd.eq(value), s.of_even.eq(factor), s.of_odd.eq(held_factor),
                         s.tag.eq(tag)]
        with m.Elif(s.first):
            m.d.sync += [s.of_even.eq(s.of_odd), s.of_odd.eq(s.of_even)]

    def _rotate(self, m, s):
        """The rotated element."""
        pipe = Pipeline(m)                  # from the registers of the pair on
        even, odd = (pipe.product(f"{name}_product", pipe.enter(row), pipe.enter(factor))
                     for name, row, factor in (("even", s.even, s.of_even), ("odd", s.odd, s.of_odd)))
        second = pipe.carry("second_row", pipe.enter(s.second))

        def add(even, odd, second):
            minus = ~second                 # a difference as a sum with a carry: one adder
            return (Cat(1, even).as_signed() + Cat(minus, odd ^ minus.replicate(len(odd))).as_signed()) >> 1
        sum_ = pipe.register("total", pipe.combine(add, even, odd, second.beside(even)), signed(51))
        total, second = sum_.plain, second.beside(sum_).plain
        tag = pipe.carry("tag", pipe.enter(s.tag)).beside(sum_).plain
        valid = pipe.carry("rotated", pipe.enter(s.first | s.second), valid=True).beside(sum_).plain
        result = Signal(s.layout)
        m.d.comb += [
            result.eq(tag), result.value.eq((total >> 16) + total[15]), result.index[0].eq(second),
            result.end.eq(tag.end & second),
            s.results.write.eq(valid),
            s.results.data.eq(Cat(result.value[:ROTATED], result.as_value()[len(result.value):])),
            s.out.as_value().eq(Cat(s.results.output.payload[:ROTATED],
                                    s.results.output.payload[ROTATED - 1].replicate(WIDE - ROTATED),
                                  s.results.output.payload[ROTATED:])),
            self.values.valid.eq(s.results.output.valid), s.results.output.ready.eq(self.values.ready),
            self.busy.eq(s.room != DEPTH),
        ]
