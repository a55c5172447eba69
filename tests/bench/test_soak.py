"""What `make soak` and `make fuzz-core` record, tell and end with."""
import json

import pytest

from bench import campaign, fuzz_core, soak, soak_tables


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(campaign, "FOLDER", tmp_path)
    return tmp_path


def session(seed, say=lambda *words: None):
    """Stands for a session; the fourth is wrong."""
    say(f"session {seed}")
    counts = {"build a": 1, "generations": 2, "tokens": 100, "logits": 5000, "violations": 0}
    return {"counts": counts, "failure": "Wrong: token 3 of 9" if seed == 4 else ""}


@pytest.fixture
def run(monkeypatch, folder):
    monkeypatch.setattr(soak, "session", session)
    return lambda *arguments: soak.main(["--processes", "1", "--output", str(folder/"soak.json"), *arguments])


def test_a_record_is_made_of_enough_only(run, folder, capsys):
    assert run("--tokens", "300", "--logits", "1000", "--seconds", "0") == 1 and not (folder/"soak.json").exists()
    assert run("--tokens", "300", "--logits", "11000") == 0
    record = json.loads((folder/"soak.json").read_text())
    assert record["seeds"] == [1, 3] and record["counts"]["tokens"] == 300 and record["failures"] == []
    assert "300 tokens, 15,000 logits" in capsys.readouterr().out


def test_a_failure_is_recorded_and_is_one_command_away(run, folder, capsys):
    assert run("--tokens", "500", "--logits", "1") == 1
    assert json.loads((folder/"soak.json").read_text())["failures"] == [{"seed": 4, "what": "Wrong: token 3 of 9"}]
    assert "python -m bench.soak --seed 4    # Wrong: token 3 of 9" in capsys.readouterr().out
    assert run("--seed", "4") == 1 and "session 4" in capsys.readouterr().out
    assert run("--seed", "3") == 0


def test_a_table_says_what_was_counted(run, folder, monkeypatch):
    run("--tokens", "300", "--logits", "1")
    monkeypatch.setattr(soak, "RESULTS", folder/"soak.json")
    told = soak_tables.sessions_table()
    assert all(line in told for line in ("| **Tokens compared** | 300 |", "| By build | a: 3 |",
                                         "| **Failures** | **0** |"))
    monkeypatch.setattr(soak, "RESULTS", folder/"none.json")
    assert soak_tables.sessions_table() == "There is no record yet: `make soak` makes it.\n"


def test_what_is_recorded_is_enough():
    """Whoever records less than is promised changes this."""
    record = json.loads(soak.RESULTS.read_text())
    counts = record["counts"]
    assert counts["tokens"] >= 10_000 and counts["logits"] >= 1_000_000
    assert counts["violations"] == 0 and record["failures"] == []
    assert all(counts[f"build {name}"] for name in soak.BUILDS)
    record = json.loads(fuzz_core.RESULTS.read_text())
    assert record["seeds"][1] - record["seeds"][0] + 1 >= 500 and record["failures"] == []
    assert (soak.TOKENS, soak.LOGITS, fuzz_core.SHAPES) == (10_000, 1_000_000, 500)
