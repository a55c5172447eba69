"""The end of attention: each head's sums divided by its mass, element by element."""
from amaranth.hdl import Cat, Const, Module, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.attention_dots import SHAPE
from accel.attention_scores import MASS
from accel.numeric import bit_length, delay, product_of, shift_right
from accel.stage import Queue
from accel.table import InterpolatedTable
from llama2_spec.numerics import WIDE
from llama2_spec.tables import RECIPROCAL

DEPTH = 32          # elements on their way, for some 18 cycles, or waiting
LEAST = 14          # bits of the smallest mass: the weight that set the maximum is at least 2**13
AVERAGE = 34        # bits of a sum in units of its mass's leading bit: about 2**31 at most


class AttentionOutput(wiring.Component):
    """An element a cycle; the next head's reciprocal is found meanwhile.

    Members
    -------
    start, summed : In
        Mass and top of head 0 are there from the next cycle on; sums may be read as long as ``summed``.
    head : Out
        Head whose ``mass`` and ``top`` are needed, from the next cycle on.
    slot, lane : Out
        Element whose ``sum`` is needed, three cycles later.
    """
    def __init__(self, *, max_heads, max_dim):
        self.max_heads, self.max_dim = max_heads, max_dim
        self.element = data.StructLayout({"value": signed(WIDE), "last": 1})
        super().__init__({
            "shape": In(SHAPE), "start": In(1), "summed": In(1), "head": Out(6), "mass": In(MASS), "top": In(6),
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
        # Of each eight bits, then of all
        eights = [delay(m, bit_length(m, self.mass[i:i + 8], name=f"bits{i}"), 1, f"length{i}") for i in range(0, MASS, 8)]
        m.submodules.table = table = InterpolatedTable(RECIPROCAL, latency=4)
        ready, take = Signal(), Signal()
        m.d.comb += [table.index.eq(leading[12:21]), table.t.eq(leading[:12])]
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += self.head.eq(0)
                with m.If(self.start):
                    m.next = "MASS"
            with m.State("MASS"):
                m.d.sync += [self.head.eq(self.head + 1), mass.eq(self.mass),
                             found.top.eq(self.top), found.last.eq(self.head == shape.last_head)]
                m.next = "LENGTH"
            with m.State("LENGTH"):
                for i, eight in enumerate(eights):
                    with m.If(eight != 0):
                        m.d.sync += bits.eq(8 * i + eight)
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
        m.submodules.results = results = Queue(self.element.size, depth=DEPTH)
        room = Signal(range(DEPTH + 1), init=DEPTH)
        active, issue, has_room, last_element = Signal(), Signal(), Signal(), Signal()      # the last two are a cycle ahead
        lane, slot = Signal(3), Signal(4)
        m.d.comb += [issue.eq(active & has_room), take.eq(ready & self.summed & (~active | issue & last_element))]
        left = delay(m, results.output.ready & results.output.valid, 1, "left", valid=True)
        m.d.sync += [room.eq(room - issue + left), has_room.eq(room[1:] != 0)]
        with m.If(issue):
            m.d.sync += [lane.eq(lane + 1), last_element.eq((lane == 6) & (slot == shape.last_slot))]
            with m.If(lane == 7):
                m.d.sync += [slot.eq(slot + 1), self.slot.eq(self.slot + 1)]
            with m.If(last_element):
                m.d.sync += [slot.eq(0), active.eq(0)]
        with m.If(take):
            m.d.sync += [active.eq(1), current.eq(Cat(found, table.value))]
        with m.If(self.start):
            m.d.sync += self.slot.eq(0)

        # 1 to 3: the sum is fetched; 4: there; 5: shifted by eights; 6: by the rest; 7: rounded; 8: again; 9, 10: times the
        # reciprocal; 11: rounded; 12: shifted up by 16s; 13: by the rest ----------------------------------------------
        tag0 = Signal(scale)
        m.d.comb += [tag0.eq(current), tag0.last.eq(current.last & last_element), self.lane.eq(lane)]
        tags = [tag0]
        for i in range(13):
            tags.append(delay(m, tags[-1], 1, f"tag{i + 1}"))
        sum4 = delay(m, self.sum, 1, "sum4")
        eights5 = Signal(signed(AVERAGE + 1 + 7), reset_less=True)
        wide6 = Signal(signed(AVERAGE + 1), reset_less=True)
        a7, a8 = (Signal(signed(AVERAGE), name=name, reset_less=True) for name in ("a7", "a8"))
        m.d.sync += [
            eights5.eq(shift_right(m, Cat(Const(0, 1 + 16 - LEAST), sum4), Cat(Const(0, 3), tags[4].down[3:]), name="eights")),
            wide6.eq(shift_right(m, eights5, tags[5].down[:3], name="ones")),
            a7.eq((wide6 >> 1) + wide6[0]), a8.eq(a7),
        ]
        product10 = product_of(m, a8, Cat(tags[8].reciprocal, Const(0, 1)).as_signed(), "quotient")
        rounded11 = Signal(signed(AVERAGE + 2), reset_less=True)
        value12, value13 = Signal(signed(WIDE), reset_less=True), Signal(signed(WIDE), reset_less=True)
        m.d.sync += rounded11.eq((product10 >> 16) + product10[15])
        with m.Switch(tags[11].top[4:]):
            for i in range(4):
                with m.Case(i):
                    m.d.sync += value12.eq(rounded11 << 16 * i)
        fours = Signal(signed(WIDE))
        with m.Switch(tags[12].top[2:4]):
            for i in range(4):
                with m.Case(i):
                    m.d.comb += fours.eq(value12 << 4 * i)
        with m.Switch(tags[12].top[:2]):
            for i in range(4):
                with m.Case(i):
                    m.d.sync += value13.eq(fours << i)
        # Behind the queue another register: memory takes its time, and who takes the elements is far
        out = self.elements
        m.d.comb += [
            results.write.eq(delay(m, issue, 13, "valid", valid=True)), results.data.eq(Cat(value13, tags[13].last)),
            results.output.ready.eq(~out.valid | out.ready),
        ]
        with m.If(results.output.ready):
            m.d.sync += [out.valid.eq(results.output.valid), out.payload.eq(results.output.payload)]
        return m
