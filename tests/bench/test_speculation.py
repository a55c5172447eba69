"""Sums over texts that were decoded with and without guesses, and which results are sound."""
from bench.cycles import sound
from bench.speculation import summary

TEXT = {"prompt_tokens": 9, "tokens": 60, "passes": 40, "guessed": 50, "cycles": 4000, "cycles_off": 6000,
        "identical": True}


def test_figures_follow_from_the_sums():
    total = summary([TEXT, {**TEXT, "passes": 20, "cycles": 2000}])
    assert (total["tokens"], total["passes"], total["right"], total["guessed"]) == (120, 60, 60, 100)
    assert total["tokens_per_pass"] == 2 and total["speedup"] == 2 and total["cycles_per_pass"] == 100
    assert (total["cycles_per_token"], total["cycles_per_token_off"], total["identical"]) == (50, 100, True)


def test_one_difference_or_violation_spoils_a_result():
    good = {"dram_violations": 0, "prefill": {"identical": True, "dram_violations": 0},
            "speculation": {"dram_violations": 0, "stories": summary([TEXT])}}
    assert sound(good) and sound({"dram_violations": 0})
    assert not sound({**good, "dram_violations": 1})
    assert not sound({**good, "prefill": {"identical": False, "dram_violations": 0}})
    assert not sound({**good, "speculation": {"dram_violations": 2, "stories": summary([TEXT])}})
    assert not sound({**good, "speculation": {"dram_violations": 0,
                                              "stories": summary([TEXT, {**TEXT, "identical": False}])}})
