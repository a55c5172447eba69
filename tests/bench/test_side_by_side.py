"""Two simulators are equal where tokens are, and cycles but for refreshes; what is neither a build nor a commit is
refused."""
import pytest

from bench import side_by_side

RUN = [((1, 2, 3), 100_000, 300.0), ((1, 2, 3), 100_050, 310.0)]


def faster(factor, tokens=(1, 2, 3), cycles=0):
    return [(tokens, taken + cycles, khz*factor) for _, taken, khz in RUN]


def test_ratio_is_of_neighbouring_turns():
    result = side_by_side.summary({"old": RUN, "new": faster(1.5)})
    assert result["ratio"] == 1.5 and result["equal_tokens"] and side_by_side.equal(result)


@pytest.mark.parametrize("new", [faster(1, tokens=(1, 2, 4)), faster(1, cycles=500)])
def test_other_tokens_or_cycles_are_not_equal(new):
    assert not side_by_side.equal(side_by_side.summary({"old": RUN, "new": new}))


def test_what_is_neither_build_nor_commit_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="neither the folder of a build nor a commit"):
        side_by_side.find("no-such-commit")
    with pytest.raises(SystemExit, match="holds no simulator"):
        side_by_side.find(tmp_path)
