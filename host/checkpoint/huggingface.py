"""Reads a Hugging Face model: config.json as transformers 4 or 5 writes it, beside one or several safetensors files."""
# Ref: https://github.com/huggingface/transformers, LlamaConfig and LlamaForCausalLM

from pathlib import Path

import numpy as np

from host.checkpoint import rope, shards
from host.checkpoint.errors import CheckpointError
from host.checkpoint.fields import Fields, read_json
from host.checkpoint.layout import check_shapes, config_from_fields, shapes
from spec.model import ModelConfig

SOURCE = "safetensors"
CONFIG = "config.json"
EMBEDDING, CLASSIFIER = "model.embed_tokens.weight", "lm_head.weight"
LAYER = {"attention_norm": "input_layernorm", "wq": "self_attn.q_proj", "wk": "self_attn.k_proj", "wv": "self_attn.v_proj",
         "wo": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm", "w1": "mlp.gate_proj", "w2": "mlp.down_proj",
         "w3": "mlp.up_proj"}
MULTIPLIERS = ("embedding_multiplier", "residual_multiplier", "logits_scaling")
RECOMPUTED = ("rotary_emb.inv_freq",)
#: what in a model's type makes it another computation than LLaMA's
KNOWN = {"qwen2": "biases of q, k and v", "qwen3": "QK-norm", "gemma": "scaled embeddings and the GELU activation",
         "gemma2": "soft-capped logits", "gemma3_text": "QK-norm", "phi3": "fused q, k and v", "gpt2": "learned positions",
         "gpt_neox": "parallel attention", "mixtral": "experts", "smollm3": "layers without RoPE", "olmo2": "QK-norm",
         "granite": "multipliers", "cohere": "parallel attention", "gpt_neo": "learned positions", "mamba": "state space"}


def read(directory: Path, file: Path | None = None):
    """Config, tensors still in their files, and no native groups; ``file`` is the one of a single-file model."""
    paths = [file] if file is not None and not (directory / shards.INDEX).is_file() else shards.find(directory)
    if not paths:
        raise CheckpointError(f"{directory}: no safetensors in this folder: expected {shards.SINGLE} or {shards.INDEX} "
                              f"beside {CONFIG}")
    if not (directory / CONFIG).is_file():
        raise CheckpointError(f"{paths[0]}: a safetensors file without {CONFIG} beside it: copy the model's whole folder")
    fields = Fields(read_json(directory / CONFIG), directory / CONFIG)
    refuse_other_architectures(fields)
    found, metadata = shards.read(paths)
    for name, other in metadata.items():        # a tensor stored once under one of its names
        if name not in found and other in found:
            found[name] = found[other]
    config, tensors = _named(fields, found, directory)
    check_shapes(config, tensors, directory)
    return SOURCE, config, tensors, None


def refuse_other_architectures(fields: Fields) -> None:
    """One line that names what of the model is not LLaMA's."""
    def flag(name, neutral=False):
        return bool(fields.get(name)) and fields.get(name) is not neutral and fields.get(name) != neutral

    kind = fields.text("model_type", "llama")
    context = fields.get("max_position_embeddings")
    window = fields.get("sliding_window")
    unsupported = [what for what, there in (
        ("biases in attention (attention_bias)", flag("attention_bias")),
        ("biases in the feed-forward layers (mlp_bias)", flag("mlp_bias")),
        ("QK-norm", flag("qk_norm") or flag("use_qk_norm")),
        (f"a sliding window of {window}", isinstance(window, int) and fields.get("use_sliding_window") is not False
         and not (isinstance(context, int) and window >= context)),
        (f"the activation {str(fields.get('hidden_act'))[:20]}", fields.text("hidden_act", "silu") not in ("silu", "swish")),
        ("experts", flag("num_local_experts") or flag("num_experts")),
        ("rotation of a part of the head (partial_rotary_factor)", flag("partial_rotary_factor", 1)),
        ("multipliers (as in Granite)", any(flag(name, 1) for name in MULTIPLIERS)),
        ("soft-capped logits", flag("final_logit_softcapping") or flag("attn_logit_softcapping")),
        ("weights that are quantised already (quantization_config)", flag("quantization_config")),
        (KNOWN.get(kind, f"its architecture {kind[:40]!r}"), kind not in ("llama", "mistral")),
    ) if there]
    if unsupported:
        raise CheckpointError(f"{fields.where}: unsupported: {' and '.join(unsupported[:3])} (model_type {kind[:40]!r}): "
                              "expected a LLaMA")


def _named(fields: Fields, found: dict, directory: Path):
    theta_in = fields.object("rope_parameters")     # transformers 5; 4 has rope_theta and rope_scaling
    scaling = theta_in if theta_in.values else fields.object("rope_scaling")
    theta = theta_in.real("rope_theta") if theta_in.get("rope_theta") is not None else fields.real("rope_theta", 10000.0)
    heads = fields.whole("num_attention_heads")
    config = config_from_fields(
        fields.where, dim=fields.whole("hidden_size"), hidden_dim=fields.whole("intermediate_size"),
        n_layers=fields.whole("num_hidden_layers"), n_heads=heads, n_kv_heads=fields.whole("num_key_value_heads", heads),
        head_dim=fields.whole("head_dim", 0), vocab_size=fields.whole("vocab_size"),
        seq_len=fields.whole("max_position_embeddings", 2048), norm_epsilon=fields.real("rms_norm_eps", 1e-6),
        rope_theta=theta, tied=_is_tied(fields, found, directory))
    kind = scaling.text("rope_type") or scaling.text("type")
    factors = rope.factors(kind, config.head_dim, theta, scaling.real, scaling.where)
    config = ModelConfig(**{**vars(config), "rope_factors": factors})
    names = {"embedding": CLASSIFIER if config.tied and EMBEDDING not in found else EMBEDDING, "final_norm": "model.norm.weight",
             "classifier": CLASSIFIER}
    names |= {f"layers.{i}.{ours}": f"model.layers.{i}.{theirs}.weight" for i in range(config.n_layers)
              for ours, theirs in LAYER.items()}
    strays = set(found) - set(names.values()) - {EMBEDDING}
    for stray in sorted(stray for stray in strays if not stray.endswith(RECOMPUTED)):
        what = "biases" if stray.endswith(".bias") else "QK-norm" if "q_norm" in stray or "k_norm" in stray else "this tensor"
        raise CheckpointError(f"{directory}: unsupported: {what} ({stray[:80]}): expected the tensors of a LLaMA of "
                              f"{config.n_layers} layers")
    tensors = {}
    for name in shapes(config):
        if names[name] not in found:
            raise CheckpointError(f"{directory}: tensor {names[name]} is missing: copy the whole folder of the model")
        tensors[name] = found[names[name]].named(name)
        if name.endswith((".wq", ".wk")) and len(tensors[name].shape) == 2:
            tensors[name] = tensors[name].interleaved(config.head_dim)
    return config, tensors


def _is_tied(fields: Fields, found: dict, directory: Path) -> bool:
    """Is the classifier the embedding: as config.json says, as the metadata's aliases say, or because they are equal?"""
    embedding, classifier = found.get(EMBEDDING), found.get(CLASSIFIER)
    told = fields.get("tie_word_embeddings") is True
    if embedding is None or classifier is None:
        return told
    if embedding is classifier or _equal(embedding, classifier):
        return True
    if told:
        raise CheckpointError(f"{directory}: {CONFIG} says that embedding and classifier are one (tie_word_embeddings), "
                              "the file has two different ones: export the model again")
    return False


def _equal(a, b) -> bool:
    step = max((1 << 20) // max(a.size // max(len(a), 1), 1), 1) if a.shape and a.size else 1
    return a.shape == b.shape and bool(a.shape) and all(
        np.array_equal(a[row:row + step], b[row:row + step]) for row in range(0, len(a), step))
