"""Opens a GGUF file: its values by name and where its tensors lie; damage and endless counts are refused in one
line."""
# Ref: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from llama2_host.checkpoint.errors import CheckpointError

MAGIC = b"GGUF"
MAX_ITEMS = 1 << 22         #: items of an array; a vocabulary of a million with its merges is below it


@dataclass(frozen=True)
class Stored:
    """The place and type of a tensor in its file."""
    type: str                   #: as the format names it: F32, Q8_0, Q4_K...
    shape: tuple[int, ...]      #: [out][in], reversed from the file's order
    offset_bytes: int
    row_bytes: int


class GgufFile:
    """``value(name)`` of the metadata, None where absent, and ``tensors`` by name."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self._reader = _reader(path)
            self.tensors = {tensor.name: _stored(tensor, path) for tensor in self._reader.tensors}
        except CheckpointError:
            raise
        except OSError as error:
            raise CheckpointError(
                f"{path}: cannot be read: {error.strerror}: check the path and its permissions") from None
        # The package's reader trusts the file: damage can raise any exception of numpy or Python.
        except Exception as error:
            raise CheckpointError(f"{path}: damaged GGUF file ({_line(error)}): copy or download it again") from None

    @staticmethod
    def open(path: Path) -> "GgufFile":
        """Returns the same object as long as the file is the same, because weights, vocabulary and template open it in
        turn."""
        try:
            status = path.stat()
        except OSError as error:
            raise CheckpointError(
                f"{path}: cannot be read: {error.strerror}: check the path and its permissions") from None
        return _open(path, status.st_ino, status.st_mtime_ns, status.st_size)

    def value(self, name: str):
        """A number, text or list, or None."""
        field = self._reader.get_field(name)
        if field is None:
            return None
        try:
            return field.parts[-1] if isinstance(field.parts[-1], list) else field.contents()
        except Exception as error:
            raise CheckpointError(
                f"{self.path}: {name} is damaged ({_line(error)}): copy or download it again") from None

    def names(self) -> list[str]:
        return list(self._reader.fields)


@functools.lru_cache(maxsize=2)
def _open(path: Path, *_) -> GgufFile:
    return GgufFile(path)


def _reader(path: Path):
    from gguf import GGUFReader, GGUFValueType       # only these files need it

    class Reader(GGUFReader):
        """A stricter, faster reader: the package's takes a slice past the end for an empty value, trusts every count,
        and is slow on lists."""

        def _get(self, offset, dtype, count=1, override_order=None):
            values = super()._get(offset, dtype, count, override_order)
            if offset < 0 or len(values) != int(count):
                raise ValueError(f"truncated: it ends before byte {offset + int(count)}")
            return values

        def _get_field_parts(self, orig_offs, raw_type):
            if raw_type != GGUFValueType.ARRAY:
                return super()._get_field_parts(orig_offs, raw_type)
            kind = GGUFValueType(int(self._get(orig_offs, np.uint32)[0]))
            count = int(self._get(orig_offs + 4, np.uint64)[0])
            if count > MAX_ITEMS or kind == GGUFValueType.ARRAY:
                raise ValueError(f"an array of {count} items of type {kind.name}, expected at most {MAX_ITEMS}")
            if kind == GGUFValueType.STRING:
                items, end = self._texts(orig_offs + 12, count)
            else:
                values = self._get(orig_offs + 12, self.gguf_scalar_to_np[kind], count)
                items, end = values.tolist(), orig_offs + 12 + values.nbytes
            return end - orig_offs, [items], [0], [GGUFValueType.ARRAY, kind]

        def _texts(self, at, count):
            data: memoryview = self.data.data           # the array's own buffer
            order: Literal["little", "big"] = "little" if self.byte_order == "I" else "big"
            texts = []
            for _ in range(count):
                start = at + 8
                at = start + int.from_bytes(data[at:start], order)
                if at > len(data) or start > len(data):
                    raise ValueError(f"truncated: it ends before byte {at}")
                texts.append(str(data[start:at], "utf-8"))
            return texts, at
    return Reader(path)


def _stored(tensor, path: Path) -> Stored:
    from gguf.constants import GGML_QUANT_SIZES
    shape = tuple(int(length) for length in reversed(tensor.shape.tolist()))
    if 0 in shape:
        raise CheckpointError(f"{path}: tensor {tensor.name[:60]} has no elements: copy or download the file again")
    block, size = GGML_QUANT_SIZES[tensor.tensor_type]
    columns = shape[-1] if shape else 1
    row = columns // block * size
    rows = 1
    for length in shape[:-1]:
        rows *= length
    if columns % block or tensor.data_offset + rows * row > path.stat().st_size:
        raise CheckpointError(f"{path}: truncated GGUF file: tensor {tensor.name[:60]} ends at byte "
                              f"{tensor.data_offset + rows * row} of {path.stat().st_size}: copy or download it again")
    return Stored(tensor.tensor_type.name, shape, int(tensor.data_offset), row)


def _line(error) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
