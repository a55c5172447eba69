"""Measures how readable accel/ is, against bounds: ``python -m bench.house``.

It measures lengths, statements, documented members and circles of imports. Prints what it measures and ends with 1
where a bound is passed; tests/bench/test_house.py holds the same bounds.
"""
import argparse
import ast
import inspect
import re
import statistics
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
STATEMENTS = 50             #: of a function, as ruff counts them (PLR0915)


@dataclass(frozen=True)
class Function:
    """A function of the source, with its place, its lines and its statements."""
    file: str
    name: str
    lines: int
    statements: int


def _statements(body) -> int:
    """As ruff counts: every statement but docstrings, and those within compound ones."""
    count = 0
    for node in body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        count += 1
        for name in ("body", "orelse", "finalbody"):
            count += _statements(getattr(node, name, []))
        count += sum(_statements(handler.body) for handler in getattr(node, "handlers", []))
    return count


def functions(folder: Path = ACCEL) -> list[Function]:
    """Every function in ``folder``."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                found.append(Function(str(path.relative_to(folder)), node.name, node.end_lineno - node.lineno + 1,
                                      _statements(node.body)))
    return found


def wide_lines(folder: Path = ACCEL) -> list[str]:
    """Where a line is longer than ``WIDTH``, as file:line."""
    return [f"{path.relative_to(folder)}:{number}" for path in sorted(folder.rglob("*.py"))
            for number, line in enumerate(path.read_text().splitlines(), 1) if len(line) > WIDTH]


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
    """Names in the table, those of tables within it that are unpacked into it too."""
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
    longest, fullest = max(bodies, key=lambda f: f.lines), max(found, key=lambda f: f.statements)
    missing, silent, round_ = undocumented(), without_latency(), imports.circles(imports.graph())
    wide = wide_lines()
    return [
        ("lines of core.py", core, core <= CORE_LINES),
        ("median lines of an elaborate", median, median <= MEDIAN),
        ("longest elaborate", f"{longest.lines} ({longest.file})", longest.lines <= LONGEST),
        ("most statements of a function", f"{fullest.statements} ({fullest.file}, {fullest.name})",
         fullest.statements <= STATEMENTS),
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
