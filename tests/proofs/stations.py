"""The stations whose doors are proved, in a small build, with what their interfaces ask of their users."""
from dataclasses import dataclass, field

from accel.attention.splitter import RowSplitter
from accel.attention.words import Words
from accel.control.sequencer import Sequencer
from accel.dram.embed_fetch import EmbedFetch
from accel.dram.kv_rows import KvRows
from accel.matrix.row_pairs import RowPairs
from accel.rows.dispatch import RowDispatch
from accel.rows.intake import SumIntake
from accel.rows.scale import RowScale
from accel.rows.wide import WideIntake
from bench.mutation import Mutant
from tests.proofs.doors import FAULTS, DoorProof
from tests.proofs.proof import Proof

COLUMNS = 2
DOOR = "what is offered stays, unchanged, until it is taken; nothing is offered in the cycle after a reset or an abort"


@dataclass
class Door(Proof):
    """The stream rule at a station's doors. Instead of the station's mutants, most of which are arithmetic, each of
    :data:`tests.proofs.doors.FAULTS` is refuted. ``sizes`` are the station's."""
    sizes: dict = field(default_factory=dict)

    def mutants_of_all(self):
        for fault in FAULTS:
            yield Mutant(0, "the offer", fault, ""), [lambda fault=fault: self.make(self.unit, broken=fault)]


def _door(unit, *, resets=True, assume=None, quick=False, **sizes):
    def make(kind, broken=""):
        return DoorProof(kind(**sizes), resets=resets, assume=assume, broken=broken)
    size = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in sizes.items())
    return Door(f"{unit.__name__}, doors", unit, DOOR, make, size=size, limit_s=60, quick=quick, sizes=sizes)


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
)
