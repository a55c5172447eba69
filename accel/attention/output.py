"""The end of attention: each head's sums divided by its mass, element by element."""
from types import SimpleNamespace

from amaranth.hdl import Cat, Const, Module, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.attention.softmax import MASS
from accel.attention.walker import SHAPE, word_depth
from accel.interfaces import AttentionElement
from accel.lib.numeric import bit_length, delay, shift_right
from accel.lib.pipeline import Pipeline
from accel.lib.stream import Queue
from accel.lib.table import InterpolatedTable
from llama2_spec.numerics import WIDE
from llama2_spec.tables import RECIPROCAL

DEPTH = 32          # elements on their way, for some 18 cycles, or waiting
LEAST = 14          # bits of the smallest mass: the weight that set the maximum is at least 2**13
FETCH = 3           # cycles from ``word`` and ``lane`` to ``sum``
AVERAGE = 34        # bits of a sum in units of its mass's leading bit: about 2**31 at most


class AttentionOutput(wiring.Component):
    """The division at the end of :func:`llama2_spec.golden.attend`. One element per cycle, begun only while the queue
    behind the pipe has a place for it; the next head's reciprocal is found meanwhile.

    Members
    -------
    start, summed : In(1)
        Mass and top of head 0 are there from the next cycle on; sums may be read as long as ``summed``.
    head : Out(6)
        Head whose ``mass`` and ``top`` are needed, from the next cycle on.
    word, lane : Out(range(words)), Out(range(lanes))
        Element whose ``sum`` is needed, three cycles later: lane of a word, as the values have them.
    heads : In(6)
        Heads minus one; constant while rows come.
    shape : In(SHAPE)
        What the model's shape means to attention; constant while rows come.
    mass : In(MASS)
        Of ``head``; valid a cycle after it.
    top : In(6)
        Largest V exponent of ``head``; valid a cycle after it.
    sum : In(signed(WIDE))
        Of ``word`` and ``lane``; valid three cycles after them.
    elements : Out(stream of element)
        The output, elements of a head after those of the head before; held until taken.
    """
    latency = 13        #: from an element's turn to its place in the queue

    def __init__(self, *, max_heads, max_dim, lanes=8):
        self.max_heads, self.max_dim, self.lanes = max_heads, max_dim, lanes
        self.element = AttentionElement()
        super().__init__({
            "shape": In(SHAPE), "start": In(1), "summed": In(1), "head": Out(6), "mass": In(MASS), "top": In(6),
            "heads": In(6), "word": Out(range(word_depth(lanes, max_heads, max_dim))), "lane": Out(range(lanes)),
            "sum": In(signed(WIDE)),
            "elements": Out(stream.Signature(self.element)),
        })

    def elaborate(self, platform):
        m = Module()
        s = SimpleNamespace()               # signals that several steps share
        self._reciprocal_registers(m, s)
        self._reciprocal(m, s)
        self._issue(m, s)
        self._average(m, s)
        self._divide(m, s)
        self._leave(m, s)
        return m

    def _reciprocal_registers(self, m, s):
        """A head's mass and the table."""
        s.shape = self.shape

        # Reciprocal of a head's mass, ahead of its elements
        s.scale = data.StructLayout({"down": 5, "top": 6, "last": 1, "reciprocal": 17})
        s.found = Signal(data.StructLayout({"down": 5, "top": 6, "last": 1}))
        s.current = Signal(s.scale)
        s.mass = Signal(MASS)
        s.bits = Signal(range(MASS + 1))
        s.leading = Signal(22)
        # Of each eight bits, then of all
        s.eights = [delay(m, bit_length(m, self.mass[i:i + 8], name=f"bits{i}"), 1, f"length{i}")
                    for i in range(0, MASS, 8)]
        m.submodules.table = s.table = InterpolatedTable(RECIPROCAL, latency=4)
        s.ready = Signal()
        s.take = Signal()
        m.d.comb += [s.table.index.eq(s.leading[12:21]), s.table.t.eq(s.leading[:12])]

    def _reciprocal(self, m, s):
        """Reciprocal of a head's mass, ahead of its elements."""
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += self.head.eq(0)
                with m.If(self.start):
                    m.next = "MASS"
            with m.State("MASS"):
                m.d.sync += [self.head.eq(self.head + 1), s.mass.eq(self.mass),
                             s.found.top.eq(self.top), s.found.last.eq(self.head == self.heads)]
                m.next = "LENGTH"
            with m.State("LENGTH"):
                for i, eight in enumerate(s.eights):
                    with m.If(eight != 0):
                        m.d.sync += s.bits.eq(8 * i + eight)
                m.next = "NORMALISE"
            with m.State("NORMALISE"):
                m.d.sync += [s.leading.eq((s.mass << (MASS - s.bits)[:6])[MASS - 22:MASS]),
                             s.found.down.eq(s.bits - LEAST)]
                m.next = "TABLE-1"
            with m.State("TABLE-1"):
                m.next = "TABLE-2"
            with m.State("TABLE-2"):
                m.next = "TABLE-3"
            with m.State("TABLE-3"):
                m.next = "TABLE-4"
            with m.State("TABLE-4"):
                m.next = "FOUND"
            with m.State("FOUND"):
                m.d.comb += s.ready.eq(1)
                with m.If(s.take):
                    m.next = "MASS"
                    with m.If(s.found.last):
                        m.next = "IDLE"

    def _issue(self, m, s):
        """Elements, while there is room for the result."""
        # Elements, while there is room for the result
        m.submodules.results = s.results = Queue(self.element.size, depth=DEPTH)
        room = Signal(range(DEPTH + 1), init=DEPTH)
        # the last two are a cycle ahead
        active = Signal()
        s.issue = Signal()
        has_room = Signal()
        s.last_element = Signal()
        s.lane = Signal(3)
        slot = Signal(4)
        # Slots in their order; a head that does not fill its last word leaves some out
        bits = (self.lanes // 8 - 1).bit_length()
        s.place = Signal(len(self.word) + bits)
        m.d.comb += [s.issue.eq(active & has_room),
                     s.take.eq(s.ready & self.summed & (~active | s.issue & s.last_element))]
        left = delay(m, s.results.output.ready & s.results.output.valid, 1, "left", valid=True)
        m.d.sync += [room.eq(room - s.issue + left), has_room.eq(room[1:] != 0)]
        with m.If(s.issue):
            m.d.sync += [s.lane.eq(s.lane + 1), s.last_element.eq((s.lane == 6) & (slot == s.shape.last_slot))]
            with m.If(s.lane == 7):
                m.d.sync += [slot.eq(slot + 1), s.place.eq(s.place + 1)]
            with m.If(s.last_element):
                m.d.sync += [slot.eq(0), active.eq(0), s.place.eq(s.place + 1 + s.shape.pad[:bits])]
        with m.If(s.take):
            m.d.sync += [active.eq(1), s.current.eq(Cat(s.found, s.table.value))]
        with m.If(self.start):
            m.d.sync += s.place.eq(0)
        m.d.comb += [self.word.eq(s.place[bits:]), self.lane.eq(Cat(s.lane, s.place[:bits]))]

    def _average(self, m, s):
        """Sums in units of the mass. An element enters with its turn."""
        pipe = Pipeline(m)
        tag0 = Signal(s.scale)
        m.d.comb += [tag0.eq(s.current), tag0.last.eq(s.current.last & s.last_element)]
        s.pipe, s.tag = pipe, pipe.carry("tag", pipe.enter(tag0))
        sum_ = pipe.later("sum", pipe.enter(self.sum, FETCH))

        def by_eights(x, down):
            return shift_right(m, Cat(Const(0, 1 + 16 - LEAST), x), Cat(Const(0, 3), down[3:]), name="eights")
        eights = pipe.register("eights", pipe.combine(by_eights, sum_, s.tag.beside(sum_).down),
                               signed(AVERAGE + 1 + 7))
        wide = pipe.register("wide", pipe.combine(lambda x, down: shift_right(m, x, down[:3], name="ones"),
                                                  eights, s.tag.beside(eights).down), signed(AVERAGE + 1))
        average = pipe.register("average", (wide >> 1) + wide[0], signed(AVERAGE))
        s.average = pipe.register("operand", average, signed(AVERAGE))      # beside its multipliers

    def _divide(self, m, s):
        """Times the reciprocal, shifted up: by 16s, then by the rest."""
        pipe, tag = s.pipe, s.tag
        reciprocal = pipe.combine(lambda x: Cat(x, Const(0, 1)).as_signed(), tag.beside(s.average).reciprocal)
        quotient = pipe.product("quotient", s.average, reciprocal)
        rounded = pipe.register("rounded", (quotient >> 16) + quotient[15], signed(AVERAGE + 2))
        value, fours, result = (Signal(signed(WIDE), name=name, reset_less=True)
                                for name in ("value", "fours", "result"))
        with m.Switch(tag.beside(rounded).top[4:].plain):
            for i in range(4):
                with m.Case(i):
                    m.d.sync += value.eq(rounded.plain << 16 * i)
        top = tag.beside(pipe.enter(value, rounded.stage + 1)).top
        with m.Switch(top[2:4].plain):
            for i in range(4):
                with m.Case(i):
                    m.d.comb += fours.eq(value << 4 * i)
        with m.Switch(top[:2].plain):
            for i in range(4):
                with m.Case(i):
                    m.d.sync += result.eq(fours << i)
        s.result = pipe.enter(result, top.stage + 1)
        assert s.result.stage == self.latency

    def _leave(self, m, s):
        """Elements leave."""
        # A register behind the queue: the path queue memory -> wide intake ends here
        out, valid = self.elements, s.pipe.carry("valid", s.pipe.enter(s.issue), valid=True)
        m.d.comb += [
            s.results.write.eq(valid.beside(s.result).plain),
            s.results.data.eq(Cat(s.result.plain, s.tag.beside(s.result).last.plain)),
            s.results.output.ready.eq(~out.valid | out.ready),
        ]
        with m.If(s.results.output.ready):
            m.d.sync += [out.valid.eq(s.results.output.valid), out.payload.eq(s.results.output.payload)]
