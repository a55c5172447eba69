"""The logit unit: argmax of every column, the largest logits as candidates for sampling, and the mass of the
vocabulary.

Computes :meth:`llama2_spec.golden.Logits.kept` and :func:`llama2_spec.golden.running_mass`; logits never go to DRAM.
"""
from types import SimpleNamespace

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.interfaces import CandidateRead, Exp2Read, Logit, LogitDump, LogitScales, LogitsJob, PassResult
from accel.lib.numeric import delay
from accel.lib.stream import Skid
from accel.logits.candidates import PLACES, Candidates, ordered
from accel.logits.mass import Mass, chosen


class LogitUnit(wiring.Component):
    """Computes :class:`llama2_spec.golden.Logits`. Takes one logit per cycle, or with ``keep`` one in two, and 14
    cycles for one that is inserted among the candidates; logits wait meanwhile.

    Parameters
    ----------
    columns, candidates : int
        Argmaxes of a pass; candidates kept, 64.
    candidate_sets : int
        1, or ``columns``: of how many columns candidates and mass are gathered in one pass.
    multiplier_bits : int
        What the wider operand of the device's multipliers may have, 25 or 18.

    Members
    -------
    logits : In(stream of Logit)
        In the order of :class:`~accel.interfaces.RowSum`.
    dump : Out(LogitDump)
        Offer each logit at ``dump_data`` and wait for ``dump_take``.
    result : Out(stream of PassResult)
        One per column, in order.
    job : In(LogitsJob)
        Taken a cycle after ``start``.
    busy : Out(1)
        From a cycle after ``job.start`` until the last result was taken.
    cycles : In(32)
        The cycle counter, kept with a pass's last logit.
    last_token : Out(18)
        The argmax of the last result that was taken; survives an abort.
    scales : In(LogitScales)
        Of each set of candidates.
    candidate : In(CandidateRead)
        Between passes.
    exp2 : Out(Exp2Read)
        Attention's table; ``busy`` from a cycle after ``job.start`` until the last result was taken.
    """
    latency = None      #: varies
    budget_lut = 864

    def __init__(self, *, columns=1, candidates=64, candidate_sets=1, multiplier_bits=25):
        if candidates != PLACES:
            raise ValueError(f"Candidates have {PLACES} places, not {candidates}")
        if candidate_sets not in (1, columns):
            raise ValueError(f"Candidates are of 1 column or of all {columns}, not of {candidate_sets}")
        self.columns, self.candidates, self.multiplier_bits = columns, candidates, multiplier_bits
        self.candidate_sets = candidate_sets
        super().__init__({
            "scales": In(LogitScales(candidate_sets)), "job": In(LogitsJob(columns)), "busy": Out(1), "cycles": In(32),
            "logits": In(stream.Signature(Logit(columns))), "result": Out(stream.Signature(PassResult())),
            "last_token": Out(18), "dump": Out(LogitDump()), "candidate": In(CandidateRead(candidate_sets)),
            "exp2": Out(Exp2Read()),
        })

    def elaborate(self, platform):
        m = Module()
        s = SimpleNamespace()               # signals that several steps share
        m.submodules.mass = s.mass = Mass(sets=self.candidate_sets, multiplier_bits=self.multiplier_bits)
        s.ranked_set = Signal.like(s.mass.which)
        self._intake(m, s)
        self._gather(m, s)
        self._reads(m, s)
        self._argmax(m, s)
        self._pass(m, s)
        return m

    def _intake(self, m, s):
        """A logit to all that want it."""
        # Whether a logit is taken is known from a register, and so is what is taken
        m.submodules.intake = intake = Skid(self.logits.payload.shape())
        wiring.connect(m, wiring.flipped(self.logits), intake.input)
        s.item, s.there = intake.output.payload, intake.output.valid
        s.final_column = Signal.like(s.item.column)
        s.shown = Signal.like(s.item.column)
        s.keep, s.dump, s.running, s.ended = (Signal(name=name) for name in ("keep", "dump", "running", "ended"))
        s.counting = Signal()         # running, prepared and not ended
        open_ = Signal()
        s.take = Signal()
        s.is_last = Signal()
        s.begun = delay(m, self.job.start, 1, "begun", valid=True)
        s.sets = [Candidates() for _ in range(self.candidate_sets)]
        m.submodules += s.sets
        s.which = s.item.column if self.candidate_sets != 1 else Const(0, 0)
        m.d.comb += [
            open_.eq(chosen([one.ready for one in s.sets], s.which) & s.mass.room & s.counting & s.there),
            s.take.eq(open_ & (~s.dump | self.dump.take)),
            intake.output.ready.eq(s.take), s.is_last.eq(s.item.last & (s.item.column == s.final_column)),
            self.dump.data.eq(s.item.value),
        ]
        m.d.sync += self.dump.valid.eq(s.dump & open_ & ~s.take)

    def _gather(self, m, s):
        """Logits to the candidates of their set, and to its mass; after the pass the candidates, to be weighed."""
        # One set after the other is ranked
        s.ranking = Signal()
        s.ranked = Signal()
        s.at = Signal.like(s.mass.which)
        s.rank = Signal()
        for i, one in enumerate(s.sets):
            mine = s.which == i
            m.d.comb += [
                one.clear.eq(s.begun), one.keep.eq(s.keep), one.there.eq(s.there & mine), one.take.eq(s.take & mine),
                one.offer.token.eq(s.item.row), one.offer.logit.eq(s.item.value),
                one.rank.eq(s.rank & (s.at == i)),
                one.weight_write.eq(s.mass.weight_write & (s.ranked_set == i)), one.weight.eq(s.mass.weight),
            ]
        logits = [one.candidate.logit for one in s.sets]
        m.d.comb += [
            s.mass.start.eq(s.begun), s.mass.ranking.eq(s.ranking),
            s.mass.which.eq(Mux(s.ranking, s.ranked_set, s.which)),
            s.mass.write.eq(Mux(s.ranking, Cat(one.weigh for one in s.sets).any(), s.take & s.keep)),
            s.mass.logit.eq(Mux(s.ranking, chosen(logits, s.ranked_set), s.item.value)),
            self.exp2.index.eq(s.mass.exp2.index), self.exp2.t.eq(s.mass.exp2.t), s.mass.exp2.value.eq(self.exp2.value),
            self.exp2.busy.eq(self.busy),
        ]
        wiring.connect(m, wiring.flipped(self.scales), s.mass.scales)
        with m.If(s.rank):
            m.d.sync += [s.ranking.eq(1), s.ranked_set.eq(s.at), s.at.eq(s.at + 1),
                         s.ranked.eq((s.at == s.final_column) if self.candidate_sets != 1 else 1)]
        with m.If(s.begun):
            m.d.sync += [s.ranking.eq(0), s.ranked.eq(0), s.at.eq(self.job.first)]

    def _reads(self, m, s):
        """What firmware reads of the candidates."""
        read = self.candidate
        one = {name: chosen([getattr(each, name) for each in s.sets], read.which)
               for name in ("place", "place_weight", "busy")}
        candidate = {name: chosen([getattr(each.candidate, name) for each in s.sets], read.which)
                     for name in ("token", "logit")}
        m.d.comb += [
            read.token.eq(candidate["token"]), read.logit.eq(candidate["logit"]), read.place.eq(one["place"]),
            read.weight.eq(one["place_weight"]), read.busy.eq(one["busy"]),
        ]
        for i, each in enumerate(s.sets):
            m.d.comb += [each.index.eq(read.index), each.pop.eq(read.pop & (read.which == i))]

    def _argmax(self, m, s):
        """The argmax of every column."""
        # Columns take turns, so one comparison serves all; at the end the results are read from the same place.
        m.submodules.best = best = memory.Memory(shape=data.StructLayout({"logit": signed(32), "token": 18}),
                                                 depth=max(self.columns, 2), init=[])
        best_write, best_read = best.write_port(), best.read_port(domain="comb")
        # What is read may just be overtaken: then the logit before is the best so far.
        s.taken = delay(m, s.take, 1, "taken", valid=True)
        item1, s.shown1 = delay(m, s.item, 1, "item"), delay(m, best_read.data, 1, "shown")
        # 0 before the first: less than any logit.
        best1 = Signal(33, reset_less=True)
        better = Signal()
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
        out = self.result.payload
        cycles = Signal(32)
        settled = Signal()
        finished = Signal()
        with m.If(s.mass.prepared):
            m.d.sync += s.counting.eq(1)
        with m.If(s.take):
            m.d.sync += [s.ended.eq(s.is_last), s.counting.eq(~s.is_last), cycles.eq(self.cycles)]
        m.d.comb += [
            settled.eq(s.running & s.ended & ~s.taken & ~Cat(one.busy for one in s.sets).any() & ~s.mass.busy
                       & ~s.begun),
            s.rank.eq(settled & s.keep & ~s.ranked),
        ]
        m.d.sync += [
            finished.eq(settled & (s.ranked | ~s.keep)),
            # What is read of a column is there a cycle after ``shown``
            self.result.valid.eq(finished & s.running & ~(self.result.valid & self.result.ready)),
        ]
        m.d.comb += [
            out.token.eq(s.shown1.token), out.logit.eq(s.shown1.logit), out.cycles.eq(cycles),
            out.maximum.eq(chosen(s.mass.maximum, s.shown)), out.mass.eq(chosen(s.mass.mass, s.shown)),
            out.kept.eq(chosen([one.kept for one in s.sets], s.shown)), out.total.eq(chosen(s.mass.total, s.shown)),
            out.column.eq(s.shown),
            self.busy.eq(s.begun | s.running),
        ]
        last_token = Signal(18, reset_less=True)    # survives an abort
        m.d.comb += self.last_token.eq(last_token)
        with m.If(self.result.valid & self.result.ready):
            m.d.sync += [s.shown.eq(s.shown + 1), last_token.eq(out.token)]
            with m.If(s.shown == s.final_column):
                m.d.sync += [s.running.eq(0), s.ended.eq(0), s.counting.eq(0)]
        with m.If(s.begun):
            m.d.sync += [s.running.eq(1), s.ended.eq(0), s.keep.eq(self.job.keep), s.dump.eq(self.job.dump),
                         s.shown.eq(self.job.first), s.final_column.eq(self.job.last)]
