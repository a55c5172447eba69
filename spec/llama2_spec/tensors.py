"""What a tensor is to those who only look at its shape and slice its rows: an array, or what stays in its file until
then."""
from typing import Protocol

import numpy as np


class HasRows(Protocol):
    """An array, or what stays in its file: a slice of its rows is an array."""
    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: slice, /) -> np.ndarray: ...


class Tensor(HasRows, Protocol):
    """An array of float32, or what becomes one by :func:`numpy.asarray`."""
    @property
    def ndim(self) -> int: ...

    @property
    def size(self) -> int: ...
