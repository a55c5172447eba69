"""The integer decoder against float32 on the same quantised weights, and the image it reads."""
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.accuracy import dequantised, log_softmax
from host import checkpoint
from host.tokenizer import Tokenizer
from spec import packing
from spec.golden import Golden
from spec.image import Image, ImageError, build, weights
from spec.model import ModelConfig
from spec.reference import Reference
from tests.accel.decoder import random_image
from tests.host.generated import random_tensors

MODELS = Path(__file__).parents[2] / "models"
TEXT = ("Once upon a time, there was a fox who lived near a small pond. Every day the fox counted the frogs. "
        "One day there was one frog more than before, and it was green and very proud.")
CONFIG = ModelConfig(dim=48, hidden_dim=86, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=16, vocab_size=40, seq_len=32)


@pytest.mark.parametrize("format", ["q8", "q4"])
def test_kl_on_the_same_weights(format):
    """The default model on a text of ours: what the integer datapath costs, apart from quantisation."""
    source = checkpoint.load(MODELS / "stories.bin")
    tokens = Tokenizer.load(MODELS / "stories.tokenizer.bin", source.config.vocab_size).encode(TEXT)
    image = Image.parse(build(source.config, source.tensors, format=format))
    golden = Golden(image)
    ours = log_softmax(np.stack([golden.step(t, p).values for p, t in enumerate(tokens)]) / 2.0 ** 18)
    theirs = log_softmax(Reference(source.config, dequantised(image, source.tensors)).logits(tokens))
    assert len(tokens) > 40
    assert (np.exp(theirs) * (theirs - ours)).sum(axis=1).mean() < 1e-6
    assert not golden.flags.raised


@pytest.mark.parametrize("format, group, shape", [("q8", 64, (13, 172)), ("q4", 32, (8, 16)), ("q4", 64, (5, 80)),
                                                  ("q8", 32, (1, 48))])
def test_pack_and_unpack(format, group, shape):
    q = packing.quantise(np.random.default_rng(1).normal(size=shape), format=format, group=group)
    data = packing.pack(q)
    assert len(data) == 16 * packing.tensor_beats(q.rows, q.words, format, group)
    back = packing.unpack(data, rows=shape[0], columns=shape[1], format=format, group=group, exponent=q.exponent)
    assert (back.codes == q.codes).all() and (back.mantissas == q.mantissas).all() and (back.zeros == q.zeros).all()


def test_damage_is_refused_by_name():
    data = bytearray(random_image(CONFIG, 4).data)
    assert replace(Image.parse(bytes(data)).config, norm_epsilon=1e-5) == CONFIG
    for at, what in ((0, "LLMI"), (4, "version"), (40, "header is damaged"), (len(data) - 1, "weights are damaged")):
        bad = bytearray(data)
        bad[at] ^= 1
        with pytest.raises(ImageError, match=what):
            Image.parse(bytes(bad))
    with pytest.raises(ImageError, match="bytes"):
        Image.parse(bytes(data[:-5]))

def test_pieces_of_a_tensor_give_the_image_of_the_whole(monkeypatch):
    """However few rows are held at a time; the rows of w1 and w3 alternate across pieces, too."""
    config = replace(CONFIG, tied=False)
    tensors = random_tensors(config)
    for format in ("q8", "q4"):
        whole = build(config, tensors, format=format)
        with monkeypatch.context() as patch:
            patch.setattr("spec.image._rows_at_a_time", lambda shape: 8)
            assert build(config, tensors, format=format) == whole


def test_progress_ends_at_all_weights():
    seen = []
    build(CONFIG, random_tensors(CONFIG), report=seen.append)
    assert seen == sorted(seen) and seen[-1] == weights(CONFIG)


def test_rope_factors_divide_the_frequencies():
    plain = Image.parse(build(CONFIG, random_tensors(CONFIG))).rope
    factors = (1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0, 8.0)
    scaled = Image.parse(build(replace(CONFIG, rope_factors=factors), random_tensors(CONFIG))).rope
    np.testing.assert_allclose(scaled * np.array(factors), plain, atol=4)
    with pytest.raises(ImageError, match="2 RoPE factors, expected one per pair, 8"):
        build(replace(CONFIG, rope_factors=(1.0, 2.0)), random_tensors(CONFIG))
