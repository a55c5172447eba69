"""The mass of a vocabulary, as its logits come: the sum of ``2 ** (score - reference)``, the reference raised on the way.

Computes :func:`llama2_spec.golden.running_mass`.
"""
from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from accel.attention_scores import EXP2_LATENCY
from accel.numeric import credits, delay, saturate
from accel.stage import Queue
from llama2_spec.numerics import ROW_FRACTION, SCORE_FRACTION
from llama2_spec.tables import EXP2

#: Bits of the score's shift that the scale's mantissa takes over: what is left of a multiplier's operand.
FINE = {25: 3, 18: 1}
SCORES = 16         # scores on their way, five cycles long, or waiting while the reference is raised
ANSWER = EXP2_LATENCY + 2       # the table is far away: a register on the way there and one on the way back


class Mass(wiring.Component):
    """A logit a cycle, but where the reference rises: that takes about as long as the table's answer.

    Parameters
    ----------
    multiplier_bits : int
        What the wider operand of the device's multipliers may have, 25 or 18.

    Members
    -------
    scale_mantissa, scale_exponent : In
        From logit to score; of the next pass a cycle before its ``start``.
    start, prepared : In, Out
        Forget the last pass; logits may come from the cycle after ``prepared`` on.
    room, write, logit : Out, In, In
        While there is room, a logit.
    busy : Out
        Of a logit the weight is yet to be added.
    maximum, mass : Out
        The reference; the sum, of which 2**14 is 1.
    exp2_index, exp2_t, exp2_value : Out, Out, In
        An :class:`~accel.table.InterpolatedTable` of EXP2.
    """
    def __init__(self, *, multiplier_bits=25):
        if multiplier_bits not in FINE:
            raise ValueError(f"Multipliers take 18 or 25 bits, not {multiplier_bits}")
        self.multiplier_bits = multiplier_bits
        super().__init__({
            "scale_mantissa": In(16), "scale_exponent": In(signed(8)), "start": In(1), "prepared": Out(1),
            "room": Out(1), "write": In(1), "logit": In(signed(32)), "busy": Out(1),
            "maximum": Out(signed(17)), "mass": Out(48),
            "exp2_index": Out(EXP2.index_bits), "exp2_t": Out(EXP2.t_bits), "exp2_value": In(17),
        })

    def elaborate(self, platform):
        m = Module()
        score4 = self._score(m)
        m.submodules.scores = scores = Queue(signed(32), depth=SCORES)
        score, moving, popped = scores.output.payload, Signal(), Signal()
        room, some_room = credits(m, SCORES, self.write, delay(m, popped, 1, "left", valid=True))
        m.d.comb += [
            self.room.eq(some_room), scores.write.eq(delay(m, self.write, 5, "valid", valid=True)), scores.data.eq(score4),
            scores.output.ready.eq(moving), popped.eq(scores.output.valid & moving),
        ]

        # 5: a score that reaches the reference waits until its weight is below 2: all before are weighed and added up, the
        # reference raised to one above the score's integer part, and the mass shifted down by as much
        integer5, fraction5 = Signal(signed(16), reset_less=True), Signal(SCORE_FRACTION, reset_less=True)
        first, rise, lowering = Signal(init=1), Signal(6), Signal()
        above5, down, valid5 = Signal(signed(18)), Signal(5, reset_less=True), Signal()
        raising, settled = Signal(), Signal()
        m.d.comb += [raising.eq(valid5 & (first | ~above5[-1])), moving.eq(~(raising | lowering))]
        m.d.sync += [self.exp2_index.eq(fraction5[8:]), self.exp2_t.eq(fraction5[:8])]
        answer = delay(m, self.exp2_value, 1, "answer")
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
        m.d.sync += self.mass.eq(weight + lowered)
        m.d.comb += self.busy.eq(~settled | (room != SCORES) | valid5 | lowering)
        with m.If(self.start):
            m.d.sync += [first.eq(1), self.mass.eq(0), self.maximum.eq(0)]
        return m

    def _score(self, m):
        """``saturate(round_shift(logit * scale))``, four cycles after its logit came beside the multipliers, five after it came."""
        # The last bits of the shift to the right as one of the mantissa to the left, once a pass
        bits = FINE[self.multiplier_bits]
        wanted, shift = Signal(signed(9)), Signal(6)
        scale, fine, preparing = Signal(signed(17 + (1 << bits) - 1)), Signal(bits), Signal()
        m.d.comb += [wanted.eq(ROW_FRACTION - SCORE_FRACTION - self.scale_exponent), self.prepared.eq(preparing & (fine == 0))]
        m.d.sync += shift.eq(Mux(wanted < 0, 0, Mux(wanted > 63, 63, wanted)))
        with m.If(self.start):
            m.d.sync += [scale.eq(self.scale_mantissa), fine.eq(~shift[:bits]), preparing.eq(1)]
        with m.Elif(preparing & (fine != 0)):
            m.d.sync += [scale.eq(scale << 1), fine.eq(fine - 1)]
        with m.Else():
            m.d.sync += preparing.eq(0)

        # 0: a logit, beside the multipliers; 1: products of its halves; 2: their sum, whose high part without the low product's
        # last 17 bits fits a DSP slice; 3: shifted; 4: rounded
        value0 = delay(m, self.logit, 1, "value0")
        low1, high1 = Signal(signed(18 + len(scale)), reset_less=True), Signal(signed(15 + len(scale)), reset_less=True)
        upper2, lower2 = Signal(signed(15 + len(scale)), reset_less=True), Signal(17, reset_less=True)
        moved3, far3, sign3 = Signal(signed(34), reset_less=True), Signal(reset_less=True), Signal(reset_less=True)
        twice2, sign2 = Cat(Const(0, 1), lower2, upper2), upper2[-1]
        m.d.sync += [
            low1.eq(Cat(value0[:17], Const(0, 1)).as_signed() * scale), high1.eq(value0[17:].as_signed() * scale),
            upper2.eq(high1 + (low1 >> 17)), lower2.eq(low1[:17]), sign3.eq(sign2),
        ]
        with m.Switch(shift[bits:]):
            for i in range(1 << 6 - bits):
                begin = ((i + 1) << bits) - 1
                part = Cat(twice2, sign2.replicate(64))[begin:]
                above = twice2[begin + 33:]         # what the result cannot hold
                with m.Case(i):
                    m.d.sync += [moved3.eq(part[:34]), far3.eq((above != sign2.replicate(len(above))) if len(above) else 0)]
        near, score4 = Signal(signed(33)), Signal(signed(32), reset_less=True)
        m.d.comb += near.eq((moved3 >> 1) + moved3[0])
        narrow, _ = saturate(m, near, 32, name="near")
        m.d.sync += score4.eq(Mux(far3, Cat((~sign3).replicate(31), sign3).as_signed(), narrow))
        return score4
