"""accel/ keeps its bounds, and what measures them sees what passes them."""
import pytest

from bench import house

FAT = '''from amaranth.lib import wiring
from amaranth.lib.wiring import In


class Unit(wiring.Component):
    """A unit.

    Members
    -------
    a : In(1)
        Documented.
    c : In
        Without a width.
    """
    def __init__(self, more):
        super().__init__({"a": In(1), "b": In(2), "c": In(3), **({"d": In(4)} if more else {})})

    def elaborate(self, platform):
        """Not counted."""
        for i in range(3):
            if i:
                pass
            else:
                pass
'''


@pytest.mark.parametrize("what, value, good", [pytest.param(*row, id=row[0]) for row in house.report()])
def test_bounds_hold(what, value, good):
    assert good, f"{what}: {value}"


def test_sees_what_it_counts(tmp_path, monkeypatch):
    (tmp_path/"fat").mkdir()
    (tmp_path/"fat"/"unit.py").write_text(FAT)
    monkeypatch.syspath_prepend(tmp_path)
    assert house.undocumented(tmp_path/"fat") == [f"fat.unit.Unit.{name}" for name in "bcd"]
    assert house.without_latency(tmp_path/"fat") == ["fat.unit.Unit"]
    elaborate = next(f for f in house.functions(tmp_path/"fat") if f.name == "elaborate")
    assert elaborate.lines == 7


def test_sees_what_ruff_counts(tmp_path):
    body = "".join(f"    x = {n}\n" for n in range(51))
    (tmp_path/"unit.py").write_text(f"# {'x' * 118}\n# {'x' * 119}\ndef f():\n{body}")
    assert house.findings("E501", tmp_path) == ["unit.py:2"] and house.findings("PLR0915", tmp_path) == ["unit.py:3"]
