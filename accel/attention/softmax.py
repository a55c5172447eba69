"""One softmax pipe of attention: dot products to weights, with each head's maximum, V exponent and mass.

Ref: Milakov & Gimelshein 2018 (online softmax).
"""
from types import SimpleNamespace

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from accel.attention.dots import DOT, TAG
from accel.interfaces import Exp2Read
from accel.lib.numeric import coarse_shift, delay, round_saturate, shift_right
from accel.lib.pipeline import Pipeline
from accel.lib.table import InterpolatedTable
from llama2_spec.numerics import HEADROOM, ROW_FRACTION, SCORE_FRACTION
from llama2_spec.tables import EXP2

MASS = 34           #: bits of a mass: 2**17 weights of 17 bits
WEIGHT = 17
EXP2_LATENCY = 6    #: cycles until ``guest.value`` answers


def weight_layout():
    """What a row's V head is multiplied by for one query head, and by how much the sums shift down before."""
    return data.StructLayout({"weight": WEIGHT, "shift": 6})


class SoftmaxPipe(wiring.Component):
    """The scores, weights and masses of :func:`llama2_spec.golden.attend`. One dot product a cycle; nothing stalls.

    Members
    -------
    dot, tag, exponent, valid : In(signed(39)), In(TAG), In(6), In(1)
        A dot product, and the exponent of its query, see :class:`~accel.attention.dots.AttentionDots`; two of the same
        head are two cycles apart at least.
    weight_write, weight_last : Out(1)
        ``weight`` of the next dot product; the last one of its K/V head.
    reading, read_head : In(1), In(6)
        When nothing is on its way: head whose ``mass`` and ``top`` (the largest V exponent) are shown, a cycle
        later.
    guest : In(Exp2Read)
        As long as nothing is on its way: the table of EXP2 answers another unit, see
        :class:`accel.interfaces.Exp2Read`.
    score_mantissa : In(16)
        Of the score scale; constant while dot products come.
    score_exponent : In(signed(8))
        Of the score scale; constant while dot products come.
    weight : Out(weight_layout)
        Valid with ``weight_write``.
    mass : Out(MASS)
        Of ``read_head``, a cycle later, while ``reading``.
    top : Out(6)
        Of ``read_head``, a cycle later, while ``reading``.
    """
    latency = 16        #: from a dot product to its weight

    def __init__(self, *, max_heads, multiplier_bits=25):
        self.max_heads, self.multiplier_bits = max_heads, multiplier_bits
        super().__init__({
            "score_mantissa": In(16), "score_exponent": In(signed(8)),
            "dot": In(signed(DOT)), "tag": In(TAG), "exponent": In(6), "valid": In(1),
            "weight_write": Out(1), "weight_last": Out(1), "weight": Out(weight_layout()),
            "reading": In(1), "read_head": In(6), "mass": Out(MASS), "top": Out(6), "guest": In(Exp2Read()),
        })

    def elaborate(self, platform):
        m = Module()
        s = SimpleNamespace()               # signals that several steps share
        self._scale(m, s)
        self._state(m, s)
        self._rise(m, s)
        self._table(m, s)
        self._weights(m, s)
        self._mass(m, s)
        return m

    def _scale(self, m, s):
        """Scores."""
        pipe = s.pipe = Pipeline(m)
        enter = pipe.enter(self.tag)
        s.tag = pipe.carry("tag", enter)
        s.valid = pipe.carry("valid", pipe.enter(self.valid), valid=True)
        mantissa = delay(m, self.score_mantissa, 1, "mantissa")
        base = Signal(signed(10))
        m.d.sync += base.eq(2 * ROW_FRACTION - SCORE_FRACTION - self.score_exponent)
        scale = Cat(mantissa, Const(0, 1)).as_signed() if self.multiplier_bits == 25 else mantissa
        dot = pipe.register("dot", pipe.enter(self.dot))
        product = pipe.product("scaled", dot, scale)
        known = pipe.register("known", pipe.combine(lambda exponent: base - exponent, enter.k_exponent), signed(10))
        exponent = pipe.carry("exponent", pipe.enter(self.exponent)).beside(known)
        whole = pipe.register("shift", known - exponent, signed(10))
        shift = pipe.register("clamped", pipe.combine(lambda x: Mux(x < 0, 0, Mux(x > 63, 63, x)), whole), 6)
        coarse = pipe.later("coarse", pipe.combine(lambda x, by: coarse_shift(m, x, by, 32), product, shift))
        fine = pipe.later("fine", pipe.combine(lambda x, by: shift_right(m, x, by, name="fine"),
                                               coarse, pipe.carry("ones", shift[:4]).beside(coarse)))
        rounded, _ = pipe.combine(lambda x, sign: round_saturate(m, x, sign, 32, name="score"),
                                  fine, pipe.carry("sign", coarse[-1]).beside(fine))
        s.score = pipe.later("score", rounded)

    def _state(self, m, s):
        """Maximum and top of the head."""
        # With the score the maximum and top of its head; a stage later the new ones
        pipe, at = s.pipe, s.score.stage
        state = data.StructLayout({"maximum": signed(17), "top": 6})
        m.submodules.states = states = memory.Memory(shape=state, depth=self.max_heads, init=[])
        state_in, s.state_out = states.write_port(), states.read_port(domain="comb")
        head = pipe.later("head",
                          pipe.combine(lambda tag: Mux(self.reading, self.read_head, tag.head), s.tag.at(at - 1)))
        m.d.comb += s.state_out.addr.eq(head.plain)
        old, whole = pipe.later("state", pipe.enter(s.state_out.data, at)), s.score[SCORE_FRACTION:]
        integer = pipe.later("integer", whole)
        # Beforehand, so that a maximum is compared and replaced in one cycle
        reference = pipe.register("reference", pipe.combine(lambda x: x.as_signed() + 1, whole), signed(17))
        raise_at = pipe.register("raise_at", pipe.combine(lambda x: x.as_signed() - HEADROOM, whole), signed(18))
        tag = s.tag.beside(old).plain
        difference = Signal(signed(18))
        above = Signal()
        rising = Signal()
        higher = Signal()
        s.difference, s.above, s.rising, s.higher = (pipe.enter(x, old.stage)
                                                     for x in (difference, above, rising, higher))
        s.first_row, s.lift, s.lower = tag.first_row, tag.v_exponent - old.plain.top, old.plain.top - tag.v_exponent
        maximum = pipe.combine(lambda rising, new, old: Mux(rising, new, old.maximum), s.rising, reference, old)
        m.d.comb += [
            difference.eq(pipe.combine(lambda x, old: x.as_signed() - old.maximum, integer, old).plain),
            above.eq(pipe.combine(lambda x, old: x >= old.maximum, raise_at, old).plain),
            rising.eq(above | tag.first_row), higher.eq((tag.v_exponent > old.plain.top) | tag.first_row),
            state_in.addr.eq(tag.head), state_in.en.eq(s.valid.beside(old).plain),
            state_in.data.maximum.eq(maximum.plain),
            state_in.data.top.eq(Mux(higher, tag.v_exponent, old.plain.top)),
        ]

    def _rise(self, m, s):
        """How far the reference rises."""
        # In the first row nothing is shifted: only time would be lost.
        pipe, higher, first = s.pipe, s.higher.plain, s.first_row
        difference, rising = pipe.later("difference", s.difference), pipe.later("rising", s.rising)
        raised = pipe.later("raised", pipe.combine(lambda above: above & ~first, s.above))
        lift = pipe.register("lift", pipe.enter(Mux(first | ~higher, 0, s.lift), s.higher.stage), 6)
        s.lowered = pipe.register("lowered", pipe.enter(Mux(higher, 0, s.lower), s.higher.stage), 6)
        s.rise = pipe.register("rise", pipe.combine(
            lambda raised, by: Mux(~raised, 0, Mux(by > 62, 63, by[:6] + 1)), raised, difference), 6)
        together = Signal(7)
        m.d.comb += together.eq((s.rise + pipe.carry("lift", lift).beside(s.rise)).plain)
        s.together = pipe.register("together", pipe.enter(Mux(together > 63, 63, together), s.rise.stage), 6)
        s.down = pipe.register("down", pipe.combine(
            lambda rising, by: Mux(rising, 2, Mux(by < -30, 31, (1 - by)[:5])), rising, difference), 5)

    def _table(self, m, s):
        """2**x, of the score or for a guest."""
        m.submodules.table = table = InterpolatedTable(EXP2, latency=EXP2_LATENCY - 1, distributed=True)
        score = s.score.plain
        m.d.comb += self.guest.value.eq(table.value)
        m.d.sync += [table.index.eq(Mux(self.guest.busy, self.guest.index, score[8:16])),
                     table.t.eq(Mux(self.guest.busy, self.guest.t, score[:8]))]
        s.power = s.pipe.enter(table.value, s.score.stage + EXP2_LATENCY)

    def _weights(self, m, s):
        """Weights: shifted down and rounded, which is p, then shifted to units of the largest V exponent."""
        pipe = s.pipe

        def shifted(value, shift, name):
            """``value / 2**shift`` to nearest, two stages later; ``shift`` is carried."""
            by = shift.beside(value)
            doubled = pipe.combine(lambda x: Cat(Const(0, 1), x, Const(0, 1)), value)
            coarse = pipe.later(name + "_fours", pipe.combine(
                lambda x, by: shift_right(m, x, Cat(Const(0, 2), by[2:]), name=name + "_coarse"), doubled, by))
            wide = pipe.combine(lambda x, by: shift_right(m, x, by, name=name),
                                coarse, pipe.carry(name + "_ones", by[:2]).beside(coarse))
            return pipe.register(name + "_rounded", (wide >> 1) + wide[0], WEIGHT)
        s.p = shifted(s.power, pipe.carry("down", s.down), "p")
        s.weighted = shifted(s.p, pipe.carry("lowered", s.lowered), "weight")
        assert s.weighted.stage == self.latency
        m.d.comb += self.weight.weight.eq(s.weighted.plain)

    def _mass(self, m, s):
        """A head's mass: shifted by eights, then by the rest, and added to."""
        pipe, p = s.pipe, s.p
        tag = s.tag.beside(s.higher)
        heads, firsts, lasts = (pipe.carry(f"mass_{name}", getattr(tag, name))
                                for name in ("head", "first_row", "last_rep"))
        rise = pipe.carry("rise", s.rise)
        head = pipe.later("mass_at", pipe.combine(lambda head: Mux(self.reading, self.read_head, head),
                                                    heads.at(p.stage - 2)))
        m.submodules.masses = masses = memory.Memory(shape=MASS, depth=self.max_heads, init=[])
        mass_in, mass_out = masses.write_port(), masses.read_port(domain="comb")
        m.d.comb += mass_out.addr.eq(head.plain)
        shifted, by = Signal(MASS, name="mass", reset_less=True), rise.beside(head).plain
        first = firsts.beside(head).plain
        with m.If(first | by[5] & by[3:5].any()):       # 40 and more leave nothing
            m.d.sync += shifted.eq(0)
        with m.Else():
            with m.Switch(by[3:6]):
                for i in range(5):
                    with m.Case(i):
                        m.d.sync += shifted.eq(mass_out.data >> 8 * i)
        mass = pipe.combine(lambda p, x, by: p + (x >> by[:3]), p, pipe.enter(shifted, head.stage + 1), rise.beside(p))
        written = pipe.combine(lambda at, _: at, pipe.later("written_at", head), p)
        m.d.comb += [mass_in.addr.eq(written.plain), mass_in.en.eq(s.valid.beside(p).plain),
                     mass_in.data.eq(mass.plain)]
        last = s.weighted
        m.d.comb += [
            self.weight_write.eq(s.valid.beside(last).plain), self.weight_last.eq(lasts.beside(last).plain),
            self.weight.shift.eq(pipe.carry("together", s.together).beside(last).plain),
            self.mass.eq(mass_out.data), self.top.eq(s.state_out.data.top),
        ]
