"""Quantises a model layer by layer on calibration text: every matrix for the inputs that the quantised layers before it give.

Each matrix is rounded for a target between its own weights and those that would undo, on the text, what earlier rounding
did to its inputs and to the residual stream; part of the way generalises best.

# Ref: Frantar et al. 2022, GPTQ; Li et al. 2025, GPTAQ (asymmetric calibration)
"""
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from host.progress import Progress
from host.quantisation import gptq

from spec.image import Kind
from spec.model import ModelConfig
from spec.packing import Quantised
from spec.reference import Reference

STAGES = {"wq": (Kind.WQ, Kind.WK, Kind.WV), "wo": (Kind.WO,), "w1": (Kind.W13,), "w2": (Kind.W2,)}
NAMES = {Kind.WQ: ("wq",), Kind.WK: ("wk",), Kind.WV: ("wv",), Kind.WO: ("wo",), Kind.W13: ("w1", "w3"), Kind.W2: ("w2",)}
# Chosen by the KL divergence on a quarter of the calibration stories, after calibration on the others.
DAMPING = 0.1           #: ten times what is usual for GPTQ: as good on 40,000 tokens, and far better on a few hundred
CORRECTION = 0.75       #: how far a target undoes what happened to a matrix's inputs
REPAIR = 0.25           #: and, for wo and w2, to the residual stream that they add to

Slot = tuple[Kind, int]         #: a tensor of the image: its kind and layer


def calibrated(config: ModelConfig, tensors: Mapping[str, np.ndarray], texts: Sequence[Sequence[int]],
               formats: Mapping[Slot, tuple[str, int]], *, given: Callable[[Slot], Quantised | None],
               progress: Progress = Progress.silent) -> dict[Slot, Quantised]:
    """Those matrices of the layers that are to be calibrated, in the format (q4) and group size asked for.

    ``given(slot)`` yields those that are not, and None for the others; the embedding is always given.
    """
    exact, rounded = Reference(config, tensors), Reference(config, tensors)
    table = (Kind.CLASSIFIER if config.tied else Kind.EMBEDDING, 0)
    truth = [exact.tensors["embedding"][list(ids)] for ids in texts]
    rounded.tensors["embedding"] = given(table).real()
    streams = [rounded.tensors["embedding"][list(ids)] for ids in texts]
    out = {}
    with progress.bar("calibrating", config.n_layers * len(STAGES) * len(texts), "texts", patience_s=1.0) as bar:
        for layer in range(config.n_layers):
            wanted, found = ([model.stages(layer, x) for x in xs] for model, xs in ((exact, truth), (rounded, streams)))
            for kinds in STAGES.values():
                target = _Target()
                for pair in zip(wanted, found):
                    target.add(*map(next, pair))
                    bar.update(bar.done + 1)
                for kind in kinds:
                    if (q := given((kind, layer))) is None:
                        _, group = formats[kind, layer]
                        weights = target.weights(kind, rows_of(tensors, kind, layer))
                        out[kind, layer] = q = gptq.quantise(weights, target.hessian, group=group, damping=DAMPING)
                    real = q.real()
                    for i, name in enumerate(NAMES[kind]):
                        rounded.tensors[f"layers.{layer}.{name}"] = real[i::len(NAMES[kind])]
            truth, streams = ([x for _, _, x in map(next, runs)] for runs in (wanted, found))
    return out


class _Target:
    """Sums over the texts of products of a stage's inputs: as they are, with what they should be, with the residual's error."""

    def __init__(self):
        self.hessian = self.cross = self.residual = 0

    def add(self, wanted, found) -> None:
        """A text's step of :meth:`Reference.stages` in the exact and in the rounded model."""
        (_, should, before), (_, inputs, after) = wanted, found
        inputs = inputs.astype(np.float64)
        self.hessian = self.hessian + inputs.T @ inputs
        self.cross = self.cross + should.T @ inputs
        self.residual = self.residual + (before - after).T @ inputs

    def weights(self, kind, weights) -> np.ndarray:
        """``weights``, moved towards what would give the right products from the inputs as they are."""
        weights = np.asarray(weights, np.float64)
        missing = CORRECTION * (weights @ (self.cross - self.hessian))
        if kind in (Kind.WO, Kind.W2):
            missing = missing + REPAIR * self.residual
        return weights + np.linalg.solve(gptq.damped(self.hessian, DAMPING), missing.T).T


def rows_of(tensors, kind, layer):
    """A matrix as the image holds it: rows of w1 and w3 alternate."""
    parts = [np.asarray(tensors[f"layers.{layer}.{name}"], np.float32) for name in NAMES[kind]]
    return np.stack(parts, axis=1).reshape(-1, parts[0].shape[1])
