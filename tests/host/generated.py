"""Gives tests small checkpoints with random weights, for where no trained one is at hand."""

import numpy as np

from llama2_host.checkpoint.layout import shapes
from llama2_spec.model import ModelConfig

SMALL = ModelConfig(dim=16, hidden_dim=12, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=4, vocab_size=300, seq_len=24)


def random_tensors(config: ModelConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights of a scale that keeps activations of order one; norms around one."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in shapes(config).items():
        noise = rng.standard_normal(shape)
        tensors[name] = (1 + 0.1 * noise if len(shape) == 1 else noise * shape[-1] ** -0.5).astype(np.float32)
    return tensors
