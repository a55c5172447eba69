"""Random decoders by a seed: a shape, a format for every matrix, one for the K/V cache, and weights."""
from dataclasses import dataclass

from llama2_spec.image import Image, Kind, order, weights
from llama2_spec.model import KvFormat, ModelConfig
from llama2_spec.numerics import MAX_HEAD_DIM
from tests.accel.decoder import random_image

FORMATS = (("q8", 64), ("q8", 32), ("q4", 32), ("q4", 64))
REPEATS = (1, 1, 2, 3, 4, 5, 8)         #: query heads that share a K/V head


@dataclass(frozen=True)
class Within:
    """The most that a random shape has of each thing; ``weights`` are those of all matrices."""
    dim: int
    hidden_dim: int
    kv_dim: int
    heads: int
    layers: int
    vocab_size: int
    seq_len: int
    weights: int


def small(rng, most: int) -> int:
    """From 1 to ``most``; small ones are likelier."""
    return 1 + int(rng.random() ** 2 * most)


def random_config(rng, within: Within) -> ModelConfig:
    """A shape that the image's layout can hold."""
    while True:
        kv_heads = small(rng, within.heads)
        config = ModelConfig(
            dim=16 * small(rng, within.dim // 16), hidden_dim=small(rng, within.hidden_dim),
            n_layers=small(rng, within.layers), n_heads=kv_heads * rng.choice(REPEATS), n_kv_heads=kv_heads,
            head_dim=8 * small(rng, MAX_HEAD_DIM // 8), vocab_size=1 + small(rng, within.vocab_size - 1),
            seq_len=within.seq_len // 8 + small(rng, within.seq_len - within.seq_len // 8),
            norm_epsilon=rng.choice((1e-6, 1e-5, 1e-3)), rope_theta=rng.choice((100.0, 1e4, 5e5)),
            tied=rng.random() < .7, kv=rng.choice(list(KvFormat)))
        if (config.q_dim % 16 == 0 and config.q_dim <= within.dim and config.kv_dim <= within.kv_dim
                and config.n_heads <= within.heads and weights(config) <= within.weights):
            return config


def random_model(rng, within: Within) -> tuple[Image, str]:
    """An image of a random shape, and its formats in a word: each matrix has its own where they are mixed."""
    config = random_config(rng, within)
    format, group = rng.choice(FORMATS)
    mixed = rng.random() < .4
    plan = {(kind, layer): rng.choice(FORMATS) for kind, layer, _ in order(config) if kind != Kind.GAIN}
    image = random_image(config, rng.getrandbits(32), format, group, plan if mixed else None)
    return image, "mixed" if mixed else f"{format} g{group}"


def told(config: ModelConfig) -> str:
    """The shape in a line."""
    return (f"dim {config.dim}, hidden {config.hidden_dim}, {config.n_layers} layers, heads {config.n_heads}/"
            f"{config.n_kv_heads} of {config.head_dim}, vocabulary {config.vocab_size}{' tied' if config.tied else ''},"
            f" context {config.seq_len}, {config.kv.name.lower()}")
