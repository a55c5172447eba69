"""The repetition penalty looks back at tokens by their positions, whatever made them: firmware and specification
alike."""
import random

import pytest

from llama2_spec.numerics import exp2_weight, logit_to_log2
from llama2_spec.protocol import MAX_PROMPT, Generate, GenerateFlag
from llama2_spec.sampling import ONE, Sampler
from tests.firmware.images import SEQ_LEN, VOCAB, small_image
from tests.firmware.library import Device

GREEDY = dict()
SAMPLED = dict(temperature=ONE, seed=7)
PENALISED = dict(repetition_penalty=3 * ONE // 2, repetition_window=256)
BOTH = dict(temperature=ONE // 2, seed=3, repetition_penalty=2 * ONE, repetition_window=64)


class Model:
    """The toy model with the specification's sampler, whose history has every position."""

    def __init__(self, library):
        self.library, self.history = library, {}

    def generate(self, position, ids, max_new, **options):
        sampler = Sampler(Generate(ids=ids, **options))
        sampler.history = self.history
        for at, token in enumerate(ids, position):
            sampler.remember(at, token)
        tokens, at, token = [], position + len(ids) - 1, ids[-1]
        while len(tokens) < max_new:
            row = [self.library.fake_logit(token, at, i) for i in range(VOCAB)]
            at += 1
            token = row.index(max(row))
            if sampler.wanted:
                logs = [int(logit_to_log2(logit, sampler.scale)) for logit in row]
                best = sorted(range(VOCAB), key=lambda i: (-row[i], i))[:64]
                maximum = max(logs) >> 16
                token = sampler.choose(at, [(i, row[i]) for i in best], sum(int(exp2_weight(s, maximum)) for s in logs),
                                       maximum)
            sampler.remember(at, token)
            tokens.append(token)
        return tokens


@pytest.mark.parametrize("first", [GREEDY, SAMPLED, PENALISED], ids=["greedy", "sampled", "penalised"])
@pytest.mark.parametrize("length, back", [(150, 150), (150, 100), (300, 100), (450, 20), (450, 300)])
def test_rewound_turn_looks_back_at_what_was_there(firmware, first, length, back):
    device, model = Device(firmware, small_image()), Model(firmware)
    assert device.generate(ids=(5,), max_new=length, **first)[0] == model.generate(0, (5,), length, **first)
    more = dict(position=back, ids=(7,), max_new=40)
    assert device.generate(**more, **PENALISED)[0] == model.generate(**more, **PENALISED)


@pytest.mark.parametrize("options", [PENALISED, BOTH])
def test_positions_whose_tokens_nobody_said_are_no_tokens(firmware, options):
    """Rows came with the cache; where the device remembers tokens, other words lie."""
    for token in range(0, VOCAB, 3):
        device, model = Device(firmware, small_image()), Model(firmware)
        more = dict(position=40, ids=(token,), max_new=30, **options)
        assert device.generate(**more, flags=GenerateFlag.PRELOADED)[0] == model.generate(**more), token


@pytest.mark.parametrize("seed", range(6))
def test_turns_of_all_kinds_equal_the_specification(firmware, seed):
    rng = random.Random(seed)
    device, model, held = Device(firmware, small_image()), Model(firmware), 0
    for _ in range(12):
        position = rng.choice([held, held, rng.randrange(held + 1)])
        ids = tuple(rng.randrange(VOCAB) for _ in range(rng.choice([1, 3, 60])))
        count = rng.choice([1, 5, 80, 200])
        if position + len(ids) + count > SEQ_LEN:
            position, ids = 0, ids[:1]
        options = rng.choice([GREEDY, SAMPLED, PENALISED, BOTH])
        assert len(ids) <= MAX_PROMPT
        tokens, done = device.generate(position=position, ids=ids, max_new=count, **options)
        assert tokens == model.generate(position, ids, count, **options), options
        held = done.position
