"""Measures how readable accel/ is, against bounds: ``python -m bench.house``.

It measures lengths, statements, documented members and circles of imports. Prints what it measures and ends with 1
where a bound is passed; tests/bench/test_house.py holds the same bounds.
"""
import argparse
import ast
import inspect
import json
import re
import statistics
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from tests import imports

ROOT = Path(__file__).resolve().parent.parent
ACCEL = ROOT/"accel"

CORE_LINES = 130            #: of core.py
LONGEST = 70                #: lines of an `elaborate`
MEDIAN = 35                 #: of them all
WIDTH = 120                 #: columns of a line


@dataclass(frozen=True)
class Function:
    """A function of the source, with its place and its lines."""
    file: str
    name: str
    lines: int


def functions(folder: Path = ACCEL) -> list[Function]:
    """Every function in ``folder``."""
    return [Function(str(path.relative_to(folder)), node.name, node.end_lineno - node.lineno + 1)
            for path in sorted(folder.rglob("*.py")) for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.FunctionDef)]


def findings(rule: str, folder: Path = ACCEL) -> list[str]:
    """Where ruff finds ``rule`` broken, as file:line: PLR0915 (more than 50 statements), E501 (more than 120
    columns)."""
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--line-length", str(WIDTH),
               "--select", rule, "--output-format", "json", str(folder)]
    told = subprocess.run(command, text=True, stdout=subprocess.PIPE)
    return [f"{Path(one['filename']).relative_to(folder.resolve())}:{one['location']['row']}"
            for one in json.loads(told.stdout)]


def wide_c(root: Path = ROOT) -> list[str]:
    """Lines of C that are wider, as file:line; a tab goes to the next multiple of eight."""
    found = []
    for path in sorted(path for folder in ("firmware", "soc", "tests") for path in (root/folder).rglob("*")
                       if path.suffix in (".c", ".h", ".cpp")):
        found += [f"{path.relative_to(root)}:{number}" for number, line in enumerate(path.read_text().splitlines(), 1)
                  if len(line.expandtabs(8)) > WIDTH]
    return found


def undocumented(folder: Path = ACCEL) -> list[str]:
    """Members of components and signatures, and fields of layouts, whose docstring does not name them with a width or a
    shape.

    In a docstring a member is a line ``name, name : width``, as numpydoc writes it, below ``Members`` or ``Fields``.
    """
    from amaranth.lib import data, wiring
    missing = []
    for path in sorted(folder.rglob("[!_]*.py")):
        name = ".".join(path.relative_to(folder.parent).with_suffix("").parts)
        module = import_module(name)
        for cls in vars(module).values():
            if inspect.isclass(cls) and cls.__module__ == name and issubclass(cls,
                                                                              (wiring.Component, wiring.Signature,
                                                                               data.Layout)):
                documented = members_documented(cls.__doc__ or "")
                missing += [f"{name}.{cls.__name__}.{member}" for member in declared(cls) if member not in documented]
    return missing


def without_latency(folder: Path = ACCEL) -> list[str]:
    """Components that do not say how long they take: an attribute ``latency`` in cycles, None where it varies."""
    from amaranth.lib import wiring
    missing = []
    for path in sorted(folder.rglob("[!_]*.py")):
        name = ".".join(path.relative_to(folder.parent).with_suffix("").parts)
        missing += [f"{name}.{cls.__name__}" for cls in vars(import_module(name)).values()
                    if inspect.isclass(cls) and cls.__module__ == name and issubclass(cls, wiring.Component)
                    and not hasattr(cls, "latency")]
    return missing


def members_documented(docstring: str) -> set[str]:
    """The names that a docstring describes with a shape: ``a, b : shape`` in a section, or ``a`` (shape)`` in a
    sentence."""
    lines = re.findall(r"^\s*([\w, ]+?) : (?!(?:In|Out)(?:\(stream\))?(?:$|,))\S", docstring, re.M)
    return {name.strip() for names in lines
            for name in names.split(",")} | set(re.findall(r"``(\w+)`` \((?:signed )?[\w.]+", docstring))


def _keys(table: ast.Dict) -> list[str]:
    """Keys of a dictionary in the source, and of the dictionaries that are unpacked into it."""
    names = []
    for key, value in zip(table.keys, table.values):
        if isinstance(key, ast.Constant):
            names.append(key.value)
        elif key is None:
            names += [name for inner in ast.walk(value) if isinstance(inner, ast.Dict) for name in _keys(inner)]
    return names


def declared(cls) -> list[str]:
    """Names of the members that the class's source gives to ``super().__init__``; those of generated members are not
    among them."""
    tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(cls)))
    names = []
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "super().__init__":
            for table in call.args:
                names += _keys(table) if isinstance(table, ast.Dict) else []
    return names


def report() -> list[tuple[str, object, bool]]:
    """(what, value, whether it is within its bound)."""
    found = functions()
    bodies = [f for f in found if f.name == "elaborate"]
    core, median = len((ACCEL/"core.py").read_text().splitlines()), statistics.median(f.lines for f in bodies)
    longest = max(bodies, key=lambda f: f.lines)
    missing, silent, round_ = undocumented(), without_latency(), imports.circles(imports.graph())
    full, wide = findings("PLR0915"), findings("E501") + wide_c()
    return [
        ("lines of core.py", core, core <= CORE_LINES),
        ("median lines of an elaborate", median, median <= MEDIAN),
        ("longest elaborate", f"{longest.lines} ({longest.file})", longest.lines <= LONGEST),
        ("functions of more than 50 statements", f"{len(full)} {' '.join(full[:5])}".strip(), not full),
        (f"lines above {WIDTH} columns", f"{len(wide)} {' '.join(wide[:5])}".strip(), not wide),
        ("members without width or shape", f"{len(missing)} {' '.join(missing[:5])}".strip(), not missing),
        ("units without a latency", f"{len(silent)} {' '.join(silent[:5])}".strip(), not silent),
        ("circles of imports, in all rooms", f"{len(round_)} {' '.join(map(str, round_[:2]))}".strip(), not round_),
    ]


def main(argv=None):
    argparse.ArgumentParser(prog="python -m bench.house", description=__doc__.splitlines()[0]).parse_args(argv)
    rows = report()
    for what, value, good in rows:
        print(f"{'ok  ' if good else 'over'}  {what}: {value}")
    return int(not all(good for *_, good in rows))

if __name__ == "__main__":
    sys.exit(main())
