"""Gives tensors that stay in their file: their shape is known, and a slice reads its rows as float32."""
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from llama2_host.checkpoint.errors import CheckpointError


class RawFile:
    """A file that is read piece by piece. Nothing of it is mapped, so that memory holds only the piece in use."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self._file = open(path, "rb", buffering=0)
            self.size_bytes = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise CheckpointError(
                f"{path}: cannot be read: {error.strerror}: check the path and its permissions") from None

    def read(self, offset: int, count: int) -> np.ndarray:
        """``count`` bytes as uint8."""
        data = np.empty(count, np.uint8)
        done = 0
        self._file.seek(offset)
        while done < count:
            # numpy 1.26 does not say that arrays are buffers.
            view = memoryview(data)             # type: ignore[arg-type]
            size = self._file.readinto(view[done:])
            if not size:
                raise CheckpointError(f"{self.path}: truncated: no bytes at {offset + done}, a tensor ends at "
                                      f"{offset + count}: copy or export it again")
            done += size
        return data


class Rows:
    """A tensor of float32 rows that ``read(start, stop)`` fetches; a slice or :func:`numpy.asarray` calls it.

    A tensor of one dimension is one row per element. Values that are no numbers raise :class:`CheckpointError`.
    """

    def __init__(self, name: str, path: Path, shape: tuple[int, ...], read: Callable[[int, int], np.ndarray]):
        self.name, self.path, self.shape, self._read = name, path, tuple(shape), read

    dtype = np.dtype(np.float32)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, step = rows.indices(self.shape[0])
        if step != 1:
            raise ValueError("rows are read one after the other: a slice has no step")
        values = self._read(start, max(start, stop))
        if not np.isfinite(values).all():
            raise CheckpointError(f"{self.path}: tensor {self.name} holds values that are no numbers, expected finite "
                                  "weights: copy or export the file again")
        return values.reshape(-1, *self.shape[1:])

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self[:].astype(dtype or np.float32, copy=False)

    def named(self, name: str) -> "Rows":
        """The same rows under the name that callers know."""
        return Rows(name, self.path, self.shape, self._read)

    def interleaved(self, head_dim: int) -> "Rows":
        """Rows of wq or wk in the order of llama2.c, where the file has each head's first halves of the pairs first."""
        half = head_dim // 2

        def read(start, stop):
            first = start // head_dim * head_dim        # heads are read whole
            last = -(-stop // head_dim) * head_dim
            heads = self._read(first, last).reshape(-1, 2, half, self.shape[1])
            return heads.transpose(0, 2, 1, 3).reshape(last - first, -1)[start - first:stop - first]
        return Rows(self.name, self.path, self.shape, read)


def float_rows(name: str, file: RawFile, offset_bytes: int, shape: tuple[int, ...]) -> Rows:
    """A tensor that lies in the file as float32, little-endian."""
    columns = int(np.prod(shape[1:], dtype=np.int64))
    return Rows(name, file.path, shape, lambda start, stop: file.read(
        offset_bytes + 4 * start * columns, 4 * (stop - start) * columns).view("<f4").astype(np.float32, copy=False))


class FlatGroups:
    """int8 codes in groups that run over a whole tensor, each with a scale; :meth:`reshape` makes it rows."""

    def __init__(self, name: str, path: Path, codes: np.ndarray, scales: np.ndarray, group_size: int):
        self.name, self.path, self.codes, self.scales, self.group_size = name, path, codes, scales, group_size

    def reshape(self, shape: tuple[int, ...]) -> Rows:
        def read(start, stop):
            first, last = start * shape[1], stop * shape[1]
            # rows may begin and end within one
            groups = slice(first // self.group_size, -(-last // self.group_size))
            codes = self.codes[groups.start * self.group_size:groups.stop * self.group_size]
            codes = codes.reshape(-1, self.group_size)
            with np.errstate(over="ignore", invalid="ignore"):  # damaged scales: Rows refuses what is not finite
                weights = codes * self.scales[groups, None]
            return weights.reshape(-1)[first - groups.start * self.group_size:][:last - first]
        return Rows(self.name, self.path, shape, read)


def equal(a: Rows, b: Rows) -> bool:
    """Returns whether two tensors hold the same; it reads a million weights at a time."""
    step = max((1 << 20) // max(a.size // max(len(a), 1), 1), 1) if a.shape and a.size else 1
    return a.shape == b.shape and bool(a.shape) and all(
        np.array_equal(a[row:row + step], b[row:row + step]) for row in range(0, len(a), step))
