"""The value side of attention: weighted sums of V rows, 48 bits each, shifted down when a head's reference rises."""
from amaranth.hdl import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.numeric import delay
from accel.attention_scores import SHAPE, WEIGHT, ring_depth, weight_layout
from spec.numerics import WIDE

#: A pass shifts by one of these; a larger shift takes several passes over its slot. With three of them and zero, a bit
#: of a sum is one look-up table of six inputs with its carry.
STEPS = (0, 1, 4)


class AttentionValues(wiring.Component):
    """A (beat, query head) a cycle; a slot rests while its sums are on their way back to memory.

    Members
    -------
    weight_write, weight : In
        In order of rows and heads; ``release`` tells that those of one K/V head were used.
    values : In(stream)
        V beats; each is held for as many cycles as query heads share it.
    reading, read_slot, read_lane : In
        While not ``busy``: ``sum`` of that lane of that slot, two cycles later.
    """
    def __init__(self, *, max_heads, max_dim):
        self.max_heads, self.max_dim = max_heads, max_dim
        super().__init__({
            "shape": In(SHAPE), "start": In(1), "rows": In(17), "busy": Out(1),
            "values": In(stream.Signature(128)),
            "weight_write": In(1), "weight": In(weight_layout()), "release": Out(1),
            "reading": In(1), "read_slot": In(range(max_dim // 8)), "read_lane": In(3), "sum": Out(signed(WIDE)),
        })

    def elaborate(self, platform):
        m = Module()
        shape, values = self.shape, self.values
        ring = ring_depth(self.max_heads)
        m.submodules.weights = weights = memory.Memory(shape=weight_layout(), depth=ring, init=[])
        w_in, w_out = weights.write_port(), weights.read_port(domain="comb")
        m.submodules.sums = sums = memory.Memory(shape=data.ArrayLayout(signed(WIDE), 8), depth=self.max_dim // 8, init=[])
        s_in, s_out = sums.write_port(), sums.read_port()

        # Next (beat, query head): heads fastest, then slots, then K/V heads, as in the scores -------------------
        pointer, base, at = (Signal(range(ring), name=name) for name in ("pointer", "base", "at"))
        slot, rep, group = Signal(4), Signal(6), Signal(6)
        address, group_address = Signal(range(self.max_dim // 8)), Signal(range(self.max_dim // 8))
        left, first_row = Signal(17), Signal()
        last_slot, last_rep, load, used = Signal(), Signal(), Signal(), Signal()    # the first two are a cycle ahead
        one_slot, one_rep = shape.last_slot == 0, shape.last_rep == 0
        held, finish = Signal(), Signal()
        m.d.comb += [
            w_in.addr.eq(pointer), w_in.data.eq(self.weight), w_in.en.eq(self.weight_write),
            w_out.addr.eq(at),
            load.eq(values.valid & (at != pointer) & (~held | finish)),
            values.ready.eq(load & last_rep), used.eq(load & last_rep & last_slot),
        ]
        m.d.sync += self.release.eq(used)
        with m.If(self.weight_write):
            m.d.sync += pointer.eq(pointer + 1)
        with m.If(load):
            m.d.sync += last_rep.eq(Mux(last_rep, one_rep, rep + 1 == shape.last_rep))
            with m.If(last_rep):
                m.d.sync += last_slot.eq(Mux(last_slot, one_slot, slot + 1 == shape.last_slot))
            m.d.sync += [rep.eq(rep + 1), at.eq(at + 1), address.eq(address + shape.last_slot + 1)]
            with m.If(last_rep):
                m.d.sync += [rep.eq(0), at.eq(base), slot.eq(slot + 1), address.eq(group_address + slot + 1)]
                with m.If(last_slot):
                    m.d.sync += [slot.eq(0), group.eq(group + 1), address.eq(address + 1), group_address.eq(address + 1),
                                 base.eq(at + 1), at.eq(at + 1)]
                    with m.If(group == shape.last_kv_head):
                        m.d.sync += [group.eq(0), address.eq(0), group_address.eq(0), first_row.eq(0), left.eq(left - 1)]
        with m.If(self.start):
            m.d.sync += [first_row.eq(1), left.eq(self.rows), last_rep.eq(one_rep), last_slot.eq(one_slot)]

        # Passes over the slot it belongs to -----------------------------------------------------------------
        place, beat = Signal.like(address, reset_less=True), Signal(128, reset_less=True)
        weight, shift, fresh = Signal(WEIGHT, reset_less=True), Signal(6, reset_less=True), Signal(reset_less=True)
        place1, place2, valid1, valid2 = Signal.like(place), Signal.like(place), Signal(), Signal()
        step = Signal(2)
        issue, last_pass = Signal(), Signal()
        with m.If(shift >= 4):
            m.d.comb += step.eq(2)
        with m.Elif(shift >= 1):
            m.d.comb += step.eq(1)
        rest = Signal(6)
        m.d.comb += [
            rest.eq(shift - Array(STEPS)[step]), last_pass.eq(Cat(shift == n for n in STEPS).any()),
            issue.eq(held & ~(valid1 & (place1 == place)) & ~(valid2 & (place2 == place))),
            finish.eq(issue & last_pass),
        ]
        with m.If(issue):
            m.d.sync += shift.eq(rest)
        with m.If(finish):
            m.d.sync += held.eq(0)
        with m.If(load):
            m.d.sync += [held.eq(1), place.eq(address), beat.eq(values.payload), weight.eq(w_out.data.weight),
                         shift.eq(w_out.data.shift), fresh.eq(first_row)]

        # 1: sums read, products; 2: again; then shifted, added and written back -------------------------------
        step1, fresh1, add1 = Signal(2, reset_less=True), Signal(reset_less=True), Signal(reset_less=True)
        choice2 = Signal(2, reset_less=True)        # 0: nothing was there; otherwise a step, plus one
        m.d.sync += [valid1.eq(issue), valid2.eq(valid1), place1.eq(place), place2.eq(place1),
                     step1.eq(step), fresh1.eq(fresh), add1.eq(last_pass), choice2.eq(Mux(fresh1, 0, step1 + 1))]
        m.d.comb += [s_out.addr.eq(Mux(self.reading, self.read_slot, place)), s_in.addr.eq(place2), s_in.en.eq(valid2)]
        read_lane1, olds = delay(m, self.read_lane, 1, "read_lane"), []
        for i in range(8):
            product1 = Signal(signed(WEIGHT + 16), name=f"product{i}", reset_less=True)
            product2 = Signal(signed(WEIGHT + 16), name=f"addend{i}", reset_less=True)
            old2 = Signal(signed(WIDE), name=f"old{i}", reset_less=True)
            v = Signal(signed(16), name=f"v{i}")
            m.d.comb += v.eq(beat[16 * i:16 * i + 16])
            m.d.sync += [
                product1.eq(v * Cat(weight, 0).as_signed()),
                product2.eq(Mux(add1, product1, 0)),
                old2.eq(Mux(self.reading & (read_lane1 != i), 0, s_out.data[i])),   # of registers that are reset, one is chosen
            ]
            olds.append(old2)
            m.d.comb += s_in.data[i].eq(product2 + Array([0, *(old2 >> n for n in STEPS)])[choice2])
        while len(olds) > 1:
            olds = [a | b for a, b in zip(olds[::2], olds[1::2])]
        m.d.comb += self.sum.eq(olds[0])
        m.d.comb += self.busy.eq((left != 0) | held | valid1 | valid2)
        return m
