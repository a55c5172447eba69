"""Measures what each matrix alone costs in 4 bits: the divergence of the next token's probabilities, on calibration
text."""
from collections.abc import Mapping, Sequence

import numpy as np

from llama2_host.progress import Progress
from llama2_host.quantisation import gptq
from llama2_host.quantisation.calibration import DAMPING, NAMES, STAGES, Place, rows_of
from llama2_spec.model import ModelConfig
from llama2_spec.reference import Reference, softmax
from llama2_spec.tensors import Tensor

MAX_TOKENS = 1 << 12        #: that are looked at: an eighth of stories260K's calibration text ranks its matrices as all
                            #: of it
MAX_LOGITS = 1 << 25        #: and of them no more than their logits take 256 MiB, twice


def costs(config: ModelConfig, tensors: Mapping[str, Tensor], texts: Sequence[Sequence[int]],
          formats: Mapping[Place, tuple[str, int]], *, progress: Progress = Progress.silent) -> dict[Place, float]:
    """Mean KL divergence in nats per token for every layer's matrix that ``formats`` has in q4, all others being
    float32."""
    limit = max(min(MAX_TOKENS, MAX_LOGITS // config.vocab_size), 1)
    texts = texts[::-(-sum(map(len, texts)) // limit)]
    model = Reference(config, tensors)
    streams = [model.tensors["embedding"][list(ids)] for ids in texts]
    wanted = [(logits, softmax(logits)) for logits in map(model.logits, texts)]
    tokens = sum(map(len, texts))
    out = {}
    with progress.bar("measuring sensitivity", config.n_layers * len(NAMES), "matrices", patience_s=1.0) as bar:
        for layer in range(config.n_layers):
            runs = [model.stages(layer, x) for x in streams]
            for kinds in STAGES.values():
                hessian = np.sum([(found.T @ found).astype(np.float64) for _, found, _ in map(next, runs)
                                  if found is not None], axis=0)
                for kind in kinds:
                    format, group = formats[kind, layer]
                    if format == "q4":
                        real = gptq.quantise(rows_of(tensors, kind, layer), hessian, group=group,
                                             damping=DAMPING).real()
                        names = [f"layers.{layer}.{name}" for name in NAMES[kind]]
                        exact = {name: model.tensors[name] for name in names}
                        model.tensors.update((name, real[i::len(names)]) for i, name in enumerate(names))
                        out[kind, layer] = sum(_divergence(model, layer, x, *pair)
                                               for x, pair in zip(streams, wanted)) / tokens
                        model.tensors.update(exact)
                    bar.update(bar.done + 1)
            streams = [x for _, _, x in map(next, runs)]
    return out


def _divergence(model, layer, x, logits, probabilities):
    """KL divergence summed over a text that enters ``layer`` as ``x``."""
    for following in range(layer, model.config.n_layers):
        x = model.block(following, x)
    change = model.classify(x) - logits
    # log(sum(p * exp(change))) - sum(p * change): no difference of large numbers, so float32 will do.
    mean = np.einsum("tv,tv->t", probabilities, change)
    rise = np.einsum("tv,tv->t", probabilities, np.expm1(change, out=change))
    return float((np.log1p(rise.astype(np.float64)) - mean).sum())
