"""Gives the float32 decoder that the integer one is measured against: llama2.c's arithmetic in numpy.

It is independent on purpose: it imports numpy and the model's shape, and nothing that golden uses.

# Ref: Touvron et al. 2023, Llama 2; Su et al. 2021, RoFormer; Zhang & Sennrich 2019, RMSNorm
"""
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from llama2_spec.model import ModelConfig
from llama2_spec.tensors import Tensor


def rmsnorm(x: np.ndarray, weight: np.ndarray, epsilon: float, size: int | None = None) -> np.ndarray:
    """Scale each row of ``x`` to a root mean square of one, then by ``weight``.

    ``size`` counts the elements of a row without added zeros.
    """
    mean_square = np.mean(x * x, axis=-1, keepdims=True)
    if size not in (None, x.shape[-1]):
        mean_square = mean_square * np.float32(x.shape[-1] / size)
    return x / np.sqrt(mean_square + np.float32(epsilon)) * weight


def softmax(scores: np.ndarray) -> np.ndarray:
    """Softmax along the last axis; -inf marks what is masked."""
    shifted = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def silu(x: np.ndarray) -> np.ndarray:
    """x * sigmoid(x), without overflow for large negative x."""
    decay = np.exp(-np.abs(x))
    return x * np.where(x >= 0, 1, decay) / (1 + decay)


def rotate(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    """RoPE on neighbouring pairs (2i, 2i+1): x [time, heads, head_dim], cos and sin [time, 1, head_dim/2]."""
    even, odd = x[..., 0::2], x[..., 1::2]
    out = np.empty_like(x)
    out[..., 0::2] = even * cos - odd * sin
    out[..., 1::2] = even * sin + odd * cos
    return out


class Reference:
    """A float32 LLaMA-2 decoder.

    Parameters
    ----------
    config : ModelConfig
    tensors : mapping of name to float32 array
        Named and shaped as ``llama2_host.checkpoint`` gives them; ``classifier`` may be absent when tied.
    """

    def __init__(self, config: ModelConfig, tensors: Mapping[str, Tensor]):
        self.config = config
        self.tensors = {name: np.asarray(t, dtype=np.float32) for name, t in tensors.items()}
        self.classifier = self.tensors["embedding" if config.tied else "classifier"]
        pairs = np.arange(0, config.head_dim, 2, dtype=np.float64)
        frequencies = config.rope_theta ** -(pairs / config.score_dim)
        used = config.score_dim // 2            # added pairs are zeros: a rotation leaves them zero
        frequencies[:used] /= np.asarray(config.rope_factors or 1.0)
        angles = np.outer(np.arange(config.seq_len), frequencies)
        self._cos = np.cos(angles).astype(np.float32)[:, None, :]
        self._sin = np.sin(angles).astype(np.float32)[:, None, :]
        self.reset()

    def reset(self) -> None:
        """Forget the KV cache."""
        shape = (self.config.n_layers, self.config.seq_len, self.config.n_kv_heads, self.config.head_dim)
        self._keys = np.zeros(shape, np.float32)
        self._values = np.zeros(shape, np.float32)

    def step(self, token: int, position: int) -> np.ndarray:
        """Logits [vocab] after ``token`` at ``position``; earlier positions come from the KV cache."""
        return self._forward([token], position)[0]

    def logits(self, tokens: Sequence[int]) -> np.ndarray:
        """Teacher-forced logits [len(tokens), vocab] of a sequence that starts at position 0.

        Overwrites the KV cache, so that ``step`` may go on after it.
        """
        return self._forward(tokens, 0)

    def _forward(self, tokens: Sequence[int], start: int) -> np.ndarray:
        ids = np.asarray(tokens, dtype=np.int64)
        end = start + len(ids)
        if not 0 <= start < end <= self.config.seq_len:
            raise ValueError(f"Positions must lie in 0..{self.config.seq_len - 1}, not {start}..{end - 1}")
        if ids.min() < 0 or ids.max() >= self.config.vocab_size:
            raise ValueError(f"Tokens must lie in 0..{self.config.vocab_size - 1}")
        x = self.tensors["embedding"][ids]
        for layer in range(self.config.n_layers):
            x = self.block(layer, x, start)
        return self.classify(x)

    def block(self, layer: int, x: np.ndarray, start: int = 0) -> np.ndarray:
        """The residual stream [time, dim] of positions from ``start``, after one layer's work on it."""
        *_, (_, _, x) = self.stages(layer, x, start)
        return x

    def stages(self, layer: int, x: np.ndarray, start: int = 0) -> Iterator[tuple[str, np.ndarray | None, np.ndarray]]:
        """Yields a layer's steps: (matrix, its input, residual stream). The steps are wq (which stands for wk and wv
        too), wo, w1 (for w3 too) and w2; the last one is an empty name, None and the stream after the layer. A matrix
        that is replaced in ``tensors`` before the next step counts at once.
        """
        weights, constants = lambda name: self.tensors[f"layers.{layer}.{name}"], (self.config.norm_epsilon,
                                                                                   self.config.norm_dim)
        h = rmsnorm(x, weights("attention_norm"), *constants)
        yield "wq", h, x
        h = self._attention(layer, h, start)
        yield "wo", h, x
        x = x + h @ weights("wo").T
        h = rmsnorm(x, weights("ffn_norm"), *constants)
        yield "w1", h, x
        h = silu(h @ weights("w1").T) * (h @ weights("w3").T)
        yield "w2", h, x
        yield "", None, x + h @ weights("w2").T

    def classify(self, x: np.ndarray) -> np.ndarray:
        """Logits [time, vocab] of the last layer's residual stream."""
        return rmsnorm(x, self.tensors["final_norm"], self.config.norm_epsilon,
                       self.config.norm_dim) @ self.classifier.T

    def _attention(self, layer: int, x: np.ndarray, start: int) -> np.ndarray:
        """Causal attention of the new rows ``x`` over all positions up to each; [time, n_heads*head_dim]."""
        c, time = self.config, len(x)
        end = start + time
        cos, sin = self._cos[start:end], self._sin[start:end]
        project = lambda name: (x @ self.tensors[f"layers.{layer}.{name}"].T).reshape(time, -1, c.head_dim)
        q = rotate(project("wq"), cos, sin)
        self._keys[layer, start:end] = rotate(project("wk"), cos, sin)
        self._values[layer, start:end] = project("wv")
        k = self._keys[layer, :end].transpose(1, 2, 0)                                # [kv, head_dim, end]
        v = self._values[layer, :end].transpose(1, 0, 2)                              # [kv, end, head_dim]
        # One K/V head serves n_rep neighbouring query heads: [kv, n_rep, time, head_dim].
        q = q.reshape(time, c.n_kv_heads, c.n_rep, c.head_dim).transpose(1, 2, 0, 3)
        scores = q @ k[:, None] / np.sqrt(np.float32(c.score_dim))
        future = np.arange(end)[None, :] > np.arange(start, end)[:, None]
        scores = np.where(future, np.float32(-np.inf), scores)
        mixed = softmax(scores) @ v[:, None]
        return mixed.transpose(2, 0, 1, 3).reshape(time, c.n_heads * c.head_dim)
