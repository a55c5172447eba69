"""What larger cores cost: the record, and what its table makes of it."""
import json

import pytest

from bench import variations
from bench.memories import Memory
from bench.resources import KINDS
from bench.synthesis import BETWEEN
from soc import configuration

RESULTS = json.loads(variations.RESULT.read_text())


def test_all_were_measured_and_add_up():
    assert list(RESULTS) == list(variations.VARIATIONS)
    for name, result in RESULTS.items():
        assert result["parameters"] == variations.VARIATIONS[name].parameters
        for kind in KINDS:
            assert result[kind] == sum(unit[kind] for unit in result["units"].values())


@pytest.mark.parametrize("name", list(variations.VARIATIONS)[1:])
def test_more_costs_more_where_it_is(name):
    """A parameter costs look-up tables in the unit that it is of."""
    unit = {"attention_lanes": "attention", "candidate_sets": "logits", "columns": "matvec"}
    base, result = RESULTS["as configured"], RESULTS[name]
    for parameter, value in variations.VARIATIONS[name].parameters.items():
        assert configuration.PARAMETERS[parameter] != value
        if parameter in unit:
            assert result["units"][unit[parameter]]["lut"] > base["units"][unit[parameter]]["lut"]


def test_rows_say_what_is_taken_more():
    results = {"as configured": dict(zip(KINDS, (1000, 2000, 8, 10))),
               "16 lanes": dict(zip(KINDS, (3100, 1999, 8.5, 10)))}
    assert variations.table_rows(results) == [("16 lanes", "+2,100", "-1", "+0.5", "+0"),
                                              ("the core as configured", "1,000", "2,000", "8", "10")]


def test_memories_of_the_core_alone_belong_to_their_unit():
    def memory(name):
        return Memory(name, 8, 512, 1, 1, True, "block")
    units = ("matvec", BETWEEN)
    assert [variations.unit_of(memory(name), units) for name in (
        "matvec.scales", r"$flatten\\matvec.\\table.$auto$rom", "left")] == ["matvec", "matvec", BETWEEN]


def test_what_is_mapped_alone_stands_beside_the_others(monkeypatch):
    """One unit anew, the others of the variation that it differs from; without that one there is no figure."""
    def mapped(sources, top, out):
        seen.append(top)
        return {BETWEEN: dict.fromkeys(KINDS, 7)}
    units = {"attention": dict.fromkeys(KINDS, 1), "kv": dict.fromkeys(KINDS, 2)}
    seen, known = [], {"as configured": {"units": units}}
    monkeypatch.setattr(variations, "mapped", mapped)
    monkeypatch.setattr(variations, "verilog_file", lambda core, name: "core.v")
    result = variations.measure("16 lanes", known)
    assert seen == ["llama2_core.attention"] and result["lut"] == 9 and result["units"]["kv"]["lut"] == 2
    with pytest.raises(RuntimeError, match="'4 columns' in one unit: measure that first"):
        variations.measure("4 columns, 4 sets of candidates", known)
