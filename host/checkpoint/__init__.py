"""Loads a trained model from a file: `load(path)` gives its shape and float32 tensors, whatever the format.

Formats are modules with `matches(head)` and `read(data, path)`; a further one joins `READERS`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from host.checkpoint import foreign, legacy, versioned
from host.checkpoint.errors import CheckpointError
from host.tokenizer import Tokenizer
from spec.model import ModelConfig

__all__ = ["Checkpoint", "CheckpointError", "load"]

# Asked in turn with the first bytes of the file. v0 has no magic and comes last.
READERS = [versioned, foreign, legacy]
HEAD_BYTES = 64


@dataclass
class Checkpoint:
    """A model as its file describes it.

    ``tensors`` are float32, [out][in], read-only views of the mapped file where the format allows:
    ``embedding``, ``layers.{i}.`` ``attention_norm wq wk wv wo ffn_norm w1 w3 w2``, ``final_norm``, and
    ``classifier`` if it is not tied to the embedding.
    """
    config: ModelConfig
    tensors: dict[str, np.ndarray]
    source: str                         #: name of the format
    #: quantised formats: int8 codes [out][in], scales over the flattened codes, group size
    groups: dict[str, tuple[np.ndarray, np.ndarray, int]] | None = None
    tokenizer: Tokenizer | None = None  #: if its file was given to ``load``

    @property
    def n_parameters(self) -> int:
        """Weights in the file; a tied classifier counts once."""
        return sum(tensor.size for tensor in self.tensors.values())


def load(path: str | Path, tokenizer: str | Path | None = None) -> Checkpoint:
    """Read a checkpoint, and its tokenizer if a file is named; its size is checked against the model."""
    path = Path(path)
    try:
        if not path.is_file():
            what = "is not a file" if path.exists() else "no such file"
            raise CheckpointError(f"{path}: {what}: expected a llama2.c checkpoint, check the path")
        if path.stat().st_size == 0:
            raise CheckpointError(f"{path}: empty file: expected a llama2.c checkpoint, copy or export it again")
        data = np.asarray(np.memmap(path, np.uint8, mode="r"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}: check the path and its permissions") from None
    head = bytes(data[:HEAD_BYTES])
    reader = next(reader for reader in READERS if reader.matches(head))
    source, config, tensors, groups = reader.read(data, path)
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise CheckpointError(f"{path}: tensor {name} holds values that are no numbers, expected finite weights: "
                                  "copy or export the file again")
    vocabulary = Tokenizer.load(tokenizer, config.vocab_size) if tokenizer is not None else None
    return Checkpoint(config, tensors, source, groups, vocabulary)
