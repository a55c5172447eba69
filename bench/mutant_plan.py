"""Which mutants are made: the sources, the names of their mutants, and a seeded draw of some of each file."""
import hashlib
import random
from collections import Counter
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from pathlib import Path

from bench import mutation, mutation_c
from bench.mutation import Mutant

ROOT    = Path(__file__).resolve().parent.parent
SOURCES = ("accel/**/*.py", "firmware/*.c", "spec/llama2_spec/*.py", "host/llama2_host/device/*.py")
#: LiteX's registers and libraries: only the simulated SoC runs it, which takes minutes for each mutant.
ON_BOARD_ONLY = ("firmware/board.c",)
COUNT, LEAST  = 230, 2      # of all mutants, and of each file's


@dataclass(frozen=True)
class Planned:
    """A mutant by its file and its name there."""
    path: Path
    name: str
    mutant: Mutant

    @property
    def file(self) -> str:
        return self.path.relative_to(ROOT).as_posix()


def sources(only: str = "") -> list[Path]:
    """Files that are mutated, or those among them that ``only``, a path from the root, names."""
    found = sorted(path for pattern in SOURCES for path in ROOT.glob(pattern)
                   if path.relative_to(ROOT).as_posix() not in ON_BOARD_ONLY and mutants_of(path))
    chosen = (ROOT/only).resolve()
    return [path for path in found if not only or chosen in (path, *path.parents)]


@cache
def mutants_of(path: Path) -> dict[str, Mutant]:
    """A file's mutants by name: where it is and what changes, with a number where that is not enough."""
    text = path.read_text()
    made = mutation_c.mutants(text) if path.suffix == ".c" else mutation.mutants(text, kinds=mutation.Everywhere)
    named, seen = {}, Counter()
    for mutant in made:
        name = f"{mutant.scope}: {mutant.change}"
        seen[name] += 1
        named[name if seen[name] == 1 else f"{name} (number {seen[name]})"] = mutant
    return named


def plan(paths: list[Path], seed: int, count: int) -> list[Planned]:
    """Some mutants of each file, more of larger ones, drawn by the seed; one of each file, then the next of each."""
    found = {path: mutants_of(path) for path in paths}
    every, rest = sum(map(len, found.values())), max(0, count - LEAST*len(found))
    drawn = []
    for path, named in found.items():
        wanted = min(len(named), LEAST + round(rest*len(named)/every))
        names = random.Random(f"{seed} {path.relative_to(ROOT)}").sample(sorted(named), wanted)
        drawn.append([Planned(path, name, named[name]) for name in names])
    return [one for turn in zip_longest(*drawn) for one in turn if one is not None]


def digest(*paths: Path) -> str:
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()[:16]
