"""Opens a GGUF file: its values by name and where its tensors lie; damage and endless counts are refused in one line."""
# Ref: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

from dataclasses import dataclass
from pathlib import Path

from host.checkpoint.errors import CheckpointError

MAGIC = b"GGUF"
MAX_ITEMS = 1 << 22         #: items of an array; a vocabulary of a million with its merges is below it
MAX_NESTING = 4


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies."""
    type: str                   #: as the format names it: F32, Q8_0, Q4_K...
    shape: tuple[int, ...]      #: [out][in], reversed from the file's order
    offset_bytes: int
    row_bytes: int


class GgufFile:
    """``values(name)`` of the metadata, None where absent, and ``tensors`` by name."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self._reader = _reader(path)
            self.tensors = {tensor.name: _stored(tensor, path) for tensor in self._reader.tensors}
        except CheckpointError:
            raise
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror}: check the path and its permissions") from None
        # Its reader trusts a file: damage shows as whichever exception numpy or Python happens to raise.
        except Exception as error:
            raise CheckpointError(f"{path}: damaged GGUF file ({_line(error)}): copy or download it again") from None

    def value(self, name: str):
        """A number, text or list, or None."""
        field = self._reader.get_field(name)
        if field is None:
            return None
        try:
            return field.contents()
        except Exception as error:
            raise CheckpointError(f"{self.path}: {name} is damaged ({_line(error)}): copy or download it again") from None

    def names(self) -> list[str]:
        return list(self._reader.fields)


def _reader(path: Path):
    from gguf import GGUFReader, GGUFValueType       # only these files need it

    class Reader(GGUFReader):
        """Its base takes a slice past the end for an empty value, and goes on for as long as a count says."""
        nesting = 0

        def _get(self, offset, dtype, count=1, override_order=None):
            values = super()._get(offset, dtype, count, override_order)
            if offset < 0 or len(values) != int(count):
                raise ValueError(f"truncated: it ends before byte {offset + int(count)}")
            return values

        def _get_field_parts(self, orig_offs, raw_type):
            if raw_type != GGUFValueType.ARRAY:
                return super()._get_field_parts(orig_offs, raw_type)
            import numpy as np
            count = int(self._get(orig_offs + 4, np.uint64)[0])
            if count > MAX_ITEMS or self.nesting >= MAX_NESTING:
                raise ValueError(f"an array of {count} items, expected at most {MAX_ITEMS}")
            self.nesting += 1
            try:
                return super()._get_field_parts(orig_offs, raw_type)
            finally:
                self.nesting -= 1
    return Reader(path)


def _stored(tensor, path: Path) -> Stored:
    from gguf.constants import GGML_QUANT_SIZES
    shape = tuple(int(length) for length in reversed(tensor.shape.tolist()))
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
