"""A small model image for the firmware's tests; its weights are random, as the fake core does not look at them."""
from functools import cache

import numpy as np

from llama2_spec import image
from llama2_spec.model import ModelConfig

VOCAB = 100
SEQ_LEN = 512
CONFIG = ModelConfig(dim=32, hidden_dim=44, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, vocab_size=VOCAB,
                     seq_len=SEQ_LEN)


@cache
def small_image(config: ModelConfig = CONFIG, format: str = "q8") -> bytes:
    """The packed image."""
    rng = np.random.default_rng(1)
    shapes = {"wq": (config.q_dim, config.dim), "wk": (config.kv_dim, config.dim), "wv": (config.kv_dim, config.dim),
              "wo": (config.dim, config.q_dim), "w1": (config.hidden_dim, config.dim),
              "w2": (config.dim, config.hidden_dim),
              "w3": (config.hidden_dim, config.dim), "attention_norm": (config.dim,), "ffn_norm": (config.dim,)}
    tensors = {f"layers.{i}.{name}": rng.normal(size=shape) for i in range(config.n_layers)
               for name, shape in shapes.items()}
    tensors["final_norm"] = rng.normal(size=config.dim)
    tensors["embedding"] = rng.normal(size=(config.vocab_size, config.dim))
    tensors["classifier"] = rng.normal(size=(config.vocab_size, config.dim))
    return image.build(config, tensors, format=format, tokenizer=b"tokens",
                       provenance="a small model\nof random numbers")


def layout(data: bytes):
    """(image, first beat of the cache, beats of a cache row, positions of the context)."""
    parsed = image.Image.parse(data)
    _, row = image.row_layout(parsed.config)
    return parsed, -(-len(data) // 2048) * 128, row, parsed.config.seq_len
