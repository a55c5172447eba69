"""Which module of the project imports which, wherever in it; what is only for type checkers does not count."""
import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: packages and scripts by the folder that they are imported from
FOLDERS = {"llama2_spec": ROOT/"spec", "llama2_host": ROOT/"host", "accel": ROOT, "soc": ROOT, "targets": ROOT}


@cache
def modules() -> dict[str, Path]:
    found = {}
    for top, folder in FOLDERS.items():
        for path in sorted((folder/top).rglob("*.py")):
            found[".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


@cache
def graph() -> dict[str, set[str]]:
    return {name: set(imported(path.read_text(), modules())) - {name} for name, path in modules().items()}


def imported(text: str, known) -> list[str]:
    """Modules among ``known`` that a module's text imports."""
    found = []
    for node in _counting(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name in known]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                within = f"{node.module}.{alias.name}"
                found += [within] if within in known else [node.module] if node.module in known else []
    return found


def _counting(node):
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield from _counting(child)


def reached(*names: str, edges: dict[str, set[str]] | None = None) -> set[str]:
    """What these modules import, and what that imports, and so on; themselves included."""
    edges, found, left = edges or graph(), set(), list(names)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += edges[name]
    return found


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules each of which reaches each other one."""
    below = {name: reached(*edges[name], edges=edges) for name in edges}
    found = {tuple(sorted(other for other in below[name] if name in below[other])) for name in edges
             if name in below[name]}
    return sorted(map(list, found))
