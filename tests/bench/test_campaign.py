"""A campaign's seeds are run once, whatever interrupts it."""
import functools
import json

import pytest

from bench import campaign


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(campaign, "FOLDER", tmp_path)
    return tmp_path


def double(stop, seed):
    """A seed's work; the seed ``stop`` interrupts the run, and every seventh fails."""
    if seed == stop:
        raise KeyboardInterrupt
    if seed % 7 == 0:
        raise ValueError(f"seven\nof {seed}")
    return {"counts": {"doubled": 2*seed}, "failure": ""}


def so_many(count, results):
    return len(results) >= count


def run(count, stop=None, **options):
    return campaign.Campaign("soak", functools.partial(double, stop), **options).run(
        1, functools.partial(so_many, count))


def test_a_run_that_was_killed_goes_on(folder):
    with pytest.raises(KeyboardInterrupt):
        run(6, stop=4)
    [file] = folder.glob("*.jsonl")
    file.write_text(file.read_text() + '{"seed": 4, "cou')      # and its last line is half
    seen = []
    results = campaign.Campaign("soak", functools.partial(double, 3)).run(1, functools.partial(so_many, 6),
                                                                          say=lambda done: seen.append(done["seed"]))
    assert seen == [4, 5, 6]                                    # 3, which would interrupt, is finished
    assert campaign.total(results) == {"doubled": 42} and not campaign.failures(results)
    assert [json.loads(line)["seed"] for line in file.read_text().splitlines()] == [1, 2, 3, 4, 5, 6]


def test_processes_do_the_same():
    assert campaign.summary(run(9, processes=2))["counts"] == {"doubled": 2*(45 - 7)}


def test_a_failure_is_kept_and_told():
    record = campaign.summary(run(8))
    assert [failed["seed"] for failed in record["failures"]] == [7] and "of 7" in record["failures"][0]["what"]
    assert record["seeds"] == [1, 8]


def test_two_runs_at_a_time_are_refused_in_a_line():
    def again(done):
        with pytest.raises(SystemExit, match="^another run of this campaign is at it [^\\n]*$"):
            run(2)
    first = campaign.Campaign("soak", functools.partial(double, None))
    assert len(first.run(1, functools.partial(so_many, 2), say=again)) == 2 and len(run(3)) == 3


def fail(seed):
    raise ValueError(f"{seed}")


@pytest.mark.parametrize("processes", [1, 2])
def test_where_everything_fails_it_ends(processes):
    results = campaign.Campaign("soak", fail, processes=processes).run(1, lambda results: False)
    assert campaign.MOST <= len(campaign.failures(results)) <= campaign.MOST + 1


def test_another_digest_begins_anew(monkeypatch):
    run(3)
    monkeypatch.setattr(campaign.records, "digest", lambda kind: "other")
    assert campaign.Campaign("soak", double).results(1) == []


def test_fresh_forgets_and_seconds_end_it():
    run(3)
    assert len(campaign.Campaign("soak", double).results(1)) == 3
    again = campaign.Campaign("soak", functools.partial(double, None), fresh=True)
    assert again.results(1) == []
    assert again.run(1, functools.partial(so_many, 9), seconds=0) == []
