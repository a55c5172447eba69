"""Shows that every key of config.json and GGUF that can change the arithmetic is honoured or refused by its name."""
from dataclasses import replace

import numpy as np
import pytest
from gguf import GGUFValueType, GGUFWriter

from llama2_host.checkpoint import load, rope
from llama2_host.files import ModelError
from llama2_host.image.model import Model
from llama2_spec.reference import Reference
from tests.host.checkpoints import write_gguf, write_huggingface
from tests.host.generated import random_tensors
from tests.host.test_containers import CONFIG, LLAMA3, TOKENS, UNTIED, expect, refusal

REAL, WHOLE, TEXT, FLAG = (GGUFValueType.FLOAT32, GGUFValueType.UINT32, GGUFValueType.STRING, GGUFValueType.BOOL)


def folder(tmp_path, **fields):
    return write_huggingface(tmp_path / "hf", CONFIG, random_tensors(CONFIG), **fields)


def gguf_file(tmp_path, **options):
    return write_gguf(tmp_path / "m.gguf", CONFIG, random_tensors(CONFIG), **options)


# config.json --------------------------------------------------------------------------------------

@pytest.mark.parametrize("fields, named", [
    ({"attention_bias": True}, "attention_bias"), ({"mlp_bias": True}, "mlp_bias"), ({"qkv_bias": True}, "qkv_bias"),
    ({"logit_scale": 0.0625}, "logit_scale"), ({"logits_scaling": 8.0}, "logits_scaling"),
    ({"logits_scaling": 0}, "logits_scaling"),
    ({"embedding_multiplier": 12.0}, "embedding_multiplier"), ({"residual_multiplier": 0.22}, "residual_multiplier"),
    ({"attention_multiplier": 0.0078125}, "attention_multiplier"), ({"scale_emb": 12}, "scale_emb"),
    ({"scale_depth": 1.4}, "scale_depth"), ({"query_pre_attn_scalar": 256}, "query_pre_attn_scalar"),
    ({"clip_qkv": 8.0}, "clip_qkv"), ({"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
    ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
    ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ({"rotary_dim": 8}, "rotary_dim"), ({"rotary_pct": 0.25}, "rotary_pct"),
    ({"rope_interleaved": True}, "rope_interleaved"),
    ({"no_rope_layers": [1, 0]}, "no_rope_layers"), ({"use_qk_norm": True}, "use_qk_norm"), ({"alibi": True}, "alibi"),
    ({"parallel_attn": True}, "parallel_attn"), ({"position_embedding_type": "absolute"}, "position_embedding_type"),
    ({"hidden_activation": "gelu"}, "hidden_activation"), ({"norm_type": "layernorm"}, "norm_type"),
    ({"is_causal": False}, "is_causal"),
    ({"rms_norm_eps": None, "layer_norm_eps": 1e-5}, "layer_norm_eps"),
    ({"attn_temperature_tuning": True}, "attn_temperature_tuning"),
    ({"attention_of_a_kind_to_come": 3}, "attention_of_a_kind_to_come"),
    ({"quantization": {"bits": 4}}, "quantization"),
    ({"layer_types": ["chunked_attention"] * 2}, "chunked_attention"),
    ({"architectures": ["LlamaForEagle"]}, "LlamaForEagle"),
    ({"num_local_experts": 4}, "num_local_experts"), ({"rope_scaling": "linear"}, "rope_scaling")])
def test_a_key_that_changes_the_arithmetic_is_refused_by_name(tmp_path, fields, named):
    assert named in refusal(folder(tmp_path, **fields))


@pytest.mark.parametrize("fields", [
    {"logit_scale": 1.0, "residual_multiplier": 1, "attn_logit_softcapping": None, "clip_qkv": None, "rotary_pct": 1.0},
    {"attention_dropout": 0.1, "hidden_dropout_prob": 0.1, "_attn_implementation": "sdpa", "use_flash_attention": True},
    {"rotary_dim": 16, "no_rope_layers": [1, 1], "position_embedding_type": "rope", "is_causal": True, "alibi": False},
    {"pretraining_tp": 4, "initializer_range": 0.02, "unsloth_fixed": True, "multiple_of": 256,
     "layer_norm_eps": 1e-12},
    {"layer_types": ["full_attention"] * 2, "sliding_window": None, "num_local_experts": 0,
     "a_name": "of nobody's business"}])
def test_a_key_that_changes_nothing_is_no_obstacle(tmp_path, fields):
    expect(load(folder(tmp_path, **fields)), CONFIG, random_tensors(CONFIG))


@pytest.mark.parametrize("rope_scaling, named", [
    ({"factor": 4.0}, "a factor of 4.0 without a type"), ({"rope_type": "default", "factor": 4.0},
                                                          "a factor of 4.0 without a type"),
    ({"rope_type": "linear", "factor": 2.0, "beta_fast": 32}, "beta_fast"),
    ({"type": "default", "mrope_section": [2, 3]}, "mrope_section"),
    ({"rope_type": "longrope", "short_factor": [1.5] * 8}, "short_factor"),
    ({"rope_type": "default", "partial_rotary_factor": 0.5}, "partial"),
    ({"rope_type": "yarn", "factor": 4.0}, "type 'yarn'"), ({"type": "dynamic", "factor": 2.0}, "type 'dynamic'")])
@pytest.mark.parametrize("transformers", [4, 5])
def test_scaling_of_other_kinds_is_refused_by_name(tmp_path, rope_scaling, named, transformers):
    if transformers == 5:
        rope_scaling = {"rope_type": rope_scaling.get("type", "default"), **rope_scaling}
    assert named in refusal(folder(tmp_path, rope=rope_scaling, transformers=transformers))


def test_two_scalings_that_contradict_each_other_are_refused(tmp_path):
    assert "contradict each other" in refusal(folder(tmp_path, transformers=5,
                                                     rope_scaling={"type": "linear", "factor": 4.0}))


def test_llama3_scaling_may_name_its_context_outside(tmp_path):
    scaling = {name: value for name, value in LLAMA3.items() if name != "original_max_position_embeddings"}
    source = load(folder(tmp_path, rope=scaling, original_max_position_embeddings=16))
    assert source.config.rope_factors == rope.llama3(16, 500000.0, factor=8.0, low=1.0, high=4.0, context=16.0)


# GGUF ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("key, value", [
    ("rope.scaling.attn_factor", (1.2, REAL)), ("rope.scaling.yarn_ext_factor", (1.0, REAL)),
    ("rope.dimension_sections", ([4, 4], GGUFValueType.ARRAY, WHOLE)),
    ("rope.dimension_count_swa", (8, WHOLE)), ("attention.clamp_kqv", (8.0, REAL)), ("attention.scale", (0.3, REAL)),
    ("attention.max_alibi_bias", (8.0, REAL)), ("attention.causal", (False, FLAG)),
    ("attention.temperature_length", (8, WHOLE)),
    ("attention.output_scale", (0.5, REAL)), ("attention.shared_kv_layers", (1, WHOLE)),
    ("attention.key_length_mla", (64, WHOLE)),
    ("logit_scale", (0.5, REAL)), ("residual_scale", (0.22, REAL)), ("embedding_scale", (12.0, REAL)),
    ("final_logit_softcapping", (30.0, REAL)),
    ("use_parallel_residual", (True, FLAG)), ("expert_count", (8, WHOLE)), ("a_key_to_come", (3, WHOLE))])
def test_a_gguf_key_that_changes_the_arithmetic_is_refused_by_name(tmp_path, key, value):
    assert f"llama.{key} is" in refusal(gguf_file(tmp_path, fields={f"llama.{key}": value}))


@pytest.mark.parametrize("fields", [
    {"rope.scaling.attn_factor": (1.0, REAL), "rope.scaling.factor": (0.0, REAL),
     "rope.scaling.yarn_ext_factor": (-1.0, REAL)},
    {"attention.scale": (0.25, REAL), "attention.clamp_kqv": (0.0, REAL), "attention.causal": (True, FLAG),
     "logit_scale": (0.0, REAL)},
    {"expert_count": (0, WHOLE), "vocab_size": (40, WHOLE), "rope.dimension_count_swa": (16, WHOLE),
     "tensor_data_layout": ("Meta AI original pth", TEXT)},
    {"rope.scaling.type": ("none", TEXT), "rope.scaling.factor": (4.0, REAL),
     "rope.scaling.original_context_length": (16, WHOLE)}])
def test_a_gguf_key_that_changes_nothing_is_no_obstacle(tmp_path, fields):
    expect(load(gguf_file(tmp_path, fields={f"llama.{key}": value for key, value in fields.items()})), CONFIG,
           random_tensors(CONFIG))


def test_a_factor_without_effect_is_told(tmp_path):
    path = gguf_file(tmp_path, fields={"llama.rope.scaling.type": ("none", TEXT),
                                       "llama.rope.scaling.factor": (4.0, REAL)})
    assert load(path).ignored == ("llama.rope.scaling.factor, whose type is none",)


@pytest.mark.parametrize("key", ["rope.scaling.factor", "rope.scale_linear"])
def test_a_factor_without_a_type_is_linear_scaling(tmp_path, key):
    """As llama.cpp reads it; logits differ by more than any rounding would let them."""
    config = replace(CONFIG, rope_factors=rope.linear(4.0, 16))
    source = load(gguf_file(tmp_path, fields={f"llama.{key}": (4.0, REAL)}))
    expect(source, config, random_tensors(CONFIG))
    plain, scaled = (Reference(c, random_tensors(CONFIG)).logits(TOKENS) for c in (CONFIG, source.config))
    assert np.abs(plain - scaled).max() > 1e-3


def test_linear_scaling_and_the_files_own_factors_multiply(tmp_path):
    own = tuple(float(2 ** i) for i in range(8))
    source = load(gguf_file(tmp_path, factors=own, fields={"llama.rope.scaling.factor": (4.0, REAL)}))
    assert source.config.rope_factors == tuple(4.0 * factor for factor in own)


@pytest.mark.parametrize("counts, message", [([4, 4], None), ([4, 2], "layers that differ in attention.head_count")])
def test_head_counts_layer_by_layer(tmp_path, monkeypatch, counts, message):
    monkeypatch.setattr(GGUFWriter, "add_head_count", lambda writer,
                        count: writer.add_array("llama.attention.head_count", counts))
    monkeypatch.setattr(GGUFWriter, "add_feed_forward_length", lambda writer,
                        count: writer.add_array("llama.feed_forward_length", [64, 64]))
    path = gguf_file(tmp_path)
    if message:
        assert message in refusal(path)
    else:
        expect(load(path), CONFIG, random_tensors(CONFIG))


def test_a_classifier_that_equals_the_embedding_is_stored_once(tmp_path):
    tensors = random_tensors(CONFIG)
    source = load(write_gguf(tmp_path / "m.gguf", UNTIED, tensors | {"classifier": tensors["embedding"]}))
    expect(source, CONFIG, tensors)
    assert "output.weight" in source.ignored[0]


# Sliding windows ----------------------------------------------------------------------------------

@pytest.mark.parametrize("write", [
    lambda path: folder(path, model_type="mistral", sliding_window=16), lambda path: folder(path, sliding_window=16),
    lambda path: folder(path, sliding_window=16, layer_types=["sliding_attention", "full_attention"]),
    lambda path: gguf_file(path, fields={"llama.attention.sliding_window": (16, WHOLE)})])
def test_within_its_window_a_model_is_a_plain_llama(tmp_path, write):
    path = write(tmp_path)
    with pytest.raises(ModelError, match="sliding window of 16 positions, .* the context of 24: .* convert with "
                                         "--seq-len 16"):
        Model.load(path)
    model = Model.load(path, seq_len=16)
    assert model.config.seq_len == 16 and model.source.window == 16
    expect(load(path), CONFIG, random_tensors(CONFIG))


@pytest.mark.parametrize("fields, window", [
    ({"model_type": "mistral"}, 4096), ({"model_type": "mistral", "sliding_window": None}, None),
    ({"sliding_window": 8, "use_sliding_window": False}, None),
    ({"sliding_window": 8, "layer_types": ["full_attention"] * 2}, None)])
def test_whether_there_is_a_window(tmp_path, fields, window):
    assert load(folder(tmp_path, **fields)).window == window
