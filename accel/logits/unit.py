"""The logit unit: argmax of every column, the largest logits as candidates for sampling, and the mass of the
vocabulary.

Computes :meth:`llama2_spec.golden.Logits.kept` and :func:`llama2_spec.golden.running_mass`; logits never go to DRAM.
"""
from types import SimpleNamespace

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.interfaces import CandidateRead, Exp2Read, Logit, LogitDump, LogitsJob, ModelConstants, PassResult
from accel.lib.numeric import delay
from accel.lib.stream import Skid
from accel.logits.candidates import PLACES, Candidates, ordered
from accel.logits.mass import Mass


class LogitUnit(wiring.Component):
    """Computes :class:`llama2_spec.golden.Logits`. Takes one logit per cycle, or with ``keep`` one in two, and about 20
    cycles for one that is inserted among the candidates; logits wait meanwhile.

    Parameters
    ----------
    columns, candidates : int
        Argmaxes of a pass; candidates kept, 64.
    multiplier_bits : int
        What the wider operand of the device's multipliers may have, 25 or 18.

    Members
    -------
    logits : In(stream of Logit)
        In the order of :class:`~accel.interfaces.RowSum`.
    dump : Out(LogitDump)
        Gather candidates and mass, of one column only; offer each logit at ``dump_data`` and wait for ``dump_take``.
    result : Out(stream of PassResult)
        One per column, in order.
    model : In(ModelConstants)
        Constants of the model, see the interface.
    job : In(LogitsJob)
        Taken a cycle after ``start``.
    busy : Out(1)
        From a cycle after ``job.start`` until the last result was taken.
    cycles : In(32)
        The cycle counter, kept with a pass's last logit.
    last_token : Out(18)
        The argmax of the last result that was taken; survives an abort.
    candidate : In(CandidateRead)
        Between passes.
    exp2 : Out(Exp2Read)
        Attention's table; ``busy`` from a cycle after ``job.start`` until the last result was taken.
    """
    latency = None      #: varies
    budget_lut = 707

    def __init__(self, *, columns=1, candidates=64, multiplier_bits=25):
        if candidates != PLACES:
            raise ValueError(f"Candidates have {PLACES} places, not {candidates}")
        self.columns, self.candidates, self.multiplier_bits = columns, candidates, multiplier_bits
        super().__init__({
            "model": In(ModelConstants()), "job": In(LogitsJob(columns)), "busy": Out(1), "cycles": In(32),
            "logits": In(stream.Signature(Logit(columns))), "result": Out(stream.Signature(PassResult())),
            "last_token": Out(18), "dump": Out(LogitDump()), "candidate": In(CandidateRead()), "exp2": Out(Exp2Read()),
        })

    def elaborate(self, platform):
        m = Module()
        s = SimpleNamespace()               # signals that several steps share
        self._intake(m, s)
        self._ranked(m, s)
        self._argmax(m, s)
        self._pass(m, s)
        return m

    def _intake(self, m, s):
        """A logit to all that want it."""
        s.job = self.job
        # Whether a logit is taken is known from a register, and so is what is taken
        m.submodules.intake = intake = Skid(self.logits.payload.shape())
        m.submodules.candidates = s.candidates = Candidates()
        m.submodules.mass = s.mass = Mass(multiplier_bits=self.multiplier_bits)
        wiring.connect(m, wiring.flipped(self.logits), intake.input)
        s.item, there = intake.output.payload, intake.output.valid
        s.final_column, s.shown = Signal.like(s.item.column), Signal.like(s.item.column)
        s.keep, s.dump, s.running, s.ended, s.ranking = (Signal(name=name) for name in (
            "keep", "dump", "running", "ended", "ranking"))
        s.counting = Signal()         # running, prepared and not ended
        open_, s.take, s.is_last = Signal(), Signal(), Signal()
        s.begun = delay(m, s.job.start, 1, "begun", valid=True)
        m.d.comb += [
            open_.eq(s.candidates.ready & s.mass.room & s.counting & there),
            s.take.eq(open_ & (~s.dump | self.dump.take)),
            intake.output.ready.eq(s.take), s.is_last.eq(s.item.last & (s.item.column == s.final_column)),
            self.dump.data.eq(s.item.value),

            s.candidates.clear.eq(s.begun), s.candidates.keep.eq(s.keep), s.candidates.there.eq(there),
            s.candidates.take.eq(s.take),
            s.candidates.offer.token.eq(s.item.row), s.candidates.offer.logit.eq(s.item.value),

            s.mass.scale_mantissa.eq(self.model.logit_mantissa), s.mass.scale_exponent.eq(self.model.logit_exponent),
            s.mass.start.eq(s.begun), s.mass.ranking.eq(s.ranking),
            s.mass.write.eq(Mux(s.ranking, s.candidates.weigh, s.take & s.keep)),
            s.mass.logit.eq(Mux(s.ranking, s.candidates.candidate.logit, s.item.value)),
            self.exp2.index.eq(s.mass.exp2.index), self.exp2.t.eq(s.mass.exp2.t), s.mass.exp2.value.eq(self.exp2.value),
            self.exp2.busy.eq(self.busy),
        ]
        m.d.sync += self.dump.valid.eq(s.dump & open_ & ~s.take)

    def _ranked(self, m, s):
        """After the pass: the candidates' weights, and what firmware reads of them."""
        ranked, read = s.candidates, self.candidate
        m.d.comb += [
            ranked.weight_write.eq(s.mass.weight_write), ranked.weight.eq(s.mass.weight),
            ranked.index.eq(read.index), read.token.eq(ranked.candidate.token), read.logit.eq(ranked.candidate.logit),
            read.place.eq(ranked.place), read.weight.eq(ranked.place_weight), read.busy.eq(ranked.busy),
            ranked.pop.eq(read.pop),
        ]

    def _argmax(self, m, s):
        """The argmax of every column."""
        # Columns take turns, so one comparison serves all; at the end the results are read from the same place.
        m.submodules.best = best = memory.Memory(shape=data.StructLayout({"logit": signed(32), "token": 18}),
                                                 depth=max(self.columns, 2), init=[])
        best_write, best_read = best.write_port(), best.read_port(domain="comb")
        # What is read may just be overtaken: then the logit before is the best so far.
        s.taken = delay(m, s.take, 1, "taken", valid=True)
        item1, s.shown1 = delay(m, s.item, 1, "item"), delay(m, best_read.data, 1, "shown")
        best1, better = Signal(33, reset_less=True), Signal()       # 0 before the first, less than any logit
        m.d.comb += [
            best_read.addr.eq(Mux(s.ended, s.shown, s.item.column)), best_write.addr.eq(item1.column),
            best_write.data.logit.eq(item1.value), best_write.data.token.eq(item1.row),
            better.eq(s.taken & (Cat(ordered(item1.value), 1) > best1)), best_write.en.eq(better),
        ]
        with m.If(s.item.row == 0):
            m.d.sync += best1.eq(0)
        with m.Elif(better & (item1.column == s.item.column)):
            m.d.sync += best1.eq(Cat(ordered(item1.value), 1))
        with m.Else():
            m.d.sync += best1.eq(Cat(ordered(best_read.data.logit), 1))

    def _pass(self, m, s):
        """A pass, and its results when all has settled."""
        # A pass, and its results when all has settled
        out = self.result.payload
        cycles, settled, finished = Signal(32), Signal(), Signal()
        with m.If(s.mass.prepared):
            m.d.sync += s.counting.eq(1)
        with m.If(s.take):
            m.d.sync += [s.ended.eq(s.is_last), s.counting.eq(~s.is_last), cycles.eq(self.cycles)]
        m.d.comb += [
            settled.eq(s.running & s.ended & ~s.taken & ~s.candidates.busy & ~s.mass.busy & ~s.begun),
            s.candidates.rank.eq(settled & s.keep & ~s.ranking),
        ]
        with m.If(s.candidates.rank):
            m.d.sync += s.ranking.eq(1)
        m.d.sync += [
            finished.eq(settled & (s.ranking | ~s.keep)),
            # What is read of a column is there a cycle after ``shown``
            self.result.valid.eq(finished & s.running & ~(self.result.valid & self.result.ready)),
        ]
        m.d.comb += [
            out.token.eq(s.shown1.token), out.logit.eq(s.shown1.logit), out.cycles.eq(cycles),
            out.maximum.eq(s.mass.maximum), out.mass.eq(s.mass.mass), out.kept.eq(s.candidates.kept),
            out.total.eq(s.mass.total),
            self.busy.eq(s.begun | s.running),
        ]
        last_token = Signal(18, reset_less=True)    # survives an abort
        m.d.comb += self.last_token.eq(last_token)
        with m.If(self.result.valid & self.result.ready):
            m.d.sync += [s.shown.eq(s.shown + 1), last_token.eq(out.token)]
            with m.If(s.shown == s.final_column):
                m.d.sync += [s.running.eq(0), s.ended.eq(0), s.counting.eq(0)]
        with m.If(s.begun):
            m.d.sync += [s.running.eq(1), s.ended.eq(0), s.ranking.eq(0), s.keep.eq(s.job.keep), s.dump.eq(s.job.dump),
                         s.shown.eq(s.job.first), s.final_column.eq(s.job.last)]
