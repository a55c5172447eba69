"""The beats that a token has to move through DRAM: what the roofline is reckoned from."""
from collections.abc import Sequence

from spec.model import ModelConfig

BEAT_BYTES = 16


def kv_row_beats(config: ModelConfig) -> int:
    """Beats of one position in one layer's cache: exponents of all K and V heads, K heads, V heads as int16."""
    header = -(-2 * config.n_kv_heads // BEAT_BYTES)
    return header + 2 * (config.kv_dim // 8)


def kv_beats(config: ModelConfig, positions: int | None = None) -> int:
    """Beats of the cache for ``positions``; without a number, for the whole context."""
    return config.n_layers * (config.seq_len if positions is None else positions) * kv_row_beats(config)


def useful_beats(config: ModelConfig, entries: Sequence, position: int) -> int:
    """Beats that a decoded token at ``position`` cannot do without.

    Every tensor of the directory once (gains, scales and weights, as packed), the K/V rows of all earlier positions read and
    its own written, and one embedding row. ``entries`` end with the embedding, or the classifier that is tied to it.
    """
    table = entries[-1]
    weights = sum(entry.beats for entry in entries) - (0 if config.tied else table.beats)
    row = -(-table.beats // table.rows)
    return weights + kv_beats(config, position + 1) + row
