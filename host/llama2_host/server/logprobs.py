"""Log-probabilities from all logits of a position, which the device sends on request: no candidate is left out of the
sum."""
from collections.abc import Sequence

import numpy as np

LOGIT_FRACTION = 18     #: logits are signed Q14.18


class Alternatives:
    """The model's own distribution at one position: temperature 1, before penalties and cuts."""

    def __init__(self, logits: np.ndarray):
        values = logits / float(1 << LOGIT_FRACTION)
        shifted = values - values.max()
        self.logprobs = shifted - np.log(np.exp(shifted).sum())

    def of(self, token: int) -> float:
        return float(self.logprobs[token])

    def best(self, count: int) -> list[tuple[int, float]]:
        """The likeliest tokens, the lower id first on a tie."""
        order = np.argsort(-self.logprobs, kind="stable")[:count]
        return [(int(id), float(self.logprobs[id])) for id in order]


class Collector:
    """Puts a position's LOGITS events together."""

    def __init__(self, vocab_size: int):
        self.vocab_size = vocab_size
        self._values: dict[int, np.ndarray] = {}
        self._known: dict[int, int] = {}

    def take(self, position: int, first: int, logits: Sequence[int]) -> None:
        values = self._values.setdefault(position, np.zeros(self.vocab_size, np.int64))
        values[first:first + len(logits)] = logits
        self._known[position] = self._known.get(position, 0) + len(logits)

    def at(self, position: int) -> Alternatives | None:
        """What was said of ``position``, once; None unless every logit came."""
        values, known = self._values.pop(position, None), self._known.pop(position, 0)
        return Alternatives(values) if values is not None and known == self.vocab_size else None
