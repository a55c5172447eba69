"""Attention of many positions at once, for golden's speed: :func:`spec.golden.attend`, bit for bit, without its loop over rows.

The running sums of online softmax shift down whenever a maximum rises. Between two such events they are plain sums, so each
segment is one matrix product; all values stay integers below 2**53 in float64, which is exact.
"""
import numpy as np

from spec.numerics import HEADROOM, ROW_FRACTION, floor_shift, round_shift, saturate
from spec.tables import reciprocals, weight

MAX_SCORES = 1 << 21        #: scores held at once: 16 MiB an array
MASKED = -(1 << 40)         #: a score's integer part that raises nothing


class Cache:
    """The K and V rows of one layer, in order of position; ``len()`` is how many there are."""

    def __init__(self, kv_heads: int, head_dim: int):
        self.rows = 0
        self._arrays = tuple(np.zeros((kv_heads, 0, *tail), np.int16) for tail in ((head_dim,), (), (head_dim,), ()))

    def __len__(self) -> int:
        return self.rows

    def store(self, position: int, *rows: np.ndarray) -> None:
        """Write k (n, kv_heads, head_dim), its exponents (n, kv_heads), v and its exponents; later rows are dropped."""
        if position > self.rows:
            raise ValueError(f"position {position}: {self.rows} rows are cached")
        end = position + len(rows[0])
        if end > self._arrays[0].shape[1]:
            more = max(end, 2 * self.rows) - self._arrays[0].shape[1]
            self._arrays = tuple(np.pad(a, [(0, 0), (0, more)] + [(0, 0)] * (a.ndim - 2)) for a in self._arrays)
        for array, new in zip(self._arrays, rows):
            array[:, position:end] = new.swapaxes(0, 1)
        self.rows = end

    def upto(self, end: int) -> tuple[np.ndarray, ...]:
        """k (kv_heads, end, head_dim), its exponents (kv_heads, end), v and its exponents: int16."""
        return tuple(a[:, :end] for a in self._arrays)

    def __getitem__(self, position: int) -> tuple[np.ndarray, ...]:
        """One position's k (kv_heads, head_dim), its exponents (kv_heads,), v and its exponents, as int64."""
        if not 0 <= position < self.rows:
            raise IndexError(f"position {position}: {self.rows} rows are cached")
        return tuple(a[:, position].astype(np.int64) for a in self._arrays)


def attend_block(q, q_exponents, cache: Cache, position: int, n_rep: int, score_scale) -> np.ndarray:
    """Attention of ``n`` queries from ``position`` on, each over all rows up to its own; (n, heads, head_dim), 48 bits.

    q: (n, heads, head_dim) mantissas; q_exponents: (n, heads).
    """
    n, heads, _ = q.shape
    out = np.empty(q.shape, np.int64)
    part = max(1, MAX_SCORES // (heads * (position + n)))
    for at in range(0, n, part):
        out[at:at + part] = _attend(q[at:at + part], q_exponents[at:at + part], cache, position + at, n_rep, score_scale)
    return out


def _attend(q, q_exponents, cache, position, n_rep, score_scale):
    n, heads, head_dim = q.shape
    kv, end = heads // n_rep, position + n
    k, ke, v, ve = cache.upto(end)
    ke, ve = ke.astype(np.int64), ve.astype(np.int64)

    def by_kv_head(x):
        """(n, heads, ...) as (kv, n * n_rep, ...): the queries that read the same rows."""
        return np.moveaxis(x.reshape(n, kv, n_rep, *x.shape[2:]), 1, 0).reshape(kv, n * n_rep, *x.shape[2:])
    t, last = np.arange(end), np.repeat(position + np.arange(n), n_rep)[:, None]
    future = t > last
    mantissa, exponent = score_scale
    dots = np.matmul(by_kv_head(q).astype(np.float64), k.astype(np.float64).swapaxes(1, 2)).astype(np.int64)
    shift = 2 * ROW_FRACTION - 16 - exponent - by_kv_head(q_exponents)[:, :, None] - ke[:, None, :]
    score = saturate(round_shift(dots * mantissa, np.maximum(shift, 0)), 32)
    maximum = running_maximum(np.where(future, MASKED, score >> 16))
    # A row past a query's own position must lift nothing.
    top = np.maximum.accumulate(ve, axis=1)[:, np.minimum(t, last)]
    p = np.where(future, 0, weight(np.where(future, 0, score - (maximum << 16))))
    weights = round_shift(p, np.maximum(top - ve[:, None, :], 0)).astype(np.float64)
    rise, fall = np.diff(maximum, axis=2, prepend=maximum[:, :, :1]), np.diff(maximum + top, axis=2)
    fall = np.pad(fall, [(0, 0), (0, 0), (1, 0)])
    segment = np.cumsum(fall > 0, axis=2)
    v = v.astype(np.float64)
    mass, acc = np.zeros(segment.shape[:2], np.int64), np.zeros((kv, n * n_rep, head_dim), np.int64)
    for s in range(int(segment.max()) + 1):
        here = segment == s
        starts = here & (fall > 0)
        mass = floor_shift(mass, (rise * starts).sum(axis=2)) + (p * here).sum(axis=2)
        acc = floor_shift(acc, (fall * starts).sum(axis=2)[:, :, None])
        acc += np.matmul(weights * here, v).astype(np.int64)     # at most 2**16 rows of 2**31: 2**47, exact
    r, s = reciprocals(mass)
    s = s[:, :, None]
    a = np.where(s >= 0, round_shift(acc, np.maximum(s, 0)), acc << np.maximum(-s, 0))      # at most 2**31
    out = round_shift(a * r[:, :, None], 16) << top[:, :, -1:]
    return np.moveaxis(out.reshape(kv, n, n_rep, head_dim), 0, 1).reshape(n, heads, head_dim)


def running_maximum(scores) -> np.ndarray:
    """The reference exponent at each row, (..., rows): one above a score's integer part, once that exceeds it by HEADROOM."""
    t = np.arange(scores.shape[-1])
    maximum = np.broadcast_to(scores[..., :1] + 1, scores.shape)
    while (above := scores >= maximum + HEADROOM).any():
        first = above.argmax(axis=-1)[..., None]
        raised = np.take_along_axis(scores, first, axis=-1) + 1
        maximum = np.where(above.any(axis=-1, keepdims=True) & (t >= first), raised, maximum)
    return maximum
