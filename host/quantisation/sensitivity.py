"""Measures what each matrix alone costs in 4 bits: the divergence of the next token's probabilities, on calibration text."""
from collections.abc import Mapping, Sequence

import numpy as np

from host.progress import Progress
from host.quantisation import gptq
from host.quantisation.calibration import DAMPING, NAMES, STAGES, Slot, rows_of
from spec.model import ModelConfig
from spec.reference import Reference

MAX_TOKENS = 1 << 13        #: that are looked at; one in four of stories260K's calibration text ranks the same


def costs(config: ModelConfig, tensors: Mapping[str, np.ndarray], texts: Sequence[Sequence[int]],
          formats: Mapping[Slot, tuple[str, int]], *, progress: Progress = Progress.silent) -> dict[Slot, float]:
    """Mean KL divergence in nats per token for every layer's matrix that ``formats`` has in q4, all others being float32."""
    texts = texts[::-(-sum(map(len, texts)) // MAX_TOKENS)]
    model = Reference(config, tensors)
    streams = [model.tensors["embedding"][list(ids)] for ids in texts]
    wanted = [_log_probabilities(model.logits(ids)) for ids in texts]
    tokens = sum(map(len, texts))
    out = {}
    with progress.bar("measuring sensitivity", config.n_layers * len(NAMES), "matrices", patience_s=1.0) as bar:
        for layer in range(config.n_layers):
            hessians, after = dict.fromkeys((stage for stage, _ in STAGES), 0), []
            for x in streams:
                inputs = {}
                after.append(model.block(layer, x, 0, inputs.__setitem__))
                for stage in hessians:
                    hessians[stage] = hessians[stage] + inputs[stage].astype(np.float64).T @ inputs[stage].astype(np.float64)
            for stage, kinds in STAGES:
                for kind in kinds:
                    format, group = formats[kind, layer]
                    if format == "q4":
                        real = gptq.quantise(rows_of(tensors, kind, layer), hessians[stage], group=group, damping=DAMPING).real()
                        names = [f"layers.{layer}.{name}" for name in NAMES[kind]]
                        exact = {name: model.tensors[name] for name in names}
                        model.tensors.update((name, real[i::len(names)]) for i, name in enumerate(names))
                        out[kind, layer] = sum(_divergence(model, layer, x, p) for x, p in zip(streams, wanted)) / tokens
                        model.tensors.update(exact)
                    bar.update(bar.done + 1)
            streams = after
    return out


def _divergence(model, layer, x, wanted):
    """Summed over a text that enters ``layer`` as ``x``."""
    for following in range(layer, model.config.n_layers):
        x = model.block(following, x)
    return float((np.exp(wanted) * (wanted - _log_probabilities(model.classify(x)))).sum())


def _log_probabilities(logits):
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
