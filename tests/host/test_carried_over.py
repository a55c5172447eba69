"""Shows that codes which a file holds already reach the image as they are: GGUF Q4_0, llama2.c v2 groups that straddle
rows."""
from dataclasses import replace

import numpy as np
import pytest

from llama2_host.checkpoint import load
from llama2_host.checkpoint.write import pack_v2
from llama2_spec.image import Format, Image, Kind, build, payload_bytes, tensor_bytes
from llama2_spec.model import ModelConfig
from llama2_spec.packing import Native, quantise
from tests.host.checkpoints import write_gguf
from tests.host.generated import random_tensors
from tests.host.test_containers import CONFIG, random_blocks

#: rows of 96: groups of 64 straddle them
STRADDLING = ModelConfig(dim=96, hidden_dim=160, n_layers=1, n_heads=6, n_kv_heads=3, head_dim=16, vocab_size=48,
                         seq_len=16)


def entry(image, kind):
    return next(entry for entry in image.entries if entry.kind == kind)


def test_q4_0_codes_carry_over(tmp_path):
    """Scales of both signs, as llama.cpp writes them: a group's zero point says which way its codes run."""
    data, values = random_blocks(CONFIG, "Q4_0")
    data["layers.0.w2"].reshape(-1, 18)[::3, 1] |= 0x80
    write_gguf(tmp_path / "model.gguf", CONFIG, values, "Q4_0", blocks=data.get)
    checkpoint = load(tmp_path / "model.gguf")
    image = Image.parse(build(checkpoint.config, checkpoint.tensors, groups=checkpoint.groups, format="q4"))
    w2 = image.tensor(entry(image, Kind.W2))
    assert (w2.format, w2.group) == ("q4", 32)
    bytes_ = data["layers.0.w2"].reshape(-1, 18)
    codes = np.concatenate([bytes_[:, 2:] & 15, bytes_[:, 2:] >> 4], axis=1).astype(int).reshape(32, 2, 32)
    turned = (bytes_[:, 1] >> 7).astype(bool).reshape(32, 2)
    assert turned.sum() == 22
    ours = w2.codes.reshape(32, 2, 32).astype(int)
    assert (ours[~turned] == codes[~turned]).all() and (w2.zeros[~turned] == 8).all()
    assert (ours[turned] - w2.zeros[turned][:, None] == 8 - codes[turned]).all()
    values["layers.0.w2"] = np.where(np.repeat(turned, 32, axis=1), -1, 1) * values["layers.0.w2"]
    np.testing.assert_allclose(w2.real(), values["layers.0.w2"], rtol=2.0 ** -11)


@pytest.mark.parametrize("group_size", [32, 64, 96, 192])
def test_v2_groups_that_straddle_rows_carry_over(tmp_path, group_size):
    tensors = random_tensors(STRADDLING)
    (tmp_path / "model.bin").write_bytes(pack_v2(STRADDLING, tensors, group_size))
    checkpoint = load(tmp_path / "model.bin")
    image = Image.parse(build(checkpoint.config, checkpoint.tensors, groups=checkpoint.groups))
    for kind, name in ((Kind.WO, "layers.0.wo"), (Kind.W2, "layers.0.w2"), (Kind.CLASSIFIER, "embedding")):
        q = image.tensor(entry(image, kind))
        codes, scales, _, _ = checkpoint.groups[name]
        assert q.group == 32 and (q.codes == codes).all()
        real = codes * np.repeat(scales, group_size).reshape(codes.shape)
        np.testing.assert_allclose(q.real(), real, atol=scales.max() * 127 * 2.0 ** -12)


def test_groups_that_end_amid_a_scale_are_quantised_anew(tmp_path):
    assert Native(np.zeros((4, 128), np.int8), np.ones(4), 128).rowwise().group == 64
    assert Native(np.zeros((4, 48), np.int8), np.ones(12), 16).rowwise() is None
    assert Native(np.zeros((4, 48), np.int8), np.ones((4, 3)), 16).rowwise() is None
    assert Native(np.zeros((4, 48), np.int8), np.ones(3), 64).rowwise() is None
    config = replace(STRADDLING, hidden_dim=48)
    tensors = random_tensors(config)
    (tmp_path / "model.bin").write_bytes(pack_v2(config, tensors, 16))
    checkpoint = load(tmp_path / "model.bin")
    image = Image.parse(build(checkpoint.config, checkpoint.tensors, groups=checkpoint.groups))
    wo = image.tensor(entry(image, Kind.WO))
    assert (wo.codes == quantise(checkpoint.tensors["layers.0.wo"]).codes).all()


def test_a_plan_gives_every_tensor_its_own_format():
    tensors = random_tensors(STRADDLING)
    ready = quantise(tensors["layers.0.w2"], format="q4", group=64)
    ready.codes[3, 5] ^= 1                       # no rounding of the weights would give this
    plan = {(Kind.WV, 0): ("q8", 32), (Kind.CLASSIFIER, 0): ("q8", None), (Kind.W2, 0): ready}
    image = Image.parse(build(STRADDLING, tensors, format="q4", plan=plan))
    found = {e.kind: (e.format, e.group) for e in image.entries if e.kind != Kind.GAIN}
    assert found == {Kind.WQ: (Format.Q4, 32), Kind.WK: (Format.Q4, 32), Kind.WV: (Format.Q8, 32),
                     Kind.WO: (Format.Q4, 32),
                     Kind.W13: (Format.Q4, 32), Kind.W2: (Format.Q4, 64), Kind.CLASSIFIER: (Format.Q8, 64)}
    assert (image.tensor(entry(image, Kind.W2)).codes == ready.codes).all()
    formats = plan | {(Kind.W2, 0): ("q4", 64)}
    assert image.header["payload_bytes"] == payload_bytes(STRADDLING, "q4", plan=formats)
    assert entry(image, Kind.WV).beats * 16 == tensor_bytes(STRADDLING, Kind.WV, "q8", 32)
