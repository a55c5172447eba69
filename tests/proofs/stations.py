"""The stations whose doors are proved, in a small build, with what their interfaces ask of their users."""
from collections.abc import Callable
from dataclasses import dataclass, field

from accel.attention.dots import AttentionDots
from accel.attention.output import AttentionOutput
from accel.attention.scores import AttentionScores
from accel.attention.softmax import SoftmaxPipe
from accel.attention.splitter import RowSplitter
from accel.attention.unit import Attention
from accel.attention.values import AttentionValues
from accel.attention.words import Words
from accel.control.command_queue import CommandQueue
from accel.control.sequencer import Sequencer
from accel.control.window import Window
from accel.dram.embed_fetch import EmbedFetch
from accel.dram.kv_rows import KvRows
from accel.lib.stream import Skid
from accel.lib.table import InterpolatedTable
from accel.logits.unit import LogitUnit
from accel.matrix.column_sums import ColumnSums
from accel.matrix.engine import MatVec
from accel.matrix.lanes import Lanes
from accel.matrix.row_pairs import RowPairs
from accel.rows.dispatch import RowDispatch
from accel.rows.intake import SumIntake
from accel.rows.residual import Residual
from accel.rows.rope import Rope
from accel.rows.scale import RowScale
from accel.rows.swiglu import SwiGlu
from accel.rows.wide import WideIntake
from bench.mutation import Mutant, mutated_classes, with_constants
from tests.proofs.credited_doors import gate_and_up, pairs_of_rows, residual_rows
from tests.proofs.cut import AnyEntries, HelpedEntries, Recorded, any_of
from tests.proofs.doors import FAULTS, DoorProof
from tests.proofs.logit_door import LOGIT_HELP, LOGIT_PARTS, passes
from tests.proofs.proof import Proof, is_named

COLUMNS = 2
#: A row unit's arithmetic ends in its queue.
CREDITED = dict(parts={"Queue": AnyEntries}, help_parts={"Queue": HelpedEntries, "Pipeline": Recorded},
                cut="any results", few={"DEPTH": 4}, rewrite=False)
ATTENTION_PARTS = {
    "RowSplitter": any_of(RowSplitter), "AttentionValues": any_of(AttentionValues),
    "AttentionScores": with_constants(AttentionScores, AttentionDots=any_of(AttentionDots),
                                      SoftmaxPipe=any_of(SoftmaxPipe)),
    "AttentionOutput": with_constants(AttentionOutput, InterpolatedTable=any_of(InterpolatedTable)),
}
DOOR = "what is offered stays, unchanged, until it is taken; nothing is offered in the cycle after a reset or an abort"


@dataclass
class Door(Proof):
    """The stream rule at a station's doors. Most of a station's mutants are arithmetic; instead of them each of
    :data:`tests.proofs.doors.FAULTS` is refuted, and those of the station's mutants that are named in ``only``.

    Attributes
    ----------
    sizes : dict
        The station's.
    parts : dict
        What stands for parts of the station, by the names that its module has for them: see
        :mod:`tests.proofs.cut`.
    help_parts : dict
        In their place where the claim is proved by induction.
    few : dict
        Constants of the module for the station's mutants, with which they fail sooner.
    inner : tuple or None
        A part that decides about the offer, and, from it, what stands for parts of the station: its mutants are the
        station's.
    """
    sizes: dict = field(default_factory=dict)
    parts: dict = field(default_factory=dict)
    help_parts: dict = field(default_factory=dict)
    few: dict = field(default_factory=dict)
    inner: tuple[type, Callable[[type], dict]] | None = None

    def top(self):
        parts = self.parts | self.help_parts if self.helped else self.parts
        return (self.helped or self.make)(with_constants(self.unit, **self.constants, **parts))

    def mutants_of_all(self):
        whole = with_constants(self.unit, **self.constants, **self.parts)
        for fault in FAULTS:
            yield Mutant(0, "the offer", fault, ""), [lambda fault=fault: self.make(whole, broken=fault)]
        for mutant, unit in self._own_mutants() if self.only else ():
            if is_named(mutant, self.only):
                yield mutant, [lambda unit=unit: self.make(unit)]

    def _own_mutants(self):
        if self.inner is None:
            yield from mutated_classes(self.unit, **self.constants, **self.parts, **self.few)
        else:
            part, around = self.inner
            for mutant, kind in mutated_classes(part):
                yield mutant, with_constants(self.unit, **self.constants, **self.parts, **around(kind))


def _door(unit, *, resets=True, assume=None, user=None, parts=None, help_parts=None, cut="", only=(), few=None,
          inner=None, quick=False, rewrite=True, **sizes):
    """``cut`` says in words what ``parts`` have any values; the others are of :class:`DoorProof`, :class:`Door`, and
    the station's sizes."""
    def make(kind, broken="", helped=False):
        return DoorProof(kind(**sizes), resets=resets, assume=assume, user=user, broken=broken, helped=helped)
    size = ", ".join([f"{name.replace('_', ' ')} {value}" for name, value in sizes.items()] + [cut] * bool(cut))
    helped = None if help_parts is None else lambda kind: make(kind, helped=True)
    return Door(f"{unit.__name__}, doors", unit, DOOR, make, helped=helped, size=size, only=only, limit_s=60,
                quick=quick, rewrite=rewrite, sizes=sizes, parts=parts or {}, help_parts=help_parts or {},
                few=few or {}, inner=inner)


DOOR_PROOFS = (
    _door(Sequencer, columns=COLUMNS, addr_width=4, quick=True),
    _door(EmbedFetch, columns=COLUMNS, addr_width=4, max_words=4, resets=False),
    _door(KvRows, columns=COLUMNS, max_kv_dim=16, max_heads=16, addr_width=4),
    _door(RowPairs, columns=COLUMNS),
    # a job starts only while the fetch before has ended
    _door(SumIntake, columns=COLUMNS, addr_width=4, assume=lambda unit: ~(unit.job.start & unit.elements.valid)),
    _door(RowScale, columns=COLUMNS),
    _door(RowDispatch, columns=COLUMNS, quick=True),
    # attention begins only when its output before has left
    _door(WideIntake, columns=COLUMNS, assume=lambda unit: ~(unit.start & unit.attention.valid)),
    _door(RowSplitter, max_heads=8, k_buffer=8, v_buffer=8),
    _door(Words, lanes=16, exponents=12),
    _door(Residual, columns=COLUMNS, max_dim=32, user=residual_rows, **CREDITED, only=(
        "self.rows.valid & self.rows.ready -> self.rows.valid | self.rows.ready",
        "results.output.ready.eq(s.out.ready) -> (dropped)")),
    _door(SwiGlu, columns=COLUMNS, user=gate_and_up, quick=True, **CREDITED, only=(
        "rows.ready & rows.valid -> rows.ready | rows.valid", "valid & odd -> valid | odd")),
    _door(Rope, columns=COLUMNS, user=pairs_of_rows, **CREDITED, only=(
        "rows.ready & rows.valid -> rows.ready | rows.valid", "valid & tag.index[0] -> valid | tag.index[0]")),
    _door(LogitUnit, columns=COLUMNS, candidate_sets=COLUMNS, user=passes, parts=LOGIT_PARTS, help_parts=LOGIT_HELP,
          cut="any scores", rewrite=False, only=(
              "finished & s.running -> finished | s.running",
              "s.running & s.ended & ~s.taken -> s.running & s.ended | ~s.taken",
              "Mux(s.ended, s.shown, s.item.column) -> Mux(s.ended, s.item.column, s.shown)")),
    _door(Window, candidate_sets=COLUMNS, resets=False, rewrite=False,
          inner=(CommandQueue, lambda kind: {"CommandQueue": kind}), only=(
              "(seen != newest) & ~self.ahead.valid -> (seen != newest) | ~self.ahead.valid",
              "self.ahead.valid & self.ahead.ready -> self.ahead.valid | self.ahead.ready")),
    _door(MatVec, columns=COLUMNS, max_groups=4, parts={"Lanes": any_of(Lanes), "ColumnSums": any_of(ColumnSums)},
          cut="any sums", rewrite=False,
          inner=(Skid, lambda kind: {"RowPairs": with_constants(RowPairs, Skid=kind)}), only=("~held -> +held",)),
    _door(Attention, columns=COLUMNS, max_heads=8, max_dim=64, k_buffer=8, v_buffer=8, parts=ATTENTION_PARTS,
          cut="any rows, weights and sums", rewrite=False,
          only=("s.output.elements.valid & ~s.aborting -> s.output.elements.valid | ~s.aborting",)),
)
