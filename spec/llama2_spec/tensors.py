"""Types of a tensor for code that only looks at its shape and slices its rows: an array, or one that stays in its
file."""
from typing import Protocol

import numpy as np


class HasRows(Protocol):
    """An array, or a tensor in a file; a slice of its rows is an array."""
    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: slice, /) -> np.ndarray: ...


class Tensor(HasRows, Protocol):
    """An array of float32, or an object that :func:`numpy.asarray` makes one of."""
    @property
    def ndim(self) -> int: ...

    @property
    def size(self) -> int: ...
