"""Measures the cost of quantisation and integers: golden's logits against float32's, teacher-forced on a text."""
from collections.abc import Mapping, Sequence

import numpy as np

from llama2_host.progress import Progress
from llama2_spec import image as image_module
from llama2_spec.golden import Golden
from llama2_spec.image import Image, Kind
from llama2_spec.model import ModelConfig
from llama2_spec.numerics import ROW_FRACTION
from llama2_spec.reference import Reference
from llama2_spec.traffic import Target, tokens_per_second

NAMES = {Kind.WQ: "wq", Kind.WK: "wk", Kind.WV: "wv", Kind.WO: "wo", Kind.W2: "w2"}


def dequantised(image: Image, tensors: Mapping[str, np.ndarray] = {}) -> dict[str, np.ndarray]:
    """The image's own weights and gains as float32, under the checkpoint's names; ``tensors`` has the other tensors."""
    out = dict(tensors)
    gains = []
    for e in image.entries:
        if e.kind == Kind.GAIN:
            gains.append((image.gain(e) * 2.0 ** e.exponent / np.sqrt(image.config.norm_dim)).astype(np.float32))
            continue
        real = image.tensor(e).real()
        if e.kind in NAMES:
            out[f"layers.{e.layer}.{NAMES[e.kind]}"] = real
        elif e.kind == Kind.W13:
            out[f"layers.{e.layer}.w1"], out[f"layers.{e.layer}.w3"] = real[0::2], real[1::2]
        else:
            out["classifier" if e.kind == Kind.CLASSIFIER and not image.config.tied else "embedding"] = real
    for i in range(image.config.n_layers):
        out[f"layers.{i}.attention_norm"], out[f"layers.{i}.ffn_norm"] = gains[2 * i], gains[2 * i + 1]
    out["final_norm"] = gains[-1]
    return out


def log_softmax(x) -> np.ndarray:
    """Natural logarithms of the softmax along the last axis, in float64."""
    x = np.asarray(x, np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def golden_logits(golden: Golden, ids: Sequence[int], told=lambda: None) -> np.ndarray:
    """Teacher-forced logits of every position; ``told()`` is called after each."""
    rows = []
    for logits in golden.logits(ids):
        rows.append(logits.values)
        told()
    return np.stack(rows) / 2.0 ** ROW_FRACTION


class Score:
    """Sums over positions of how well, and how like another, a model predicts the next token."""

    def __init__(self):
        self.nats = self.divergence = self.worst = 0.0
        self.tokens = self.agreed = 0

    def add(self, ids: Sequence[int], ours: np.ndarray, theirs: np.ndarray | None = None) -> None:
        """Log probabilities (positions, vocab) of two models; the last position, which has no next token, is left
        out."""
        ours = ours[:-1]
        self.tokens += len(ours)
        self.nats -= float(ours[np.arange(len(ours)), list(ids[1:])].sum())
        if theirs is not None:
            theirs = theirs[:-1]
            divergence = (np.exp(theirs) * (theirs - ours)).sum(axis=1)
            self.divergence += float(divergence.sum())
            self.worst = max(self.worst, float(divergence.max()))
            self.agreed += int((ours.argmax(axis=1) == theirs.argmax(axis=1)).sum())

    @property
    def perplexity(self) -> float:
        return float(np.exp(self.nats / self.tokens))

    @property
    def kl(self) -> float:
        """Kullback-Leibler divergence of ours from theirs, mean per token, in nats."""
        return self.divergence / self.tokens

    @property
    def top1(self) -> float:
        """Share of positions whose likeliest tokens are the same."""
        return self.agreed / self.tokens


def n_weights(config: ModelConfig) -> int:
    """Weights in matrices and gains, a tied classifier counted once."""
    return image_module.weights(config) + (2 * config.n_layers + 1) * config.dim


def size(image: Image, target: Target) -> dict:
    """``bits_per_weight``, ``bytes`` of the weight stream, and ``tokens_per_second`` predicted for the target."""
    c, length = image.config, image.header["payload_bytes"]
    return {"bits_per_weight": 8 * length / n_weights(c), "bytes": length,
            "tokens_per_second": tokens_per_second(c, image.entries, c.seq_len // 2, target)}


def row(image: Image, score: Score, own: Score | None, target: Target) -> dict:
    """The figures that both commands show of an image; ``own`` is float32's score, if there is one to compare with."""
    against = {"perplexity_float32": None, "delta_percent": None, "kl": None, "top1": None} if own is None else {
        "perplexity_float32": own.perplexity, "delta_percent": 100 * (score.perplexity / own.perplexity - 1),
        "kl": score.kl, "top1": score.top1}
    return {"tokens": score.tokens, "perplexity": score.perplexity, **against, **size(image, target)}


def evaluate(images: Mapping[str, Image], texts: Sequence[Sequence[int]], *, exact: Reference | None = None,
             progress: Progress = Progress.silent) -> tuple[dict[str, Score], Score | None]:
    """Golden's score on the texts for each image, compared with the float32 model ``exact`` if there is one, and the
    score of ``exact``."""
    decoders = {name: Golden(image) for name, image in images.items()}
    scores, own = {name: Score() for name in images}, Score() if exact else None
    with progress.bar("evaluating", len(images) * sum(map(len, texts)), "tokens", patience_s=1.0) as bar:
        for ids in texts:
            theirs = log_softmax(exact.logits(ids)) if exact else None
            if own is not None and theirs is not None:
                own.add(ids, theirs)
            for name, golden in decoders.items():
                rows = golden_logits(golden, ids, told=lambda: bar.update(bar.done + 1))
                scores[name].add(ids, log_softmax(rows), theirs)
    return scores, own
