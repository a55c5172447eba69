"""Replays bench.conformance: the product against what its references said, which are not needed here."""
import json

import pytest

from bench.conformance import compare, product, record
from bench.conformance.__main__ import RESULT
from bench.conformance.cases import all_cases

CASES = {case.name: case for case in all_cases()}
RECORDED = {reference: record.read(reference) for reference in sorted({case.reference for case in CASES.values()})}


def replayed(case, folder):
    path = case.write(folder / "case")
    return list(compare.cells(case, product.says(case, path), RECORDED[case.reference][case.name]))


def test_every_case_is_recorded_and_counted():
    assert len(CASES) == len(all_cases())
    assert {name for told in RECORDED.values() for name in told} == set(CASES)
    result = json.loads(RESULT.read_text())
    assert result["cells"] >= 500 and result["different"] == 0 and result["refused by the reference"] == []
    assert result["equal"] + sum(result["listed"].values()) == result["cells"]


@pytest.mark.parametrize("axis", sorted({case.axis for case in CASES.values()}))
def test_says_what_the_references_say(axis, tmp_path):
    wrong, count = [], 0
    for i, case in enumerate(case for case in CASES.values() if case.axis == axis):
        cells = replayed(case, tmp_path / str(i))
        count += len(cells)
        wrong += [cell for cell in cells if not cell.good]
    assert not wrong, wrong[0]
    assert count == json.loads(RESULT.read_text())["axes"][axis]["cells"]


def test_a_wrong_id_is_a_different_cell(tmp_path):
    case = CASES["first: not legacy"]
    path = case.write(tmp_path / "case")
    ours = product.says(case, path)
    ours["ids"][3][-1] += 1
    ours["ends"] = ours["ends"][1:]
    wrong = [cell.what for cell in compare.cells(case, ours, RECORDED["transformers"][case.name]) if not cell.good]
    assert wrong == ["ids", "ends"]


def test_only_special_tokens_with_known_names_may_end_more(tmp_path):
    case = CASES["byte level: empty"]
    ours = product.says(case, case.write(tmp_path / "case"))
    theirs = RECORDED["transformers"][case.name]
    ends = [cell for cell in compare.cells(case, ours, theirs) if cell.what == "ends"]
    assert ([cell.good for cell in ends] == [True] and ends[0].reason == compare.NAMED
            and set(ours["ends"]) > set(theirs["ends"]))
    ours["ends"] = [*ours["ends"], 300]
    assert not all(cell.good for cell in compare.cells(case, ours, theirs))
