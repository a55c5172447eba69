"""The value side of attention: weighted sums of V rows, 48 bits each, shifted down when a head's reference rises."""
from amaranth.hdl import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.numeric import UNCHECKED, delay
from accel.attention_dots import SHAPE, ring_depth
from accel.attention_scores import WEIGHT, weight_layout
from llama2_spec.numerics import WIDE

#: A pass shifts by one of these; a larger shift takes several passes over its slot. With three of them and zero, a bit
#: of a sum is one look-up table of six inputs with its carry.
STEPS = (0, 1, 4)


class AttentionValues(wiring.Component):
    """A (beat, query head) a cycle, and nothing behind the load stalls.

    A slot rests for two cycles while its sums are on their way back to memory: between the passes of a large shift, and
    always where a row has no more than two slots of all heads.

    Members
    -------
    weight_write, weight_last, weight : In
        In order of rows and heads, the last one of its K/V head, which begin together; ``release`` tells that they were used.
    values : In(stream)
        V beats; each is held for as many cycles as query heads share it.
    ending : Out
        All weights were there: the scores have nothing on its way any more. Comes before ``busy`` falls.
    reading, read_slot, read_lane : In
        While not ``busy``: ``sum`` of that lane of that slot, three cycles later.
    """
    def __init__(self, *, max_heads, max_dim):
        self.max_heads, self.max_dim = max_heads, max_dim
        super().__init__({
            "shape": In(SHAPE), "start": In(1), "rows": In(17), "busy": Out(1), "ending": Out(1),
            "values": In(stream.Signature(128)),
            "weight_write": In(1), "weight_last": In(1), "weight": In(weight_layout()), "release": Out(1),
            "reading": In(1), "read_slot": In(range(max_dim // 8)), "read_lane": In(3), "sum": Out(signed(WIDE)),
        })

    def elaborate(self, platform):
        m = Module()
        shape, values = self.shape, self.values
        ring = ring_depth(self.max_heads)
        entry = data.StructLayout({**weight_layout().members, "several": 1})
        m.submodules.weights = weights = memory.Memory(shape=entry, depth=ring, init=[])
        w_in, w_out = weights.write_port(), weights.read_port(domain="comb")
        # What is read while it is written belongs to a slot that is not passed over
        m.submodules.sums = sums = memory.Memory(shape=data.ArrayLayout(signed(WIDE), 8), depth=self.max_dim // 8, init=[],
                                                 attrs=UNCHECKED)
        s_in, s_out = sums.write_port(), sums.read_port()

        # Next (beat, query head): heads fastest, then slots, then K/V heads, as in the scores; what a comparison says is
        # known a cycle ahead, and so is whether all weights of a K/V head are there, and whether a slot may be loaded
        pointer, base, at = (Signal(range(ring), name=name) for name in ("pointer", "base", "at"))
        slot, rep, group = Signal(4), Signal(6), Signal(6)
        address, slot_address = Signal(range(self.max_dim // 8)), Signal(range(self.max_dim // 8), init=1)
        left, more, final_row, first_row = Signal(17), Signal(), Signal(), Signal()
        last_slot, last_rep, last_group, load, used = Signal(), Signal(), Signal(), Signal(), Signal()
        one_slot, one_rep, one_group, small, stride = Signal(), Signal(), Signal(), Signal(), Signal(5)
        next_rep, next_slot, both = Signal(), Signal(), Signal()        # ``both``: last_rep and last_slot
        groups, there, free, open_ = Signal(range(ring)), Signal(), Signal(init=1), Signal()
        next_there, next_free = Signal(), Signal()      # ``open_`` is both ``there`` and ``free``
        m.d.sync += [one_slot.eq(shape.last_slot == 0), one_rep.eq(shape.last_rep == 0), one_group.eq(shape.last_kv_head == 0),
                     stride.eq(shape.last_slot + 1),
                     small.eq((shape.last_head == 0) & (shape.last_slot <= 1) | (shape.last_head == 1) & (shape.last_slot == 0))]
        m.d.comb += [
            w_in.addr.eq(pointer), w_in.data.weight.eq(self.weight.weight), w_in.data.shift.eq(self.weight.shift),
            w_in.en.eq(self.weight_write),
            w_in.data.several.eq(~Cat(self.weight.shift == n for n in STEPS).any()), w_out.addr.eq(at),
            load.eq(values.valid & open_), values.ready.eq(load & last_rep), used.eq(load & both),
            next_rep.eq(Mux(last_rep, one_rep, rep + 1 == shape.last_rep)),
            next_slot.eq(Mux(last_rep, Mux(last_slot, one_slot, slot + 1 == shape.last_slot), last_slot)),
        ]
        complete = self.weight_write & self.weight_last
        m.d.sync += [self.release.eq(used), pointer.eq(pointer + self.weight_write), groups.eq(groups + complete - used),
                     there.eq(next_there), free.eq(next_free), open_.eq(next_there & next_free)]
        m.d.comb += next_there.eq(complete | Mux(used, groups > 1, groups != 0))
        with m.If(load):
            m.d.sync += [last_rep.eq(next_rep), last_slot.eq(next_slot), both.eq(next_rep & next_slot), rep.eq(rep + 1), at.eq(at + 1),
                         address.eq(address + stride)]
            with m.If(last_rep):
                m.d.sync += [rep.eq(0), at.eq(base), slot.eq(slot + 1), address.eq(slot_address), slot_address.eq(slot_address + 1)]
                with m.If(both):
                    m.d.sync += [slot.eq(0), group.eq(group + 1), address.eq(address + 1), slot_address.eq(address + 2),
                                 base.eq(at + 1), at.eq(at + 1),
                                 last_group.eq(Mux(last_group, one_group, group + 1 == shape.last_kv_head))]
                    with m.If(last_group):
                        m.d.sync += [group.eq(0), address.eq(0), slot_address.eq(1), first_row.eq(0),
                                     left.eq(left - 1), more.eq(~final_row), final_row.eq(left == 2)]
        with m.If(self.start):
            m.d.sync += [first_row.eq(1), left.eq(self.rows), more.eq(1), final_row.eq(self.rows == 1),
                         last_rep.eq(one_rep), last_slot.eq(one_slot), both.eq(one_rep & one_slot), last_group.eq(one_group)]

        # 0: a pass over the slot it belongs to ----------------------------------------------------------------
        place, beat = Signal.like(address), Signal(128, reset_less=True)
        weight, shift, fresh = Signal(WEIGHT, reset_less=True), Signal(6, reset_less=True), Signal(reset_less=True)
        held, again1, again2, blocking, rested = Signal(), Signal(), Signal(), Signal(), Signal()
        step, last_pass, done = Signal(2), Signal(), Signal()
        with m.If(shift >= 4):
            m.d.comb += step.eq(2)
        with m.Elif(shift >= 1):
            m.d.comb += step.eq(1)
        m.d.comb += [last_pass.eq(Cat(shift == n for n in STEPS).any()), done.eq(held & last_pass & blocking)]
        m.d.sync += [
            again1.eq(held & ~last_pass), again2.eq(again1), held.eq(load | again2), rested.eq(done & small),
        ]
        m.d.comb += next_free.eq(Mux(load, ~(w_out.data.several | small), free | (done & ~small) | rested))
        with m.If(load):
            m.d.sync += [place.eq(address), beat.eq(values.payload), weight.eq(w_out.data.weight),
                         shift.eq(w_out.data.shift), fresh.eq(first_row), blocking.eq(w_out.data.several | small)]
        with m.Elif(held):
            m.d.sync += shift.eq(shift - Array(STEPS)[step])

        # 1: operands, each beside its multiplier; 2: sums read, products; 3: again; then shifted, added and written back --
        read_place1, step1, fresh1 = Signal.like(place, reset_less=True), Signal(2, reset_less=True), Signal(reset_less=True)
        choice2 = Signal(2, reset_less=True)        # 0: nothing was there; otherwise a step, plus one
        valid1 = delay(m, held, 1, "valid1", valid=True)
        m.d.sync += [read_place1.eq(Mux(self.reading, self.read_slot, place)), step1.eq(step), fresh1.eq(fresh),
                     choice2.eq(Mux(fresh1, 0, step1 + 1))]
        m.d.comb += [s_out.addr.eq(read_place1), s_in.addr.eq(delay(m, place, 3, "place")),
                     s_in.en.eq(delay(m, valid1, 2, "valid3", valid=True))]
        add2 = delay(m, last_pass, 2, "add")
        read_lane1, olds = delay(m, self.read_lane, 1, "read_lane"), []
        for i in range(8):
            own = dict(reset_less=True, attrs={"keep": 1})      # a copy for this lane: they lie far apart
            product2 = Signal(signed(WEIGHT + 16), name=f"product{i}", reset_less=True)
            product3 = Signal(signed(WEIGHT + 16), name=f"addend{i}", reset_less=True)
            old3 = Signal(signed(WIDE), name=f"old{i}", reset_less=True)
            v1, weight1 = Signal(signed(16), name=f"v{i}", reset_less=True), Signal(WEIGHT, name=f"weight{i}", **own)
            choice3, mute2 = Signal(2, name=f"choice{i}", **own), Signal(name=f"mute{i}", reset_less=True)
            m.d.sync += [
                v1.eq(beat[16 * i:16 * i + 16]), weight1.eq(weight), choice3.eq(choice2),
                product2.eq(v1 * Cat(weight1, 0).as_signed()),
                product3.eq(Mux(add2, product2, 0)),
                mute2.eq(self.reading & (read_lane1 != i)),
                old3.eq(Mux(mute2, 0, s_out.data[i])),      # of registers that are reset, one is chosen
            ]
            olds.append(old3)
            m.d.comb += s_in.data[i].eq(product3 + Array([0, *(old3 >> n for n in STEPS)])[choice3])
        while len(olds) > 1:
            olds = [a | b for a, b in zip(olds[::2], olds[1::2])]
        m.d.comb += self.sum.eq(olds[0])
        # By the time that somebody reads, the last sums are written
        m.d.sync += [self.ending.eq(load & final_row & last_group), self.busy.eq(self.start | more | held | again1 | again2 | valid1)]
        return m
