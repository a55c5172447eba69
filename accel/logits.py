"""The logit unit: argmax of every column, the largest logits as candidates for sampling, and the mass of the vocabulary.

Computes :meth:`spec.golden.Logits.kept` and :func:`spec.golden.running_mass`; logits never go to DRAM.
"""
from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.numeric import UNCHECKED, credits, delay, saturate
from accel.attention_scores import EXP2_LATENCY
from accel.stage import Queue
from accel.window import RESULT
from spec.numerics import ROW_FRACTION, SCORE_FRACTION
from spec.tables import EXP2

KEY = 50            # a candidate's rank: {logit, ~token}, so that of equal logits the later token goes first
GROUP = 8
#: Bits of the score's shift that the scale's mantissa takes over: what is left of a multiplier's operand.
FINE = {25: 3, 18: 1}
SCORES = 16         # scores on their way, five cycles long, or waiting while the reference is raised
ANSWER = EXP2_LATENCY + 2       # the table is far away: a register on the way there and one on the way back


def ordered(value):
    """A signed value as an unsigned one of the same order: its comparison is a carry chain and nothing behind it."""
    return Cat(value[:-1], ~value[-1])


class LogitUnit(wiring.Component):
    """One logit a cycle, or with ``keep`` one in two, and in about 20 where it is inserted among the candidates.

    Parameters
    ----------
    columns, candidates : int
        Argmaxes of a pass; candidates kept, 64.
    multiplier_bits : int
        What the wider operand of the device's multipliers may have, 25 or 18.

    Members
    -------
    first, last : In
        The columns whose logits come: every row has one of each, in order.
    start : In
        Forget the last pass; what describes the next is taken a cycle later.
    logits : In(stream)
    keep, dump : In
        Gather candidates and mass, of one column only; offer each logit at ``dump_data`` and wait for ``dump_take``.
    result : Out(stream)
        One per column, in order.
    candidate_index : In
        ``candidate_token`` and ``candidate_logit`` follow two cycles later, in no particular order; between passes.
    exp2_index, exp2_t, exp2_value : Out, Out, In
        An :class:`~accel.table.InterpolatedTable` of EXP2 that serves this unit while it is ``busy``.
    """
    def __init__(self, *, columns=1, candidates=64, multiplier_bits=25):
        if candidates != GROUP ** 2:
            raise ValueError(f"Candidates are {GROUP} groups of {GROUP}, not {candidates}")
        self.columns, self.candidates, self.multiplier_bits = columns, candidates, multiplier_bits
        column = range(max(columns, 2))
        super().__init__({
            "first": In(column), "last": In(column), "start": In(1), "keep": In(1), "dump": In(1), "busy": Out(1), "cycles": In(32),
            "scale_mantissa": In(16), "scale_exponent": In(signed(8)),
            "logits": In(stream.Signature(data.StructLayout({"value": signed(32), "column": column, "row": 18, "last": 1}))),
            "result": Out(stream.Signature(RESULT)),
            "dump_valid": Out(1), "dump_data": Out(32), "dump_take": In(1),
            "candidate_index": In(6), "candidate_token": Out(18), "candidate_logit": Out(signed(32)),
            "exp2_index": Out(EXP2.index_bits), "exp2_t": Out(EXP2.t_bits), "exp2_value": In(17),
        })

    def elaborate(self, platform):
        m = Module()
        # Two logits may wait: whether one is taken is known from a register, and so is what is taken
        layout = self.logits.payload.shape()
        item, spare = Signal(layout, reset_less=True), Signal(layout, reset_less=True)
        there, waiting = Signal(), Signal()
        token, final_column, shown = item.row, Signal.like(item.column), Signal.like(item.column)
        keep, dump, running, ended, counting = Signal(), Signal(), Signal(), Signal(), Signal()     # counting: running, prepared and not ended
        free, take, moving, weighed = Signal(), Signal(), Signal(), Signal()
        open_, compared = Signal(), Signal()
        begun = delay(m, self.start, 1, "begun", valid=True)
        m.d.comb += [
            open_.eq(free & weighed & counting & there & compared), take.eq(open_ & (~dump | self.dump_take)),
            self.logits.ready.eq(~waiting), self.dump_data.eq(item.value),
        ]
        m.d.sync += self.dump_valid.eq(dump & open_ & ~take)
        with m.If(~waiting):
            m.d.sync += spare.eq(self.logits.payload)
        with m.If(~there | take):
            m.d.sync += [there.eq(waiting | self.logits.valid), waiting.eq(0), item.eq(Mux(waiting, spare, self.logits.payload))]
        with m.Elif(self.logits.valid):
            m.d.sync += waiting.eq(1)
        cycles = Signal(32)
        # Columns take turns, so one comparison serves all; at the end the results are read from the same place.
        m.submodules.best = best = memory.Memory(shape=data.StructLayout({"logit": signed(32), "token": 18}),
                                                 depth=max(self.columns, 2), init=[])
        best_write, best_read = best.write_port(), best.read_port(domain="comb")
        # What is read may just be overtaken: then the logit before is the best so far.
        taken = delay(m, take, 1, "taken", valid=True)
        item1, shown1 = delay(m, item, 1, "item"), delay(m, best_read.data, 1, "shown")
        best1, better = Signal(33, reset_less=True), Signal()       # 0 before the first, less than any logit
        m.d.comb += [
            best_read.addr.eq(Mux(ended, shown, item.column)), best_write.addr.eq(item1.column),
            best_write.data.logit.eq(item1.value), best_write.data.token.eq(item1.row),
            better.eq(taken & (Cat(ordered(item1.value), 1) > best1)), best_write.en.eq(better),
        ]
        with m.If(token == 0):
            m.d.sync += best1.eq(0)
        with m.Elif(better & (item1.column == item.column)):
            m.d.sync += best1.eq(Cat(ordered(item1.value), 1))
        with m.Else():
            m.d.sync += best1.eq(Cat(ordered(best_read.data.logit), 1))
        with m.If(take):
            m.d.sync += [ended.eq(item.last & (item.column == final_column)), counting.eq(~(item.last & (item.column == final_column))),
                         cycles.eq(self.cycles)]

        # Candidates: eight groups of eight; where each group's smallest lies is known, and the smallest of all ------
        key = Cat(~token, ordered(item.value))
        m.submodules.store = store = memory.Memory(shape=KEY, depth=self.candidates, init=[], attrs=UNCHECKED)
        w, r = store.write_port(), store.read_port()
        m.submodules.smallest = smallest = memory.Memory(shape=3, depth=GROUP, init=[])
        slot_in, slot_out = smallest.write_port(), smallest.read_port(domain="comb")
        entry = Signal(KEY, reset_less=True)
        m.d.sync += entry.eq(r.data)
        kept = Signal(7)
        full = kept == self.candidates
        # Smallest so far of what is scanned: a group, or (``of_groups``) the smallest of all groups
        low, low_at = Signal(KEY, reset_less=True), Signal(3, reset_less=True)
        group, at, every, of_groups = Signal(3), Signal(4), Signal(), Signal()
        scanning, smaller, larger = Signal(), Signal(), Signal()
        m.d.comb += [
            self.candidate_token.eq(~entry[:18]), self.candidate_logit.eq(ordered(entry[18:]).as_signed()), w.data.eq(key),
            smaller.eq(entry < low),
            slot_in.addr.eq(group), slot_in.data.eq(low_at), slot_out.addr.eq(Mux(scanning, at, low_at)),
            r.addr.eq(Mux(scanning, Mux(of_groups, Cat(slot_out.data, at[:3]), Cat(at[:3], group)), self.candidate_index)),
        ]
        m.d.sync += larger.eq(key > low)        # of a logit that waits for a cycle, while nothing is inserted
        with m.FSM() as fsm:
            m.d.sync += compared.eq(~keep | there & fsm.ongoing("READY") & ~take)
            with m.State("READY"):
                m.d.comb += [free.eq(1), w.addr.eq(Mux(full, Cat(slot_out.data, low_at), kept))]
                m.d.sync += [at.eq(0), every.eq(~full), of_groups.eq(0), group.eq(Mux(full, low_at, 0))]
                with m.If(take & keep):
                    with m.If(~full):
                        m.d.comb += w.en.eq(1)
                        m.d.sync += kept.eq(kept + 1)
                        with m.If(kept == self.candidates - 1):
                            m.d.sync += scanning.eq(1)
                            m.next = "SCAN"
                    with m.Elif(larger):
                        m.d.comb += w.en.eq(1)
                        m.d.sync += scanning.eq(1)
                        m.next = "SCAN"
            with m.State("SCAN"):
                # Entry at - 2 is there while entry at is asked for
                m.d.sync += at.eq(at + 1)
                with m.If((at[1:] != 0) & ((at == 2) | smaller)):
                    m.d.sync += [low.eq(entry), low_at.eq(at - 2)]
                with m.If(at == GROUP + 1):
                    m.d.sync += scanning.eq(0)
                    m.next = "GROUP"
                    with m.If(of_groups):
                        m.next = "READY"
            with m.State("GROUP"):
                m.d.comb += slot_in.en.eq(1)
                m.d.sync += [at.eq(0), group.eq(group + 1), scanning.eq(1)]
                m.next = "SCAN"
                with m.If(~every | (group == GROUP - 1)):
                    m.d.sync += of_groups.eq(1)

        # Mass. Scale: the last bits of the shift to the right as one of the mantissa to the left, once a pass ------
        bits = FINE[self.multiplier_bits]
        wanted, shift = Signal(signed(9)), Signal(6)
        scale, fine = Signal(signed(17 + (1 << bits) - 1)), Signal(bits)
        m.d.comb += wanted.eq(ROW_FRACTION - SCORE_FRACTION - self.scale_exponent)
        m.d.sync += shift.eq(Mux(wanted < 0, 0, Mux(wanted > 63, 63, wanted)))
        preparing = Signal()                # no logit is taken yet
        with m.If(begun):
            m.d.sync += [scale.eq(self.scale_mantissa), fine.eq(~shift[:bits]), preparing.eq(1)]
        with m.Elif(preparing & (fine != 0)):
            m.d.sync += [scale.eq(scale << 1), fine.eq(fine - 1)]
        with m.Elif(preparing):
            m.d.sync += [preparing.eq(0), counting.eq(1)]
        # 0: a logit, beside the multipliers; 1: products of its halves; 2: their sum; 3: shifted; 4: rounded, and queued
        value0 = delay(m, item.value, 1, "value0")
        popped = Signal()
        room, some_room = credits(m, SCORES, take & keep, delay(m, popped, 1, "left", valid=True))
        m.d.comb += weighed.eq(some_room)
        low1, high1 = Signal(signed(18 + len(scale)), reset_less=True), Signal(signed(15 + len(scale)), reset_less=True)
        # The sum without the low product's last 17 bits fits a DSP slice
        upper2, lower2 = Signal(signed(15 + len(scale)), reset_less=True), Signal(17, reset_less=True)
        score4 = Signal(signed(32), reset_less=True)
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
        near = Signal(signed(33))
        m.d.comb += near.eq((moved3 >> 1) + moved3[0])
        narrow, clamped = saturate(m, near, 32, name="near")
        m.d.sync += score4.eq(Mux(far3, Cat((~sign3).replicate(31), sign3).as_signed(), narrow))
        m.submodules.scores = scores = Queue(signed(32), depth=SCORES)
        score, valid5 = scores.output.payload, Signal()
        m.d.comb += [scores.write.eq(delay(m, take & keep, 5, "valid", valid=True)), scores.data.eq(score4),
                     scores.output.ready.eq(moving), popped.eq(scores.output.valid & moving)]
        # 5: a score that reaches the reference waits until its weight is below 2: all before are weighed and added up, the
        # reference raised to one above the score's integer part, and the mass shifted down by as much
        integer5, fraction5 = Signal(signed(16), reset_less=True), Signal(SCORE_FRACTION, reset_less=True)
        maximum, first, rise, lowering = Signal(signed(17)), Signal(init=1), Signal(6), Signal()
        above5, down = Signal(signed(18)), Signal(5, reset_less=True)
        raising, settled = Signal(), Signal()
        m.d.comb += [
            raising.eq(valid5 & (first | ~above5[-1])), moving.eq(~(raising | lowering)),
        ]
        m.d.sync += [self.exp2_index.eq(fraction5[8:]), self.exp2_t.eq(fraction5[:8])]
        answer = delay(m, self.exp2_value, 1, "answer")
        with m.If(moving):
            m.d.sync += [integer5.eq(score[SCORE_FRACTION:]), fraction5.eq(score[:SCORE_FRACTION]),
                         above5.eq(score[SCORE_FRACTION:].as_signed() - maximum), valid5.eq(scores.output.valid)]
        weighing = [valid5 & moving]
        for i in range(ANSWER + 2):
            weighing.append(delay(m, weighing[-1], 1, f"weighing{i}", valid=True))
        still = Signal()                    # of weighing[2:]
        m.d.sync += still.eq(Cat(*weighing[1:-1]).any())
        m.d.comb += settled.eq(~still & ~weighing[1])
        with m.If(raising & settled & ~lowering):
            m.d.sync += [first.eq(0), maximum.eq(integer5 + 1), above5.eq(-1), lowering.eq(1),
                         rise.eq(Mux(first, 0, Mux(above5 >= 63, 63, above5 + 1)))]
        # The weight: 2**fraction, shifted down
        m.d.sync += down.eq(Mux(above5 < -30, 31, (1 - above5)[:5]))
        down_late = delay(m, down, ANSWER - 1, "down")
        doubled, weight = Signal(18, reset_less=True), Signal(17)
        m.d.sync += [doubled.eq((answer << 1) >> down_late),
                     weight.eq(Mux(weighing[-2], (doubled >> 1) + doubled[0], 0))]
        mass, lowered = Signal(48), Signal(48)
        with m.If(rise >= 4):
            m.d.comb += lowered.eq(mass >> 4)
            m.d.sync += rise.eq(rise - 4)
        with m.Elif(rise != 0):
            m.d.comb += lowered.eq(mass >> 1)
            m.d.sync += rise.eq(rise - 1)
        with m.Else():
            m.d.comb += lowered.eq(mass)
            m.d.sync += lowering.eq(raising & settled & ~lowering)
        m.d.sync += mass.eq(weight + lowered)

        # The result, when all has settled -------------------------------------------------------------------------------
        out = self.result.payload
        finished = Signal()
        m.d.sync += [
            finished.eq(running & ended & fsm.ongoing("READY") & ~taken & settled & (room == SCORES) & ~valid5 & ~lowering & ~begun),
            # What is read of a column is there a cycle after ``shown``
            self.result.valid.eq(finished & running & ~(self.result.valid & self.result.ready)),
        ]
        m.d.comb += [
            out.token.eq(shown1.token), out.logit.eq(shown1.logit), out.cycles.eq(cycles),
            out.maximum.eq(maximum), out.mass.eq(mass), out.kept.eq(kept), self.busy.eq(begun | running),
        ]
        with m.If(self.result.valid & self.result.ready):
            m.d.sync += shown.eq(shown + 1)
            with m.If(shown == final_column):
                m.d.sync += [running.eq(0), ended.eq(0), counting.eq(0)]
        with m.If(begun):
            m.d.sync += [running.eq(1), ended.eq(0), keep.eq(self.keep), dump.eq(self.dump), shown.eq(self.first),
                         final_column.eq(self.last), kept.eq(0), first.eq(1), mass.eq(0), maximum.eq(0)]
        return m
