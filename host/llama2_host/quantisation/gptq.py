"""Rounds a matrix to 4 bits so that its *products* change least: searched grids, GPTQ, and a few sweeps of repair.

Every step is a plain numpy operation in a fixed order, so the same inputs give the same codes. Work goes through blocks
of columns, so that nearly all of it is products of matrices; inside, arrays are (columns, rows): a column is
contiguous.

# Ref: Frantar et al. 2022, GPTQ
"""
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from llama2_host.quantisation.cores import cores
from llama2_spec import packing
from llama2_spec.numerics import SCALE_BITS
from llama2_spec.packing import Quantised

TOP = 15                        #: largest q4 code, and zero point
BLOCK = 48                      #: columns whose errors reach the rest in one product
SHRINK = np.linspace(0.6, 1.0, 21)      #: of the range between a group's extremes
SWEEPS = 3
SEARCHED = 1 << 15              #: weights whose grids are searched together: their arrays stay in the processor's cache


def grid(weights: np.ndarray, importance: np.ndarray, group: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Mantissas and zero points (rows, groups), and the tensor's exponent, of least squared error.

    weights: (rows, columns); importance: (columns,), how much a column's error counts.
    """
    rows, columns = weights.shape
    groups = -(-columns // group)
    blocks, worth = np.zeros((rows, groups * group)), np.zeros(groups * group, np.float32)
    blocks[:, :columns], worth[:columns] = weights, importance / (importance.max() or 1.0)
    blocks, worth = blocks.reshape(rows, groups, group), worth.reshape(groups, group).T[:, :, None]
    range_, low = packing.group_scales(blocks, "q4")
    whole, exponent = packing.scale_mantissas(range_)
    mantissas, zeros = np.zeros((rows, groups)), np.zeros((rows, groups))
    # In units of the tensor's exponent float32 holds any tensor's weights.
    low, unit = low / 2.0 ** exponent, 2.0 ** -exponent
    step = max(SEARCHED // (groups * group), 1)

    def search(at):
        part = slice(at, at + step)
        # (group, groups, rows)
        values = np.ascontiguousarray((blocks[part] * unit).transpose(2, 1, 0), np.float32)
        found = _search(values, worth, whole[part].T.astype(np.float32), low[part].T.astype(np.float32))
        mantissas[part], zeros[part] = (array.T for array in found)
    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(search, range(0, rows, step)))
    return mantissas, zeros, exponent


def _search(values, worth, whole, low):
    """The best of all grids: ``values`` (group, groups, rows), their full steps and lowest values (groups, rows)."""
    best = np.full(whole.shape, np.inf, np.float32)
    mantissas, zeros = np.zeros_like(whole), np.zeros_like(whole)
    codes, errors = np.empty_like(values), np.empty_like(values)
    for shrink in SHRINK.astype(np.float32):
        mantissa = np.clip(np.round(whole * shrink), 1, (1 << SCALE_BITS) - 1)
        nearest = np.round(values / mantissa)
        first = np.floor(-low * shrink / mantissa)
        for zero in (first, first + 1):
            zero = np.clip(zero, 0, TOP)
            np.clip(nearest, -zero, TOP - zero, out=codes)
            np.multiply(codes, mantissa, out=errors)
            errors -= values
            errors *= errors
            errors *= worth
            loss = errors.sum(axis=0)
            better = loss < best
            best = np.where(better, loss, best)
            mantissas, zeros = np.where(better, mantissa, mantissas), np.where(better, zero, zeros)
    return mantissas, zeros


def quantise(weights: np.ndarray, hessian: np.ndarray, *, group: int, damping: float) -> Quantised:
    """The q4 tensor whose products with the inputs that ``hessian`` sums up are nearest to those of ``weights``.

    weights: (rows, columns); hessian: inputs.T @ inputs, (columns, columns). ``damping`` times its mean diagonal is
    added.
    """
    weights = np.asarray(weights, np.float64)
    columns = weights.shape[1]
    hessian = damped(hessian, damping)
    worth = np.diag(hessian)
    mantissas, zeros, exponent = grid(weights, worth, group)
    steps = np.repeat((mantissas * 2.0 ** exponent).T, group, axis=0)[:columns]
    spread = np.repeat(zeros.T, group, axis=0)[:columns]
    weights = np.ascontiguousarray(weights.T)
    order = np.argsort(-worth, kind="stable")           # the columns that matter most see the least of others' errors
    codes = np.empty_like(weights)
    codes[order] = _feed_forward(weights[order], hessian[np.ix_(order, order)], steps[order], spread[order])
    for _ in range(SWEEPS):
        _sweep(weights, hessian, steps, spread, codes)
    return Quantised("q4", group, np.ascontiguousarray(codes.T.astype(np.int8)), zeros.astype(np.int16),
                     mantissas.astype(np.int16), exponent)


def damped(hessian: np.ndarray, damping: float) -> np.ndarray:
    """With ``damping`` times the mean of its diagonal added; an input that is always zero counts as ordinary."""
    hessian = np.array(hessian, np.float64)
    diagonal = np.einsum("ii->i", hessian)
    mean = diagonal.mean() or 1.0
    diagonal[diagonal == 0] = mean
    diagonal += damping * mean
    return hessian


def _feed_forward(weights, hessian, steps, zeros):
    """GPTQ: round column by column, and let the columns that are left make up for each one's error. (columns, rows)."""
    weights = weights.copy()
    columns = len(weights)
    # Upper triangular with inverse = factor.T @ factor: row i is how column i's error is best spread over those after
    # it.
    factor = np.linalg.cholesky(np.linalg.inv(hessian)).T
    codes = np.empty_like(weights)
    for start in range(0, columns, BLOCK):
        end = min(start + BLOCK, columns)
        errors = np.empty((end - start, weights.shape[1]))
        for i in range(start, end):
            codes[i] = np.clip(np.round(weights[i] / steps[i]) + zeros[i], 0, TOP)
            errors[i - start] = (weights[i] - (codes[i] - zeros[i]) * steps[i]) / factor[i, i]
            weights[i + 1:end] -= factor[i, i + 1:end, None] * errors[i - start]
        weights[end:] -= factor[start:end, end:].T @ errors
    return codes


def _sweep(weights, hessian, steps, zeros, codes):
    """Move every code, one column after another, to where the error of the whole row is least. (columns, rows)."""
    gradient = hessian @ (weights - (codes - zeros) * steps)
    for start in range(0, len(weights), BLOCK):
        end = min(start + BLOCK, len(weights))
        moves = np.empty((end - start, weights.shape[1]))
        for i in range(start, end):
            wanted = codes[i] + gradient[i] / (hessian[i, i] * steps[i])
            moved = np.clip(np.round(wanted), 0, TOP)
            moves[i - start] = (moved - codes[i]) * steps[i]
            gradient[i + 1:end] -= hessian[i, i + 1:end, None] * moves[i - start]
            codes[i] = moved
        gradient[end:] -= hessian[end:, start:end] @ moves
