"""Random decoders on a core that Verilator compiled: some seeds of ``make fuzz-core``, and what they would find."""
import random

import pytest

from bench import fuzz_core
from llama2_spec import golden
from tests.accel import fuzz
from tests.accel.fuzz import CORES, play, random_plan

SMALLEST = CORES[:1]


def test_every_core_and_format_comes_up():
    plans = [random_plan(seed) for seed in range(1, 120)]
    cores = {tuple(plan.core.values()) for plan in plans}
    assert len(cores) > len(CORES) * .9 and len(CORES) == 25
    found = {name for plan in plans for name in fuzz.features(plan)}
    assert {"format mixed", "format q4 g32", "format q8 g64", "kv k8v8", "kv k16v8", "slots 6", "pipes 2"} <= found
    steps = [step for plan in plans for step in plan.steps]
    assert any(step.awaited for step in steps) and any(step.dump for step in steps)
    assert any(step.temperature and len(step.places) == 4 for step in steps)


def test_random_decoders_equal_golden():
    counts = fuzz.Counter()
    for seed in range(1, 9):
        counts += play(random_plan(seed, SMALLEST), random.Random(seed))
    assert counts["logits"] > 500 and counts["rows"] > 50
    assert counts["steps awaited"] and counts["steps chained"] and counts["steps sampled"]


def test_a_seed_does_the_same_again():
    assert play(random_plan(3, SMALLEST), random.Random(3)) == play(random_plan(3, SMALLEST), random.Random(3))


@pytest.mark.parametrize("name, other", [("rotate", lambda rows, positions, turns: 2 * rows),
                                         ("running_mass", lambda log2: 1)])
def test_what_golden_does_not_say_is_found(monkeypatch, name, other):
    monkeypatch.setattr(golden, name, other)
    with pytest.raises(AssertionError):
        for seed in range(1, 4):
            play(random_plan(seed, SMALLEST), random.Random(seed))


def test_a_failing_seed_is_one_command_away(monkeypatch, capsys):
    monkeypatch.setattr(golden, "silu", lambda x: x)
    monkeypatch.setattr(fuzz, "CORES", SMALLEST)
    assert fuzz_core.main(["--seed", "2"]) == 1
    told = capsys.readouterr().out
    assert "columns 1" in told and "AssertionError" in told
