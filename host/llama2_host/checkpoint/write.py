"""Writes llama2.c checkpoints (v0, v1, v2) from named tensors: for training, for tests, for llama2.c itself."""
# Ref: karpathy/llama2.c, export.py

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from llama2_host.checkpoint import legacy, versioned
from llama2_host.checkpoint.layout import in_order
from llama2_host.files import write_whole
from llama2_spec.model import ModelConfig


def pack_v0(config: ModelConfig, tensors: Mapping[str, np.ndarray]) -> bytes:
    """A legacy file: float32 with its RoPE tables."""
    pairs = np.arange(0, config.head_dim, 2)
    angles = np.outer(np.arange(config.seq_len), config.rope_theta ** -(pairs / config.head_dim))
    extra = {"rope": np.stack([np.cos(angles), np.sin(angles)])}
    vocab = config.vocab_size if config.tied else -config.vocab_size
    header = legacy.HEADER.pack(*_shape(config)[:5], vocab, config.seq_len)
    return header + _floats({**tensors, **extra}, in_order(config, legacy.ORDER))


def pack_v1(config: ModelConfig, tensors: Mapping[str, np.ndarray]) -> bytes:
    """A versioned float32 file."""
    return _header(config, 1) + _floats(tensors, in_order(config, versioned.FLOATS + versioned.WEIGHTS))


def pack_v2(config: ModelConfig, tensors: Mapping[str, np.ndarray], group_size: int) -> bytes:
    """A versioned int8 file: groups of ``group_size`` over each flattened tensor, each with its scale."""
    parts = [_header(config, 2, group_size), _floats(tensors, in_order(config, versioned.FLOATS))]
    for name in in_order(config, versioned.WEIGHTS):
        groups = np.asarray(tensors[name], np.float32).reshape(-1, group_size)
        scales = np.abs(groups).max(axis=1) / np.float32(127)
        codes = np.rint(groups / np.where(scales == 0, np.float32(1), scales)[:, None])   # half to even
        parts += [codes.astype(np.int8).tobytes(), scales.astype("<f4").tobytes()]
    return b"".join(parts)


def write_v0(path: Path, config: ModelConfig, tensors: Mapping[str, np.ndarray]) -> None:
    """Write a legacy file, whole or not at all; a process that has mapped an older file keeps reading that."""
    write_whole(Path(path), lambda file: file.write(pack_v0(config, tensors)))


def _shape(config):
    return (config.dim, config.hidden_dim, config.n_layers, config.n_heads, config.n_kv_heads,
            config.vocab_size, config.seq_len)


def _header(config, version, group_size=None):
    header = versioned.HEADER.pack(versioned.MAGIC, version, *_shape(config), config.tied)
    if group_size is not None:
        header += versioned.GROUP_SIZE.pack(group_size)
    return header.ljust(versioned.HEADER_BYTES, b"\0")


def _floats(tensors, names):
    return b"".join(np.asarray(tensors[name]).astype("<f4").tobytes() for name in names)
