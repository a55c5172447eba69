"""Rounds a matrix to 4 bits so that its *products* change least: searched grids, GPTQ, and a few sweeps of repair.

All arrays are float64 and every step is a plain numpy operation in a fixed order, so the same inputs give the same codes.

# Ref: Frantar et al. 2022, GPTQ
"""
import numpy as np

from spec import packing
from spec.numerics import SCALE_BITS
from spec.packing import Quantised

TOP = 15                        #: largest q4 code, and zero point
BLOCK = 128                     #: columns whose errors reach the rest in one product
SHRINK = np.linspace(0.6, 1.0, 21)      #: of the range between a group's extremes
SWEEPS = 3


def grid(weights: np.ndarray, importance: np.ndarray, group: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Mantissas and zero points (rows, groups), and the tensor's exponent, of least squared error.

    weights: (rows, columns); importance: (columns,), how much a column's error counts.
    """
    rows, columns = weights.shape
    groups = -(-columns // group)
    blocks, worth = np.zeros((rows, groups * group)), np.zeros(groups * group)
    blocks[:, :columns], worth[:columns] = weights, importance
    blocks, worth = blocks.reshape(rows, groups, group), worth.reshape(groups, group)
    range_, low = packing.group_scales(blocks, "q4")
    whole, exponent = packing.scale_mantissas(range_)
    best = np.full((rows, groups), np.inf)
    mantissas, zeros = np.zeros((rows, groups)), np.zeros((rows, groups))
    for shrink in SHRINK:
        mantissa = np.clip(np.round(whole * shrink), 1, (1 << SCALE_BITS) - 1)
        step = mantissa * 2.0 ** exponent
        for zero in (np.floor(-low * shrink / step), np.floor(-low * shrink / step) + 1):
            zero = np.clip(zero, 0, TOP)
            codes = np.clip(np.round(blocks / step[:, :, None]) + zero[:, :, None], 0, TOP)
            errors = (codes - zero[:, :, None]) * step[:, :, None] - blocks
            loss = np.einsum("rgk,rgk,gk->rg", errors, errors, worth)
            better = loss < best
            best = np.where(better, loss, best)
            mantissas, zeros = np.where(better, mantissa, mantissas), np.where(better, zero, zeros)
    return mantissas, zeros, exponent


def quantise(weights: np.ndarray, hessian: np.ndarray, *, group: int, damping: float) -> Quantised:
    """The q4 tensor whose products with the inputs that ``hessian`` sums up are nearest to those of ``weights``.

    weights: (rows, columns); hessian: inputs.T @ inputs, (columns, columns). ``damping`` times its mean diagonal is added.
    """
    weights = np.asarray(weights, np.float64)
    rows, columns = weights.shape
    hessian = damped(hessian, damping)
    worth = np.diag(hessian)
    mantissas, zeros, exponent = grid(weights, worth, group)
    steps = np.repeat(mantissas * 2.0 ** exponent, group, axis=1)[:, :columns]
    spread = np.repeat(zeros, group, axis=1)[:, :columns]
    order = np.argsort(-worth, kind="stable")           # the columns that matter most see the least of others' errors
    codes = np.empty((rows, columns))
    codes[:, order] = _feed_forward(weights[:, order], hessian[np.ix_(order, order)], steps[:, order], spread[:, order])
    for _ in range(SWEEPS):
        _sweep(weights, hessian, steps, spread, codes)
    return Quantised("q4", group, codes.astype(np.int16), zeros.astype(np.int16), mantissas.astype(np.int16), exponent)


def damped(hessian: np.ndarray, damping: float) -> np.ndarray:
    """With ``damping`` times the mean of its diagonal added; an input that is always zero counts as ordinary."""
    hessian = np.array(hessian, np.float64)
    diagonal = np.einsum("ii->i", hessian)
    mean = diagonal.mean() or 1.0
    diagonal[diagonal == 0] = mean
    diagonal += damping * mean
    return hessian


def _feed_forward(weights, hessian, steps, zeros):
    """GPTQ: round column by column, and let the columns that are left make up for each one's error."""
    weights = weights.copy()
    columns = weights.shape[1]
    # Upper triangular with inverse = factor.T @ factor: row i is how column i's error is best spread over those after it.
    factor = np.linalg.cholesky(np.linalg.inv(hessian)).T
    codes = np.empty_like(weights)
    for start in range(0, columns, BLOCK):
        end = min(start + BLOCK, columns)
        errors = np.empty((len(weights), end - start))
        for i in range(start, end):
            codes[:, i] = np.clip(np.round(weights[:, i] / steps[:, i]) + zeros[:, i], 0, TOP)
            error = (weights[:, i] - (codes[:, i] - zeros[:, i]) * steps[:, i]) / factor[i, i]
            weights[:, i + 1:end] -= error[:, None] * factor[i, i + 1:end]
            errors[:, i - start] = error
        weights[:, end:] -= errors @ factor[start:end, end:]
    return codes


def _sweep(weights, hessian, steps, zeros, codes):
    """Move every code, one column after another, to where the error of the whole row is least."""
    gradient = (weights - (codes - zeros) * steps) @ hessian
    for i in range(weights.shape[1]):
        wanted = codes[:, i] + gradient[:, i] / (hessian[i, i] * steps[:, i])
        moved = np.clip(np.round(wanted), 0, TOP)
        gradient -= ((moved - codes[:, i]) * steps[:, i])[:, None] * hessian[i]
        codes[:, i] = moved
