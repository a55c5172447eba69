"""That ``valid`` does not wait for ``ready``: no path without a register leads from a stream's ``ready`` to its
``valid``, in the and-inverter graph that Yosys makes of a unit."""
import functools
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl import Module, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import Flow, In, Out

from accel.dram.beats import BeatSplit
from accel.dram.blocks import Blocks
from accel.dram.reader import SegmentReader
from accel.lib.stream import HalfRate, Queue, Skid, Stage
from accel.rows.quantiser import Quantiser
from bench.mutation import Mutant
from tests.proofs.doors import streams
from tests.proofs.harness import Outcome, ProofError, Verdict, environment
from tests.proofs.proof import Proof
from tests.proofs.stations import COLUMNS, DOOR_PROOFS

#: Memories become registers, as in the proofs; nothing is made smaller: names of ports count here.
LOWER = """
read_rtlil top.il
hierarchy -top top
prep -flatten -top top
memory_map
async2sync
dffunmap
setundef -zero
techmap
opt_clean
dffunmap
simplemap
aigmap
opt_clean
write_aiger -ascii -symbols -zinit top.aag
"""


def graph(unit, ports) -> str:
    """The unit's graph in AIGER's text form. ``ports`` are the signals that keep their names."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder/"top.il").write_text(rtlil.convert(unit, ports=ports, name="top"))
        (folder/"top.ys").write_text(LOWER)
        done = subprocess.run([sys.executable, "-m", "soc.yosys", folder/"top.ys"], cwd=folder, text=True,
                              capture_output=True, env=environment())
        if done.returncode:
            raise ProofError((done.stdout + done.stderr)[-2000:])
        return (folder/"top.aag").read_text()


def reached(aag: str) -> dict[str, set[str]]:
    """By the name of an output, the names of the inputs on which it depends within the cycle.

    Ref: Biere 2007, The AIGER And-Inverter Graph (AIG) Format.
    """
    lines = iter(aag.splitlines())
    _, inputs, latches, outputs, gates = map(int, next(lines).split()[1:6])
    places = [int(next(lines)) for _ in range(inputs)]
    for _ in range(latches):
        next(lines)
    literals = [int(next(lines)) for _ in range(outputs)]
    operands = {}
    for _ in range(gates):
        gate, one, other = map(int, next(lines).split())
        operands[gate] = (one & ~1, other & ~1)
    names = {kind: dict(symbol) for kind, symbol in _symbols(lines)}
    found = {}
    for number, literal in enumerate(literals):
        left, seen = [literal & ~1], set()
        while left:
            node = left.pop()
            if node not in seen:
                seen.add(node)
                left.extend(operands.get(node, ()))
        found[names["o"].get(number, str(number))] = {names["i"].get(i, str(i)) for i, place in enumerate(places)
                                                      if place in seen}
    return found


def _symbols(lines):
    kinds = {"i": [], "o": []}
    for line in lines:
        if line[:1] == "c":
            break
        place, _, name = line.partition(" ")
        if place[:1] in kinds:
            kinds[place[0]].append((int(place[1:]), name))
    return kinds.items()


def waiting(unit) -> list[str]:
    """Streams that the unit offers whose ``valid`` depends on their own ``ready`` within the cycle."""
    ports = {"__".join(map(str, path)): (Value.cast(value), None) for path, _, value in unit.signature.flatten(unit)}
    found = reached(graph(unit, ports))
    depends = lambda name: any(one.split("[")[0] == f"{name}__ready" for one in found[f"{name}__valid"])
    return [name for name, _ in streams(unit, Flow.Out) if depends(name)]


class Late(wiring.Component):
    """A stage whose offer waits until it is wanted: the fault that :func:`waiting` must see."""
    def __init__(self, shape):
        super().__init__({"input": In(stream.Signature(shape)), "output": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.stage = stage = Stage(self.input.payload.shape())
        wiring.connect(m, wiring.flipped(self.input), stage.input)
        m.d.comb += [self.output.payload.eq(stage.output.payload), stage.output.ready.eq(self.output.ready),
                     self.output.valid.eq(stage.output.valid & self.output.ready)]
        return m


#: Stations in the builds in which their doors are proved, by their names.
DOORS = {proof.unit.__name__: functools.partial(proof.unit, **proof.sizes) for proof in DOOR_PROOFS}
#: Every unit of the core that offers a stream, by what makes it in a small build; the quick ones first.
QUICK = {
    "Stage": lambda: Stage(2), "Skid": lambda: Skid(2), "HalfRate": lambda: HalfRate(2),
    "Queue": lambda: Queue(2, depth=4), "BeatSplit": BeatSplit,
    **{name: DOORS[name] for name in ("Sequencer", "SumIntake", "RowDispatch", "WideIntake", "Words")},
}
UNITS = {
    **QUICK, **DOORS,
    "Blocks": lambda: Blocks(addr_width=4, row_bits=1, turn_bits=4),
    "SegmentReader": lambda: SegmentReader(addr_width=4, row_bits=1, depth=4, ahead=2, buffer=8),
    "Quantiser": lambda: Quantiser(columns=COLUMNS),
}


@dataclass
class Independence(Proof):
    """Of all :data:`UNITS`; its only mutant is :class:`Late`."""
    method = "cone of `valid`"

    def search(self):
        start_s = time.monotonic()
        found = [f"{name}: {late}" for name, make in UNITS.items() for late in waiting(make())]
        return Outcome(Verdict.REFUTED if found else Verdict.PROVED, time.monotonic() - start_s, ", ".join(found))

    def mutants_of_all(self):
        yield Mutant(0, "the offer", "waits until it is wanted", ""), [lambda: Late(2)]

    def fate(self, mutant, makes):
        return "refuted" if all(waiting(make()) for make in makes) else "surviving"


INDEPENDENCE = Independence(
    "All that offer a stream", Late, "no path without a register leads from a stream's `ready` to its `valid`",
    Late, size=f"{len(UNITS)} units, two columns", quick=False)
