"""Shows that safetensors and GGUF give the same named tensors as llama2.c's files, to the last bit, and what is
refused."""
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFValueType, dequantize
from gguf.constants import GGML_QUANT_SIZES

from llama2_host.checkpoint import CheckpointError, load, rope
from llama2_host.checkpoint.write import pack_v0, pack_v1
from llama2_spec.image import Format, Image, Kind, build
from llama2_spec.model import ModelConfig
from llama2_spec.reference import Reference
from tests.host.checkpoints import (huggingface_names, rounded, to_bfloat16, write_gguf, write_huggingface,
                                    write_safetensors)
from tests.host.generated import random_tensors

#: heads of 16 elements where dim / n_heads is 8; rows of whole blocks of 32, for GGUF's types
CONFIG = ModelConfig(dim=32, hidden_dim=64, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=16, vocab_size=40, seq_len=24,
                     norm_epsilon=1e-5, rope_theta=500000.0)
UNTIED = replace(CONFIG, tied=False)
TOKENS = [1, 5, 9, 39, 5, 0]
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16}
both = pytest.mark.parametrize("config", [CONFIG, UNTIED], ids=["tied", "untied"])


def expect(checkpoint, config, tensors):
    """Config and tensors, and so the logits of the float reference, are exactly those that were written."""
    assert replace(checkpoint.config, norm_epsilon=config.norm_epsilon) == config
    assert checkpoint.config.norm_epsilon == pytest.approx(config.norm_epsilon, rel=1e-6)
    assert checkpoint.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert checkpoint.tensors[name].shape == tensor.shape
        np.testing.assert_array_equal(np.asarray(checkpoint.tensors[name]), tensor, err_msg=name)
        np.testing.assert_array_equal(checkpoint.tensors[name][3:7], tensor[3:7], err_msg=name)
    np.testing.assert_array_equal(Reference(config, checkpoint.tensors).logits(TOKENS),
                                  Reference(config, tensors).logits(TOKENS))


def refusal(path) -> str:
    with pytest.raises(CheckpointError) as refused:
        for tensor in load(path).tensors.values():
            np.asarray(tensor)
    message = str(refused.value)
    assert "\n" not in message and str(path.parent) in message and len(message) < 500
    return message


# Folders of Hugging Face --------------------------------------------------------------------------

@both
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("shards, transformers", [(1, 4), (3, 5)])
def test_safetensors_give_every_tensor(tmp_path, config, dtype, shards, transformers):
    tensors = rounded(random_tensors(config), dtype)
    folder = write_huggingface(tmp_path / "model", config, tensors, dtype=dtype, shards=shards,
                               transformers=transformers)
    checkpoint = load(folder)
    expect(checkpoint, config, tensors)
    assert checkpoint.source == "safetensors"
    assert checkpoint.n_parameters == sum(tensor.size for tensor in tensors.values())
    one = next(folder.glob("*.safetensors"))
    expect(load(one), config, tensors)


def test_the_order_of_rows_matters(tmp_path):
    """What is read without turning wq and wk over computes something else."""
    tensors = random_tensors(CONFIG)
    checkpoint = load(write_huggingface(tmp_path, CONFIG, tensors))
    turned = dict(checkpoint.tensors) | {f"layers.0.{name}": huggingface_names(CONFIG, tensors)[
        f"model.layers.0.self_attn.{name[1]}_proj.weight"] for name in ("wq", "wk")}
    right, wrong = (Reference(CONFIG, t).logits(TOKENS) for t in (checkpoint.tensors, turned))
    assert np.abs(right - wrong).max() > 1e-3


@pytest.mark.parametrize("names, metadata", [
    (["model.embed_tokens.weight"], {}), (["lm_head.weight"], {}),
    (["lm_head.weight"], {"model.embed_tokens.weight": "lm_head.weight"}),
    (["model.embed_tokens.weight"], {"lm_head.weight": "model.embed_tokens.weight"}),
    (["model.embed_tokens.weight", "lm_head.weight"], {})])
@pytest.mark.parametrize("told", [True, False])
def test_a_tied_embedding_under_either_name(tmp_path, names, metadata, told):
    tensors = random_tensors(CONFIG)
    write_huggingface(tmp_path, CONFIG, tensors, tie_word_embeddings=told)
    named = huggingface_names(CONFIG, tensors)
    table = named.pop("model.embed_tokens.weight")
    write_safetensors(tmp_path / "model.safetensors", named | {name: table for name in names}, metadata=metadata)
    if not told and len(names) + len(metadata) < 2:         # nothing says that the missing one is the other
        assert "is missing" in refusal(tmp_path)
    else:
        expect(load(tmp_path), CONFIG, tensors)


def test_refuses_two_embeddings_that_are_said_to_be_one(tmp_path):
    write_huggingface(tmp_path, UNTIED, random_tensors(UNTIED), tie_word_embeddings=True)
    assert "two different ones" in refusal(tmp_path)


def test_head_dim_and_kv_heads_may_be_left_out(tmp_path):
    config = replace(CONFIG, head_dim=8, n_kv_heads=4)
    write_huggingface(tmp_path, config, random_tensors(config), head_dim=None, num_key_value_heads=None)
    expect(load(tmp_path), config, random_tensors(config))


@pytest.mark.parametrize("transformers", [4, 5])
def test_epsilon_and_theta(tmp_path, transformers):
    config = replace(CONFIG, norm_epsilon=1e-6, rope_theta=1234.5)
    write_huggingface(tmp_path, config, random_tensors(config), transformers=transformers)
    checkpoint = load(tmp_path)
    assert (checkpoint.config.norm_epsilon, checkpoint.config.rope_theta) == (1e-6, 1234.5)


# RoPE scaling -------------------------------------------------------------------------------------

@pytest.mark.parametrize("transformers", [4, 5])
@pytest.mark.parametrize("scaling, factors", [
    ({"rope_type": "linear", "factor": 4.0}, rope.linear(4.0, 16)),
    ({"type": "linear", "factor": 4.0}, rope.linear(4.0, 16)),
    (LLAMA3, rope.llama3(16, 500000.0, factor=8.0, low=1.0, high=4.0, context=16.0))])
def test_scaling_reaches_the_logits_and_the_image(tmp_path, transformers, scaling, factors):
    tensors = random_tensors(CONFIG)
    if transformers == 5:
        scaling = {"rope_type": scaling.get("type"), **scaling}
    checkpoint = load(write_huggingface(tmp_path, CONFIG, tensors, transformers=transformers, rope=scaling))
    config = replace(CONFIG, rope_factors=factors)
    expect(checkpoint, config, tensors)
    plain, scaled = (Reference(c, tensors).logits(TOKENS) for c in (CONFIG, config))
    assert np.abs(plain - scaled).max() > 1e-3
    turns = np.round(500000.0 ** (-np.arange(8) / 8) / np.array(factors) / (2 * np.pi) * 2 ** 32)
    np.testing.assert_allclose(Image.parse(build(checkpoint.config, checkpoint.tensors)).rope, turns, atol=1)


def test_llama3_scaling_by_hand():
    # LLaMA 3.2 1B: 64 elements, theta 500000, factor 32, 1, 4, 8192. The first pairs turn fast and stay, the last fall
    # by 32.
    factors = rope.llama3(64, 500000.0, factor=32.0, low=1.0, high=4.0, context=8192.0)
    assert len(factors) == 32 and factors[0] == factors[14] == 1.0 and factors[18] == factors[31] == 32.0
    wavelength = 2 * np.pi * 500000.0 ** (2 * 16 / 64)
    kept = (8192 / wavelength - 1) / 3
    assert 0 < kept < 1 and factors[16] == pytest.approx(1 / ((1 - kept) / 32 + kept))


@pytest.mark.parametrize("scaling, message", [
    ({"rope_type": "yarn", "factor": 4.0}, "RoPE scaling of type 'yarn'"),
    ({"type": "dynamic", "factor": 2.0}, "RoPE scaling of type 'dynamic'"),
    ({"rope_type": "linear"}, "factor is missing"), ({"rope_type": "linear", "factor": -1}, "factor is '-1'"),
    (LLAMA3 | {"high_freq_factor": 1.0}, "is not below high_freq_factor")])
def test_refuses_other_scaling(tmp_path, scaling, message):
    assert message in refusal(write_huggingface(tmp_path, CONFIG, random_tensors(CONFIG), rope=scaling))


# What is refused ----------------------------------------------------------------------------------

@pytest.mark.parametrize("fields, message", [
    ({"model_type": "qwen2"}, "unsupported: biases of q, k and v (model_type 'qwen2')"),
    ({"model_type": "qwen3"}, "unsupported: QK-norm"),
    ({"model_type": "granite", "logits_scaling": 8.0}, "unsupported: multipliers"),
    ({"model_type": "brand-new"}, "unsupported: its architecture 'brand-new'"),
    ({"attention_bias": True}, "unsupported: biases in attention"),
    ({"mlp_bias": True}, "unsupported: biases in the feed"),
    ({"hidden_act": "gelu"}, "unsupported: the activation gelu"),
    ({"num_local_experts": 8}, "unsupported: experts"),
    ({"partial_rotary_factor": 0.5}, "unsupported: rotation of a part"),
    ({"quantization_config": {"bits": 4}}, "unsupported: weights that are quantised already"),
    ({"hidden_size": 48}, "the model's shape asks for"), ({"num_hidden_layers": 3}, "model.layers.2."),
    ({"num_hidden_layers": 1}, "unsupported: this tensor (model.layers.1"),
    ({"hidden_size": "32"}, "hidden_size is '32'"),
    ({"hidden_size": None}, "hidden_size is missing"), ({"num_attention_heads": 3}, "cannot share 2"),
    ({"head_dim": 15}, "heads of 15 elements"), ({"rms_norm_eps": float("nan")}, "rms_norm_eps is 'nan'"),
    ({"vocab_size": 1 << 30}, "expected 1 to 1048576"),
    ({"num_key_value_heads": True}, "num_key_value_heads is 'True'")])
def test_refuses_what_is_not_llama(tmp_path, fields, message):
    assert message in refusal(write_huggingface(tmp_path, CONFIG, random_tensors(CONFIG), **fields))


def test_mistral_without_a_window_is_llama(tmp_path):
    for window in (None, 4096):
        write_huggingface(tmp_path, CONFIG, random_tensors(CONFIG), model_type="mistral", sliding_window=window)
        expect(load(tmp_path), CONFIG, random_tensors(CONFIG))


@pytest.mark.parametrize("name, message", [
    ("model.layers.0.self_attn.q_proj.bias", "unsupported: biases"),
    ("model.layers.1.self_attn.k_norm.weight", "unsupported: QK-norm"),
    ("model.vision.weight", "unsupported: this tensor")])
def test_refuses_tensors_of_others(tmp_path, name, message):
    write_huggingface(tmp_path, CONFIG, random_tensors(CONFIG))
    named = huggingface_names(CONFIG, random_tensors(CONFIG))
    write_safetensors(tmp_path / "model.safetensors", named | {name: np.ones(32, np.float32)})
    assert message in refusal(tmp_path)
    write_safetensors(tmp_path / "model.safetensors", named |
                      {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(8)})
    expect(load(tmp_path), CONFIG, random_tensors(CONFIG))


def test_refuses_a_folder_that_is_not_whole(tmp_path):
    folder = write_huggingface(tmp_path / "model", CONFIG, random_tensors(CONFIG), shards=3)
    shard = sorted(folder.glob("*.safetensors"))[1]
    data = shard.read_bytes()
    shard.write_bytes(data[:-1])
    assert "damaged safetensors file" in refusal(folder)
    shard.unlink()
    assert "cannot be read" in refusal(folder)
    shard.write_bytes(data)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../b"}}')
    assert "is no file of this folder" in refusal(folder)
    (folder / "model.safetensors.index.json").write_text("[" * 100000)
    assert "not JSON" in refusal(folder)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": []}')
    assert "no weight_map" in refusal(folder)
    (folder / "model.safetensors.index.json").unlink()
    shard.rename(folder / "model.safetensors")
    (folder / "config.json").unlink()
    assert "without config.json" in refusal(folder)
    shutil.rmtree(folder)
    folder.mkdir()
    assert "no safetensors in this folder" in refusal(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "model-00002-of-00003.safetensors"])
def test_names_a_git_lfs_pointer_in_a_folder(tmp_path, name):
    write_huggingface(tmp_path, CONFIG, random_tensors(CONFIG), shards=3 if "of" in name else 1)
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 269060552\n")
    assert f"{name}: this is a Git LFS pointer, the file itself was not fetched: run git lfs pull" in refusal(tmp_path)


def test_names_a_lora_adapter(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA",
                                                              "base_model_name_or_path": "some/llama"}))
    write_safetensors(tmp_path / "adapter_model.safetensors",
                      {"base_model.model.x.lora_A.weight": np.ones((2, 4), np.float32)})
    for path in (tmp_path, tmp_path / "adapter_model.safetensors"):
        assert "this is a LoRA adapter of some/llama, expected a whole model: merge it" in refusal(path)
    write_huggingface(tmp_path, CONFIG, random_tensors(CONFIG))            # a merged one keeps its description
    expect(load(tmp_path), CONFIG, random_tensors(CONFIG))
    fields = {"general.type": ("adapter", GGUFValueType.STRING), "adapter.type": ("lora", GGUFValueType.STRING)}
    assert "this is a LoRA adapter" in refusal(write_gguf(tmp_path / "m.gguf", CONFIG, random_tensors(CONFIG),
                                                          fields=fields))


def test_refuses_types_that_are_no_weights(tmp_path):
    write_huggingface(tmp_path, CONFIG, random_tensors(CONFIG))
    array = np.zeros(16, np.int8)
    write_safetensors(tmp_path / "model.safetensors", {})
    from safetensors.numpy import save_file
    save_file({"model.norm.weight": array}, tmp_path / "model.safetensors")
    assert "model.norm.weight is I8, expected F32, F16, BF16" in refusal(tmp_path)


@pytest.mark.parametrize("write", [write_huggingface, lambda path, *model: write_gguf(path / "model.gguf", *model)])
def test_refuses_weights_that_are_no_numbers(tmp_path, write):
    tensors = random_tensors(CONFIG)
    tensors["layers.1.w2"][3, 5] = np.inf
    assert "tensor layers.1.w2 holds values that are no numbers" in refusal(write(tmp_path, CONFIG, tensors))


# GGUF ---------------------------------------------------------------------------------------------

@both
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("type", ["F32", "F16", "BF16"])
def test_gguf_floats_give_every_tensor(tmp_path, config, version, type):
    tensors = rounded(random_tensors(config), type)
    vectors = "F32" if type == "BF16" else type
    checkpoint = load(write_gguf(tmp_path / "model.gguf", config, tensors, type, version=version, vectors=vectors))
    expect(checkpoint, config, tensors)
    assert checkpoint.groups is None and type in checkpoint.source


def random_blocks(config, type: str):
    """Bytes of blocks of a type, with float16 scales of the size of weights; and what they stand for."""
    rng = np.random.default_rng(3)
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[type]]
    # Bytes of a block that hold float16: ref ggml's block structures.
    halves = {"Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,), "Q4_K": (0, 2), "Q5_K": (0, 2),
              "Q6_K": (208,)}[type]
    data, values = {}, {}
    for name, tensor in random_tensors(config).items():
        if tensor.ndim == 1:
            values[name] = tensor
            continue
        rows, columns = tensor.shape
        blocks = rng.integers(0, 256, (rows, columns // block, size), dtype=np.uint8)
        for at in halves:
            scale = rng.uniform(0.5, 1, (rows, columns // block, 1)).astype("<f2") * np.float16(2.0 ** -11)
            blocks[:, :, at:at + 2] = scale.astype("<f2").view(np.uint8)
        data[name] = blocks.reshape(rows, -1)
        values[name] = dequantize(data[name], GGMLQuantizationType[type])
    return data, values


@pytest.mark.parametrize("type", ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"])
def test_gguf_blocks_give_their_values(tmp_path, type):
    wide = {} if type[-1] != "K" else dict(dim=256, hidden_dim=256, n_heads=16)         # rows of whole superblocks
    config = replace(CONFIG, **wide)
    data, values = random_blocks(config, type)
    checkpoint = load(write_gguf(tmp_path / "model.gguf", config, values, type, blocks=data.get))
    expect(checkpoint, config, values)
    assert checkpoint.source == f"GGUF {type}"


def test_q4_0_by_hand(tmp_path):
    """One block decoded with pencil and paper: low nibbles are the first half, 8 is zero, the scale is a float16."""
    tensors = random_tensors(CONFIG)
    block = np.concatenate([np.array([0.5], "<f2").view(np.uint8), np.arange(16, dtype=np.uint8) | 0xf0])
    blocks = {name: np.zeros((t.shape[0], t.shape[1] // 32 * 18), np.uint8)
              for name, t in tensors.items() if t.ndim == 2}
    blocks["layers.0.w1"][0] = block
    w1 = load(write_gguf(tmp_path / "model.gguf", CONFIG, tensors, "Q4_0", blocks=blocks.get)).tensors["layers.0.w1"]
    assert w1[0:1].tolist() == [[(code - 8) * 0.5 for code in range(16)] + [3.5] * 16]


def test_q8_0_groups_carry_over(tmp_path):
    """The image holds the file's own codes, and scales that differ by half a 12-bit mantissa at most."""
    data, values = random_blocks(CONFIG, "Q8_0")
    for name in data:       # as quantisers write them: no -128
        codes = data[name].reshape(-1, 34)[:, 2:]
        codes[codes == 0x80] = 0x81
        values[name] = dequantize(data[name], GGMLQuantizationType.Q8_0)
    checkpoint = load(write_gguf(tmp_path / "model.gguf", CONFIG, values, "Q8_0", blocks=data.get))
    image = Image.parse(build(checkpoint.config, checkpoint.tensors, groups=checkpoint.groups))
    w2 = next(entry for entry in image.entries if entry.kind == Kind.W2)
    assert (w2.group, w2.format) == (32, Format.Q8)
    assert (image.tensor(w2).codes == data["layers.0.w2"].reshape(-1, 34)[:, 2:].view(np.int8).reshape(32, 64)).all()
    np.testing.assert_allclose(image.tensor(w2).real(), values["layers.0.w2"], rtol=2.0 ** -11)


def test_a_negative_scale_of_q8_0_turns_its_codes_over(tmp_path):
    data, values = random_blocks(CONFIG, "Q8_0")
    data["layers.0.wv"].reshape(-1, 34)[::3, 1] |= 0x80
    values["layers.0.wv"] = dequantize(data["layers.0.wv"], GGMLQuantizationType.Q8_0)
    checkpoint = load(write_gguf(tmp_path / "model.gguf", CONFIG, values, "Q8_0", blocks=data.get))
    codes, scales, *_ = checkpoint.groups["layers.0.wv"]
    again = codes[:].reshape(-1, 32) * scales[:].reshape(-1, 1)
    assert (scales[:] >= 0).all() and np.abs(again.reshape(32, 32) - values["layers.0.wv"]).max() <= scales[:].max()


def test_rope_freqs_and_linear_scaling(tmp_path):
    tensors, factors = random_tensors(CONFIG), tuple(float(2 ** i) for i in range(8))
    scaled = load(write_gguf(tmp_path / "a.gguf", CONFIG, tensors, factors=factors))
    expect(scaled, replace(CONFIG, rope_factors=factors), tensors)
    text, real = GGUFValueType.STRING, GGUFValueType.FLOAT32
    fields = {"llama.rope.scaling.type": ("linear", text), "llama.rope.scaling.factor": (4.0, real)}
    scaled = load(write_gguf(tmp_path / "b.gguf", CONFIG, tensors, fields=fields))
    expect(scaled, replace(CONFIG, rope_factors=rope.linear(4.0, 16)), tensors)
    fields["llama.rope.scaling.type"] = ("yarn", text)
    assert "RoPE scaling of type 'yarn'" in refusal(write_gguf(tmp_path / "c.gguf", CONFIG, tensors, fields=fields))
    assert "factors outside" in refusal(write_gguf(tmp_path / "d.gguf", CONFIG, tensors, factors=(0.0,) * 8))
    assert "not one float32 per pair" in refusal(write_gguf(tmp_path / "e.gguf", CONFIG, tensors, factors=factors[:3]))


def test_containers_give_the_same_image(tmp_path):
    """v1, safetensors and GGUF of the same weights, all the way to the bytes of the weight stream."""
    config = replace(CONFIG, head_dim=8, rope_theta=10000.0)        # what a file of llama2.c can say
    tensors = random_tensors(config)
    (tmp_path / "v0.bin").write_bytes(pack_v0(config, tensors))
    (tmp_path / "v1.bin").write_bytes(pack_v1(config, tensors))
    paths = [tmp_path / "v0.bin", tmp_path / "v1.bin", write_huggingface(tmp_path / "hf", config, tensors),
             write_gguf(tmp_path / "model.gguf", config, tensors)]
    images = {build(replace(config, norm_epsilon=1e-5), load(path).tensors) for path in paths}
    assert len(images) == 1


@pytest.mark.parametrize("field, value, message", [
    ("llama.expert_count", (8, GGUFValueType.UINT32), "unsupported: experts"),
    ("split.count", (2, GGUFValueType.UINT16), "one of 2 parts")])
def test_refuses_gguf_of_others(tmp_path, field, value, message):
    assert message in refusal(write_gguf(tmp_path / "m.gguf", CONFIG, random_tensors(CONFIG), fields={field: value}))


def test_refuses_gguf_with_biases_or_missing_tensors(tmp_path):
    tensors = random_tensors(CONFIG)
    path = write_gguf(tmp_path / "m.gguf", CONFIG, tensors)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"blk.1.attn_q.weight", b"blk.1.attn_q.bias\0\0"))
    assert "damaged" in refusal(path) or "biases" in refusal(path)
    path.write_bytes(data.replace(b"blk.1.ffn_gate.weight", b"blk.1.ffn_gate.waight"))
    assert "unsupported: this tensor (blk.1.ffn_gate.waight)" in refusal(path)
    path.write_bytes(data.replace(b"llama", b"gpt-2"))
    assert "architecture 'gpt-2'" in refusal(path)
    del tensors["layers.1.w3"]
    assert "blk.1.ffn_up.weight is missing" in refusal(write_gguf(path, CONFIG, tensors))


@pytest.mark.parametrize("kept", [4, 8, 20, 24, 100, 500, -1, -3000])
def test_refuses_truncated_gguf(tmp_path, kept):
    path = write_gguf(tmp_path / "m.gguf", CONFIG, random_tensors(CONFIG))
    path.write_bytes(path.read_bytes()[:kept])
    assert "GGUF" in refusal(path)


def test_an_endless_array_is_refused_at_once(tmp_path):
    """The reader of the format's own package would go on for 2**60 items."""
    path = write_gguf(tmp_path / "m.gguf", CONFIG, random_tensors(CONFIG),
                      fields={"x.list": (list(range(7)), GGUFValueType.ARRAY, GGUFValueType.INT32)})
    data = bytearray(path.read_bytes())
    at = data.index(b"x.list") + 6 + 4 + 4
    assert data[at:at + 8] == (7).to_bytes(8, "little")
    data[at:at + 8] = (1 << 60).to_bytes(8, "little")
    path.write_bytes(data)
    assert "an array of" in refusal(path)
    data[at:at + 8] = (1 << 20).to_bytes(8, "little")
    path.write_bytes(data)
    assert "GGUF" in refusal(path)


def test_bfloat16_is_the_upper_half():
    assert to_bfloat16(np.array([1.0, -2.0], np.float32)).tolist() == [0x3F80, 0xC000]
