"""The core's stations: makes each with the core's parameters, and gives each its place, its reset and its abort."""
from types import SimpleNamespace

from amaranth.lib import wiring

from accel.attention.unit import Attention
from accel.control.sequencer import Sequencer
from accel.control.status import Status
from accel.control.window import Window
from accel.dram.beats import BeatSplit
from accel.dram.crc import Crc32
from accel.dram.embed_fetch import EmbedFetch
from accel.dram.kv_rows import KvRows
from accel.dram.reader import SegmentReader
from accel.interfaces import Wide
from accel.lib.stream import Skid
from accel.logits.unit import LogitUnit
from accel.matrix.activations import Activations
from accel.matrix.engine import MatVec
from accel.rows.dispatch import RowDispatch
from accel.rows.intake import SumIntake
from accel.rows.quantiser import Quantiser
from accel.rows.residual import Residual
from accel.rows.rope import Rope
from accel.rows.router import Router
from accel.rows.scale import RowScale
from accel.rows.swiglu import SwiGlu
from accel.rows.wide import WideIntake
from llama2_spec.numerics import WORD
from llama2_spec.registers import MAX_CANDIDATES


def make_stations(core):
    """A namespace with every station, by the name that it has in the netlist."""
    C, aw, bits = core.columns, core.addr_width, core.multiplier_bits
    maxima = {name: getattr(core, name) for name in ("max_dim", "max_hidden_dim", "max_kv_dim", "max_heads")}
    return SimpleNamespace(
        window=Window(candidate_sets=core.candidate_sets), sequencer=Sequencer(columns=C, addr_width=aw),
        status=Status(columns=C, candidate_sets=core.candidate_sets, units=20, maxima=maxima),
        reader=SegmentReader(addr_width=aw), beats=BeatSplit(), crc=Crc32(),
        embed_fetch=EmbedFetch(columns=C, addr_width=aw, max_words=core.max_dim // WORD),
        kv=KvRows(columns=C, max_kv_dim=core.max_kv_dim, max_heads=core.max_heads, addr_width=aw),
        matvec=MatVec(columns=C, max_groups=max(core.max_dim, core.max_hidden_dim) // 32, multiplier_bits=bits),
        activations=Activations(columns=C, max_dim=core.max_dim, max_hidden_dim=core.max_hidden_dim),
        intake=SumIntake(columns=C, addr_width=aw), row_scale=RowScale(columns=C), dispatch=RowDispatch(columns=C),
        rope=Rope(columns=C), swiglu=SwiGlu(columns=C), residual=Residual(columns=C, max_dim=core.max_dim),
        wide=WideIntake(columns=C), to_quantiser=Skid(Wide(C)), quantiser=Quantiser(columns=C),
        router=Router(columns=C),
        attention=Attention(columns=C, max_heads=core.max_heads, max_dim=core.max_dim, lanes=core.attention_lanes,
                            pipes=core.softmax_pipes, multiplier_bits=bits),
        logits=LogitUnit(columns=C, candidates=MAX_CANDIDATES, candidate_sets=core.candidate_sets,
                         multiplier_bits=bits))


def add_stations(m, stations, resets):
    """Add ``stations`` to ``m``, each with what ``resets``, an :class:`accel.lib.reset.Resets`, is to do to it."""
    u = stations
    abort = resets.abort_of("core")
    m.d.comb += [u.status.abort.eq(abort), u.router.abort.eq(abort), u.status.reset.eq(resets.reset_of("core"))]
    for name in ("status", "beats", "intake", "dispatch", "wide", "router"):
        m.submodules[name] = getattr(u, name)
    # These drain or keep something that an abort must not lose; the others go back to idle at once.
    resets.keep(**{name: getattr(u, name) for name in ("reader", "embed_fetch", "window", "activations")})
    resets.drop(**{name: getattr(u, name) for name in (
        "sequencer", "matvec", "row_scale", "rope", "residual", "swiglu", "quantiser", "attention", "kv", "logits",
        "crc", "to_quantiser")})


def connect_all(m, *doors):
    """Connect each of ``doors``: a source and one sink, or several that see the same."""
    for source, *sinks in doors:
        wiring.connect(m, source, *sinks)
