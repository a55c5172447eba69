"""The end of attention: each head's sums divided by its mass, element by element."""
from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.attention_scores import MASS, SHAPE
from accel.numeric import bit_length, delay, product_of, shift_right
from accel.table import InterpolatedTable
from spec.numerics import WIDE
from spec.tables import RECIPROCAL

DEPTH = 16          # elements on their way, for 13 cycles, or waiting
LEAST = 14          # bits of the smallest mass: the weight that set the maximum is at least 2**13
AVERAGE = 34        # bits of a sum in units of its mass's leading bit: about 2**31 at most


class AttentionOutput(wiring.Component):
    """An element a cycle; the next head's reciprocal is found meanwhile.

    Members
    -------
    head : Out
        Head whose ``mass`` and ``top`` are needed, from the next cycle on.
    slot, lane : Out
        Element whose ``sum`` is needed, two cycles later.
    """
    def __init__(self, *, max_heads, max_dim):
        self.max_heads, self.max_dim = max_heads, max_dim
        self.element = data.StructLayout({"value": signed(WIDE), "last": 1})
        super().__init__({
            "shape": In(SHAPE), "start": In(1), "head": Out(6), "mass": In(MASS), "top": In(6),
            "slot": Out(range(max_dim // 8)), "lane": Out(3), "sum": In(signed(WIDE)),
            "elements": Out(stream.Signature(self.element)),
        })

    def elaborate(self, platform):
        m = Module()
        shape = self.shape

        # Reciprocal of a head's mass, ahead of its elements --------------------------------------------------
        scale = data.StructLayout({"down": 5, "top": 6, "last": 1, "reciprocal": 17})
        found, current = Signal(data.StructLayout({"down": 5, "top": 6, "last": 1})), Signal(scale)
        mass, bits, leading = Signal(MASS), Signal(range(MASS + 1)), Signal(22)
        length = bit_length(m, mass)
        m.submodules.table = table = InterpolatedTable(RECIPROCAL, latency=4)
        ready, take = Signal(), Signal()
        m.d.comb += [table.index.eq(leading[12:21]), table.t.eq(leading[:12])]
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += self.head.eq(0)
                with m.If(self.start):
                    m.next = "HEAD"
            with m.State("HEAD"):
                m.next = "MASS"
            with m.State("MASS"):
                m.d.sync += [self.head.eq(self.head + 1), mass.eq(self.mass), found.top.eq(self.top), found.last.eq(self.head == shape.last_head)]
                m.next = "LENGTH"
            with m.State("LENGTH"):
                m.d.sync += bits.eq(length)
                m.next = "NORMALISE"
            with m.State("NORMALISE"):
                m.d.sync += [leading.eq((mass << (MASS - bits)[:6])[MASS - 22:MASS]), found.down.eq(bits - LEAST)]
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
                m.d.comb += ready.eq(1)
                with m.If(take):
                    m.next = "MASS"
                    with m.If(found.last):
                        m.next = "IDLE"

        # Elements, while there is room for the result -------------------------------------------------------
        m.submodules.results = results = fifo.SyncFIFO(width=self.element.size, depth=DEPTH)
        room = Signal(range(DEPTH + 1), init=DEPTH)
        active, issue, last_element = Signal(), Signal(), Signal()
        lane, slot = Signal(3), Signal(4)
        m.d.comb += [
            issue.eq(active & (room != 0)), last_element.eq((lane == 7) & (slot == shape.last_slot)),
            take.eq(ready & (~active | issue & last_element)),
        ]
        m.d.sync += room.eq(room - issue + (self.elements.valid & self.elements.ready))
        with m.If(issue):
            m.d.sync += lane.eq(lane + 1)
            with m.If(lane == 7):
                m.d.sync += [slot.eq(slot + 1), self.slot.eq(self.slot + 1)]
            with m.If(last_element):
                m.d.sync += [slot.eq(0), active.eq(0)]
        with m.If(take):
            m.d.sync += [active.eq(1), current.eq(Cat(found, table.value))]
        with m.If(self.start):
            m.d.sync += self.slot.eq(0)

        # 1, 2: the sum is fetched; 3: there; 4: shifted by eights; 5: by the rest; 6: rounded; 7, 8: times the
        # reciprocal; 9: rounded; 10: shifted up by 16s; 11: by the rest --------------------------------------------
        tag0 = Signal(scale)
        m.d.comb += [tag0.eq(current), tag0.last.eq(current.last & last_element), self.lane.eq(lane)]
        tags = [tag0]
        for i in range(11):
            tags.append(delay(m, tags[-1], 1, f"tag{i + 1}"))
        sum3 = delay(m, self.sum, 1, "sum3")
        eights4 = Signal(signed(AVERAGE + 1 + 7), reset_less=True)
        wide5, a6 = Signal(signed(AVERAGE + 1), reset_less=True), Signal(signed(AVERAGE), reset_less=True)
        m.d.sync += [
            eights4.eq(shift_right(m, Cat(Const(0, 1 + 16 - LEAST), sum3), Cat(Const(0, 3), tags[3].down[3:]), name="eights")),
            wide5.eq(shift_right(m, eights4, tags[4].down[:3], name="ones")),
            a6.eq((wide5 >> 1) + wide5[0]),
        ]
        product8 = product_of(m, a6, Cat(tags[6].reciprocal, Const(0, 1)).as_signed(), "quotient")
        rounded9 = Signal(signed(AVERAGE + 2), reset_less=True)
        value10, value11 = Signal(signed(WIDE), reset_less=True), Signal(signed(WIDE), reset_less=True)
        m.d.sync += rounded9.eq((product8 >> 16) + product8[15])
        with m.Switch(tags[9].top[4:]):
            for i in range(4):
                with m.Case(i):
                    m.d.sync += value10.eq(rounded9 << 16 * i)
        fours = Signal(signed(WIDE))
        with m.Switch(tags[10].top[2:4]):
            for i in range(4):
                with m.Case(i):
                    m.d.comb += fours.eq(value10 << 4 * i)
        with m.Switch(tags[10].top[:2]):
            for i in range(4):
                with m.Case(i):
                    m.d.sync += value11.eq(fours << i)
        m.d.comb += [
            results.w_en.eq(delay(m, issue, 11, "valid", valid=True)), results.w_data.eq(Cat(value11, tags[11].last)),
            self.elements.valid.eq(results.r_rdy), self.elements.payload.eq(results.r_data),
            results.r_en.eq(self.elements.ready),
        ]
        return m
