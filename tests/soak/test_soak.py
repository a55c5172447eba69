"""A session of ``make soak`` on the simulated SoC, and that its judge finds what a worse device would do."""
import random
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from llama2_host.generation import Options, Outcome, Sampling, TokenEvent
from llama2_spec.image import row_layout
from llama2_spec.model import KvFormat, ModelConfig
from llama2_spec.protocol import GenerateFlag, Reason
from soc.sim.simulator import Simulator
from targets import sim
from tests.soak import refusals
from tests.soak.generation import Running, Wrong
from tests.soak.models import row_mask, same_row, session_model
from tests.soak.oracle import Slot
from tests.soak.session import Session


@pytest.fixture(scope="module")
def vsim():
    return sim.build()


@pytest.mark.soc
def test_a_session_equals_golden(vsim, tmp_path):
    result = Session(vsim, random.Random(6), tmp_path).run(rounds=2)
    counts = result.counts
    assert result.failure == ""
    assert counts["tokens"] > 20 and counts["logits"] > 200 and counts["rows"] and not counts["violations"]


@pytest.mark.soc
def test_a_violation_of_the_dram_s_timing_is_a_failure(vsim, tmp_path, monkeypatch):
    monkeypatch.setattr(Simulator, "violations", lambda self: {"tRCD violation": 2})
    result = Session(vsim, random.Random(5), tmp_path).run(rounds=0)
    assert "tRCD" in result.failure and result.counts["violations"] == 2

# The judge, without a device ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def slot():
    model, _ = session_model(random.Random(3))
    return Slot(model.image, model.config.seq_len)


class Device:
    """Says what golden says, but for what ``spoil`` does to it."""

    def __init__(self, expected, spoil=lambda tokens, outcome, logits: outcome):
        self.expected, self.spoil = expected, spoil

    def generate(self, ids, options, *, slot, flags, on_logits):
        expected = self.expected
        tokens, logits = list(expected.tokens), {at: list(values) for at, values in expected.logits.items()}
        outcome = Outcome(expected.reason, expected.position(len(tokens), expected.reason), draws=expected.draws,
                          dropped=expected.dropped)
        outcome = self.spoil(tokens, outcome, logits)
        for position, values in logits.items():
            on_logits(position, 0, values)
        events = [TokenEvent(i, expected.first + i, token, 0) for i, token in enumerate(tokens)]
        return Answers(iter(events), outcome)


class Answers(SimpleNamespace):
    def __init__(self, events, outcome):
        super().__init__(events=events, outcome=outcome)

    def __next__(self):
        return next(self.events)


def other(outcome, **fields):
    return Outcome(**{**vars(outcome), **fields})


SPOILS = {
    "a token": (lambda tokens, outcome, logits: tokens.__setitem__(3, tokens[3] ^ 1) or outcome, "token 3 of"),
    "one too few": (lambda tokens, outcome, logits: tokens.pop() and outcome or outcome, "token|Outcome"),
    "a logit": (lambda tokens, outcome, logits: logits[max(logits)].__setitem__(1, 7) or outcome, "logits at"),
    "a position's logits": (lambda tokens, outcome, logits: logits.pop(min(logits)) and outcome, "logits of"),
    "the last logits": (lambda tokens, outcome, logits: logits[max(logits)].pop() and outcome or outcome, "logits of"),
    "the end": (lambda tokens, outcome, logits: other(outcome, position=outcome.position + 1), "not at"),
    "the reason": (lambda tokens, outcome, logits: other(outcome, reason=Reason.STOP), "not LENGTH"),
    "draws": (lambda tokens, outcome, logits: other(outcome, draws=outcome.draws + 1), "draws"),
}
OPTIONS = Options(0, 6, Sampling(temperature=.8, seed=4), ())
FLAGS = GenerateFlag.DUMP_LOGITS | GenerateFlag.ALL_LOGITS


def judged(slot, spoil=None):
    expected = slot.expect([1, 2, 0], OPTIONS, FLAGS)
    running = Running(Device(expected, *([spoil] if spoil else [])), 0, [1, 2, 0], OPTIONS, FLAGS, expected, None)
    running.drain()
    running.judge(part=False)
    return running


def test_what_golden_says_is_right(slot):
    running = judged(slot)
    assert len(running.events) == 6 and sorted(running.logits) == [0, 1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("spoil, told", SPOILS.values(), ids=SPOILS)
def test_what_golden_does_not_say_is_found(slot, spoil, told):
    with pytest.raises(Wrong, match=told):
        judged(slot, spoil)


def test_a_full_context_ends_a_generation(slot):
    ids = [0] * (slot.length - 3)
    expected = slot.expect(ids, Options(0, 100, Sampling(temperature=0), ()), GenerateFlag(0))
    assert len(expected.tokens) == 4 and expected.reason == Reason.CONTEXT
    assert expected.position(4, expected.reason) == slot.length


def test_an_aborted_generation_keeps_what_was_fed(slot):
    expected = slot.expect([0] * 5, Options(0, 9, Sampling(temperature=0), ()), GenerateFlag(0))
    assert [expected.position(count, Reason.ABORT) for count in (0, 1, 3)] == [0, 5, 7]


def test_bad_commands_are_of_every_kind():
    rng, slot = random.Random(1), SimpleNamespace(length=40, exact=True, known=7)
    config = SimpleNamespace(vocab_size=50, seq_len=60)
    names = {refusals.bad_command(rng, 0, slot, config, 2, idle=True).name for _ in range(2000)}
    assert len(names) > 25
    assert "GENERATE: position" not in {refusals.bad_command(rng, 0, slot, config, 2, idle=False).name
                                        for _ in range(2000)}

# Rows of the cache --------------------------------------------------------------------------------

NARROW = ModelConfig(dim=32, hidden_dim=32, n_layers=1, n_heads=2, n_kv_heads=1, head_dim=8, vocab_size=22, seq_len=9)


@pytest.mark.parametrize("kv, meant", [(KvFormat.K16V16, 2 + 16 + 16), (KvFormat.K16V8, 2 + 16 + 8),
                                       (KvFormat.K8V8, 2 + 8 + 8)])
def test_all_bytes_of_a_row_that_mean_something_are_compared_and_no_other(kv, meant):
    config = replace(NARROW, kv=kv)
    mask = np.frombuffer(row_mask(config), np.uint8)
    assert len(mask) == row_layout(config)[1] * 16 and np.count_nonzero(mask) == meant and set(mask) == {0, 255}
    row = bytes(range(len(mask)))
    for at, means in enumerate(mask):
        changed = row[:at] + bytes([row[at] ^ 16]) + row[at + 1:]
        assert same_row(config, changed, row) == (not means)
    assert not same_row(config, row[:-1], row)
