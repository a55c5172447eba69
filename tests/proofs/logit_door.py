"""What the logit unit's users keep to, and what helps at its door: once a result is offered, nothing is on its way any
more that could change it."""
from amaranth.hdl import Assert, Assume, Cat, Signal

from accel.logits.candidates import Candidates
from accel.logits.mass import Mass
from bench.mutation import with_constants
from tests.proofs.credited_doors import accounted, signals
from tests.proofs.cut import AnyEntries, HelpedEntries, Recorded, helped_by


def passes(m, unit, back, inside):
    """A pass starts when the one before is over, and candidates are popped between passes."""
    m.d.comb += Assume(~(unit.job.start & unit.busy)), Assume(~(unit.candidate.pop & unit.busy))
    if inside is not None:
        s, end, preparing = inside.elaborate.s, inside._pass, inside.elaborate.s.mass.preparing
        m.d.comb += [
            Assert(s.running | ~(s.counting | s.ended | preparing)), Assert(~s.begun | ~s.running),
            Assert(~(s.ended & s.counting)), Assert(~preparing | ~(s.ended | s.counting)),
            Assert(~(end.finished & s.running) | (end.settled & (s.ranked | ~s.keep))),
            Assert(~unit.result.valid | (end.finished & s.running)),
        ]


def _known(m, unit, inside):
    """A logit that comes once more, to be weighed, was counted: it does not raise the reference. That is arithmetic."""
    m.d.comb += Assume(~(unit.ranking & inside._reference.raising))


def _mass(m, unit, inside):
    """Each score has its place; the mass is still when it says so."""
    s, scores, weights = inside.elaborate.s, inside._scores, inside._weights
    left = Signal()
    m.d.sync += left.eq(scores.popped)
    _known(m, unit, inside)
    accounted(m, s.room, scores.some_room, left, *signals(scores.pipe.carried["valid"])[1:], scores.scores.level)
    m.d.comb += [
        unit.preparing.eq(inside._prepared.preparing),
        Assert(s.lowering | (s.rise == 0)), Assert(weights.still | ~(Cat(*weights.later).any() | s.weight.any())),
        # nothing that is weighed once more waits
        Assert(~unit.ranking | ((scores.scores.level <= 1) & ~s.lowering)),
    ]


def _candidates(m, unit, inside):
    """What is weighed is being read."""
    weighed, reading = signals(inside._presence.weighed), signals(inside._best.scanning)
    m.d.comb += [Assert(~one | other) for one, other in zip(weighed, reading)]


class _Mass(with_constants(Mass, Queue=HelpedEntries, Pipeline=Recorded)):
    def __init__(self, **options):
        super().__init__(**options)
        self.preparing = Signal()


#: Any scores come to the mass.
LOGIT_PARTS = {"Mass": helped_by(with_constants(Mass, Queue=AnyEntries), _known)}
LOGIT_HELP = {"Mass": helped_by(_Mass, _mass), "Candidates": helped_by(Candidates, _candidates)}
