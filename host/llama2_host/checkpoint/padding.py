"""Adds zeros to a checkpoint until its sizes suit the core (dims in sixteens, heads in eights); its results stay the
same.

Added columns meet zeros and added rows give zeros. RMSNorm's mean, RoPE's frequencies and the scores' scale are
constants of the image, reckoned from the true sizes (``true_dim`` and ``true_head_dim`` of
:class:`llama2_spec.model.ModelConfig`).
"""
from dataclasses import replace
from pathlib import Path

import numpy as np

from llama2_host.checkpoint import Checkpoint
from llama2_host.checkpoint.lazy import Rows
from llama2_spec.model import ModelConfig
from llama2_spec.numerics import MAX_HEAD_DIM
from llama2_spec.tensors import Tensor

DIM_MULTIPLE, HEAD_MULTIPLE = 16, 8


def padded(source: Checkpoint) -> Checkpoint:
    """The same model in sizes that an image can hold; the model itself if its sizes fit. Groups of the file do not
    survive."""
    config = padded_config(source.config)
    if config == source.config:
        return source
    true = source.config
    dim, heads = (true.dim, config.dim), (true.head_dim, config.head_dim)
    tensors: dict[str, Tensor] = {}
    for name, rows in source.tensors.items():
        kind = name.rpartition(".")[2]
        down = {"wq": heads, "wk": heads, "wv": heads, "wo": dim, "w2": dim}.get(kind, dim if rows.ndim == 1 else None)
        across = {"wo": heads, "w2": None}.get(kind, dim) if rows.ndim == 2 else None
        tensors[name] = _padded_rows(name, rows, down, across)
    return replace(source, config=config, tensors=tensors, groups=None)


def padded_config(config: ModelConfig) -> ModelConfig:
    """Sizes rounded up, with the true ones beside them."""
    if config.head_dim > MAX_HEAD_DIM:      # padding cannot help
        return config
    dim, head_dim = _up(config.dim, DIM_MULTIPLE), _up(config.head_dim, HEAD_MULTIPLE)
    if config.n_heads * head_dim % DIM_MULTIPLE:
        head_dim = _up(head_dim, DIM_MULTIPLE)
    if dim != config.dim:
        config = replace(config, dim=dim, true_dim=config.dim)
    if head_dim != config.head_dim:
        config = replace(config, head_dim=head_dim, true_head_dim=config.head_dim)
    return config


def note(config: ModelConfig) -> str:
    """A note about the added zeros, for people; empty if there are none."""
    parts = ([f"dim {config.true_dim} as {config.dim}"] if config.true_dim else []) + \
            ([f"heads of {config.true_head_dim} as {config.head_dim}"] if config.true_head_dim else [])
    return f"{' and '.join(parts)}, filled with zeros" if parts else ""


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _padded_rows(name: str, rows: Tensor, down: tuple[int, int] | None, across: tuple[int, int] | None) -> Rows:
    """``down`` and ``across``: sizes of a block of rows, and of columns, as they are and as they shall be."""
    size, wide = down or (1, 1)
    shape = (rows.shape[0] // size * wide, *((rows.shape[1] // across[0] * across[1],) if across else rows.shape[1:]))

    def read(start, stop):
        first, last = start // wide, -(-stop // wide)           # whole blocks
        values = np.asarray(rows[first * size:last * size], np.float32)
        values = _spread(values, 0, size, wide)[start - first * wide:stop - first * wide]
        return _spread(values, 1, *across) if across else values
    return Rows(name, getattr(rows, "path", Path(name)), shape, read)


def _spread(values: np.ndarray, axis: int, size: int, wide: int) -> np.ndarray:
    """Every ``size`` elements along an axis followed by zeros, up to ``wide``."""
    if size == wide:
        return values
    blocks = values.reshape(*values.shape[:axis], -1, size, *values.shape[axis + 1:])
    widths = [(0, wide - size) if i == axis + 1 else (0, 0) for i in range(blocks.ndim)]
    return np.pad(blocks, widths).reshape(*values.shape[:axis], -1, *values.shape[axis + 1:])
