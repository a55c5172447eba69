"""The score side of attention: K beats to softmax weights, with the running maximum, V exponent and mass of each head."""
from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.numeric import coarse_shift, delay, product_of, round_saturate, shift_right
from accel.table import InterpolatedTable
from spec.numerics import HEADROOM, ROW_FRACTION, SCORE_FRACTION
from spec.tables import EXP2

MASS = 34           #: bits of a mass: 2**17 weights of 17 bits
WEIGHT = 17
EXP2_LATENCY = 4    #: cycles until ``guest_value`` answers
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
    return max(2 << (max_heads - 1).bit_length(), 32)      # they are some 25 cycles on their way


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
    reading, read_head : In
        When no keys are on their way: head whose ``mass`` and ``top`` (the largest V exponent) are shown, a cycle later.
    guest : In
        As long as no keys are on their way: the table of EXP2 answers another unit, see :func:`exp2_members`.
    """
    def __init__(self, *, columns, max_heads, max_dim, multiplier_bits=25):
        self.columns, self.max_heads, self.max_dim, self.multiplier_bits = columns, max_heads, max_dim, multiplier_bits
        super().__init__({
            "shape": In(SHAPE), "score_mantissa": In(16), "score_exponent": In(signed(8)), **query_members(columns, max_heads, max_dim),
            "start": In(1), "keys": In(stream.Signature(key_layout())), "release": In(1),
            "weight_write": Out(1), "weight": Out(weight_layout()),
            "reading": In(1), "read_head": In(6), "mass": Out(MASS), "top": Out(6), **exp2_members(),
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
        last_slot, last_rep, alone = Signal(), Signal(), Signal()      # comparisons, a cycle ahead
        one_slot, one_rep = shape.last_slot == 0, shape.last_rep == 0
        m.d.sync += alone.eq(shape.last_head == 0)
        m.d.comb += [
            # A head's mass is updated in two cycles; with several heads its turns are further apart.
            issue.eq(self.keys.valid & ~(last_slot & (room == 0)) & ~(issued & alone)),
            self.keys.ready.eq(issue & last_rep), q_out.addr.eq(Cat(address, self.column)),
            tag0.head.eq(head), tag0.rep.eq(rep), tag0.first_row.eq(first_row), tag0.first_slot.eq(slot == 0),
            tag0.last_slot.eq(last_slot), tag0.k_exponent.eq(key.k_exponent), tag0.v_exponent.eq(key.v_exponent),
        ]
        m.d.sync += [issued.eq(issue),
                     room.eq(room - (issue & last_slot) + Mux(self.release, shape.last_rep + 1, 0))]
        with m.If(issue):
            m.d.sync += last_rep.eq(Mux(last_rep, one_rep, rep + 1 == shape.last_rep))
            with m.If(last_rep):
                m.d.sync += last_slot.eq(Mux(last_slot, one_slot, slot + 1 == shape.last_slot))
            m.d.sync += [rep.eq(rep + 1), head.eq(head + 1), address.eq(address + shape.last_slot + 1)]
            with m.If(last_rep):
                m.d.sync += [rep.eq(0), head.eq(group_head), slot.eq(slot + 1), address.eq(group_address + slot + 1)]
                with m.If(last_slot):
                    m.d.sync += [slot.eq(0), head.eq(head + 1), group_head.eq(head + 1), address.eq(address + 1),
                                 group_address.eq(address + 1)]
                    with m.If(head == shape.last_head):
                        m.d.sync += [head.eq(0), group_head.eq(0), address.eq(0), group_address.eq(0), first_row.eq(0)]
        with m.If(self.start):
            m.d.sync += [first_row.eq(1), last_rep.eq(one_rep), last_slot.eq(one_slot)]

        # 1: query; 2: again; 3: products; 4: sums of two; 5: of eight; 6: dot so far ---------------------------
        beat2 = delay(m, key.beat, 2, "beat")
        query2 = delay(m, q_out.data.as_value(), 1, "query")
        products, twos = [], []
        for i in range(8):
            product = Signal(signed(32), name=f"product{i}", reset_less=True)
            m.d.sync += product.eq(query2[16 * i:16 * i + 16].as_signed() * beat2[16 * i:16 * i + 16].as_signed())
            products.append(product)
        for i in range(0, 8, 2):    # in a DSP slice
            two = Signal(signed(33), name=f"two{i}", reset_less=True)
            m.d.sync += two.eq(products[i + 1] + products[i])
            twos.append(two)
        eight = Signal(signed(35), reset_less=True)
        m.d.sync += eight.eq((twos[0] + twos[1]) + (twos[2] + twos[3]))
        tag5, valid5 = delay(m, tag0, 5, "tag_dot"), delay(m, issue, 5, "valid_dot", valid=True)
        m.submodules.partials = partials = memory.Memory(shape=signed(39), depth=self.max_heads, init=[])
        partial_in, partial_out = partials.write_port(), partials.read_port(domain="comb")
        dot, dot6 = Signal(signed(39)), Signal(signed(39), reset_less=True)
        m.d.comb += [
            partial_out.addr.eq(tag5.rep), dot.eq(eight + Mux(tag5.first_slot, 0, partial_out.data)),
            partial_in.addr.eq(tag5.rep), partial_in.data.eq(dot), partial_in.en.eq(valid5),
        ]
        m.d.sync += dot6.eq(dot)
        tag6, valid6 = delay(m, tag5, 1, "tag6"), delay(m, valid5 & tag5.last_slot, 1, "valid6", valid=True)

        # 7, 8: times the score scale; 9, 10: shifted; 11: score ------------------------------------------------
        scale = Cat(self.score_mantissa, Const(0, 1)).as_signed() if self.multiplier_bits == 25 else self.score_mantissa
        product8 = product_of(m, dot6, scale, "scaled")
        shift, known6 = Signal(signed(10)), Signal(signed(10), reset_less=True)
        shift7 = Signal(6, reset_less=True)
        m.d.comb += [e_out.addr.eq(Cat(tag5.head[:head_bits], self.column)), shift.eq(known6 - e_out.data)]
        m.d.sync += [known6.eq(2 * ROW_FRACTION - SCORE_FRACTION - self.score_exponent - tag5.k_exponent),
                     shift7.eq(Mux(shift < 0, 0, Mux(shift > 63, 63, shift)))]
        shift8 = delay(m, shift7, 1, "shift8")
        coarse9 = delay(m, coarse_shift(m, product8, shift8, 32), 1, "coarse9")
        fine10 = delay(m, shift_right(m, coarse9, delay(m, shift8[:4], 1, "shift9"), name="fine"), 1, "fine10")
        score11 = delay(m, round_saturate(m, fine10, delay(m, coarse9[-1], 1, "sign10"), 32, name="score")[0], 1, "score11")
        tag10 = delay(m, tag6, 4, "tag10")
        tag11, valid11 = delay(m, tag10, 1, "tag11"), delay(m, valid6, 5, "valid11", valid=True)

        # 11: maximum and top of the head; 12: the new ones; 13 to 15: rise and shift of the weight -----------------
        state = data.StructLayout({"maximum": signed(17), "top": 6})
        m.submodules.states = states = memory.Memory(shape=state, depth=self.max_heads, init=[])
        state_in, state_out = states.write_port(), states.read_port(domain="comb")
        head11 = delay(m, Mux(self.reading, self.read_head, tag10.head), 1, "head11")
        tag12, state12 = delay(m, tag11, 1, "tag12"), delay(m, state_out.data, 1, "state12")
        integer = delay(m, score11[SCORE_FRACTION:], 1, "integer12").as_signed()
        difference = Signal(signed(18))
        above, rising, higher = Signal(), Signal(), Signal()
        ve, top = tag12.v_exponent, state12.top
        m.d.comb += [
            state_out.addr.eq(head11),
            difference.eq(integer - state12.maximum), above.eq(difference >= HEADROOM),
            rising.eq(above | tag12.first_row), higher.eq((ve > top) | tag12.first_row),
            state_in.addr.eq(tag12.head), state_in.en.eq(delay(m, valid11, 1, "valid12", valid=True)),
            state_in.data.maximum.eq(Mux(rising, integer + 1, state12.maximum)),
            state_in.data.top.eq(Mux(higher, ve, top)),
        ]
        # In the first row nothing is shifted: only time would be lost.
        difference13, rising13 = delay(m, difference, 1, "difference13"), delay(m, rising, 1, "rising13")
        raised13 = delay(m, above & ~tag12.first_row, 1, "raised13")
        lift13, lowered13 = Signal(6, reset_less=True), Signal(6, reset_less=True)
        m.d.sync += [lift13.eq(Mux(tag12.first_row | ~higher, 0, ve - top)), lowered13.eq(Mux(higher, 0, top - ve))]
        rise14, together15, down14 = Signal(6, reset_less=True), Signal(6, reset_less=True), Signal(5, reset_less=True)
        together = Signal(7)
        m.d.comb += together.eq(rise14 + delay(m, lift13, 1, "lift14"))
        m.d.sync += [rise14.eq(Mux(~raised13, 0, Mux(difference13 > 62, 63, difference13[:6] + 1))),
                     together15.eq(Mux(together > 63, 63, together)),
                     down14.eq(Mux(rising13, 2, Mux(difference13 < -30, 31, (1 - difference13)[:5])))]
        m.submodules.table = table = InterpolatedTable(EXP2, latency=EXP2_LATENCY, distributed=True)
        m.d.comb += [
            table.index.eq(Mux(self.guest, self.guest_index, score11[8:16])),
            table.t.eq(Mux(self.guest, self.guest_t, score11[:8])), self.guest_value.eq(table.value),
        ]

        # 15: the table's; 16: shifted down; 17: p; 18: shifted to units of the largest V exponent ---------------
        wide16 = delay(m, shift_right(m, Cat(Const(0, 1), table.value, Const(0, 1)), delay(m, down14, 1, "down15"),
                                      name="p_floored"), 1, "wide16")
        p17 = Signal(WEIGHT, reset_less=True)
        m.d.sync += p17.eq((wide16 >> 1) + wide16[0])
        wide18 = delay(m, shift_right(m, Cat(Const(0, 1), p17, Const(0, 1)), delay(m, lowered13, 4, "lowered17"),
                                      name="weight_floored"), 1, "wide18")
        # 16: a head's mass, shifted by eights; 17: by the rest, and added to
        head15, first16 = delay(m, tag11.head, 4, "head15"), delay(m, tag11.first_row, 5, "first16")
        head16 = delay(m, Mux(self.reading, self.read_head, head15), 1, "head16")
        rise16 = delay(m, rise14, 2, "rise16")
        m.submodules.masses = masses = memory.Memory(shape=MASS, depth=self.max_heads, init=[])
        mass_in, mass_out = masses.write_port(), masses.read_port(domain="comb")
        mass17, rise17 = Signal(MASS, reset_less=True), delay(m, rise16[:3], 1, "rise17")
        m.d.comb += mass_out.addr.eq(head16)
        with m.If(first16 | rise16[5] & rise16[3:5].any()):     # 40 and more leave nothing
            m.d.sync += mass17.eq(0)
        with m.Else():
            with m.Switch(rise16[3:6]):
                for i in range(5):
                    with m.Case(i):
                        m.d.sync += mass17.eq(mass_out.data >> 8 * i)
        valid17 = delay(m, valid11, 6, "valid17", valid=True)
        m.d.comb += [mass_in.addr.eq(delay(m, head16, 1, "head17")), mass_in.en.eq(valid17),
                     mass_in.data.eq(p17 + (mass17 >> rise17))]
        m.d.comb += [
            self.weight_write.eq(delay(m, valid17, 1, "valid18", valid=True)),
            self.weight.weight.eq((wide18 >> 1) + wide18[0]), self.weight.shift.eq(delay(m, together15, 3, "together18")),
            self.mass.eq(mass_out.data), self.top.eq(state_out.data.top),
        ]
        return m
