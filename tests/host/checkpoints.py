"""Writes small checkpoints of every container from named tensors, as their usual writers do, for the tests of the
readers."""
import json
from pathlib import Path

import numpy as np
from safetensors import TensorSpec, serialize_file

from llama2_host.checkpoint import gguf, huggingface
from llama2_spec.model import ModelConfig

DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def half_split(tensor, head_dim: int):
    """Rows in the order of Hugging Face: per head the first elements of all pairs, then the second."""
    heads = tensor.reshape(-1, head_dim // 2, 2, tensor.shape[1])
    return np.ascontiguousarray(heads.transpose(0, 2, 1, 3)).reshape(tensor.shape)


def to_bfloat16(tensor):
    """The upper halves of float32, as uint16; exact for tensors that :func:`rounded` gave."""
    return (np.ascontiguousarray(tensor, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def rounded(tensors, dtype: str):
    """Tensors whose values ``dtype`` holds exactly."""
    if dtype == "F16":
        return {name: tensor.astype(np.float16).astype(np.float32) for name, tensor in tensors.items()}
    if dtype == "BF16":
        return {name: (to_bfloat16(tensor).astype(np.uint32) << 16).view(np.float32)
                for name, tensor in tensors.items()}
    return dict(tensors)


def huggingface_names(config: ModelConfig, tensors) -> dict[str, np.ndarray]:
    """The tensors as transformers names and orders them."""
    out = {huggingface.EMBEDDING: tensors["embedding"], "model.norm.weight": tensors["final_norm"]}
    if not config.tied:
        out[huggingface.CLASSIFIER] = tensors["classifier"]
    for i in range(config.n_layers):
        for ours, theirs in huggingface.LAYER.items():
            tensor = tensors[f"layers.{i}.{ours}"]
            out[f"model.layers.{i}.{theirs}.weight"] = (half_split(tensor, config.head_dim) if ours in ("wq", "wk")
                                                        else tensor)
    return out


def huggingface_config(config: ModelConfig, *, transformers: int = 4, rope: dict | None = None, **more) -> dict:
    """config.json as version 4 or 5 writes it."""
    fields = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": False, "mlp_bias": False,
        "hidden_act": "silu", "hidden_size": config.dim, "intermediate_size": config.hidden_dim,
        "head_dim": config.head_dim,
        "num_hidden_layers": config.n_layers, "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads, "vocab_size": config.vocab_size,
        "max_position_embeddings": config.seq_len, "rms_norm_eps": config.norm_epsilon, "pretraining_tp": 1,
        "tie_word_embeddings": config.tied, "bos_token_id": 1, "eos_token_id": 2,
    }
    if transformers == 4:
        fields |= {"rope_theta": config.rope_theta, "rope_scaling": rope, "torch_dtype": "float32"}
    else:
        fields |= {"rope_parameters": {"rope_theta": config.rope_theta, "rope_type": "default", **(rope or {})},
                   "dtype": "float32"}
    return fields | more


def write_safetensors(path: Path, tensors, dtype: str = "F32", metadata: dict | None = None) -> None:
    """One file through the format's own library."""
    arrays = {name: to_bfloat16(t) if dtype == "BF16" else np.ascontiguousarray(t).astype(DTYPES[dtype])
              for name, t in tensors.items()}
    serialize_file({name: TensorSpec(dtype=DTYPES[dtype], shape=a.shape, data_ptr=a.ctypes.data, data_len=a.nbytes)
                    for name, a in arrays.items()}, str(path), metadata or {"format": "pt"})


def write_huggingface(folder: Path, config: ModelConfig, tensors, *, dtype: str = "F32", shards: int = 1,
                      metadata: dict | None = None, **options) -> Path:
    """A folder with config.json and one or several safetensors files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(huggingface_config(config, **options), indent=2))
    named = huggingface_names(config, tensors)
    if shards == 1:
        write_safetensors(folder / "model.safetensors", named, dtype, metadata)
        return folder
    weight_map = {}
    for i in range(shards):
        part = dict(list(named.items())[i::shards])
        name = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        write_safetensors(folder / name, part, dtype, metadata)
        weight_map |= dict.fromkeys(part, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def write_gguf(path: Path, config: ModelConfig, tensors, type: str = "F32", *, version: int = 3, factors=None,
               fields: dict | None = None, blocks=None, vectors: str = "F32", vocabulary=lambda writer: None) -> Path:
    """A file through the format's own writer; ``blocks(name)`` gives the bytes of a matrix where the writer cannot."""
    from gguf import GGMLQuantizationType, GGUFWriter, quantize
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(config.seq_len)
    writer.add_embedding_length(config.dim)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(config.hidden_dim)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.norm_epsilon)
    writer.add_rope_freq_base(config.rope_theta)
    for name, value in (fields or {}).items():
        writer.add_key_value(name, *value)
    vocabulary(writer)
    names = {"embedding": gguf.EMBEDDING, "classifier": gguf.CLASSIFIER, "final_norm": gguf.FINAL_NORM}
    if factors is not None:
        writer.add_tensor(gguf.ROPE_FACTORS, np.asarray(factors, np.float32))
    for name, tensor in tensors.items():
        layer, _, kind = name.removeprefix("layers.").partition(".")
        theirs = names.get(name) or f"blk.{layer}.{gguf.LAYER[kind]}.weight"
        kind = GGMLQuantizationType[type if tensor.ndim == 2 else vectors]
        data = blocks(name) if blocks and tensor.ndim == 2 else quantize(np.ascontiguousarray(tensor, np.float32), kind)
        writer.add_tensor(theirs, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if version != 3:                            # the same layout under its earlier number
        data = bytearray(path.read_bytes())
        data[4] = version
        path.write_bytes(data)
    return path
