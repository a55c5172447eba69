"""Every temperature draws as the softmax does: from where logit / temperature is beyond 32 bits down to where only
equals share."""
import ctypes
import math
import random
from collections import Counter

import pytest

from llama2_host.generation import Sampling
from llama2_spec.protocol import Generate
from llama2_spec.sampling import ONE
from tests.firmware import library
from tests.spec.test_sampling import Q18, firmware, in_c, in_python, unit  # noqa: F401 (a fixture)

DRAWS = 100_000


def options(temperature, **more):
    """As the client sends it."""
    fields = Sampling(temperature=temperature, top_p=0, **more).fixed()
    return Generate(**fields)


def logits(temperature, seed=1, count=40, top=25.0):
    """A vocabulary whose largest logits are some temperatures apart, and far above 0."""
    rng = random.Random(seed)
    return [round(Q18 * (top - rng.random() * 8 * temperature)) for _ in range(count)]


def softmax(vocabulary, temperature):
    largest = max(vocabulary)
    weights = [math.exp((logit - largest) / Q18 / temperature) for logit in vocabulary]
    return [weight / sum(weights) for weight in weights]


@pytest.mark.parametrize("temperature", [1e-6, 1e-4, .001, .005, .3, 1, 2])
def test_chi_square_of_the_draws(firmware, temperature):  # noqa: F811
    """Golden's stated error is far below what 10**5 draws show: the bound is the 99.99 % quantile of the chi-square
    itself."""
    vocabulary = logits(temperature, top=25.0 if temperature < 1 else 12.0)
    request = options(temperature, seed=11)
    tokens, _, dropped = in_c(firmware, request, {}, [(1, *unit(vocabulary, request))] * DRAWS)
    seen, chi, degrees, rest = Counter(tokens), 0.0, -1, [0.0, 0]
    for token, probability in enumerate(softmax(vocabulary, temperature)):
        if probability * DRAWS < 10:
            rest = [rest[0] + probability, rest[1] + seen[token]]
            continue
        chi += (seen[token] - probability * DRAWS) ** 2 / (probability * DRAWS)
        degrees += 1
    if rest[0] * DRAWS >= 1:
        chi, degrees = chi + (rest[1] - rest[0] * DRAWS) ** 2 / (rest[0] * DRAWS), degrees + 1
    assert degrees >= 3 and dropped == 0
    # Wilson and Hilferty 1931: the cube root of a chi-square over its degrees is nearly normal.
    assert ((chi / degrees) ** (1 / 3) - 1 + 2 / (9 * degrees)) / math.sqrt(2 / (9 * degrees)) < 3.72, (chi, degrees)


def test_below_all_differences_only_equals_share(firmware):  # noqa: F811
    vocabulary = [20 * Q18, 20 * Q18 - 1, 20 * Q18, 0]
    request = options(1e-9, seed=5)
    tokens, _, _ = in_c(firmware, request, {}, [(1, *unit(vocabulary, request))] * 2000)
    assert set(tokens) == {0, 2} and abs(tokens.count(0) - 1000) < 150


@pytest.mark.parametrize("seed", range(6))
def test_firmware_equals_golden_at_low_temperatures(firmware, seed):  # noqa: F811
    rng = random.Random(seed)
    for _ in range(100):
        temperature = rng.choice([1e-9, 1e-6, 1e-5, 1e-4, .001, .005, .05, .3, rng.random()])
        request = options(temperature, seed=rng.getrandbits(40), top_k=rng.choice([0, 0, 5]),
                          min_p=rng.choice([0, 0.1]),
                          repetition_penalty=rng.choice([1, 1.01, 1.3, 8]), repetition_window=rng.choice([2, 64]))
        history = {at: rng.randrange(40) for at in range(20)}
        steps = []
        for at in range(20, 24):
            vocabulary = logits(temperature, rng.random(), rng.choice([3, 40, 100]),
                                rng.choice([25.0, 1.0, -25.0, 8000.0]))
            candidates, mass, maximum = unit(vocabulary, request)
            rng.shuffle(candidates)
            steps.append((at, candidates, mass, maximum))
        assert in_c(firmware, request, history, steps) == in_python(request, history, steps), request


def test_penalty_at_a_low_temperature_leaves_the_others_their_shares(firmware):  # noqa: F811
    """The first place falls far: what follows is drawn in proportion, though all of it was nothing beside the first."""
    vocabulary = [20 * Q18, 18 * Q18, 0, 3 * Q18]
    for temperature in (.1, .001):
        vocabulary[2] = 18 * Q18 - round(temperature * Q18)
        request = options(temperature, seed=3, repetition_penalty=1.5, repetition_window=4)
        # Position 5 again and again: its history is token 0 only.
        steps = [(5, *unit(vocabulary, request))] * 4000
        tokens = []
        buffer = ctypes.create_string_buffer(request.pack())
        library.select_sampler(firmware)
        firmware.sampler_clear()
        firmware.sampler_begin(buffer)
        for position in range(5):
            firmware.sampler_remember(position, 0)
        firmware.sampler_prepare(5)
        for _, candidates, mass, maximum in steps:
            tokens.append(library.choose(firmware, candidates, mass, maximum))
            firmware.sampler_account()
        share = tokens.count(1) / len(tokens)
        assert set(tokens) == {1, 2} and abs(share - 1 / (1 + math.exp(-1))) < .03


def test_common_temperatures_keep_their_texts():
    assert (Sampling(temperature=.8).fixed()["temperature"] == 52429
            and Sampling(temperature=.8).fixed()["temperature_low"] == 0)
    assert (Sampling(temperature=1e-6).fixed()["temperature"] == 0
            and Sampling(temperature=1e-6).fixed()["temperature_low"] > 0)
    assert Sampling(temperature=1).fixed()["temperature"] == ONE


def test_seed_0_is_from_the_clock():
    seeds = {Sampling(seed=0).fixed()["seed"] for _ in range(3)}
    assert len(seeds) > 1 and 0 not in seeds


@pytest.mark.parametrize("seed", [0, 1, 2, 12345])
def test_turns_of_a_chat_have_seeds_of_their_own(seed):
    sampling = Sampling(seed=seed)
    seeds = [sampling.following(turn).seed for turn in range(50)]
    assert seeds == [0] * 50 if seed == 0 else len(set(seeds)) == 50 and seeds[0] == seed
    assert not set(seeds) & {Sampling(seed=seed + 1).following(turn).seed for turn in range(50)} or seed == 0
