"""The stations whose doors are proved, in a small build, with what their interfaces ask of their users."""
from types import SimpleNamespace

from accel.attention.output import AttentionOutput
from accel.attention.splitter import RowSplitter
from accel.attention.words import Words
from accel.control.sequencer import Sequencer
from accel.control.window import Window
from accel.dram.embed_fetch import EmbedFetch
from accel.dram.kv_rows import KvRows
from accel.logits.unit import LogitUnit
from accel.matrix.row_pairs import RowPairs
from accel.rows.dispatch import RowDispatch
from accel.rows.intake import SumIntake
from accel.rows.residual import Residual
from accel.rows.rope import Rope
from accel.rows.scale import RowScale
from accel.rows.swiglu import SwiGlu
from accel.rows.wide import WideIntake

COLUMNS = 2

#: By name: the class, its parameters, constants of its module, and what :class:`tests.proofs.doors.DoorProof` is told.
DOORS = {
    "Sequencer": SimpleNamespace(unit=Sequencer, sizes=dict(columns=COLUMNS, addr_width=4)),
    "Window": SimpleNamespace(unit=Window, sizes=dict(candidate_sets=1), resets=False),
    "EmbedFetch": SimpleNamespace(unit=EmbedFetch, sizes=dict(columns=COLUMNS, addr_width=4, max_words=4), resets=False),
    "KvRows": SimpleNamespace(unit=KvRows, sizes=dict(columns=COLUMNS, max_kv_dim=16, max_heads=16, addr_width=4)),
    "RowPairs": SimpleNamespace(unit=RowPairs, sizes=dict(columns=COLUMNS)),
    "SumIntake": SimpleNamespace(unit=SumIntake, sizes=dict(columns=COLUMNS, addr_width=4),
                                 assume=lambda unit: ~(unit.job.start & unit.elements.valid)),
    "RowScale": SimpleNamespace(unit=RowScale, sizes=dict(columns=COLUMNS)),
    "RowDispatch": SimpleNamespace(unit=RowDispatch, sizes=dict(columns=COLUMNS)),
    "Rope": SimpleNamespace(unit=Rope, sizes=dict(columns=COLUMNS)),
    "SwiGlu": SimpleNamespace(unit=SwiGlu, sizes=dict(columns=COLUMNS)),
    "Residual": SimpleNamespace(unit=Residual, sizes=dict(columns=COLUMNS, max_dim=32)),
    "WideIntake": SimpleNamespace(unit=WideIntake, sizes=dict(columns=COLUMNS),
                                  assume=lambda unit: ~(unit.start & unit.attention.valid)),
    "RowSplitter": SimpleNamespace(unit=RowSplitter, sizes=dict(max_heads=8, k_buffer=8, v_buffer=8)),
    "Words": SimpleNamespace(unit=Words, sizes=dict(lanes=16, exponents=12)),
    "AttentionOutput": SimpleNamespace(unit=AttentionOutput, sizes=dict(max_heads=2, max_dim=16)),
    "LogitUnit": SimpleNamespace(unit=LogitUnit, sizes=dict(columns=COLUMNS)),
}
