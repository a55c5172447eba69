"""Reads a Hugging Face model: config.json as transformers 4 or 5 writes it, beside one or several safetensors files."""
# Ref: https://github.com/huggingface/transformers, LlamaConfig and LlamaForCausalLM

from pathlib import Path

from llama2_host.checkpoint import keys, rope, shards
from llama2_host.checkpoint.errors import CheckpointError
from llama2_host.checkpoint.fields import Fields, read_json
from llama2_host.checkpoint.layout import check_shapes, config_from_fields, shapes
from llama2_host.checkpoint.lazy import equal
from llama2_spec.model import ModelConfig

SOURCE = "safetensors"
CONFIG = "config.json"
ADAPTER = "adapter_config.json"
EMBEDDING, CLASSIFIER = "model.embed_tokens.weight", "lm_head.weight"
LAYER = {"attention_norm": "input_layernorm", "wq": "self_attn.q_proj", "wk": "self_attn.k_proj",
         "wv": "self_attn.v_proj",
         "wo": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm", "w1": "mlp.gate_proj", "w2": "mlp.down_proj",
         "w3": "mlp.up_proj"}
ARCHITECTURES = ("llamaforcausallm", "mistralforcausallm", "llamamodel", "mistralmodel")
MISTRAL_WINDOW = 4096           #: of a mistral's config.json that does not say: transformers' default
OTHER_EPSILONS = ("layer_norm_eps", "layer_norm_epsilon", "layernorm_epsilon", "norm_eps", "norm_epsilon")
RECOMPUTED = ("rotary_emb.inv_freq",)
#: parts of a model's type that make it another computation than LLaMA's
KNOWN = {"qwen2": "biases of q, k and v", "qwen3": "QK-norm", "gemma": "scaled embeddings and the GELU activation",
         "gemma2": "soft-capped logits", "gemma3_text": "QK-norm", "phi3": "fused q, k and v",
         "gpt2": "learned positions",
         "gpt_neox": "parallel attention", "mixtral": "experts", "smollm3": "layers without RoPE", "olmo2": "QK-norm",
         "granite": "multipliers", "cohere": "parallel attention", "gpt_neo": "learned positions",
         "mamba": "state space"}


def read(directory: Path, file: Path | None = None):
    """Config, tensors still in their files, no native groups, and what else there is to know; ``file``: of a
    single-file model."""
    _refuse_adapter(directory, file)
    paths = [file] if file is not None and not (directory / shards.INDEX).is_file() else shards.find(directory)
    if not paths:
        raise CheckpointError(f"{directory}: no safetensors in this folder: expected {shards.SINGLE} or {shards.INDEX} "
                              f"beside {CONFIG}")
    if not (directory / CONFIG).is_file():
        raise CheckpointError(f"{paths[0]}: a safetensors file without {CONFIG} beside it: copy the model's whole "
                              "folder")
    fields = Fields(read_json(directory / CONFIG), directory / CONFIG)
    refuse_other_architectures(fields)
    found, metadata = shards.read(paths)
    for name, other in metadata.items():        # a tensor stored once under one of its names
        if name not in found and other in found:
            found[name] = found[other]
    config, tensors = _named(fields, found, directory)
    check_shapes(config, tensors, directory)
    return SOURCE, config, tensors, None, {"window": window(fields), "ignored": _ignored(fields, found)}


def _refuse_adapter(directory: Path, file: Path | None) -> None:
    """A LoRA adapter changes a model that is elsewhere."""
    described = (directory / ADAPTER).is_file()
    if not (file.name.startswith("adapter_model") if file is not None else described
            and not shards.has_model(directory)):
        return
    base = Fields(read_json(directory / ADAPTER), directory).text("base_model_name_or_path") if described else ""
    raise CheckpointError(f"{file or directory}: this is a LoRA adapter{f' of {base[:80]}' if base else ''}, expected "
                          "a whole model: merge it into its base model (peft: merge_and_unload, save_pretrained) and "
                          "name that folder")


def refuse_other_architectures(fields: Fields) -> None:
    """Raise one line that names the parts of the model that are not LLaMA's."""
    kind = fields.text("model_type", "llama")
    model = f" (model_type {kind[:40]!r})"
    if kind not in ("llama", "mistral"):
        what = KNOWN.get(kind, f"its architecture {kind[:40]!r}")
        raise CheckpointError(f"{fields.where}: unsupported: {what}{model}: expected a LLaMA")
    named = fields.get("architectures")
    strange = [str(name) for name in named if str(name).lower() not in ARCHITECTURES] if isinstance(named, list) else []
    if strange:
        raise CheckpointError(f"{fields.where}: unsupported: the architecture {strange[0][:60]!r}{model}: expected a "
                              "LLaMA")
    if fields.text("hidden_act", "silu") not in ("silu", "swish"):
        raise CheckpointError(f"{fields.where}: unsupported: the activation "
                              f"{str(fields.get('hidden_act'))[:20]}{model}: expected a LLaMA")
    keys.refuse(fields.where, _as_read(fields), keys.CONFIG_JSON, model=model)
    kinds = fields.get("layer_types")
    if isinstance(kinds, list) and (others := {str(one) for one in kinds} - {"full_attention", "sliding_attention"}):
        raise CheckpointError(f"{fields.where}: unsupported: layers of type {min(others)[:40]!r} (layer_types){model}: "
                              "expected a LLaMA")


def _as_read(fields: Fields) -> dict:
    """The file's values without those that repeat keys which are read."""
    told, head_dim = dict(fields.values), fields.get("head_dim")
    if not head_dim and isinstance(fields.get("hidden_size"),
                                   int) and isinstance(fields.get("num_attention_heads"), int):
        head_dim = fields.get("hidden_size") // max(fields.get("num_attention_heads"), 1)
    for name, same in (("rotary_dim", head_dim), ("rotary_emb_base", fields.get("rope_theta"))):
        if told.get(name) is not None and told[name] == same:
            del told[name]
    if fields.get("rms_norm_eps") is not None:              # which alone is read, by transformers too
        told = {name: value for name, value in told.items() if name not in OTHER_EPSILONS}
    return told


def window(fields: Fields) -> int | None:
    """Positions that attention looks back, where that is not all of them."""
    told, kinds = fields.get("sliding_window"), fields.get("layer_types")
    if "sliding_window" not in fields.values and fields.text("model_type") == "mistral":
        told = MISTRAL_WINDOW
    if fields.get("use_sliding_window") is False or isinstance(kinds, list) and "sliding_attention" not in kinds:
        return None
    return None if told is None else Fields({"sliding_window": told}, fields.where).whole("sliding_window")


def _ignored(fields: Fields, found: dict) -> tuple[str, ...]:
    """Facts in the folder that change nothing here."""
    read = _as_read(fields)
    told = [f"{name} = {str(value)[:30]}" for name, value in fields.values.items() if name not in read]
    recomputed = sum(name.endswith(RECOMPUTED) for name in found)
    return (*told, *([f"{recomputed} tensors of RoPE frequencies"] if recomputed else []))


def _named(fields: Fields, found: dict, directory: Path):
    scaling = _rope(fields)
    theta = scaling.real("rope_theta") if scaling.get("rope_theta") is not None else fields.real("rope_theta", 10000.0)
    heads = fields.whole("num_attention_heads")
    config = config_from_fields(
        fields.where, dim=fields.whole("hidden_size"), hidden_dim=fields.whole("intermediate_size"),
        n_layers=fields.whole("num_hidden_layers"), n_heads=heads,
        n_kv_heads=fields.whole("num_key_value_heads", heads),
        head_dim=fields.whole("head_dim", 0), vocab_size=fields.whole("vocab_size"),
        seq_len=fields.whole("max_position_embeddings", 2048), norm_epsilon=fields.real("rms_norm_eps", 1e-6),
        rope_theta=theta, tied=_is_tied(fields, found, directory))
    kind = scaling.text("rope_type") or scaling.text("type")
    if kind in ("", "default") and scaling.get("factor") not in (None, 1, 1.0):
        raise CheckpointError(f"{scaling.where}: a factor of {str(scaling.get('factor'))[:20]} without a type that "
                              "uses it: add \"rope_type\": "
                              "\"linear\", or what the model was trained with")
    factors = rope.factors(kind, config.head_dim, theta, scaling.real, scaling.where)
    config = ModelConfig(**{**vars(config), "rope_factors": factors})
    names = {"embedding": CLASSIFIER if config.tied and EMBEDDING not in found else EMBEDDING,
             "final_norm": "model.norm.weight",
             "classifier": CLASSIFIER}
    names |= {f"layers.{i}.{ours}": f"model.layers.{i}.{theirs}.weight" for i in range(config.n_layers)
              for ours, theirs in LAYER.items()}
    strays = set(found) - set(names.values()) - {EMBEDDING}
    for stray in sorted(stray for stray in strays if not stray.endswith(RECOMPUTED)):
        what = ("biases" if stray.endswith(".bias") else "QK-norm" if "q_norm" in stray or "k_norm" in stray
                else "this tensor")
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


def _rope(fields: Fields) -> Fields:
    """The file's RoPE settings: rope_parameters of transformers 5, or rope_theta and rope_scaling of transformers 4."""
    found = [fields.object(name) for name in ("rope_parameters", "rope_scaling")]
    for name in ("rope_parameters", "rope_scaling"):
        if fields.get(name) is not None and not isinstance(fields.get(name), dict):
            raise CheckpointError(f"{fields.where}: {name} is {str(fields.get(name))[:40]!r}, expected an object: copy "
                                  "the file again")
    for scaling in found:
        keys.refuse(scaling.where, scaling.values, keys.ROPE, all_matter=True)
    new, old = found
    kinds = [scaling.text("rope_type") or scaling.text("type") or "default" for scaling in (new, old)]
    if new.values and old.values and (kinds[0] != kinds[1] or any(
            new.get(name) != value for name, value in old.values.items() if name not in ("type", "rope_type")
            and value is not None)):
        raise CheckpointError(f"{fields.where}: rope_parameters and rope_scaling contradict each other: remove the "
                              "wrong one")
    scaling = new if new.values else old
    if fields.get("original_max_position_embeddings") is not None:
        scaling.values = {"original_max_position_embeddings": fields.get("original_max_position_embeddings"),
                          **scaling.values}
    return scaling


def _is_tied(fields: Fields, found: dict, directory: Path) -> bool:
    """Returns whether the classifier is the embedding: by config.json, by the metadata's aliases, or because the two
    are equal."""
    embedding, classifier = found.get(EMBEDDING), found.get(CLASSIFIER)
    told = fields.get("tie_word_embeddings") is True
    if embedding is None or classifier is None:
        return told
    if embedding is classifier or equal(embedding, classifier):
        return True
    if told:
        raise CheckpointError(f"{directory}: {CONFIG} says that embedding and classifier are one "
                              "(tie_word_embeddings), the file has two different ones: export the model again")
    return False
