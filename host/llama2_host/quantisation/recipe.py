"""Turns the user's wish (q8, q4 or mixed, calibration text, budget) into a plan for the image."""
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llama2_host import corpus
from llama2_host.checkpoint import Checkpoint
from llama2_host.errors import HostError
from llama2_host.progress import Progress, quantity
from llama2_host.quantisation import calibration, sensitivity
from llama2_host.quantisation.budget import Budget
from llama2_host.quantisation.calibration import Place
from llama2_host.tokenizer.base import Tokenizer
from llama2_spec import image
from llama2_spec.image import Kind
from llama2_spec.model import ModelConfig
from llama2_spec.packing import Quantised

FORMATS = ("q8", "q4", "mixed")
MATRIX_FORMATS = ("q8", "q4")
DEFAULT_BUDGET = "6bits"
LAYER_BITS = 5.25               #: without a budget, what is left for a weight of the layers at least, however large the
                                #: embedding
MAX_TOKENS = 1 << 16            #: of calibration text
MAX_WORK = 3 << 39              #: tokens times weights: 12,000 tokens for 135 million weights, minutes on two cores
FEW_TOKENS = 1 << 13            #: enough even for a large model
MAX_SEQUENCE = 512              #: positions


@dataclass(frozen=True)
class Recipe:
    """The user's choices for turning a checkpoint into codes.

    format : q8; q4, where embedding and classifier keep ``embedding``; or mixed, q4 with as much q8 as ``budget``
    allows.
    calibrate : text that q4 is rounded for; without it q4 rounds to nearest, and mixed is refused.
    budget : see :class:`llama2_host.quantisation.budget.Budget`.
    allow_loss : convert although whole rows of weights are lost (:mod:`llama2_host.quantisation.loss`).
    """
    format: str = "q8"
    group: int | None = None
    embedding: str = "q8"
    calibrate: Path | None = None
    budget: str | None = None
    allow_loss: bool = False

    def check(self) -> None:
        """Raise one line for a wish that makes no sense."""
        if self.calibrate is not None and self.format == "q8":
            raise HostError("--calibrate is for --format q4 and mixed: q8 is as good without")
        if self.budget is not None and self.format != "mixed":
            raise HostError(f"--budget is for --format mixed, not {self.format}")
        if self.format == "mixed" and self.calibrate is None:
            raise HostError("--format mixed needs --calibrate FILE: a text like those the model will write, to measure "
                            "on it which matrices bear 4 bits")
        if self.budget is not None:
            Budget.parse(self.budget)

    def formats(self, config: ModelConfig) -> dict[Place, tuple[str, int]]:
        """The (format, group) of every matrix, before a budget is spent."""
        layers = "q8" if self.format == "q8" else "q4"
        table = "q8" if self.format == "q8" else self.embedding
        out = {}
        for kind, layer, _ in image.order(config):
            if kind != Kind.GAIN:
                format = table if kind in (Kind.CLASSIFIER, Kind.EMBEDDING) else layers
                out[kind, layer] = format, self.group or image.GROUP[format]
        return out

    def expected_bytes(self, config: ModelConfig) -> int:
        """Length of the weight stream, before anything is converted; with a budget, all of it."""
        least = image.payload_bytes(config, "q8", plan=self.formats(config))
        if self.format != "mixed":
            return least
        return max(least, self.limit_bytes(config))

    def limit_bytes(self, config: ModelConfig) -> int:
        """The longest weight stream of mixed: the budget, or 6 bits a weight, and more if the embedding needs it."""
        if self.budget is not None:
            return Budget.parse(self.budget).stream_bytes(config)
        tables = [(place, chosen) for place, chosen in self.formats(config).items()
                  if place[0] in (Kind.CLASSIFIER, Kind.EMBEDDING)]
        layers = image.weights(config) - len(tables) * config.vocab_size * config.dim
        least = sum(image.tensor_bytes(config, place[0], *chosen)
                    for place, chosen in tables) + int(LAYER_BITS * layers / 8)
        return max(Budget.parse(DEFAULT_BUDGET).stream_bytes(config), least)


def plan(recipe: Recipe, source: Checkpoint, tokenizer: Tokenizer | None, *,
         progress: Progress = Progress.silent) -> dict[Place, tuple[str, int] | Quantised]:
    """The plan that tells :func:`llama2_spec.image.write` the format of every matrix; calibrated matrices are quantised
    already."""
    recipe.check()
    formats = recipe.formats(source.config)
    if recipe.calibrate is None:
        return dict(formats)
    if tokenizer is None:
        raise HostError("--calibrate needs the model's tokenizer: name it with --tokenizer")
    texts = _texts(recipe.calibrate, tokenizer, source.config)
    tensors = source.tensors        # still in their file, read layer by layer
    if recipe.format == "mixed":
        formats = _spend(recipe, source.config, tensors, texts, formats, progress)
    names = {(kind, layer): names for kind, layer, names in image.order(source.config)}

    def given(place: Place) -> Quantised | None:
        """A tensor that needs no calibration: in q8, the embedding's, or in q4 in the file."""
        format, group = formats[place]
        table = place[0] in (Kind.CLASSIFIER, Kind.EMBEDDING)
        if format == "q8" or table or image.native(names[place], format, source.groups):
            return image.quantised(tensors, names[place], format, group, source.groups)
        return None
    return formats | calibration.calibrated(source.config, tensors, texts, formats, given=given, progress=progress)


def _texts(path: Path, tokenizer: Tokenizer, config: ModelConfig) -> list[list[int]]:
    texts = corpus.sequences(path, tokenizer, min(config.seq_len, MAX_SEQUENCE))
    total, limit = sum(map(len, texts)), min(MAX_TOKENS, max(MAX_WORK // image.weights(config), FEW_TOKENS))
    if total > limit:                               # every so many-th, so that all of the file is heard
        texts = texts[::-(-total // limit)]
    return texts


def _spend(recipe, config, tensors, texts, formats: Mapping[Place, tuple[str, int]],
           progress) -> dict[Place, tuple[str, int]]:
    """Raise matrices to q8, those first whose 4 bits cost most per byte saved, while the budget lasts."""
    chosen = dict(formats)
    limit = recipe.limit_bytes(config)
    used = image.payload_bytes(config, "q4", plan=chosen)
    if used > limit:
        raise HostError(f"--budget {recipe.budget or DEFAULT_BUDGET} is {quantity(limit)} of weights, all matrices in "
                        f"q4 with the embedding in {recipe.embedding} take {quantity(used)}: allow more"
                        + (", or add --embedding q4" if recipe.embedding != "q4" else ", or use a smaller model"))
    better = ("q8", recipe.group or image.GROUP["q8"])
    costs = sensitivity.costs(config, tensors, texts, chosen, progress=progress)
    extra = {place: image.tensor_bytes(config, place[0], *better) - image.tensor_bytes(config, place[0], *chosen[place])
             for place in costs}
    for place in sorted(costs, key=lambda place: -costs[place] / extra[place]):
        if used + extra[place] <= limit and costs[place] > 0:
            chosen[place], used = better, used + extra[place]
    kept = [place for place, (format, _) in chosen.items() if format == "q4"]
    progress.note(f"mixed: {len(chosen) - len(kept)} of {len(chosen)} matrices in q8, {quantity(used)} of "
                  f"{quantity(limit)}")
    return chosen
