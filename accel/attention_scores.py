"""The score side of attention: K beats to softmax weights, with the running maximum, V exponent and mass of each head."""
from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.numeric import coarse_shift, delay, fine_shift, floor_shift, product_of
from accel.table import InterpolatedTable
from spec.numerics import HEADROOM, ROW_FRACTION, SCORE_FRACTION
from spec.tables import EXP2

MASS = 34           #: bits of a mass: 2**17 weights of 17 bits
WEIGHT = 17
#: What the model's shape means to attention, minus one each: the last value of a counter. A slot is eight elements.
SHAPE = data.StructLayout({"last_head": 6, "last_kv_head": 6, "last_rep": 6, "last_slot": 4, "last_header": 3, "last_beat": 10})


def key_layout():
    """A K beat and the exponents of its K/V head."""
    return data.StructLayout({"beat": 128, "k_exponent": 6, "v_exponent": 6})


def weight_layout():
    """What a row's V head is multiplied by for one query head, and by how much the sums shift down before."""
    return data.StructLayout({"weight": WEIGHT, "shift": 6})


def ring_depth(max_heads):
    """Weights on their way or waiting: a row's at least, or its values would never come; a power of two."""
    return max(2 << (max_heads - 1).bit_length(), 32)      # they are some 20 cycles on their way


def query_members(columns, max_heads, max_dim):
    """The members that fill a column's query: element ``head * head_dim + i``, and the exponent of a head; and choose one."""
    column = range(max(columns, 2))
    return {
        "q_write": In(data.StructLayout({"en": 1, "column": column, "address": range(max_dim), "data": signed(16)})),
        "q_exponent_write": In(data.StructLayout({"en": 1, "column": column, "head": range(max_heads), "data": 6})),
        "column": In(column),
    }


def exp2_members():
    """The members that lend the table of EXP2: ``guest_value`` as of :class:`~accel.table.InterpolatedTable`."""
    return {"guest": In(1), "guest_index": In(EXP2.index_bits), "guest_t": In(EXP2.t_bits), "guest_value": Out(17)}


class AttentionScores(wiring.Component):
    """A (beat, query head) a cycle; nothing behind the issue stalls.

    Members
    -------
    keys : In(stream)
        Held for as many cycles as query heads share it.
    weight_write : Out
        ``weight`` of the next head, in order of rows and heads.
    release : In
        A K/V head's weights were used: n_rep more may be produced.
    column : In
        Whose query it is; held while keys are.
    read_head : In
        Head whose ``mass`` and ``top`` (the largest V exponent) are shown.
    guest : In
        As long as no keys are on their way: the table of EXP2 answers another unit, see :func:`exp2_members`.
    """
    def __init__(self, *, columns, max_heads, max_dim):
        self.columns, self.max_heads, self.max_dim = columns, max_heads, max_dim
        super().__init__({
            "shape": In(SHAPE), "score_mantissa": In(16), "score_exponent": In(signed(8)), **query_members(columns, max_heads, max_dim),
            "start": In(1), "keys": In(stream.Signature(key_layout())), "release": In(1),
            "weight_write": Out(1), "weight": Out(weight_layout()),
            "read_head": In(6), "mass": Out(MASS), "top": Out(6), **exp2_members(),
        })

    def elaborate(self, platform):
        m = Module()
        shape, key = self.shape, self.keys.payload
        slot_bits, head_bits = (self.max_dim // 8 - 1).bit_length(), (self.max_heads - 1).bit_length()
        m.submodules.query = query = memory.Memory(shape=data.ArrayLayout(signed(16), 8), depth=self.columns << slot_bits,
                                                   init=[])
        m.submodules.query_exponents = exponents = memory.Memory(shape=6, depth=self.columns << head_bits, init=[])
        q_in, q_out = query.write_port(granularity=1), query.read_port()
        e_in, e_out = exponents.write_port(), exponents.read_port()
        m.d.comb += [
            q_in.addr.eq(Cat((self.q_write.address >> 3)[:slot_bits], self.q_write.column)), q_in.en.eq(self.q_write.en << self.q_write.address[:3]),
            *(q_in.data[i].eq(self.q_write.data) for i in range(8)),
            e_in.addr.eq(Cat(self.q_exponent_write.head, self.q_exponent_write.column)), e_in.en.eq(self.q_exponent_write.en),
            e_in.data.eq(self.q_exponent_write.data),
        ]

        # Issue: query heads fastest, then slots, then K/V heads ----------------------------------------------
        ring = ring_depth(self.max_heads)
        tag_layout = data.StructLayout({"head": 6, "rep": 6, "first_row": 1, "first_slot": 1, "last_slot": 1,
                                        "k_exponent": 6, "v_exponent": 6})
        tag0 = Signal(tag_layout)
        room = Signal(range(ring), init=ring - 1)         # a full ring would look empty
        slot, rep, head, group_head = Signal(4), Signal(6), Signal(6), Signal(6)
        address, group_address = Signal(range(self.max_dim // 8)), Signal(range(self.max_dim // 8))
        first_row, issue, issued = Signal(), Signal(), Signal()
        last_slot, last_rep = Signal(), Signal()
        m.d.comb += [
            last_slot.eq(slot == shape.last_slot), last_rep.eq(rep == shape.last_rep),
            # A head's mass is updated in two cycles; with several heads its turns are further apart.
            issue.eq(self.keys.valid & ~(last_slot & (room == 0)) & ~(issued & (shape.last_head == 0))),
            self.keys.ready.eq(issue & last_rep), q_out.addr.eq(Cat(address, self.column)),
            tag0.head.eq(head), tag0.rep.eq(rep), tag0.first_row.eq(first_row), tag0.first_slot.eq(slot == 0),
            tag0.last_slot.eq(last_slot), tag0.k_exponent.eq(key.k_exponent), tag0.v_exponent.eq(key.v_exponent),
        ]
        m.d.sync += [issued.eq(issue),
                     room.eq(room - (issue & last_slot) + Mux(self.release, shape.last_rep + 1, 0))]
        with m.If(issue):
            m.d.sync += [rep.eq(rep + 1), head.eq(head + 1), address.eq(address + shape.last_slot + 1)]
            with m.If(last_rep):
                m.d.sync += [rep.eq(0), head.eq(group_head), slot.eq(slot + 1), address.eq(group_address + slot + 1)]
                with m.If(last_slot):
                    m.d.sync += [slot.eq(0), head.eq(head + 1), group_head.eq(head + 1), address.eq(address + 1),
                                 group_address.eq(address + 1)]
                    with m.If(head == shape.last_head):
                        m.d.sync += [head.eq(0), group_head.eq(0), address.eq(0), group_address.eq(0), first_row.eq(0)]
        with m.If(self.start):
            m.d.sync += first_row.eq(1)

        # 1: query; 2: products; 3: sums of four; 4: dot so far ------------------------------------------------
        beat1 = delay(m, key.beat, 1, "beat")
        fours = [Signal(signed(34), name=f"four{i}", reset_less=True) for i in range(2)]
        products = [Signal(signed(32), name=f"product{i}", reset_less=True) for i in range(8)]
        for i, product in enumerate(products):
            m.d.sync += product.eq(q_out.data[i] * beat1[16 * i:16 * i + 16].as_signed())
        for four, p in zip(fours, (products[:4], products[4:])):
            m.d.sync += four.eq((p[0] + p[1]) + (p[2] + p[3]))
        tag3, valid3 = delay(m, tag0, 3, "tag_dot"), delay(m, issue, 3, "valid_dot", valid=True)
        m.submodules.partials = partials = memory.Memory(shape=signed(39), depth=self.max_heads, init=[])
        partial_in, partial_out = partials.write_port(), partials.read_port(domain="comb")
        dot, dot4 = Signal(signed(39)), Signal(signed(39), reset_less=True)
        m.d.comb += [
            partial_out.addr.eq(tag3.rep), dot.eq((fours[0] + fours[1]) + Mux(tag3.first_slot, 0, partial_out.data)),
            partial_in.addr.eq(tag3.rep), partial_in.data.eq(dot), partial_in.en.eq(valid3),
        ]
        m.d.sync += dot4.eq(dot)
        tag4, valid4 = delay(m, tag3, 1, "tag4"), delay(m, valid3 & tag3.last_slot, 1, "valid4", valid=True)

        # 5, 6: times the score scale; 7: shifted; 8: score ----------------------------------------------------
        product6 = product_of(m, dot4, Cat(self.score_mantissa, Const(0, 1)).as_signed(), "scaled")
        shift = Signal(signed(10))
        shift5 = Signal(6, reset_less=True)
        m.d.comb += [e_out.addr.eq(Cat(tag3.head[:head_bits], self.column)),
                     shift.eq(2 * ROW_FRACTION - SCORE_FRACTION - self.score_exponent - e_out.data - tag4.k_exponent)]
        m.d.sync += shift5.eq(Mux(shift < 0, 0, Mux(shift > 63, 63, shift)))
        shift6 = delay(m, shift5, 1, "shift6")
        coarse7 = delay(m, coarse_shift(m, product6, shift6, 32), 1, "coarse7")
        score8 = delay(m, fine_shift(m, coarse7, delay(m, shift6[:4], 1, "shift7"), 32, name="score")[0], 1, "score8")
        tag8, valid8 = delay(m, tag4, 4, "tag8"), delay(m, valid4, 4, "valid8", valid=True)

        # 8: maximum and top of the head; 9: rise and shift of the weight; 8 to 11: table ----------------------
        state = data.StructLayout({"maximum": signed(17), "top": 6})
        m.submodules.states = states = memory.Memory(shape=state, depth=self.max_heads, init=[])
        state_in, state_out = states.write_port(), states.read_port(domain="comb")
        shown_state = states.read_port(domain="comb")
        integer, difference = Signal(signed(16)), Signal(signed(18))
        above, rising, higher = Signal(), Signal(), Signal()
        ve, top = tag8.v_exponent, state_out.data.top
        m.d.comb += [
            state_out.addr.eq(tag8.head), integer.eq(score8[SCORE_FRACTION:].as_signed()),
            difference.eq(integer - state_out.data.maximum), above.eq(difference >= HEADROOM),
            rising.eq(above | tag8.first_row), higher.eq((ve > top) | tag8.first_row),
            state_in.addr.eq(tag8.head), state_in.en.eq(valid8),
            state_in.data.maximum.eq(Mux(rising, integer + 1, state_out.data.maximum)),
            state_in.data.top.eq(Mux(higher, ve, top)),
        ]
        difference9, above9, rising9 = (Signal.like(s, name=s.name + "9", reset_less=True) for s in (difference, above, rising))
        lift9, lowered9 = Signal(6, reset_less=True), Signal(6, reset_less=True)
        first9 = delay(m, tag8.first_row, 1, "first9")
        m.d.sync += [difference9.eq(difference), above9.eq(above), rising9.eq(rising),
                     lift9.eq(Mux(tag8.first_row | ~higher, 0, ve - top)), lowered9.eq(Mux(higher, 0, top - ve))]
        # In the first row nothing is shifted: only time would be lost.
        rise = Signal(18)
        together = Signal(19)
        down = Signal(signed(19))
        rise10, together10, down10 = Signal(6, reset_less=True), Signal(6, reset_less=True), Signal(5, reset_less=True)
        m.d.comb += [rise.eq(Mux(above9 & ~first9, difference9 + 1, 0)), together.eq(rise + lift9),
                     down.eq(Mux(rising9, 2, 1 - difference9))]
        m.d.sync += [rise10.eq(Mux(rise > 63, 63, rise)), together10.eq(Mux(together > 63, 63, together)),
                     down10.eq(Mux(down > 31, 31, down))]
        m.submodules.table = table = InterpolatedTable(EXP2)
        m.d.comb += [
            table.index.eq(Mux(self.guest, self.guest_index, score8[8:16])),
            table.t.eq(Mux(self.guest, self.guest_t, score8[:8])), self.guest_value.eq(table.value),
        ]

        # 11: shifted down; 12: p and the mass shifted; 13: mass; 13, 14: p in units of the largest V exponent --
        wide12 = delay(m, floor_shift(m, Cat(Const(0, 1), table.value, Const(0, 1)), delay(m, down10, 1, "down11"),
                                      name="p_floored"), 1, "wide12")
        p13 = Signal(WEIGHT, reset_less=True)
        head12, first12 = delay(m, tag8.head, 4, "head12"), delay(m, tag8.first_row, 4, "first12")
        m.submodules.masses = masses = memory.Memory(shape=MASS, depth=self.max_heads, init=[])
        mass_in, mass_out, shown_mass = masses.write_port(), masses.read_port(domain="comb"), masses.read_port(domain="comb")
        shifted13 = Signal(MASS, reset_less=True)
        m.d.comb += mass_out.addr.eq(head12)
        m.d.sync += [p13.eq((wide12 >> 1) + wide12[0]),
                     shifted13.eq(Mux(first12, 0, mass_out.data >> delay(m, rise10, 2, "rise12")))]
        valid13 = delay(m, valid8, 5, "valid13", valid=True)
        m.d.comb += [mass_in.addr.eq(delay(m, head12, 1, "head13")), mass_in.en.eq(valid13),
                     mass_in.data.eq(shifted13 + p13)]
        wide14 = delay(m, floor_shift(m, Cat(Const(0, 1), p13, Const(0, 1)), delay(m, lowered9, 4, "lowered13"),
                                      name="weight_floored"), 1, "wide14")
        m.d.comb += [
            self.weight_write.eq(delay(m, valid13, 1, "valid14", valid=True)),
            self.weight.weight.eq((wide14 >> 1) + wide14[0]), self.weight.shift.eq(delay(m, together10, 4, "together14")),
            shown_state.addr.eq(self.read_head), shown_mass.addr.eq(self.read_head),
            self.mass.eq(shown_mass.data), self.top.eq(shown_state.data.top),
        ]
        return m
