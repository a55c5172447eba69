"""Which tests concern a source file, and how near they are to it.

A test is as near as its module's imports are: one that imports the file itself comes before one that imports what
imports it. The firmware's files are near to the tests that call their functions, and a step further from all tests that
load the firmware.
"""
import ast
import re
from collections import deque
from functools import cache
from pathlib import Path

from tests import imports
from tests.firmware.library import ON_BOARD_ONLY

ROOT = Path(__file__).resolve().parent.parent
#: Where tests come from; of the client's only those nearest to a source. Those of the server and the tools have nothing
#: to do with what is mutated, and campaigns of faults and of fuzzing take too long for one mutant.
FOLDERS, CLIENT = ("accel", "spec", "firmware", "proofs"), "host"
#: Not these: they run the simulated SoC, need the network, or take reference data.
MARKS = "not soc and not uart and not reference and not install and not web"
LOADS_FIRMWARE = "tests.firmware.library"


@cache
def _modules() -> dict[str, Path]:
    """The project's modules, and the tests' and benches' with their helpers."""
    found = dict(imports.modules())
    for top in ("tests", "bench"):
        for path in sorted((ROOT/top).rglob("*.py")):
            found[".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


@cache
def _imported() -> dict[Path, set[Path]]:
    """By file, the files that it imports."""
    modules = _modules()
    found = {path: {modules[name] for name in imports.imported(path.read_text(), modules)}
             for path in modules.values()}
    firmware = sorted((ROOT/"firmware").glob("*.c"))
    for path in found:
        if path.parent in (ROOT/"tests"/"firmware", ROOT/"tests"/"spec"):
            found[path] |= _called(path.read_text(), firmware)
    found[modules[LOADS_FIRMWARE]] |= {path for path in firmware if path.name not in ON_BOARD_ONLY}
    return found


@cache
def _importers() -> dict[Path, set[Path]]:
    found: dict[Path, set[Path]] = {}
    for path, others in _imported().items():
        for other in others:
            found.setdefault(other, set()).add(path)
    return found


def _called(text, firmware):
    """Files whose functions, by the names' beginning, a test calls; or that it names."""
    names = {node.attr for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)}
    return {path for path in firmware
            if any(name.startswith(f"{path.stem}_") for name in names) or re.search(rf"\b{path.name}\b", text)}


def test_files() -> list[Path]:
    return sorted(path for folder in (*FOLDERS, CLIENT) for path in (ROOT/"tests"/folder).glob("test_*.py"))


@cache
def nearest(source: Path) -> dict[Path, int]:
    """Test files that concern a source file, with the steps between them; a namesake is nearest."""
    steps, left = {source: 0}, deque([source])
    while left:
        path = left.popleft()
        for other in _importers().get(path, ()):
            if other not in steps:
                steps[other] = steps[path] + 1
                left.append(other)
    found = {path: 0 if path.stem == f"test_{source.stem}" else steps[path] for path in test_files() if path in steps}
    least = _least(found)
    return {path: step for path, step in found.items() if step <= least or path.parent.name != CLIENT}


def _least(steps):
    return max(min(steps.values(), default=0), 1)


def near_files(source: Path) -> set[Path]:
    """The test files that import the source, or the nearest where none does."""
    steps = nearest(source)
    return {path for path in steps if steps[path] <= _least(steps)}

