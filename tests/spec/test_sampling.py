"""The integer sampler: firmware/sampler.c equals it bit for bit, and its choices have the distribution they should."""
import ctypes
import math
import random
from collections import Counter

import pytest

from llama2_spec.numerics import exp2_weight, logit_scale, logit_to_log2
from llama2_spec.protocol import MAX_HISTORY, Generate
from llama2_spec.registers import MAX_CANDIDATES
from llama2_spec.sampling import MASS_LIMIT, MAX_PENALTY, MAX_TEMPERATURE, ONE, Sampler, Xorshift, penalised
from tests.firmware import library

Q18 = 1 << 18


@pytest.fixture(scope="module")
def firmware(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sampler")
    return library.load(library.build(folder), folder / "copy.so")


def unit(vocabulary, options, below=0):
    """What the logit unit yields: candidates, mass, maximum; it may be one power of two ``below`` the largest."""
    scale = Sampler(options).scale
    logs = logit_to_log2(vocabulary, scale)
    maximum = int(max(logs) >> 16) - below
    order = sorted(range(len(vocabulary)), key=lambda i: (-vocabulary[i], i))[:MAX_CANDIDATES]
    return [(i, vocabulary[i]) for i in order], int(exp2_weight(logs, maximum).sum()), maximum


def in_c(firmware, options, history, steps):
    """Tokens chosen by firmware for (position, candidates, mass, maximum); with draws and dropped."""
    request = ctypes.create_string_buffer(options.pack())    # the sampler keeps a pointer to it
    library.select_sampler(firmware)
    firmware.sampler_clear()
    firmware.sampler_begin(request)
    tokens = []
    for position, token in history.items():
        firmware.sampler_remember(position, token)
    for position, candidates, mass, maximum in steps:
        firmware.sampler_prepare(position)
        tokens.append(library.choose(firmware, candidates, mass, maximum))
        firmware.sampler_account()
        firmware.sampler_remember(position, tokens[-1])
    return tokens, firmware.sampler_draws(), firmware.sampler_dropped()


def in_python(options, history, steps):
    sampler = Sampler(options)
    tokens = []
    for position, token in history.items():
        sampler.remember(position, token)
    for position, candidates, mass, maximum in steps:
        tokens.append(sampler.choose(position, candidates, mass, maximum))
        sampler.remember(position, tokens[-1])
    return tokens, sampler.draws, sampler.dropped


def random_options(rng):
    """Options anywhere in their ranges, each often off or at an end."""
    return Generate(
        temperature=rng.choice([0, 1, ONE // 10, ONE // 2, ONE, ONE, 3 * ONE, rng.randrange(MAX_TEMPERATURE + 1)]),
        top_k=rng.choice([0, 0, 1, 2, 40, 64, 65, 1 << 31]),
        top_p=rng.choice([0, 0, 1, ONE // 2, 58982, ONE - 1, ONE, rng.randrange(ONE)]),
        min_p=rng.choice([0, 0, 1, ONE // 20, ONE, rng.randrange(ONE)]),
        repetition_penalty=rng.choice([ONE, ONE, ONE + 1, ONE * 11 // 10, MAX_PENALTY,
                                       rng.randrange(ONE, MAX_PENALTY)]),
        repetition_window=rng.choice([0, 1, 2, 64, MAX_HISTORY]),
        seed=rng.choice([0, 1, rng.getrandbits(64)]))


def random_logits(rng):
    """A vocabulary's logits: ordinary, all equal, far apart, or at the ends of their range."""
    count = rng.choice([1, 2, 3, 63, 64, 65, 300])
    spread = rng.choice([0, 1, Q18, 6 * Q18, 1000 * Q18, (1 << 31) - 1])
    centre = rng.choice([0, 0, 5 * Q18, -5 * Q18])
    logits = [max(-(1 << 31), min((1 << 31) - 1, centre + rng.randint(-spread, spread))) for _ in range(count)]
    if rng.random() < 0.1:
        logits[rng.randrange(count)] = rng.choice([-(1 << 31), (1 << 31) - 1, 0])
    return logits


@pytest.mark.parametrize("seed", range(20))
def test_firmware_chooses_the_same(firmware, seed):
    rng = random.Random(seed)
    for _ in range(150):
        options = random_options(rng)
        position = rng.choice([1, 3, 100, 1000])
        history = {at: rng.randrange(rng.choice([4, 300])) for at in range(max(0, position - MAX_HISTORY), position)}
        steps = []
        for at in range(position, position + 4):
            candidates, mass, maximum = unit(random_logits(rng), options, rng.randrange(2))
            rng.shuffle(candidates)
            # What the unit adds up in its own order may differ from the sum by rounding.
            mass = max(0, min(MASS_LIMIT, mass + rng.choice([0, 0, 0, -1, -1000, 1, 1 << 14, 1 << 30, MASS_LIMIT])))
            steps.append((at, candidates, mass, maximum))
        assert in_c(firmware, options, history, steps) == in_python(options, history, steps), options


@pytest.mark.parametrize("temperature", [0, 1, 655, ONE // 2, ONE - 1, ONE, ONE + 1, 5 * ONE, MAX_TEMPERATURE])
def test_firmware_has_the_same_scale(firmware, temperature):
    assert firmware.exp2_logit_scale(ctypes.c_uint64((temperature or ONE) << 32)) == logit_scale(temperature or ONE)


def test_firmware_has_the_same_weights(firmware):
    rng = random.Random(4)
    scales = [logit_scale(temperature) for temperature in (1, ONE // 2, ONE, 7 * ONE, MAX_TEMPERATURE)]
    for _ in range(20000):
        logit, scale = rng.randint(-(1 << 31), (1 << 31) - 1) >> rng.randrange(32), rng.choice(scales)
        log2 = int(logit_to_log2(logit, scale))
        assert firmware.exp2_logit(logit, scale) == log2
        maximum = (log2 >> 16) - 1 + rng.randrange(20)
        assert firmware.exp2_weight(log2, maximum) == exp2_weight(log2, maximum)


def test_random_numbers_are_llama2_c_s():
    # Worked by hand from run.c's random_u32 with state 1: the shifts leave 0x2000001, times the multiplier.
    assert Xorshift(1).next() == (0x2000001 * 0x2545F4914F6CDD1D & (1 << 64) - 1) >> 32
    assert Xorshift(0).next() == Xorshift(1).next()


def test_penalty_pulls_towards_less_likely():
    assert penalised(2 * Q18, 2 * ONE) == Q18
    assert penalised(-2 * Q18, 2 * ONE) == -4 * Q18
    assert penalised(-(1 << 31), MAX_PENALTY) == -(1 << 31)


@pytest.mark.parametrize("temperature", [0.01, 0.3, 0.7, 1, 1.5, 80])
def test_scale_is_log2_e_over_the_temperature(temperature):
    temperature = int(temperature * ONE)
    scale = logit_scale(temperature)
    assert 1 << 15 <= scale & 0xffff
    value = math.log2(math.e) / (temperature / ONE)
    assert abs((scale & 0xffff) * 2.0 ** ((scale >> 16 ^ 0x80) - 0x80) / value - 1) < 2**-15
    assert abs(logit_to_log2(Q18, scale) / 65536 - min(value, 32767.99)) < value * 2**-15 + 2**-16


def draw(firmware, options, logits, count=20000):
    """Frequencies of what is drawn from one distribution, and the mean of what was dropped."""
    tokens, draws, dropped = in_c(firmware, options, {}, [(1, *unit(logits, options))] * count)
    assert draws == count
    return {token: n / count for token, n in Counter(tokens).items()}, dropped / 2**32 / count


def softmax(logits, temperature):
    weights = [math.exp(logit / Q18 / temperature) for logit in logits]
    return [weight / sum(weights) for weight in weights]


@pytest.mark.parametrize("temperature", [0.5, 1, 2])
def test_frequencies_are_those_of_the_softmax(firmware, temperature):
    logits = [random.Random(5).randint(-2 * Q18, 2 * Q18) for _ in range(40)]
    seen, dropped = draw(firmware, Generate(temperature=int(temperature * ONE), seed=3), logits)
    for token, probability in enumerate(softmax(logits, temperature)):
        assert abs(seen.get(token, 0) - probability) < 4 * math.sqrt(probability / 20000) + 1e-4
    assert dropped == 0


def test_what_the_limit_drops_is_counted_and_keeps_the_proportions(firmware):
    logits = [Q18] * 64 + [0] * 200
    seen, dropped = draw(firmware, Generate(temperature=ONE, seed=3), logits)
    assert set(seen) == set(range(64))
    assert all(abs(share - 1 / 64) < 0.004 for share in seen.values())
    expected = 200 / (200 + 64 * math.e)
    assert abs(dropped - expected) < 1e-3


@pytest.mark.parametrize("options, kept", [
    (dict(top_k=2), 2), (dict(top_p=ONE // 2), 1), (dict(top_p=int(0.6 * ONE)), 2), (dict(top_p=int(0.95 * ONE)), 4),
    (dict(min_p=int(0.3 * ONE)), 2), (dict(min_p=ONE), 1), (dict(top_k=3, min_p=int(0.3 * ONE)), 2), (dict(), 5)])
def test_truncation_keeps_the_beginning(firmware, options, kept):
    logits = [int(math.log(p) * Q18) for p in (0.51, 0.25, 0.12, 0.08, 0.04)]
    seen, _ = draw(firmware, Generate(temperature=ONE, seed=9, **options), logits, 4000)
    assert set(seen) == set(range(kept))


def test_greedy_with_penalty_leaves_the_loop():
    options = Generate(repetition_penalty=2 * ONE, repetition_window=2)
    logits = [3 * Q18, 2 * Q18, Q18 + Q18 // 2, -Q18]
    sampler = Sampler(options)
    tokens = []
    for position in range(6):
        tokens.append(sampler.choose(position, *unit(logits, options)))
        sampler.remember(position, tokens[-1])
    assert tokens[:4] == [0, 1, 2, 0] or len(set(tokens)) > 1
    assert sampler.wanted and sampler.draws == 0
