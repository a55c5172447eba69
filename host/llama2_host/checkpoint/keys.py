"""Knows which keys of a model's description are understood, and refuses by name the others that may change the
arithmetic.

The lists hold the keys that are allowed. A key that nobody knows passes if its name has nothing to do with the
arithmetic, or if its value leaves the arithmetic alone: nothing, zero, no, or a factor of one.
"""
# Ref: transformers 4 and 5, LlamaConfig and MistralConfig; llama.cpp, gguf-py/gguf/constants.py and src/llama-model.cpp

import re
from collections.abc import Mapping

from llama2_host.checkpoint.errors import CheckpointError

#: keys of config.json that are read, or that are about the file, training or the program that runs the model
CONFIG_JSON = frozenset("""
    hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim vocab_size
    max_position_embeddings max_sequence_length original_max_position_embeddings rms_norm_eps rope_theta rope_scaling
    rope_parameters tie_word_embeddings hidden_act sliding_window use_sliding_window max_window_layers layer_types
    model_type
    architectures initializer_range pretraining_tp output_attentions output_hidden_states gradient_checkpointing
    is_llama_config
    multiple_of ffn_dim_multiplier
    """.split())
#: of training, or of how a program computes the same
HARMLESS = re.compile("dropout|pdrop|init|flash|implementation", re.IGNORECASE)
#: names that have to do with the arithmetic
MATTERS = re.compile(
    "rope|rotary|rotat|attn|attention|scal|norm|bias|window|multipl|softcap|capping|clamp|clip|activation|_act$|"
    "^act_|alibi|expert|moe|parallel|residual|position_embedding|qk_|qkv|_eps|epsilon|temperature|logit|mup|"
    "chunk|sink|softmax|causal|bidirectional|quantiz|compress|lora|adapter|per_layer|shared_kv|nope",
    re.IGNORECASE)
#: values that say the same as nothing at all, by name
NEUTRAL = {
    "hidden_activation": ("silu", "swish"), "activation_function": ("silu", "swish"),
    "position_embedding_type": ("rope", "rotary"),
    "norm_type": ("rmsnorm", "rms_norm"), "normalization_type": ("rmsnorm", "rms_norm"), "tensor_data_layout": None,
}
#: the same of a GGUF file, behind "llama."
GGUF = frozenset("""
    context_length embedding_length block_count feed_forward_length vocab_size tensor_data_layout attention.head_count
    attention.head_count_kv attention.key_length attention.value_length attention.layer_norm_rms_epsilon
    attention.sliding_window attention.sliding_window_pattern rope.dimension_count rope.freq_base rope.scale_linear
    rope.scaling.type rope.scaling.factor rope.scaling.original_context_length rope.scaling.finetuned
    rope.scaling.yarn_beta_fast rope.scaling.yarn_beta_slow pooling_type expert_used_count expert_weights_norm
    expert_gating_func
    """.split())
#: what rope_scaling and rope_parameters may say
ROPE = frozenset("""
    rope_type type factor low_freq_factor high_freq_factor original_max_position_embeddings rope_theta
    """.split())
WHAT = (    #: names for people; the first that is found in a key's
    ("attention_bias", "biases in attention"), ("mlp_bias", "biases in the feed-forward layers"),
    ("softcap", "soft-capped logits"), ("bias", "biases"), ("window", "a sliding window"), ("expert", "experts"),
    ("moe", "experts"),
    ("partial_rotary", "rotation of a part of the head"), ("rotary_pct", "rotation of a part of the head"),
    ("alibi", "ALiBi"),
    ("clamp_kqv", "clamped q, k and v"), ("clip_qkv", "clamped q, k and v"), ("qk_", "QK-norm"),
    ("parallel", "parallel attention"),
    ("quantiz", "weights that are quantised already"), ("compress", "weights that are quantised already"),
    ("multipl", "multipliers"), ("logit", "scaled logits"), ("residual", "scaled residuals"), ("scal", "scaling"),
    ("act", "another activation"), ("norm", "another norm"), ("eps", "another norm"), ("rope", "another RoPE"),
    ("rotary", "another RoPE"),
    ("attention", "another attention"), ("attn", "another attention"),
)


def refuse(where, values: Mapping, known: frozenset[str], *, all_matter: bool = False, prefix: str = "",
           model: str = "") -> None:
    """One line that names up to three keys which would change the arithmetic and are not understood.

    ``all_matter``: whatever is not known does. ``prefix`` goes before a key's name in the message.
    """
    strange = [name for name, value in values.items() if name not in known and (all_matter or _matters(name))
               and not is_neutral(name, value, zero_is_unset=bool(prefix))]
    if strange:
        named = " and ".join(f"{_what(name)} ({prefix}{name[:60]} is {str(values[name])[:30]!r})"
                             for name in sorted(strange)[:3])
        more = f" and {len(strange) - 3} more" if len(strange) > 3 else ""
        raise CheckpointError(f"{where}: unsupported: {named}{more}{model}: expected a LLaMA")


def _matters(name: str) -> bool:
    return bool(MATTERS.search(name)) and not HARMLESS.search(name)


def is_neutral(name: str, value, *, zero_is_unset: bool = False) -> bool:
    """Returns whether this value leaves the arithmetic as it is. A factor of zero does in GGUF, where it stands for
    none."""
    last = name.rpartition(".")[2]
    if last in NEUTRAL and isinstance(value, str):
        neutral = NEUTRAL[last]
        return neutral is None or value.lower() in neutral
    if isinstance(value, list):
        return all(is_neutral(name, item, zero_is_unset=zero_is_unset) for item in value)
    if isinstance(value, dict):
        return not value
    if isinstance(value, str):
        return value.lower() in ("", "none")
    if value is None:
        return True
    if re.search("causal|no_rope_layers$", last):           # here "no" would be another model
        return value == 1
    if (re.search("scale|scaling|multipl|factor|pct|ratio", last) and "ext_factor" not in last
        and not isinstance(value, bool)):
        return value == 1 or zero_is_unset and value == 0
    return value == 0


def _what(name: str) -> str:
    return next((what for part, what in WHAT if part in name.lower()), "this key")
