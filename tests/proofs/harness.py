"""Proves assertions of an Amaranth module for every input and every reachable state, by property-directed reachability.

The module goes from Amaranth to RTLIL, by Yosys to an and-inverter graph, and to ABC's ``pdr``, which either finds an
inductive invariant (the assertions hold for ever), a sequence of inputs that breaks one, or runs out of time. Registers
start at their reset values. All that takes part is installed by ``make setup``.

Ref: Bradley 2011, SAT-Based Model Checking without Unrolling; Een, Mishchenko, Brayton 2011, Efficient Implementation
of Property Directed Reachability.
"""
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl import Fragment

#: Memories become registers, assertions outputs; unspecified bits may be anything in every cycle. ``{rewrite}`` makes
#: the graph smaller, or does not.
LOWER = """
read_rtlil {name}.il
hierarchy -top top
prep -flatten -top top
memory_map -formal
async2sync
dffunmap
chformal -lower
setundef -anyseq
opt -full
techmap
opt -fast
{rewrite}
opt_clean
dffunmap
{rewrite}
opt_clean
aigmap
write_aiger -zinit {name}.aig
"""
#: With and without rewriting.
REWRITE = {True: "abc -g AND", False: "setundef -anyseq\naigmap"}
#: ABC, with the outputs of the graph as bad states under its constraints.
ABC_SCRIPT = "read_aiger {name}.aig; fold; strash; {engine}"


class Verdict(Enum):
    PROVED  = "proved"
    BOUNDED = "bounded"      # holds in the first cycles
    REFUTED = "refuted"
    UNKNOWN = "unknown"


@dataclass
class Outcome:
    """What became of a proof; ``seconds`` are those of the search, ``said`` is its last line."""
    verdict: Verdict
    seconds: float
    said: str


class ProofError(Exception):
    """The module could not be brought to the search."""


def prove(top: Fragment, *, limit_s: float = 120, engine: str | tuple[str, ...] = "pdr",
          rewrite: bool = True) -> Outcome:
    """Search for a proof of all assertions of ``top`` (an Elaboratable without ports) under its assumptions.

    Parameters
    ----------
    limit_s : float
        Search time after which the verdict is UNKNOWN.
    engine : str or tuple of str
        ABC's command: ``pdr``; ``ind -F k``, induction over k cycles, behind a search of the first ones; or
        ``bmc3 -F n`` for the first n cycles, whose verdict is BOUNDED if nothing is found in them. Of several the first
        that proves or refutes has the word.
    rewrite : bool
        Make the graph smaller, which takes longer than the search where most of it is a payload in a memory.

    Raises
    ------
    ProofError
        Yosys refuses the module, or ABC says something that is neither a proof nor a counterexample.
    """
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder/"top.il").write_text(rtlil.convert(top, ports=[], platform="formal", name="top"))
        (folder/"top.ys").write_text(LOWER.format(name="top", rewrite=REWRITE[rewrite]))
        lowered = subprocess.run([sys.executable, "-m", "soc.yosys", folder/"top.ys"], cwd=folder, capture_output=True,
                                 text=True,
                                 env=environment())
        if lowered.returncode:
            raise ProofError((lowered.stdout + lowered.stderr)[-2000:])
        for each in (engine,) if isinstance(engine, str) else engine:
            outcome = _search(folder, each, limit_s)
            if outcome.verdict in (Verdict.PROVED, Verdict.REFUTED):
                break
        return outcome


def environment():
    """In which Yosys finds the project."""
    return os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}


def _search(folder: Path, engine: str, limit_s: float) -> Outcome:
    import pyosys
    abc, start_s = Path(pyosys.__file__).parent/"yosys-abc", time.monotonic()
    commands = f"{engine} -T {round(limit_s)}"
    if engine.startswith("ind"):
        # What helps is among the assertions: together they are inductive, one by one they are not
        commands = f"orpos; strash; bmc3 -F {int(engine.split()[-1]) + 2}; {commands}"
    script = ABC_SCRIPT.format(name="top", engine=commands)
    try:
        said = subprocess.run([abc, "-c", script], cwd=folder, capture_output=True, text=True,
                              timeout=limit_s + 30).stdout
    except subprocess.TimeoutExpired:
        return Outcome(Verdict.UNKNOWN, time.monotonic() - start_s, f"no answer in {limit_s:.0f} s")
    seconds = time.monotonic() - start_s
    line = (re.findall(r"^.*(?:Property proved|was asserted|No output|Reached|Timeout|timeout).*$", said, re.M)
            or [said.strip()[-300:]])[-1]
    if "was asserted in frame" in said:
        return Outcome(Verdict.REFUTED, seconds, line)
    wanted, reached = re.search(r"bmc3 -F (\d+)", commands), re.search(r"No output asserted in (\d+) frames", said)
    searched = wanted and reached and int(reached[1]) >= int(wanted[1])
    if "Property proved" in said or (searched and "Networks are equivalent" in said):
        return Outcome(Verdict.PROVED, seconds, line)
    if searched and engine.startswith("bmc3"):
        return Outcome(Verdict.BOUNDED, seconds, line)
    if re.search(r"[Tt]imeout|No output|Reached|UNDECIDED|NOT EQUIVALENT", said):
        return Outcome(Verdict.UNKNOWN, seconds, line)
    raise ProofError(said[-2000:])
