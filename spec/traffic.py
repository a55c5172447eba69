"""The beats that a token has to move through DRAM: what the roofline is reckoned from."""
from collections.abc import Sequence

from spec.image import Entry, row_layout
from spec.model import ModelConfig
from spec.packing import BEAT, row_beats

BEAT_BYTES = BEAT


def kv_beats(config: ModelConfig, positions: int | None = None) -> int:
    """Beats of the cache for ``positions``; without a number, for the whole context."""
    return config.n_layers * (config.seq_len if positions is None else positions) * row_layout(config)[1]


def useful_beats(config: ModelConfig, entries: Sequence[Entry], position: int) -> int:
    """Beats that a decoded token at ``position`` cannot do without.

    Every tensor of the directory once (gains, scales and weights, as packed), the K/V rows of all earlier positions read and
    its own written, and one embedding row. ``entries`` end with the embedding, or the classifier that is tied to it.
    """
    table = entries[-1]
    weights = sum(entry.beats for entry in entries) - (0 if config.tied else table.beats)
    row = row_beats(table.words, table.format.name.lower(), table.group)
    return weights + kv_beats(config, position + 1) + row
