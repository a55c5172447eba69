"""Measures row by row what quantising lost, reports it in one line, and refuses if a row is gone.

The scales of a tensor share one exponent. A row or a weight far above the rest takes their steps away: they keep few
codes, in the end none.
"""
from dataclasses import dataclass, field

import numpy as np

from llama2_host.errors import HostError
from llama2_host.progress import Progress
from llama2_spec.image import Kind
from llama2_spec.numerics import RESIDUAL_FRACTION, ROW_FRACTION
from llama2_spec.packing import MIN_EXPONENT, Quantised

#: share of a row's weights that rounding to zero usually takes at most; an ordinary row loses 1 % in q8, 20 % in q4
USUAL = {"q8": 0.25, "q4": 0.7}
GONE = 0.5                      #: relative error of a row that is lost
DEAD = 2.0 ** -16               #: of the median row's largest weight: nobody misses such a row, as of a token never
                                #: trained
SMALLEST = 2.0 ** (MIN_EXPONENT + 7)       #: a weight of 127 steps of the smallest scale
FEW_STEPS = 64                  #: of a number format: values that all stay below are noise


class LostError(HostError, ValueError):
    """A conversion would lose rows; the message says which, and how to convert all the same."""


@dataclass
class Tensor:
    """The losses of one tensor: arrays with an entry per row."""
    largest: list = field(default_factory=list)         #: magnitude
    share: list = field(default_factory=list)           #: of weights that became zero
    error: list = field(default_factory=list)           #: relative, of rows that lost more than usual; 0 of others


class Losses:
    """Collects :func:`llama2_spec.image.write`'s pieces; :meth:`report` ends the conversion or says what it cost."""

    def __init__(self):
        self.tensors: dict[tuple[Kind, int], Tensor] = {}
        self.formats: dict[tuple[Kind, int], str] = {}

    def add(self, kind: Kind, layer: int, weights: np.ndarray, piece: Quantised) -> None:
        """Consecutive rows as they were, float32, and as they are."""
        tensor = self.tensors.setdefault((kind, layer), Tensor())
        self.formats[kind, layer] = piece.format
        largest = np.maximum(weights.max(axis=1), -weights.min(axis=1))
        zero = (piece.codes ==
                (0 if piece.format == "q8" else np.repeat(piece.zeros, piece.group, axis=1)[:, :piece.codes.shape[1]]))
        there = np.count_nonzero(weights, axis=1)
        share = 1 - (weights.shape[1] - np.count_nonzero(zero, axis=1)) / np.maximum(there, 1)
        error = np.zeros(len(share))
        suspects = np.flatnonzero((share > USUAL[piece.format]) & (there > 0))
        if len(suspects):
            exact = weights[suspects].astype(np.float64)
            real = piece.scaled(suspects)[:, :weights.shape[1]] * 2.0 ** piece.exponent
            size = largest[suspects, None].astype(np.float64)       # squares of 1e-34 are beyond float64's, too
            error[suspects] = np.linalg.norm((exact - real) / size, axis=1) / np.linalg.norm(exact / size, axis=1)
        tensor.largest.append(largest)
        tensor.share.append(share)
        tensor.error.append(error)

    def report(self, progress: Progress, *, final_gain: float, dim: int, allowed: bool) -> None:
        """One line for the worst tensor that lost rows; raises it where some are gone, unless that is ``allowed``."""
        found = [*self._vanishing(final_gain, dim), *sorted(self._rows(), reverse=True)]
        if not found:
            return
        gone, _, text = found[0]
        more = f" (and {len(found) - 1} more tensors)" if len(found) > 1 else ""
        if gone and not allowed:
            raise LostError(f"{text}{more}: the model would write noise: use "
                            f"{'--format q8, ' if 'q4' in self.formats.values() else ''}a checkpoint without such "
                            "weights, or --allow-loss to convert all the same")
        progress.note(f"lost in quantising: {text}{more}")

    def _rows(self):
        """(rows gone, rows that lost much, text) of every tensor with such rows."""
        for (kind, layer), tensor in self.tensors.items():
            largest, share, error = (np.concatenate(parts) for parts in (tensor.largest, tensor.share, tensor.error))
            median = float(np.median(largest[largest > 0])) if largest.any() else 0.0
            matter = largest > DEAD * median
            gone = int(np.count_nonzero(matter & (error >= GONE)))
            poor = int(np.count_nonzero(matter & (share > USUAL[self.formats[kind, layer]])))
            if poor:
                place = kind.name.lower() + (f" of layer {layer}" if kind < Kind.CLASSIFIER else "")
                what = f"{gone} of {len(largest)} rows are gone" if gone else \
                       f"{poor} of {len(largest)} rows keep little but their largest weights"
                why = f"its largest weight of {largest.max():.2g} is below what scales can say" \
                    if largest.max() < SMALLEST else \
                      f"the largest weight is {largest.max() / median:.2g} times the median row's"
                yield gone, poor, f"{place} in {self.formats[kind, layer]}: {what}, {why}"

    def _vanishing(self, final_gain: float, dim: int):
        """Embeddings and logits that are all within a few steps of their number format."""
        largest = {kind: max(float(part.max(initial=0)) for part in tensor.largest) for (kind, _),
                   tensor in self.tensors.items()}
        table = largest.get(Kind.EMBEDDING, largest.get(Kind.CLASSIFIER, 0.0))
        logits = final_gain * largest.get(Kind.CLASSIFIER, 0.0) * dim
        for name, value, fraction in (("the embedding's weights", table, RESIDUAL_FRACTION),
                                      ("the logits", logits, ROW_FRACTION)):
            if 0 < value < FEW_STEPS * 2.0 ** -fraction:
                yield 1, 0, f"{name} are at most {value:.2g}, the core computes them in steps of {2.0 ** -fraction:.2g}"
