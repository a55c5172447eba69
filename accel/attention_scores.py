"""The score side of attention: K beats to softmax weights, with the running maximum, V exponent and mass of each head."""
from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.attention_dots import SHAPE, AttentionDots, key_layout, query_members
from accel.numeric import coarse_shift, delay, product_of, round_saturate, shift_right
from accel.table import InterpolatedTable
from llama2_spec.numerics import HEADROOM, ROW_FRACTION, SCORE_FRACTION
from llama2_spec.tables import EXP2

MASS = 34           #: bits of a mass: 2**17 weights of 17 bits
WEIGHT = 17
EXP2_LATENCY = 6    #: cycles until ``guest_value`` answers
def weight_layout():
    """What a row's V head is multiplied by for one query head, and by how much the sums shift down before."""
    return data.StructLayout({"weight": WEIGHT, "shift": 6})


def exp2_members():
    """The members that lend the table of EXP2: ``guest_value`` as of :class:`~accel.table.InterpolatedTable`."""
    return {"guest": In(1), "guest_index": In(EXP2.index_bits), "guest_t": In(EXP2.t_bits), "guest_value": Out(17)}


class AttentionScores(wiring.Component):
    """A (beat, query head) a cycle; nothing behind the issue stalls.

    Members
    -------
    keys : In(stream)
        Held for as many cycles as query heads share it.
    weight_write, weight_last : Out
        ``weight`` of the next head, in order of rows and heads; the last one of its K/V head.
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
            "weight_write": Out(1), "weight_last": Out(1), "weight": Out(weight_layout()),
            "reading": In(1), "read_head": In(6), "mass": Out(MASS), "top": Out(6), **exp2_members(),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.dots = dots = AttentionDots(columns=self.columns, max_heads=self.max_heads, max_dim=self.max_dim)
        wiring.connect(m, wiring.flipped(self.keys), dots.keys)
        m.d.comb += [getattr(dots, name).eq(getattr(self, name))
                     for name in ("shape", "q_write", "q_exponent_write", "column", "start", "release")]

        # 8: dot product, again; 9, 10: times the score scale; 11, 12: shifted; 13: score ----------------------------------
        dot8 = Signal(signed(39), reset_less=True)
        mantissa = delay(m, self.score_mantissa, 1, "mantissa")
        scale = Cat(mantissa, Const(0, 1)).as_signed() if self.multiplier_bits == 25 else mantissa
        product10 = product_of(m, dot8, scale, "scaled")
        base, known8, shift9 = Signal(signed(10)), Signal(signed(10), reset_less=True), Signal(signed(10), reset_less=True)
        shift10 = Signal(6, reset_less=True)
        m.d.sync += [
            dot8.eq(dots.dot), base.eq(2 * ROW_FRACTION - SCORE_FRACTION - self.score_exponent),
            known8.eq(base - dots.tag.k_exponent),
            shift9.eq(known8 - delay(m, dots.exponent, 1, "exponent")), shift10.eq(Mux(shift9 < 0, 0, Mux(shift9 > 63, 63, shift9))),
        ]
        coarse11 = delay(m, coarse_shift(m, product10, shift10, 32), 1, "coarse11")
        fine12 = delay(m, shift_right(m, coarse11, delay(m, shift10[:4], 1, "shift11"), name="fine"), 1, "fine12")
        score13 = delay(m, round_saturate(m, fine12, delay(m, coarse11[-1], 1, "sign12"), 32, name="score")[0], 1, "score13")
        tag12 = delay(m, dots.tag, 5, "tag12")
        tag13, valid13 = delay(m, tag12, 1, "tag13"), delay(m, dots.valid, 6, "valid13", valid=True)

        # 13: maximum and top of the head; 14: the new ones; 15 to 17: rise and shift of the weight -----------------
        state = data.StructLayout({"maximum": signed(17), "top": 6})
        m.submodules.states = states = memory.Memory(shape=state, depth=self.max_heads, init=[])
        state_in, state_out = states.write_port(), states.read_port(domain="comb")
        head13 = delay(m, Mux(self.reading, self.read_head, tag12.head), 1, "head13")
        tag14, state14 = delay(m, tag13, 1, "tag14"), delay(m, state_out.data, 1, "state14")
        integer = delay(m, score13[SCORE_FRACTION:], 1, "integer14").as_signed()
        # Beforehand, so that a maximum is compared and replaced in one cycle
        reference, raise_at = Signal(signed(17), reset_less=True), Signal(signed(18), reset_less=True)
        m.d.sync += [reference.eq(score13[SCORE_FRACTION:].as_signed() + 1),
                     raise_at.eq(score13[SCORE_FRACTION:].as_signed() - HEADROOM)]
        difference = Signal(signed(18))
        above, rising, higher = Signal(), Signal(), Signal()
        ve, top = tag14.v_exponent, state14.top
        m.d.comb += [
            state_out.addr.eq(head13),
            difference.eq(integer - state14.maximum), above.eq(raise_at >= state14.maximum),
            rising.eq(above | tag14.first_row), higher.eq((ve > top) | tag14.first_row),
            state_in.addr.eq(tag14.head), state_in.en.eq(delay(m, valid13, 1, "valid14", valid=True)),
            state_in.data.maximum.eq(Mux(rising, reference, state14.maximum)),
            state_in.data.top.eq(Mux(higher, ve, top)),
        ]
        # In the first row nothing is shifted: only time would be lost.
        difference15, rising15 = delay(m, difference, 1, "difference15"), delay(m, rising, 1, "rising15")
        raised15 = delay(m, above & ~tag14.first_row, 1, "raised15")
        lift15, lowered15 = Signal(6, reset_less=True), Signal(6, reset_less=True)
        m.d.sync += [lift15.eq(Mux(tag14.first_row | ~higher, 0, ve - top)), lowered15.eq(Mux(higher, 0, top - ve))]
        rise16, together17, down16 = Signal(6, reset_less=True), Signal(6, reset_less=True), Signal(5, reset_less=True)
        together = Signal(7)
        m.d.comb += together.eq(rise16 + delay(m, lift15, 1, "lift16"))
        m.d.sync += [rise16.eq(Mux(~raised15, 0, Mux(difference15 > 62, 63, difference15[:6] + 1))),
                     together17.eq(Mux(together > 63, 63, together)),
                     down16.eq(Mux(rising15, 2, Mux(difference15 < -30, 31, (1 - difference15)[:5])))]
        # 14: into the table, or a guest; 19: out of it -----------------------------------------------------------
        m.submodules.table = table = InterpolatedTable(EXP2, latency=EXP2_LATENCY - 1, distributed=True)
        m.d.comb += self.guest_value.eq(table.value)
        m.d.sync += [table.index.eq(Mux(self.guest, self.guest_index, score13[8:16])),
                     table.t.eq(Mux(self.guest, self.guest_t, score13[:8]))]

        # 20, 21: shifted down and rounded, which is p; 22, 23: shifted to units of the largest V exponent -----------------
        def shifted(value, shift, name):
            """``value / 2**shift`` to nearest, two cycles later."""
            doubled = Cat(Const(0, 1), value, Const(0, 1))
            coarse = delay(m, shift_right(m, doubled, Cat(Const(0, 2), shift[2:]), name=name + "_coarse"), 1, name + "_fours")
            wide = shift_right(m, coarse, delay(m, shift[:2], 1, name + "_ones"), name=name)
            rounded = Signal(WEIGHT, name=name + "_rounded", reset_less=True)
            m.d.sync += rounded.eq((wide >> 1) + wide[0])
            return rounded
        p21 = shifted(table.value, delay(m, down16, 3, "down19"), "p")
        m.d.comb += self.weight.weight.eq(shifted(p21, delay(m, lowered15, 6, "lowered21"), "weight"))
        # 20: a head's mass, shifted by eights; 21: by the rest, and added to
        tag19 = delay(m, Cat(tag14.head, tag14.first_row, tag14.last_rep), 5, "tag19")
        first20, last23 = delay(m, tag19[6], 1, "first20"), delay(m, tag19[7], 4, "last23")
        head20 = delay(m, Mux(self.reading, self.read_head, tag19[:6]), 1, "head20")
        rise20 = delay(m, rise16, 4, "rise20")
        m.submodules.masses = masses = memory.Memory(shape=MASS, depth=self.max_heads, init=[])
        mass_in, mass_out = masses.write_port(), masses.read_port(domain="comb")
        mass21, rise21 = Signal(MASS, reset_less=True), delay(m, rise20[:3], 1, "rise21")
        m.d.comb += mass_out.addr.eq(head20)
        with m.If(first20 | rise20[5] & rise20[3:5].any()):     # 40 and more leave nothing
            m.d.sync += mass21.eq(0)
        with m.Else():
            with m.Switch(rise20[3:6]):
                for i in range(5):
                    with m.Case(i):
                        m.d.sync += mass21.eq(mass_out.data >> 8 * i)
        valid21 = delay(m, valid13, 8, "valid21", valid=True)
        m.d.comb += [mass_in.addr.eq(delay(m, head20, 1, "head21")), mass_in.en.eq(valid21),
                     mass_in.data.eq(p21 + (mass21 >> rise21))]
        m.d.comb += [
            self.weight_write.eq(delay(m, valid21, 2, "valid23", valid=True)), self.weight_last.eq(last23),
            self.weight.shift.eq(delay(m, together17, 6, "together23")),
            self.mass.eq(mass_out.data), self.top.eq(state_out.data.top),
        ]
        return m
