"""Shows that zeros added to reach the core's sizes change nothing: not the float model, and no more than rounding in
integers."""
from dataclasses import replace

import numpy as np
import pytest

from llama2_host.checkpoint import Checkpoint, padding
from llama2_host.checkpoint.write import write_v0
from llama2_host.evaluation import dequantised, golden_logits
from llama2_host.image.model import Model
from llama2_spec.golden import Golden
from llama2_spec.image import Image, build
from llama2_spec.model import ModelConfig
from llama2_spec.reference import Reference
from tests.host.checkpoints import write_gguf, write_huggingface
from tests.host.generated import random_tensors

IDS = [1, 5, 9, 3, 22, 30, 7, 39]
#: sizes as they are, and dim and head_dim as they are stored
SHAPES = [(dict(dim=20, n_heads=5, n_kv_heads=1, head_dim=4), (32, 16)),
          (dict(dim=36, n_heads=3, n_kv_heads=3, head_dim=12), (48, 16)),
          (dict(dim=120, n_heads=6, n_kv_heads=2, head_dim=20), (128, 24)),
          (dict(dim=44, n_heads=4, n_kv_heads=2, head_dim=16), (48, 16)),
          (dict(dim=48, n_heads=4, n_kv_heads=4, head_dim=12, rope_factors=(1.0, 2.0, 4.0, 4.0, 4.0, 4.0)), (48, 16))]


def made(tied=True, **shape):
    config = ModelConfig(hidden_dim=50, n_layers=2, vocab_size=40, seq_len=32, tied=tied, **shape)
    tensors = random_tensors(config)
    return config, tensors, padding.padded(Checkpoint(config, tensors, "a test"))


@pytest.mark.parametrize("shape, stored", SHAPES)
@pytest.mark.parametrize("tied", [True, False])
def test_the_float_model_stays_the_same(shape, stored, tied):
    config, tensors, padded = made(tied, **shape)
    assert (padded.config.dim, padded.config.head_dim) == stored
    exact, same = Reference(config, tensors).logits(IDS), Reference(padded.config, padded.tensors).logits(IDS)
    assert np.abs(exact - same).max() < 1e-5 < np.abs(exact).max()
    for name, rows in padded.tensors.items():
        whole = np.asarray(rows)
        assert whole.shape == rows.shape and np.count_nonzero(whole) == np.count_nonzero(tensors[name])
        assert all((whole[at:at + 5] == rows[at:at + 5]).all() for at in range(0, len(whole), 3))


@pytest.mark.parametrize("shape, stored", SHAPES)
def test_golden_computes_it(shape, stored):
    """As near to float32 on the image's own weights as a model that needs no zeros; a wrong size in any constant is far
    off."""
    config, tensors, padded = made(**shape)
    image = Image.parse(build(padded.config, padded.tensors))
    assert replace(image.config, norm_epsilon=padded.config.norm_epsilon,
                   rope_factors=padded.config.rope_factors) == padded.config
    ours, own = golden_logits(Golden(image), IDS), dequantised(image)
    np.testing.assert_allclose(own["final_norm"][:config.dim], tensors["final_norm"], atol=1e-3)
    difference = np.abs(ours - Reference(padded.config, own).logits(IDS)).max()
    plain = ModelConfig(dim=48, n_heads=3, n_kv_heads=3, head_dim=16, hidden_dim=50, n_layers=2, vocab_size=40,
                        seq_len=32)
    usual = Image.parse(build(plain, random_tensors(plain)))
    assert (difference < 4 *
            np.abs(golden_logits(Golden(usual), IDS) - Reference(plain, dequantised(usual)).logits(IDS)).max())
    for wrong in ({"true_dim": 0}, {"true_head_dim": 0}):
        other = (replace(padded.config, **wrong, rope_factors=()) if "true_head_dim" in wrong
                 else replace(padded.config, **wrong))
        if other.norm_dim != padded.config.norm_dim or other.score_dim != padded.config.score_dim:
            assert np.abs(ours - Reference(other, own).logits(IDS)).max() > 4 * difference


def test_what_fits_is_left_alone():
    config, tensors, padded = made(dim=48, n_heads=3, n_kv_heads=3, head_dim=16)
    assert padded.config == config and padded.tensors is tensors and not padding.note(config)


@pytest.mark.parametrize("write", [write_huggingface, lambda path, *model: write_gguf(path / "m.gguf", *model)])
def test_a_checkpoint_of_odd_sizes_becomes_an_image(tmp_path, write, monkeypatch):
    monkeypatch.setenv("LLAMA2_HOST_CACHE", str(tmp_path / "cache"))
    config, tensors, _ = made(dim=36, n_heads=3, n_kv_heads=3, head_dim=12)
    model = Model.load(write(tmp_path, config, tensors), format="q4")
    assert model.image.config.true_dim == 36 and model.image.config.dim == 48 and model.expected_bytes > 0


def test_sizes_that_no_zeros_help_are_refused(tmp_path):
    config = ModelConfig(dim=136, n_heads=1, n_kv_heads=1, head_dim=136, hidden_dim=16, n_layers=1, vocab_size=8,
                         seq_len=8)
    write_v0(tmp_path / "m.bin", config, random_tensors(config))
    with pytest.raises(Exception, match="m.bin: cannot become a model image: head_dim 136 must be a multiple of 8 up "
                                        "to 128"):
        _ = Model.load(tmp_path / "m.bin").data
