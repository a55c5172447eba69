"""The mass of a vocabulary, as its logits come: the sum of ``2 ** (score - reference)``, the reference raised on the
way.

Computes :func:`llama2_spec.golden.running_mass`.
"""
from types import SimpleNamespace

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from accel.attention.softmax import EXP2_LATENCY
from accel.interfaces import Exp2Read, LogitScales
from accel.lib.numeric import credits, delay, saturate
from accel.lib.pipeline import Pipeline
from accel.lib.stream import Queue
from llama2_spec.numerics import ROW_FRACTION, SCORE_FRACTION
from llama2_spec.registers import CANDIDATE_TOTAL, CANDIDATE_WEIGHT

#: Bits of the score's shift that the scale's mantissa takes over: what is left of a multiplier's operand.
FINE = {25: 3, 18: 1}
SCORES = 16         # scores on their way, five cycles long, or waiting while the reference is raised


def chosen(values, index):
    """``values[index]``; of a single value that one, whatever the index."""
    values = [values[i] for i in range(len(values))]
    return values[0] if len(values) == 1 else Array(values)[index]


class Mass(wiring.Component):
    """Computes :func:`llama2_spec.golden.running_mass` of each set. One logit per cycle while there is ``room``. Where
    the reference of a set rises, logits wait for about as long as the table takes to answer.

    Parameters
    ----------
    sets : int
        Sets of logits, each with a scale, a reference and a mass of its own; their logits may come in any order.
    multiplier_bits : int
        What the wider operand of the device's multipliers may have, 25 or 18.

    Members
    -------
    scales : In(LogitScales)
        From logit to score; of the next pass a cycle before its ``start``.
    start, prepared : In(1), Out(1)
        Forget the last pass; logits may come from the cycle after ``prepared`` on.
    room, write, logit, which : Out(1), In(1), In(signed(32)), In(set)
        While there is room, a logit of a set.
    busy : Out(1)
        Of a logit the weight is yet to be added.
    maximum, mass : Out(array of signed(17) by set), Out(array of 48 by set)
        The reference; the sum, of which 2**14 is 1.
    ranking : In(1)
        The pass is over, and what is written now are logits of it once more: their weights go out and to ``total``, not
        to ``mass``. Changes only while not ``busy``.
    weight_write, weight : Out(1), Out(CANDIDATE_WEIGHT)
        While ``ranking``, the weights in the order of their logits. None raises the reference, so none waits.
    total : Out(array of CANDIDATE_TOTAL by set)
        Sum of those weights since ``start``.
    exp2 : Out(Exp2Read)
        Attention's table; ``busy`` while this unit is.
    """
    latency = None      #: varies

    def __init__(self, *, sets=1, multiplier_bits=25):
        if multiplier_bits not in FINE:
            raise ValueError(f"Multipliers take 18 or 25 bits, not {multiplier_bits}")
        self.sets, self.multiplier_bits = sets, multiplier_bits
        super().__init__({
            "scales": In(LogitScales(sets)), "start": In(1), "prepared": Out(1),
            "room": Out(1), "write": In(1), "logit": In(signed(32)), "which": In(range(sets)), "busy": Out(1),
            "maximum": Out(data.ArrayLayout(signed(17), sets)), "mass": Out(data.ArrayLayout(48, sets)),
            "ranking": In(1), "weight_write": Out(1), "weight": Out(CANDIDATE_WEIGHT),
            "total": Out(data.ArrayLayout(CANDIDATE_TOTAL, sets)),
            "exp2": Out(Exp2Read()),
        })

    def elaborate(self, platform):
        m = Module()
        s = SimpleNamespace()               # signals that several steps share
        self._scores(m, s)
        self._reference(m, s)
        self._weights(m, s)
        for i in range(self.sets):
            self._sum(m, s, i)
        with m.If(s.rise >= 4):
            m.d.sync += s.rise.eq(s.rise - 4)
        with m.Elif(s.rise != 0):
            m.d.sync += s.rise.eq(s.rise - 1)
        with m.Else():
            m.d.sync += s.lowering.eq(s.raise_now)
        m.d.comb += [self.busy.eq(~s.settled | (s.room != SCORES) | s.valid5 | s.lowering),
                     self.exp2.busy.eq(self.busy)]
        return m

    def _scores(self, m, s):
        """Scores, until they are taken."""
        pipe, scaled = self._score(m)
        entry = data.StructLayout({"score": signed(32), "which": range(self.sets)})
        m.submodules.scores = scores = Queue(entry, depth=SCORES)
        s.moving = Signal()
        s.coming = scores.output.valid
        popped = Signal()
        s.score, s.which = scores.output.payload.score, scores.output.payload.which
        s.room, some_room = credits(m, SCORES, self.write, delay(m, popped, 1, "left", valid=True))
        m.d.comb += [
            self.room.eq(some_room),
            scores.write.eq(pipe.carry("valid", pipe.enter(self.write), valid=True).beside(scaled).plain),
            scores.data.score.eq(scaled.plain),
            scores.data.which.eq(pipe.carry("which", pipe.enter(self.which)).beside(scaled).plain),
            scores.output.ready.eq(s.moving), popped.eq(s.coming & s.moving),
        ]

    def _reference(self, m, s):
        """5: a score that reaches its set's reference waits until its weight is below 2: all before are weighed and
        added up, the reference raised to one above the score's integer part, and the mass shifted down by as much."""
        s.integer5 = Signal(signed(16), reset_less=True)
        s.fraction5 = Signal(SCORE_FRACTION, reset_less=True)
        s.first = Signal(self.sets, init=-1)
        s.rise = Signal(6)
        s.lowering = Signal()
        s.which5 = Signal.like(s.which)
        s.above5 = Signal(signed(18))
        s.valid5 = Signal()
        raising = Signal()
        first = chosen(s.first, s.which5)
        s.settled = Signal()
        m.d.comb += [raising.eq(s.valid5 & (first | ~s.above5[-1])), s.moving.eq(~(raising | s.lowering))]
        with m.If(s.moving):
            m.d.sync += [
                s.integer5.eq(s.score[SCORE_FRACTION:]), s.fraction5.eq(s.score[:SCORE_FRACTION]),
                s.above5.eq(s.score[SCORE_FRACTION:].as_signed() - chosen(self.maximum, s.which)),
                s.valid5.eq(s.coming), s.which5.eq(s.which),
            ]
        s.raise_now = raising & s.settled & ~s.lowering
        with m.If(s.raise_now):
            m.d.sync += [s.above5.eq(-1), s.lowering.eq(1),
                         s.rise.eq(Mux(first, 0, Mux(s.above5 >= 63, 63, s.above5 + 1)))]

    def _weights(self, m, s):
        """The weight: 2**fraction, shifted down."""
        pipe = Pipeline(m)                  # of what leaves stage 5 above
        moved = pipe.enter(s.valid5 & s.moving)
        index = pipe.into(self.exp2.index, pipe.enter(s.fraction5[8:]))
        pipe.into(self.exp2.t, pipe.enter(s.fraction5[:8]))
        # a register each on the paths mass -> attention's table -> mass
        answer = pipe.later("answer", pipe.enter(self.exp2.value, index.stage + EXP2_LATENCY))
        weighing, which = pipe.carry("weighing", moved, valid=True), pipe.carry("which", pipe.enter(s.which5))
        down = pipe.carry("down", pipe.register("down", pipe.enter(Mux(s.above5 < -30, 31, (1 - s.above5)[:5])), 5))
        doubled = pipe.register("doubled", pipe.combine(lambda x, by: (x << 1) >> by, answer, down.beside(answer)), 18)
        rounded = pipe.combine(Mux, weighing.beside(doubled), (doubled >> 1) + doubled[0], 0)
        weight = pipe.register("weight", rounded, 17, reset_less=False)
        first, *later = weighing.until(doubled)[1:]
        still = Signal()                    # a cycle later: with ``first``, whether any is yet to be weighed
        m.d.sync += still.eq(Cat(first, *later).any())
        m.d.comb += s.settled.eq(~still & ~first)
        s.weight, s.weighed = weight.plain, which.beside(weight).plain
        # A weight that is 1 or less, as below the reference all are, has 15 bits
        pipe.drive((self.weight, weight), (self.weight_write, weighing.beside(weight) & self.ranking))

    def _sum(self, m, s, i):
        """Reference, mass and total of set ``i``."""
        mass, lowered = self.mass[i], Signal(48, name=f"lowered{i}")
        added, risen = s.weighed == i, s.which5 == i    # a set whose reference rises is that of stage 5 until it has
        m.d.comb += lowered.eq(Mux(risen & (s.rise >= 4), mass >> 4, Mux(risen & (s.rise != 0), mass >> 1, mass)))
        m.d.sync += [mass.eq(Mux(added & ~self.ranking, s.weight, 0) + lowered),
                     self.total[i].eq(self.total[i] + Mux(added & self.ranking, s.weight, 0))]
        with m.If(s.raise_now & risen):
            m.d.sync += [s.first[i].eq(0), self.maximum[i].eq(s.integer5 + 1)]
        with m.If(self.start):
            m.d.sync += [s.first[i].eq(1), mass.eq(0), self.maximum[i].eq(0), self.total[i].eq(0)]

    def _prepared(self, m):
        """(mantissa, shift) of each set. The last bits of the shift to the right are one of the mantissa to the left,
        once a pass."""
        bits, scales, left = FINE[self.multiplier_bits], [], []
        for i in range(self.sets):
            wanted, shift = Signal(signed(9), name=f"wanted{i}"), Signal(6, name=f"shift{i}")
            scale, fine = Signal(signed(17 + (1 << bits) - 1), name=f"scale{i}"), Signal(bits, name=f"fine{i}")
            m.d.comb += wanted.eq(ROW_FRACTION - SCORE_FRACTION - self.scales.exponents[i])
            m.d.sync += shift.eq(Mux(wanted < 0, 0, Mux(wanted > 63, 63, wanted)))
            with m.If(self.start):
                m.d.sync += [scale.eq(self.scales.mantissas[i]), fine.eq(~shift[:bits])]
            with m.Elif(fine != 0):
                m.d.sync += [scale.eq(scale << 1), fine.eq(fine - 1)]
            scales.append((scale, shift[bits:]))
            left.append(fine)
        preparing = Signal()
        m.d.comb += self.prepared.eq(preparing & ~Cat(*left).any())
        m.d.sync += preparing.eq(self.start | preparing & ~self.prepared)
        return scales

    def _score(self, m):
        """(the pipeline, ``saturate(round_shift(logit * scale))`` in it, five cycles after the logit)."""
        pipe, bits, scales = Pipeline(m), FINE[self.multiplier_bits], self._prepared(m)
        scale, shift = scales[0]        # constant in a pass, unless logits of several sets follow each other
        if self.sets != 1:
            which = pipe.enter(self.which)
            scale = pipe.register("scale", pipe.combine(lambda i: chosen([one for one, _ in scales], i), which))
            shift = pipe.register("shift", pipe.combine(lambda i: chosen([one for _, one in scales], i), which))
        logit = pipe.later("value", pipe.enter(self.logit))     # beside the multipliers
        low = pipe.register("low", pipe.combine(lambda x, scale: Cat(x[:17], Const(0, 1)).as_signed() * scale,
                                                logit, scale), signed(18 + len(scales[0][0])))
        high = pipe.register("high", pipe.combine(lambda x, scale: x[17:].as_signed() * scale, logit, scale),
                             signed(15 + len(scales[0][0])))
        # The high part of their sum, without the low product's last 17 bits, fits a DSP slice
        upper = pipe.register("upper", high + (low >> 17), high.plain.shape())
        lower = pipe.register("lower", low[:17], 17)
        twice = pipe.combine(lambda lower, upper: Cat(Const(0, 1), lower, upper), lower, upper)
        if self.sets != 1:
            shift = pipe.carry("shift", shift).beside(twice).plain
        return pipe, self._round(m, pipe, twice, shift, bits)

    def _round(self, m, pipe, twice, shift, bits):
        """``twice`` shifted by multiples of ``2**bits``, less one, rounded and clamped, two stages later."""
        value, sign = twice.plain, twice.plain[-1]
        moved = Signal(signed(34), reset_less=True)
        far = Signal(reset_less=True)
        with m.Switch(shift):
            for i in range(1 << 6 - bits):
                begin = ((i + 1) << bits) - 1
                part = Cat(value, sign.replicate(64))[begin:]
                above = value[begin + 33:]          # what the result cannot hold
                with m.Case(i):
                    m.d.sync += [moved.eq(part[:34]),
                                 far.eq((above != sign.replicate(len(above))) if len(above) else 0)]
        negative = pipe.register("sign", twice[-1], 1)
        moved, far = (pipe.enter(x, twice.stage + 1) for x in (moved, far))

        def clamp(moved, far, negative):
            near = Signal(signed(33), name="near")
            m.d.comb += near.eq((moved >> 1) + moved[0])
            narrow, _ = saturate(m, near, 32, name="near")
            return Mux(far, Cat((~negative).replicate(31), negative).as_signed(), narrow)
        return pipe.register("score", pipe.combine(clamp, moved, far, negative), signed(32))
