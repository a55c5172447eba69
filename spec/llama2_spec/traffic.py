"""Counts the beats that a token has to move through DRAM. The roofline follows from them."""
from collections.abc import Sequence
from dataclasses import dataclass

from llama2_spec.image import Entry, row_layout
from llama2_spec.model import ModelConfig
from llama2_spec.packing import BEAT, row_beats

BEAT_BYTES = BEAT


def kv_beats(config: ModelConfig, positions: int | None = None) -> int:
    """Beats of the cache for ``positions``; without a number, for the whole context."""
    return config.n_layers * (config.seq_len if positions is None else positions) * row_layout(config)[1]


def useful_beats(config: ModelConfig, entries: Sequence[Entry], position: int) -> int:
    """Beats that a decoded token at ``position`` cannot do without.

    A token reads every tensor of the directory once (gains, scales and weights, as packed), the K/V rows of all earlier
    positions and one embedding row, and writes its own K/V rows. ``entries`` end with the embedding, or the classifier
    that is tied to it.
    """
    table = entries[-1]
    weights = sum(entry.beats for entry in entries) - (0 if config.tied else table.beats)
    row = row_beats(table.words, table.format.name.lower(), table.group)
    return weights + kv_beats(config, position + 1) + row


@dataclass(frozen=True)
class Target:
    """A build whose speed is predicted: its clock, and the share of DRAM's beats that decoding gets."""
    clock_hz: int
    share: float        #: measured: bench/results/cycles-*.json


#: The Arty's DRAM at 100 MHz 1:4, one beat a cycle; the share that stories260K in q4 reached on the simulated SoC.
TARGETS = {"arty": Target(100_000_000, 0.96)}


def tokens_per_second(config: ModelConfig, entries: Sequence[Entry], position: int, target: Target) -> float:
    """Predicted rate of decoding at ``position``: the rate at which beats come, over the beats that a token needs."""
    return target.clock_hz * target.share / useful_beats(config, entries, position)
