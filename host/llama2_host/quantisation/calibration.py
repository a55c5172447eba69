"""Quantises a model layer by layer on calibration text: every matrix for the inputs that the quantised layers before it
give.

Each matrix is rounded for a target between its own weights and those that would undo, on the text, what earlier
rounding did to its inputs and to the residual stream; part of the way generalises best. Memory holds one layer's
weights, the codes that are done, and the text's activations between two layers.

# Ref: Frantar et al. 2022, GPTQ; Li et al. 2025, GPTAQ (asymmetric calibration)
"""
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from llama2_host.checkpoint.layout import MATRICES, NORMS
from llama2_host.progress import Progress
from llama2_host.quantisation import gptq

from llama2_spec.image import Kind
from llama2_spec.model import ModelConfig
from llama2_spec.packing import Quantised
from llama2_spec.reference import Reference
from llama2_spec.tensors import Tensor

STAGES = {"wq": (Kind.WQ, Kind.WK, Kind.WV), "wo": (Kind.WO,), "w1": (Kind.W13,), "w2": (Kind.W2,)}
NAMES = {Kind.WQ: ("wq",), Kind.WK: ("wk",), Kind.WV: ("wv",), Kind.WO: ("wo",), Kind.W13: ("w1", "w3"),
         Kind.W2: ("w2",)}
# Chosen by the KL divergence on a quarter of the calibration stories, after calibration on the others.
DAMPING = 0.1           #: ten times what is usual for GPTQ: as good on 40,000 tokens, and far better on a few hundred
CORRECTION = 0.75       #: how far a target undoes what happened to a matrix's inputs
REPAIR = 0.25           #: and, for wo and w2, to the residual stream that they add to

Place = tuple[Kind, int]         #: a tensor of the image: its kind and layer


def calibrated(config: ModelConfig, tensors: Mapping[str, Tensor], texts: Sequence[Sequence[int]],
               formats: Mapping[Place, tuple[str, int]], *, given: Callable[[Place], Quantised | None],
               progress: Progress = Progress.silent) -> dict[Place, Quantised]:
    """Those matrices of the layers that are to be calibrated, in the format (q4) and group size asked for.

    ``given(place)`` yields those that are not, and None for the others; the embedding is always given. ``tensors`` may
    stay in their file: a layer's are read when its turn comes.
    """
    table = (Kind.CLASSIFIER if config.tied else Kind.EMBEDDING, 0)
    truth, streams = _first_streams(np.asarray(tensors["embedding"], np.float32), given(table), texts)
    longest = max(map(len, texts))
    out = {}
    # A matrix's rounding takes about as long as its kind's inputs of a few texts; the estimate settles with the first
    # layer.
    with progress.bar("calibrating", config.n_layers * (len(STAGES) * len(texts) + len(NAMES)), "steps",
                      patience_s=1.0) as bar:
        for layer in range(config.n_layers):
            exact, rounded = (_Layer(config, tensors, layer, longest) for _ in range(2))
            wanted, found = ([model.stages(0, x) for x in xs] for model, xs in ((exact, truth), (rounded, streams)))
            del truth, streams
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
                    rounded.replace(kind, q.real())
                    bar.update(bar.done + 1)
            truth, streams = ([x for _, _, x in map(next, runs)] for runs in (wanted, found))
            del exact, rounded, wanted, found, pair             # generators that are not done hold their layer
    return out


def _first_streams(exact: np.ndarray, rounded: Quantised | None, texts: Sequence[Sequence[int]]):
    """The texts' residual streams before the first layer: as they are, and as the image's table has them."""
    assert rounded is not None                  # the embedding is never calibrated
    return [exact[list(ids)] for ids in texts], [_embedded(rounded, ids) for ids in texts]


def _embedded(table: Quantised, ids: Sequence[int]) -> np.ndarray:
    """The residual stream of a text before the first layer: rows of the image's table as float32."""
    return (table.scaled(list(ids))[:, :table.codes.shape[1]] * 2.0 ** table.exponent).astype(np.float32)


class _Layer(Reference):
    """One layer of a model, under the name of layer 0, for texts of up to ``longest`` tokens."""

    def __init__(self, config: ModelConfig, tensors, layer: int, longest: int):
        nothing = np.zeros((1, config.dim), np.float32)
        super().__init__(replace(config, n_layers=1, seq_len=longest), {"embedding": nothing, "classifier": nothing} | {
            f"layers.0.{name}": tensors[f"layers.{layer}.{name}"] for name in (*NORMS, *MATRICES)})

    def replace(self, kind: Kind, rows: np.ndarray) -> None:
        """Put the image's rows of a kind where its matrices are."""
        for i, name in enumerate(NAMES[kind]):
            self.tensors[f"layers.0.{name}"] = np.ascontiguousarray(rows[i::len(NAMES[kind])])


class _Target:
    """Sums over the texts of products of a stage's inputs: as they are, with what they should be, with the residual's
    error.

    A text's products are float32, their sums float64.
    """

    def __init__(self):
        self.hessian = self.missing = self.residual = np.zeros((), np.float64)

    def add(self, wanted, found) -> None:
        """A text's step of :meth:`Reference.stages` in the exact and in the rounded model."""
        (name, should, before), (_, inputs, after) = wanted, found
        self.hessian = self.hessian + (inputs.T @ inputs).astype(np.float64)
        self.missing = self.missing + ((should - inputs).T @ inputs).astype(np.float64)
        if name in ("wo", "w2"):
            self.residual = self.residual + ((before - after).T @ inputs).astype(np.float64)

    def weights(self, kind, weights) -> np.ndarray:
        """``weights``, moved towards what would give the right products from the inputs as they are."""
        weights = np.asarray(weights, np.float64)
        missing = CORRECTION * (weights @ self.missing)
        if kind in (Kind.WO, Kind.W2):
            missing = missing + REPAIR * self.residual
        return weights + np.linalg.solve(gptq.damped(self.hessian, DAMPING), missing.T).T


def rows_of(tensors, kind, layer):
    """A matrix as the image holds it: rows of w1 and w3 alternate."""
    parts = [np.asarray(tensors[f"layers.{layer}.{name}"], np.float32) for name in NAMES[kind]]
    return np.stack(parts, axis=1).reshape(-1, parts[0].shape[1])
