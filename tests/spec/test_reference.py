"""Shows that the float reference is llama2.c's arithmetic: recorded logits, a case by hand, and itself."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from bench import reference_data
from llama2_host.checkpoint import load
from llama2_host.tokenizer import load as load_tokenizer
from llama2_spec.model import ModelConfig
from llama2_spec.reference import Reference, rmsnorm, rotate, silu, softmax
from tests.host.generated import SMALL, random_tensors

REPO = Path(__file__).parents[2]

SHAPES = {
    "multi-head": dataclasses.replace(SMALL, n_kv_heads=4),
    "grouped": SMALL,
    "multi-query": dataclasses.replace(SMALL, n_kv_heads=1),
    "untied": dataclasses.replace(SMALL, tied=False),
    "wide heads": dataclasses.replace(SMALL, head_dim=8, rope_theta=500000.0, norm_epsilon=1e-6),
}


@pytest.fixture(scope="module")
def stories260k():
    checkpoint = load(reference_data.path("models", "stories260K.bin"))
    return Reference(checkpoint.config, checkpoint.tensors)


@pytest.fixture(scope="module")
def expected():
    return json.loads(reference_data.path("models", "expected.json").read_text())["records"]


@pytest.mark.reference
@pytest.mark.parametrize("prompt", [0, 1])
def test_logits_equal_the_recorded_ones(stories260k, expected, prompt):
    recorded = np.load(reference_data.path("models", "expected_logits.npz"))["logits"][prompt]
    tokens = expected[prompt]["ids"][:len(recorded)]
    assert np.abs(stories260k.logits(tokens) - recorded).max() < 1e-4
    stories260k.reset()
    for position, token in enumerate(tokens):
        assert np.abs(stories260k.step(token, position) - recorded[position]).max() < 1e-4


@pytest.mark.reference
@pytest.mark.parametrize("prompt", range(4))
def test_greedy_ids_equal_the_recorded_ones(stories260k, expected, prompt):
    ids, start = expected[prompt]["ids"], len(expected[prompt]["prompt_ids"])
    stories260k.reset()
    generated = ids[:start]
    for position in range(len(ids) - 1):
        best = int(np.argmax(stories260k.step(generated[position], position)))
        if position >= start - 1:
            generated.append(best)
    assert generated == ids


def test_default_model_continues_a_story():
    checkpoint = load(REPO / "models/stories.bin")
    tokenizer = load_tokenizer(REPO / "models/stories.model", checkpoint.config.vocab_size)
    reference = Reference(checkpoint.config, checkpoint.tensors)
    prompt = tokenizer.encode("Once upon a time, there was a little girl named")
    for position, token in enumerate(prompt):
        logits = reference.step(token, position)
    probabilities = softmax(logits.astype(np.float64))
    best = tokenizer.pieces[int(np.argmax(probabilities))].decode()
    assert best.startswith(" ") and best.strip().istitle(), f"not the start of a name: {best!r}"
    np.testing.assert_allclose(reference.logits(prompt)[-1], logits, atol=1e-4)


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES.keys())
def test_steps_equal_the_whole_sequence(config):
    tokens = np.random.default_rng(1).integers(0, config.vocab_size, config.seq_len)
    reference = Reference(config, random_tensors(config))
    whole = reference.logits(tokens)
    reference.reset()
    steps = np.stack([reference.step(token, position) for position, token in enumerate(tokens)])
    assert whole.dtype == steps.dtype == np.float32
    np.testing.assert_allclose(steps, whole, atol=2e-5)


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES.keys())
def test_equals_scalar_loops(config):
    tensors = random_tensors(config, seed=2)
    tokens = [1, 7, 299, 7, 0]
    np.testing.assert_allclose(Reference(config, tensors).logits(tokens)[-1], loops(config, tensors, tokens), atol=2e-5)


def loops(c: ModelConfig, tensors, tokens):
    """The last logits, in double precision and plain loops, one head and one position at a time."""
    keys, values = {}, {}
    norm = lambda x, weight: weight * x / np.sqrt(np.dot(x, x) / len(x) + c.norm_epsilon)
    for position, token in enumerate(tokens):
        x = tensors["embedding"][token].astype(np.float64)
        for i in range(c.n_layers):
            w = lambda name, i=i: tensors[f"layers.{i}.{name}"].astype(np.float64)
            h = norm(x, w("attention_norm"))
            q, k = (turn_pairs(c, w(name) @ h, position) for name in ("wq", "wk"))
            keys[i, position], values[i, position] = k, w("wv") @ h
            mixed = np.zeros(c.n_heads * c.head_dim)
            for head in range(c.n_heads):
                mine = slice(head * c.head_dim, (head + 1) * c.head_dim)
                kv = head // (c.n_heads // c.n_kv_heads)
                theirs = slice(kv * c.head_dim, (kv + 1) * c.head_dim)
                weights = np.exp([q[mine] @ keys[i, t][theirs] / c.head_dim ** 0.5 for t in range(position + 1)])
                for t in range(position + 1):
                    mixed[mine] += weights[t] / weights.sum() * values[i, t][theirs]
            x = x + w("wo") @ mixed
            h = norm(x, w("ffn_norm"))
            gate = w("w1") @ h
            x = x + w("w2") @ (gate / (1 + np.exp(-gate)) * (w("w3") @ h))
    return tensors["embedding" if c.tied else "classifier"] @ norm(x, tensors["final_norm"])


def turn_pairs(c, x, position):
    for start in range(0, len(x), 2):
        angle = position * c.rope_theta ** -(start % c.head_dim / c.head_dim)
        x[start:start + 2] = (np.array([[np.cos(angle), -np.sin(angle)],
                                        [np.sin(angle), np.cos(angle)]]) @ x[start:start + 2])
    return x


def test_one_layer_by_hand():
    # dim 2, one head, all matrices the identity: position 0 attends to itself alone.
    config = ModelConfig(dim=2, hidden_dim=2, n_layers=1, n_heads=1, n_kv_heads=1, head_dim=2, vocab_size=2, seq_len=4,
                         norm_epsilon=0.0)
    one, eye = np.ones(2, np.float32), np.eye(2, dtype=np.float32)
    tensors = {f"layers.0.{name}": eye for name in ("wq", "wk", "wv", "wo", "w1", "w2", "w3")}
    tensors |= {"layers.0.attention_norm": one, "layers.0.ffn_norm": one, "final_norm": one,
                "embedding": np.array([[3, 4], [0, 1]], np.float32)}
    # [3, 4] / sqrt(12.5) = [.8485281, 1.1313708] is added; its direction, and so its norm, stays the same.
    # SwiGLU of a with itself: a * a * sigmoid(a) = [.5041860, .9677975].
    x = np.array([3.8485281 + .5041860, 5.1313708 + .9677975])
    final = x / np.sqrt((x @ x) / 2)
    np.testing.assert_allclose(Reference(config, tensors).step(0, 0), [3 * final[0] + 4 * final[1], final[1]],
                               rtol=1e-6)


def test_rotates_neighbouring_pairs():
    x = np.array([[[1, 0, 0, 2]]], np.float32)
    quarter = np.array([[[0, 0]]]), np.array([[[1, 1]]])            # cos and sin of 90 degrees
    np.testing.assert_array_equal(rotate(x, *quarter), [[[0, 1, -2, 0]]])


def test_silu_and_softmax_survive_extremes():
    with np.errstate(all="raise", under="ignore"):
        np.testing.assert_array_equal(silu(np.array([-1e4, 0, 1e4], np.float32)), [0, 0, 1e4])
        np.testing.assert_array_equal(softmax(np.array([-1e4, 1e4], np.float32)), [0, 1])
        assert np.isfinite(rmsnorm(np.zeros(4, np.float32), np.ones(4, np.float32), 1e-5)).all()


@pytest.mark.parametrize("tokens, start, message", [
    ([1], SMALL.seq_len, "Positions"), ([1], -1, "Positions"), ([SMALL.vocab_size], 0, "Tokens"), ([-1], 0, "Tokens")])
def test_refuses_what_is_outside_the_model(tokens, start, message):
    with pytest.raises(ValueError, match=message):
        Reference(SMALL, random_tensors(SMALL)).step(tokens[0], start)
