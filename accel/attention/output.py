"""The end of attention: each head's sums divided by its mass, element by element."""
from types import SimpleNamespace

from amaranth.hdl import Cat, Const, Module, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.attention.dots import SHAPE
from accel.attention.scores import MASS
from accel.interfaces import AttentionElement
from accel.lib.numeric import bit_length, delay, product_of, shift_right
from accel.lib.stream import Queue
from accel.lib.table import InterpolatedTable
from llama2_spec.numerics import WIDE
from llama2_spec.tables import RECIPROCAL

DEPTH = 32          # elements on their way, for some 18 cycles, or waiting
LEAST = 14          # bits of the smallest mass: the weight that set the maximum is at least 2**13
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
    slot, lane : Out(range(max_dim // 8)), Out(3)
        Element whose ``sum`` is needed, three cycles later.
    shape : In(SHAPE)
        What the model's shape means to attention; constant while rows come.
    mass : In(MASS)
        Of ``head``; valid a cycle after it.
    top : In(6)
        Largest V exponent of ``head``; valid a cycle after it.
    sum : In(signed(WIDE))
        Of ``slot`` and ``lane``; valid three cycles after them.
    elements : Out(stream of element)
        The output, elements of a head after those of the head before; held until taken.
    """
    latency = 13        #: from an element's turn to its place in the queue

    def __init__(self, *, max_heads, max_dim):
        self.max_heads, self.max_dim = max_heads, max_dim
        self.element = AttentionElement()
        super().__init__({
            "shape": In(SHAPE), "start": In(1), "summed": In(1), "head": Out(6), "mass": In(MASS), "top": In(6),
            "slot": Out(range(max_dim // 8)), "lane": Out(3), "sum": In(signed(WIDE)),
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
        s.found, s.current = Signal(data.StructLayout({"down": 5, "top": 6, "last": 1})), Signal(s.scale)
        s.mass, s.bits, s.leading = Signal(MASS), Signal(range(MASS + 1)), Signal(22)
        # Of each eight bits, then of all
        s.eights = [delay(m, bit_length(m, self.mass[i:i + 8], name=f"bits{i}"), 1, f"length{i}")
                    for i in range(0, MASS, 8)]
        m.submodules.table = s.table = InterpolatedTable(RECIPROCAL, latency=4)
        s.ready, s.take = Signal(), Signal()
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
                             s.found.top.eq(self.top), s.found.last.eq(self.head == s.shape.last_head)]
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
        active, s.issue, has_room, s.last_element = Signal(), Signal(), Signal(), Signal()
        s.lane, slot = Signal(3), Signal(4)
        m.d.comb += [s.issue.eq(active & has_room),
                     s.take.eq(s.ready & self.summed & (~active | s.issue & s.last_element))]
        left = delay(m, s.results.output.ready & s.results.output.valid, 1, "left", valid=True)
        m.d.sync += [room.eq(room - s.issue + left), has_room.eq(room[1:] != 0)]
        with m.If(s.issue):
            m.d.sync += [s.lane.eq(s.lane + 1), s.last_element.eq((s.lane == 6) & (slot == s.shape.last_slot))]
            with m.If(s.lane == 7):
                m.d.sync += [slot.eq(slot + 1), self.slot.eq(self.slot + 1)]
            with m.If(s.last_element):
                m.d.sync += [slot.eq(0), active.eq(0)]
        with m.If(s.take):
            m.d.sync += [active.eq(1), s.current.eq(Cat(s.found, s.table.value))]
        with m.If(self.start):
            m.d.sync += self.slot.eq(0)

    def _average(self, m, s):
        """Sums in units of the mass."""
        # 1 to 3: the sum is fetched; 4: there; 5: shifted by eights; 6: by the rest; 7: rounded; 8: again; 9, 10: times
        # the reciprocal; 11: rounded; 12: shifted up by 16s; 13: by the rest
        tag0 = Signal(s.scale)
        m.d.comb += [tag0.eq(s.current), tag0.last.eq(s.current.last & s.last_element), self.lane.eq(s.lane)]
        s.tags = [tag0]
        for i in range(13):
            s.tags.append(delay(m, s.tags[-1], 1, f"tag{i + 1}"))
        sum4 = delay(m, self.sum, 1, "sum4")
        eights5 = Signal(signed(AVERAGE + 1 + 7), reset_less=True)
        wide6 = Signal(signed(AVERAGE + 1), reset_less=True)
        a7, s.a8 = (Signal(signed(AVERAGE), name=name, reset_less=True) for name in ("a7", "a8"))
        m.d.sync += [
            eights5.eq(shift_right(m, Cat(Const(0, 1 + 16 - LEAST), sum4), Cat(Const(0, 3), s.tags[4].down[3:]),
                                   name="eights")),
            wide6.eq(shift_right(m, eights5, s.tags[5].down[:3], name="ones")),
            a7.eq((wide6 >> 1) + wide6[0]), s.a8.eq(a7),
        ]

    def _divide(self, m, s):
        """Times the reciprocal, shifted up."""
        product10 = product_of(m, s.a8, Cat(s.tags[8].reciprocal, Const(0, 1)).as_signed(), "quotient")
        rounded11 = Signal(signed(AVERAGE + 2), reset_less=True)
        value12, s.value13 = Signal(signed(WIDE), reset_less=True), Signal(signed(WIDE), reset_less=True)
        m.d.sync += rounded11.eq((product10 >> 16) + product10[15])
        with m.Switch(s.tags[11].top[4:]):
            for i in range(4):
                with m.Case(i):
                    m.d.sync += value12.eq(rounded11 << 16 * i)
        fours = Signal(signed(WIDE))
        with m.Switch(s.tags[12].top[2:4]):
            for i in range(4):
                with m.Case(i):
                    m.d.comb += fours.eq(value12 << 4 * i)
        with m.Switch(s.tags[12].top[:2]):
            for i in range(4):
                with m.Case(i):
                    m.d.sync += s.value13.eq(fours << i)

    def _leave(self, m, s):
        """Elements leave."""
        # A register behind the queue: the path queue memory -> wide intake ends here
        out = self.elements
        m.d.comb += [
            s.results.write.eq(delay(m, s.issue, 13, "valid", valid=True)),
            s.results.data.eq(Cat(s.value13, s.tags[13].last)), s.results.output.ready.eq(~out.valid | out.ready),
        ]
        with m.If(s.results.output.ready):
            m.d.sync += [out.valid.eq(s.results.output.valid), out.payload.eq(s.results.output.payload)]
