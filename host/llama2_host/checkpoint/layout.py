"""Gives readers and writers the names and shapes of a model's tensors, and checks that the shapes are possible."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from llama2_host.checkpoint.errors import CheckpointError
from llama2_spec.model import ModelConfig

MATRICES = ("wq", "wk", "wv", "wo", "w1", "w2", "w3")
NORMS = ("attention_norm", "ffn_norm")

# Larger than any LLaMA; a header beyond these is not a header.
LIMITS = dict(dim=1 << 16, hidden_dim=1 << 18, n_layers=1 << 10, n_heads=1 << 10, n_kv_heads=1 << 10,
              vocab_size=1 << 20, seq_len=1 << 20)
MAX_HEAD_DIM = 1 << 12


def shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor, row-major [out][in]."""
    dim, hidden = config.dim, config.hidden_dim
    q_dim, kv_dim = config.n_heads * config.head_dim, config.kv_dim
    layer: dict[str, tuple[int, ...]] = {
        "attention_norm": (dim,), "wq": (q_dim, dim), "wk": (kv_dim, dim), "wv": (kv_dim, dim), "wo": (dim, q_dim),
        "ffn_norm": (dim,), "w1": (hidden, dim), "w3": (hidden, dim), "w2": (dim, hidden),
    }
    result: dict[str, tuple[int, ...]] = {"embedding": (config.vocab_size, dim)}
    for i in range(config.n_layers):
        result.update({f"layers.{i}.{name}": shape for name, shape in layer.items()})
    result["final_norm"] = (dim,)
    if not config.tied:
        result["classifier"] = (config.vocab_size, dim)
    return result


def in_order(config: ModelConfig, kinds: Sequence[str]) -> Iterator[str]:
    """Names of the tensors, kind by kind; a kind of the layers stands for that tensor of every layer."""
    for kind in kinds:
        if kind in MATRICES or kind in NORMS:
            yield from (f"layers.{i}.{kind}" for i in range(config.n_layers))
        elif kind != "classifier" or not config.tied:
            yield kind


def config_from_header(fields: Sequence[int], tied: bool, path) -> ModelConfig:
    """A config from the seven integers of a llama2.c header, refused in one line if no model can have them."""
    header: dict[str, Any] = dict(zip(LIMITS, fields))
    for field, limit in LIMITS.items():
        if not 0 < header[field] <= limit:
            raise CheckpointError(f"{path}: impossible header: {field} is {header[field]}, expected 1 to {limit}: "
                                  "is this a llama2.c checkpoint?")
    dim, heads, kv_heads = header["dim"], header["n_heads"], header["n_kv_heads"]
    if dim % heads or dim // heads % 2:
        raise CheckpointError(f"{path}: impossible header: dim {dim} does not split into {heads} heads of even size: "
                              "is this a llama2.c checkpoint?")
    if heads % kv_heads:
        raise CheckpointError(f"{path}: impossible header: {heads} heads cannot share {kv_heads} key/value heads: "
                              "is this a llama2.c checkpoint?")
    return ModelConfig(**header, head_dim=dim // heads, norm_epsilon=1e-5, rope_theta=10000.0, tied=tied)


def config_from_fields(where, *, head_dim: int, **fields) -> ModelConfig:
    """A config from named values; ``head_dim`` 0 stands for dim / n_heads. Refused in one line if no model can have
    them."""
    for field, limit in LIMITS.items():
        if not 0 < fields[field] <= limit:
            raise CheckpointError(f"{where}: {field} is {fields[field]}, expected 1 to {limit}: is this a LLaMA?")
    dim, heads, kv_heads = fields["dim"], fields["n_heads"], fields["n_kv_heads"]
    if not head_dim and dim % heads:
        raise CheckpointError(f"{where}: dim {dim} does not split into {heads} heads, and no size of a head is given: "
                              "copy the file again")
    head_dim = head_dim or dim // heads
    if head_dim % 2 or head_dim > MAX_HEAD_DIM:
        raise CheckpointError(f"{where}: heads of {head_dim} elements, expected an even number up to {MAX_HEAD_DIM}: "
                              "is this a LLaMA?")
    if heads % kv_heads:
        raise CheckpointError(f"{where}: {heads} heads cannot share {kv_heads} key/value heads: is this a LLaMA?")
    return ModelConfig(head_dim=head_dim, **fields)


def check_shapes(config: ModelConfig, tensors, where) -> None:
    """Refuse tensors that are not shaped as the config says."""
    for name, shape in shapes(config).items():
        if tuple(tensors[name].shape) != shape:
            raise CheckpointError(f"{where}: tensor {name} is {_times(tensors[name].shape)}, the model's shape asks "
                                  f"for {_times(shape)}: the description belongs to another model")


def _times(shape) -> str:
    return " x ".join(map(str, shape[:4])) or "a single number"


def check_size(path, actual_bytes: int, expected_bytes: int, source: str) -> None:
    """Refuse a file that is shorter or longer than its header says."""
    if actual_bytes < expected_bytes:
        raise CheckpointError(f"{path}: truncated {source} checkpoint: {actual_bytes} bytes, its header asks for "
                              f"{expected_bytes}: copy or export it again")
    if actual_bytes > expected_bytes:
        raise CheckpointError(f"{path}: {actual_bytes - expected_bytes} bytes after the end of a {source} checkpoint "
                              f"of {expected_bytes} bytes: not the file its header describes, export it again")


def count(shape: tuple[int, ...]) -> int:
    """Elements of a tensor."""
    return math.prod(shape)
