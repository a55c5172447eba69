"""`make prove` puts rows into the record in the catalogue's order, and the page tells what became of each mutant."""
import json

import pytest

from bench import proof_tables, prove, records
from tests.proofs import proof
from tests.proofs.harness import Outcome, Verdict

ROW = {"unit": "Skid", "properties": "p", "size": "", "verdict": "proved", "depth": None, "missing": "",
       "constants": {}, "seconds": 0.1, "mutants": 17, "refuted": 17, "equivalent": 0, "stillborn": 0, "surviving": 0,
       "undecided": 0}


@pytest.fixture
def record(tmp_path, monkeypatch):
    monkeypatch.setattr(prove, "RECORD", tmp_path/"proofs.json")
    return prove.RECORD


def test_rows_of_today_are_kept(record):
    records.write(record, "proofs", {"rows": [ROW, {**ROW, "unit": "HalfRate", "seconds": 1}]})
    rows = prove.merged([{**ROW, "unit": "HalfRate", "seconds": 2}, {**ROW, "unit": "Stage"}])
    assert [(row["unit"], row["seconds"]) for row in rows] == [("Stage", 0.1), ("Skid", 0.1), ("HalfRate", 2)]


def test_rows_of_earlier_sources_are_not(record):
    record.write_text(json.dumps({"rows": [ROW], "made": {"digest": "0", "commit": "abcdef0"}}))
    assert prove.merged([{**ROW, "unit": "Stage"}]) == [{**ROW, "unit": "Stage"}]


@pytest.mark.parametrize("change, text", [
    ({}, "17 of 17"), ({"refuted": 15, "equivalent": 2}, "15 of 17; 2 do the same"),
    ({"refuted": 16, "surviving": 1}, "16 of 17; **1 survive**"), ({"refuted": 16, "stillborn": 1}, "16 of 16"),
    ({"refuted": 16, "undecided": 1}, "16 of 17; **1 undecided**"),
    ({"mutants": 90}, "17 of 17; 17 of all 90 tried")])
def test_mutants_in_words(change, text):
    assert proof_tables.mutants_of({**ROW, **change}) == text


def test_a_search_that_ran_out_of_time_is_no_surviving_mutant(monkeypatch, tmp_path, capsys, record):
    """The run fails all the same: nobody knows whether the claim sees that mutant."""
    verdicts = iter([Verdict.PROVED, Verdict.UNKNOWN, Verdict.PROVED, Verdict.REFUTED])
    monkeypatch.setattr(proof, "prove", lambda *arguments, **options: Outcome(next(verdicts), 0.1, ""))
    assert prove.main(["Skid", "--mutants", "3", "--jobs", "1", "--update"]) == 1
    row = json.loads(record.read_text())["rows"][0]
    assert (row["verdict"], row["undecided"], row["surviving"], row["refuted"]) == ("proved", 1, 1, 1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("  undecided: ") and lines[2].startswith("  surviving: ") and len(lines) == 3


def test_an_unknown_unit_is_refused_in_a_line(capsys):
    with pytest.raises(SystemExit):
        prove.main(["Skidd"])
    assert "no proof is called Skidd; there are: Stage, Skid" in capsys.readouterr().err
