"""The mass of a vocabulary, as its logits come: the sum of ``2 ** (score - reference)``, the reference raised on the
way.

Computes :func:`llama2_spec.golden.running_mass`.
"""
from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from accel.attention.scores import EXP2_LATENCY
from accel.interfaces import Exp2Read
from accel.lib.numeric import credits, delay, saturate
from accel.lib.pipeline import Pipeline
from accel.lib.stream import Queue
from llama2_spec.numerics import ROW_FRACTION, SCORE_FRACTION
from llama2_spec.registers import CANDIDATE_TOTAL, CANDIDATE_WEIGHT

#: Bits of the score's shift that the scale's mantissa takes over: what is left of a multiplier's operand.
FINE = {25: 3, 18: 1}
SCORES = 16         # scores on their way, five cycles long, or waiting while the reference is raised
ANSWER = EXP2_LATENCY + 2       # a register each on the paths mass -> attention's table -> mass


class Mass(wiring.Component):
    """Computes :func:`llama2_spec.golden.running_mass`. One logit per cycle while there is ``room``. Where the
    reference rises, logits wait for about as long as the table takes to answer.

    Parameters
    ----------
    multiplier_bits : int
        What the wider operand of the device's multipliers may have, 25 or 18.

    Members
    -------
    scale_mantissa, scale_exponent : In(16), In(signed(8))
        From logit to score; of the next pass a cycle before its ``start``.
    start, prepared : In(1), Out(1)
        Forget the last pass; logits may come from the cycle after ``prepared`` on.
    room, write, logit : Out(1), In(1), In(signed(32))
        While there is room, a logit.
    busy : Out(1)
        Of a logit the weight is yet to be added.
    maximum, mass : Out(signed(17)), Out(48)
        The reference; the sum, of which 2**14 is 1.
    ranking : In(1)
        The pass is over, and what is written now are logits of it once more: their weights go out and to ``total``, not
        to ``mass``. Changes only while not ``busy``.
    weight_write, weight : Out(1), Out(CANDIDATE_WEIGHT)
        While ``ranking``, the weights in the order of their logits. None raises the reference, so none waits.
    total : Out(CANDIDATE_TOTAL)
        Sum of the weights since ``ranking`` began.
    exp2 : Out(Exp2Read)
        Attention's table; ``busy`` while this unit is.
    """
    latency = None      #: varies

    def __init__(self, *, multiplier_bits=25):
        if multiplier_bits not in FINE:
            raise ValueError(f"Multipliers take 18 or 25 bits, not {multiplier_bits}")
        self.multiplier_bits = multiplier_bits
        super().__init__({
            "scale_mantissa": In(16), "scale_exponent": In(signed(8)), "start": In(1), "prepared": Out(1),
            "room": Out(1), "write": In(1), "logit": In(signed(32)), "busy": Out(1),
            "maximum": Out(signed(17)), "mass": Out(48),
            "ranking": In(1), "weight_write": Out(1), "weight": Out(CANDIDATE_WEIGHT), "total": Out(CANDIDATE_TOTAL),
            "exp2": Out(Exp2Read()),
        })

    def elaborate(self, platform):
        m = Module()
        pipe, scaled = self._score(m)
        m.submodules.scores = scores = Queue(signed(32), depth=SCORES)
        score, moving, popped = scores.output.payload, Signal(), Signal()
        room, some_room = credits(m, SCORES, self.write, delay(m, popped, 1, "left", valid=True))
        m.d.comb += [
            self.room.eq(some_room),
            scores.write.eq(pipe.carry("valid", pipe.enter(self.write), valid=True).beside(scaled).plain),
            scores.data.eq(scaled.plain), scores.output.ready.eq(moving), popped.eq(scores.output.valid & moving),
        ]

        # 5: a score that reaches the reference waits until its weight is below 2: all before are weighed and added up,
        # the reference raised to one above the score's integer part, and the mass shifted down by as much
        integer5, fraction5 = Signal(signed(16), reset_less=True), Signal(SCORE_FRACTION, reset_less=True)
        first, rise, lowering = Signal(init=1), Signal(6), Signal()
        above5, down, valid5 = Signal(signed(18)), Signal(5, reset_less=True), Signal()
        raising, settled = Signal(), Signal()
        m.d.comb += [raising.eq(valid5 & (first | ~above5[-1])), moving.eq(~(raising | lowering))]
        m.d.sync += [self.exp2.index.eq(fraction5[8:]), self.exp2.t.eq(fraction5[:8])]
        answer = delay(m, self.exp2.value, 1, "answer")
        with m.If(moving):
            m.d.sync += [integer5.eq(score[SCORE_FRACTION:]), fraction5.eq(score[:SCORE_FRACTION]),
                         above5.eq(score[SCORE_FRACTION:].as_signed() - self.maximum), valid5.eq(scores.output.valid)]
        weighing = [valid5 & moving]
        for i in range(ANSWER + 2):
            weighing.append(delay(m, weighing[-1], 1, f"weighing{i}", valid=True))
        still = Signal()                    # of weighing[2:]
        m.d.sync += still.eq(Cat(*weighing[1:-1]).any())
        m.d.comb += settled.eq(~still & ~weighing[1])
        raise_now = raising & settled & ~lowering
        with m.If(raise_now):
            m.d.sync += [first.eq(0), self.maximum.eq(integer5 + 1), above5.eq(-1), lowering.eq(1),
                         rise.eq(Mux(first, 0, Mux(above5 >= 63, 63, above5 + 1)))]

        # The weight: 2**fraction, shifted down
        m.d.sync += down.eq(Mux(above5 < -30, 31, (1 - above5)[:5]))
        down_late = delay(m, down, ANSWER - 1, "down")
        doubled, weight = Signal(18, reset_less=True), Signal(17)
        m.d.sync += [doubled.eq((answer << 1) >> down_late),
                     weight.eq(Mux(weighing[-2], (doubled >> 1) + doubled[0], 0))]
        lowered = Signal(48)
        with m.If(rise >= 4):
            m.d.comb += lowered.eq(self.mass >> 4)
            m.d.sync += rise.eq(rise - 4)
        with m.Elif(rise != 0):
            m.d.comb += lowered.eq(self.mass >> 1)
            m.d.sync += rise.eq(rise - 1)
        with m.Else():
            m.d.comb += lowered.eq(self.mass)
            m.d.sync += lowering.eq(raise_now)
        # A weight that is 1 or less, as below the reference all are, has 15 bits
        m.d.comb += [self.weight.eq(weight), self.weight_write.eq(weighing[-1] & self.ranking)]
        m.d.sync += [self.mass.eq(Mux(self.ranking, 0, weight) + lowered),
                     self.total.eq(Mux(self.ranking, self.total + weight, 0))]
        m.d.comb += [self.busy.eq(~settled | (room != SCORES) | valid5 | lowering), self.exp2.busy.eq(self.busy)]
        with m.If(self.start):
            m.d.sync += [first.eq(1), self.mass.eq(0), self.maximum.eq(0)]
        return m

    def _score(self, m):
        """(the pipeline, ``saturate(round_shift(logit * scale))`` in it, five cycles after the logit)."""
        # The last bits of the shift to the right as one of the mantissa to the left, once a pass
        bits = FINE[self.multiplier_bits]
        wanted, shift = Signal(signed(9)), Signal(6)
        scale, fine, preparing = Signal(signed(17 + (1 << bits) - 1)), Signal(bits), Signal()
        m.d.comb += [wanted.eq(ROW_FRACTION - SCORE_FRACTION - self.scale_exponent),
                     self.prepared.eq(preparing & (fine == 0))]
        m.d.sync += shift.eq(Mux(wanted < 0, 0, Mux(wanted > 63, 63, wanted)))
        with m.If(self.start):
            m.d.sync += [scale.eq(self.scale_mantissa), fine.eq(~shift[:bits]), preparing.eq(1)]
        with m.Elif(preparing & (fine != 0)):
            m.d.sync += [scale.eq(scale << 1), fine.eq(fine - 1)]
        with m.Else():
            m.d.sync += preparing.eq(0)

        pipe = Pipeline(m)
        logit = pipe.later("value", pipe.enter(self.logit))     # beside the multipliers
        low = pipe.register("low", pipe.combine(lambda x: Cat(x[:17], Const(0, 1)).as_signed() * scale, logit),
                            signed(18 + len(scale)))
        high = pipe.register("high", pipe.combine(lambda x: x[17:].as_signed() * scale, logit), signed(15 + len(scale)))
        # The high part of their sum, without the low product's last 17 bits, fits a DSP slice
        upper = pipe.register("upper", high + (low >> 17), signed(15 + len(scale)))
        lower = pipe.register("lower", low[:17], 17)
        twice = pipe.combine(lambda lower, upper: Cat(Const(0, 1), lower, upper), lower, upper)
        return pipe, self._round(m, pipe, twice, shift[bits:], bits)

    def _round(self, m, pipe, twice, shift, bits):
        """``twice`` shifted by multiples of ``2**bits``, less one, rounded and clamped, two stages later."""
        value, sign = twice.plain, twice.plain[-1]
        moved, far = Signal(signed(34), reset_less=True), Signal(reset_less=True)
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
