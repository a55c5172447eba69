"""Loads a trained model from a file: `load(path)` gives its shape and float32 tensors, whatever the format.

Files of llama2.c are modules with `matches(head)` and `read(data, path)`; folders and files that hold tensors by name
(safetensors, GGUF) have readers of their own, which leave the tensors in the file until they are sliced.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llama2_host.checkpoint import foreign, gguf, huggingface, legacy, shards, versioned
from llama2_host.checkpoint.errors import CheckpointError
from llama2_spec.model import ModelConfig
from llama2_spec.packing import Native
from llama2_spec.tensors import Tensor

__all__ = ["Checkpoint", "CheckpointError", "load"]

# Asked in turn with the first bytes of the file. v0 has no magic and comes last.
READERS = [gguf, versioned, foreign, legacy]
HEAD_BYTES = 64
EXPECTED = "a checkpoint of llama2.c, a GGUF file or a folder with safetensors"


@dataclass
class Checkpoint:
    """A model as its file describes it.

    ``tensors`` are float32, [out][in], still in the file (:class:`llama2_host.checkpoint.lazy.Rows`), checked when they
    are read: ``embedding``, ``layers.{i}.`` ``attention_norm wq wk wv wo ffn_norm w1 w3 w2``, ``final_norm``, and
    ``classifier`` if it is not tied to the embedding.
    """
    config: ModelConfig
    tensors: Mapping[str, Tensor]
    source: str                         #: name of the format
    groups: Mapping[str, Native] | None = None      #: codes and scales of matrices that the file holds quantised
    window: int | None = None           #: positions that attention looks back; a context within them is plain LLaMA
    ignored: tuple[str, ...] = ()       #: what the file says that does not count, for people

    @property
    def n_parameters(self) -> int:
        """Weights in the file; a tied classifier counts once."""
        return sum(tensor.size for tensor in self.tensors.values())


def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint.

    ``path`` is a file of llama2.c or GGUF, a safetensors file beside its config.json, or the folder of both.
    """
    path = Path(path)
    source, config, tensors, groups, *more = _read(path)
    return Checkpoint(config, tensors, source, groups, **(more[0] if more else {}))


def _read(path: Path):
    if path.is_dir():
        return huggingface.read(path)
    try:
        if not path.is_file():
            what = "is not a file" if path.exists() else "no such file"
            raise CheckpointError(f"{path}: {what}: expected {EXPECTED}, check the path")
        if path.stat().st_size == 0:
            raise CheckpointError(f"{path}: empty file: expected {EXPECTED}, copy or export it again")
        data = np.asarray(np.memmap(path, np.uint8, mode="r"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}: check the path and its permissions") from None
    head = bytes(data[:HEAD_BYTES])
    if shards.is_safetensors(head):
        return huggingface.read(path.parent, path)
    reader = next(reader for reader in READERS if reader.matches(head))
    return reader.read(data, path)
