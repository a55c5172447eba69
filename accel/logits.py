"""The logit unit: argmax of every column, the largest logits as candidates for sampling, and the mass of the vocabulary.

Computes :meth:`llama2_spec.golden.Logits.kept` and :func:`llama2_spec.golden.running_mass`; logits never go to DRAM.
"""
from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.candidates import GROUP, Candidates, ordered
from accel.mass import Mass
from accel.numeric import delay
from accel.stage import Skid
from accel.window import RESULT
from llama2_spec.tables import EXP2


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
        # Whether a logit is taken is known from a register, and so is what is taken
        m.submodules.intake = intake = Skid(self.logits.payload.shape())
        m.submodules.candidates = candidates = Candidates()
        m.submodules.mass = mass = Mass(multiplier_bits=self.multiplier_bits)
        wiring.connect(m, wiring.flipped(self.logits), intake.input)
        item, there = intake.output.payload, intake.output.valid
        final_column, shown = Signal.like(item.column), Signal.like(item.column)
        keep, dump, running, ended = Signal(), Signal(), Signal(), Signal()
        counting = Signal()         # running, prepared and not ended
        open_, take, is_last = Signal(), Signal(), Signal()
        begun = delay(m, self.start, 1, "begun", valid=True)
        m.d.comb += [
            open_.eq(candidates.ready & mass.room & counting & there), take.eq(open_ & (~dump | self.dump_take)),
            intake.output.ready.eq(take), is_last.eq(item.last & (item.column == final_column)), self.dump_data.eq(item.value),

            candidates.clear.eq(begun), candidates.keep.eq(keep), candidates.there.eq(there), candidates.take.eq(take),
            candidates.offer.token.eq(item.row), candidates.offer.logit.eq(item.value), candidates.index.eq(self.candidate_index),
            self.candidate_token.eq(candidates.candidate.token), self.candidate_logit.eq(candidates.candidate.logit),

            mass.scale_mantissa.eq(self.scale_mantissa), mass.scale_exponent.eq(self.scale_exponent), mass.start.eq(begun),
            mass.write.eq(take & keep), mass.logit.eq(item.value),
            self.exp2_index.eq(mass.exp2_index), self.exp2_t.eq(mass.exp2_t), mass.exp2_value.eq(self.exp2_value),
        ]
        m.d.sync += self.dump_valid.eq(dump & open_ & ~take)

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
        with m.If(item.row == 0):
            m.d.sync += best1.eq(0)
        with m.Elif(better & (item1.column == item.column)):
            m.d.sync += best1.eq(Cat(ordered(item1.value), 1))
        with m.Else():
            m.d.sync += best1.eq(Cat(ordered(best_read.data.logit), 1))

        # A pass, and its results when all has settled
        out = self.result.payload
        cycles, finished = Signal(32), Signal()
        with m.If(mass.prepared):
            m.d.sync += counting.eq(1)
        with m.If(take):
            m.d.sync += [ended.eq(is_last), counting.eq(~is_last), cycles.eq(self.cycles)]
        m.d.sync += [
            finished.eq(running & ended & ~taken & ~candidates.busy & ~mass.busy & ~begun),
            # What is read of a column is there a cycle after ``shown``
            self.result.valid.eq(finished & running & ~(self.result.valid & self.result.ready)),
        ]
        m.d.comb += [
            out.token.eq(shown1.token), out.logit.eq(shown1.logit), out.cycles.eq(cycles),
            out.maximum.eq(mass.maximum), out.mass.eq(mass.mass), out.kept.eq(candidates.kept), self.busy.eq(begun | running),
        ]
        with m.If(self.result.valid & self.result.ready):
            m.d.sync += shown.eq(shown + 1)
            with m.If(shown == final_column):
                m.d.sync += [running.eq(0), ended.eq(0), counting.eq(0)]
        with m.If(begun):
            m.d.sync += [running.eq(1), ended.eq(0), keep.eq(self.keep), dump.eq(self.dump), shown.eq(self.first), final_column.eq(self.last)]
        return m
