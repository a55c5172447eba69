"""The rooms depend on each other in one direction only, and each stays with its own tools."""
import ast
import re
from pathlib import Path

import pytest

from tests import imports as imports_of

ROOT  = Path(__file__).parent.parent
ROOMS = {
    "spec":    set(),
    "accel":   {"spec"},
    "soc":     {"spec", "accel"},
    "targets": {"spec", "accel", "soc"},
    "host":    {"spec"},
}
PACKAGES = {"llama2_spec": "spec", "llama2_host": "host"}    # under which names two rooms are installed
FOREIGN = {    # packages that a room never imports
    "spec":  {"amaranth", "migen", "litex", "litedram", "serial", "sentencepiece"},
    "accel": {"migen", "litex", "litedram"},
    "host":  {"amaranth", "migen", "litex", "litedram"},
}
OUTSIDE = {"tests", "bench", "models"}    # no room imports these


def imports(text):
    """Rooms and packages that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (room(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield room(node.module)


def room(module):
    top = module.split(".")[0]
    return PACKAGES.get(top, top)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_only_what_the_room_may(room):
    banned = (set(ROOMS) | OUTSIDE) - ROOMS[room] - {room} | FOREIGN.get(room, set())
    strays = [f"{path.relative_to(ROOT)} imports {name}"
              for path in sorted((ROOT/room).rglob("*.py")) for name in imports(path.read_text()) if name in banned]
    assert not strays


def test_sees_imports_inside_functions():
    assert set(imports("def f():\n    import soc.base\n    from accel.core import Core")) == {"soc", "accel"}


def test_no_module_imports_itself_by_way_of_others():
    """Imports inside functions count: they hide a circle, they do not break it."""
    assert imports_of.circles(imports_of.graph()) == []


def test_sees_circles():
    edges = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}
    assert imports_of.circles(edges) == [["b", "c"]]
    text = "from a import b\nif TYPE_CHECKING:\n    import d\ndef f():\n    from c import x"
    assert imports_of.imported(text, {"a.b", "a", "c", "d"}) == ["a.b", "c"]


def test_the_core_s_page_names_its_files():
    names = set(re.findall(r"`([\w/]+\.py)`", (ROOT/"docs"/"core.md").read_text()))
    assert names == {path.relative_to(ROOT/"accel").as_posix() for path in (ROOT/"accel").rglob("[!_]*.py")}
