"""Attention of many positions at once, for golden's speed: :func:`llama2_spec.golden.attend`, bit for bit, without its
loop over rows.

The running sums of online softmax shift down whenever a maximum rises. Between two such events they are plain sums, so
each segment is one matrix product; all values stay integers below 2**53 in float64, which is exact. Rows are taken in
chunks that stay in the processor's cache; most have no such event.
"""
from functools import cache

import numpy as np

from llama2_spec.numerics import HEADROOM, ROW_FRACTION, floor_shift, round_shift
from llama2_spec.tables import EXP2, reciprocals, weight

MAX_SCORES = 1 << 16        #: scores held at once: 512 KiB an array
MASKED = -(1 << 40)         #: integer part of a score that no maximum follows


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


def attend_block(q, q_exponents, rows: Cache, position: int, n_rep: int, score_scale) -> np.ndarray:
    """Attention of ``n`` queries from ``position`` on, each over all rows up to its own; (n, heads, head_dim), 48 bits.

    q: (n, heads, head_dim) mantissas; q_exponents: (n, heads).
    """
    n, heads, head_dim = q.shape
    kv = heads // n_rep

    def by_kv_head(x):
        """(n, heads, ...) as (kv, n * n_rep, ...): the queries that read the same rows."""
        return np.moveaxis(x.reshape(n, kv, n_rep, *x.shape[2:]), 1, 0).reshape(kv, n * n_rep, *x.shape[2:])
    scores = Scores(by_kv_head(q), by_kv_head(np.asarray(q_exponents)), score_scale)
    last = np.repeat(position + np.arange(n), n_rep)
    sums: Sums | None = None
    part = max(1, MAX_SCORES // (heads * n))
    for at in range(0, position + n, part):
        k, ke, v, ve = (array[:, at:at + part] for array in rows.upto(position + n))
        ve, score = ve.astype(np.int64), scores(k, ke.astype(np.int64))
        sums = sums or Sums(score[:, :, 0], np.repeat(ve[:, :1], n * n_rep, axis=1), head_dim)
        if at + k.shape[1] - 1 > position or not sums.add(score, v, ve):
            sums.add_with_events(score, v, ve, at + np.arange(k.shape[1]) > last[:, None])
    assert sums is not None                     # there is at least one row
    return np.moveaxis(sums.average().reshape(kv, n, n_rep, head_dim), 0, 1).reshape(n, heads, head_dim)


class Scores:
    """Scores of queries (kv, m, head_dim) over rows, in log2 units, Q16.16, as integers in float64."""

    def __init__(self, q, q_exponents, score_scale):
        self.mantissa, exponent = score_scale
        self.q, self.shift = q.astype(np.float64), 2 * ROW_FRACTION - 16 - exponent - q_exponents[:, :, None]
        # 2**31 * 2**15 * head_dim: up to 2**52 a half can be added without a rounding
        self.exact = q.shape[2] <= 64
        self.scaled = np.ldexp(self.q * self.mantissa, -self.shift)

    def __call__(self, k, k_exponents) -> np.ndarray:
        """(kv, m, rows) for k (kv, rows, head_dim)."""
        k = k.astype(np.float64)
        if self.exact and self.shift.min() >= k_exponents.max():        # no shift is clamped
            score = np.matmul(self.scaled, np.ldexp(k, k_exponents[:, :, None]).swapaxes(1, 2))
            score += 0.5
            np.floor(score, out=score)
        else:
            dots = np.matmul(self.q, k.swapaxes(1, 2)).astype(np.int64)
            score = round_shift(dots * self.mantissa,
                                np.maximum(self.shift - k_exponents[:, None, :], 0)).astype(np.float64)
        return np.clip(score, -2.0 ** 31, 2.0 ** 31 - 1, out=score)


class Sums:
    """Running sums of queries: maximum, largest V exponent and mass (kv, m), weighted sums (kv, m, head_dim)."""

    def __init__(self, first, top, head_dim: int):
        """``first``: the scores of the first row, ``top``: its V's exponents."""
        self.maximum, self.top = integer_part(first) + 1, top
        self.mass, self.sums = np.zeros(top.shape, np.int64), np.zeros((*top.shape, head_dim), np.int64)

    def add(self, score, v, ve) -> bool:
        """Add rows that every query sees. Returns False, and adds none, if they raise a maximum or V's largest
        exponent."""
        lowered = self.top[:, :1] - ve                  # every query has seen the same rows so far
        if (score.max(axis=2) >= 65536.0 * (self.maximum + HEADROOM)).any() or (lowered < 0).any():
            return False
        score -= 65536.0 * self.maximum[:, :, None]
        d = np.maximum(score, -30.0 * 65536).astype(np.int32)       # 2**-30 rounds to 0
        p = exp2_fractions()[d & 0xffff]
        p >>= 1 - (d >> 16)                             # weight(), of twice the mantissa
        p += 1
        p >>= 1
        self.mass += p.sum(axis=2, dtype=np.int64)
        if lowered.any():
            p <<= 1
            p >>= np.minimum(lowered, 31).astype(np.int32)[:, None, :]
            p += 1
            p >>= 1
        self.sums += np.matmul(p.astype(np.float64), v.astype(np.float64)).astype(np.int64)
        return True

    def add_with_events(self, score, v, ve, future) -> None:
        """Add rows. Those that are ``future`` (m, rows) to a query change none of its sums and maxima."""
        score = score.astype(np.int64)
        maximum = running_maximum(np.where(future, MASKED, score >> 16), self.maximum)
        top = np.maximum(np.maximum.accumulate(np.where(future, 0, ve[:, None, :]), axis=2), self.top[:, :, None])
        p = np.where(future, 0, weight(np.where(future, 0, score - (maximum << 16))))
        weights = round_shift(p, np.maximum(top - ve[:, None, :], 0)).astype(np.float64)
        rise = np.diff(maximum, axis=2, prepend=self.maximum[:, :, None])
        fall = np.diff(maximum + top, axis=2, prepend=(self.maximum + self.top)[:, :, None])
        segment = np.cumsum(fall > 0, axis=2)
        v = v.astype(np.float64)
        for s in range(int(segment.max()) + 1):
            here = segment == s
            starts = here & (fall > 0)
            self.mass = floor_shift(self.mass, (rise * starts).sum(axis=2)) + (p * here).sum(axis=2)
            self.sums = floor_shift(self.sums, (fall * starts).sum(axis=2)[:, :, None])
            self.sums += np.matmul(weights * here, v).astype(np.int64)      # at most 2**16 rows of 2**31: 2**47, exact
        self.maximum, self.top = maximum[:, :, -1], top[:, :, -1]

    def average(self) -> np.ndarray:
        """(kv, m, head_dim), 48 bits."""
        r, s = reciprocals(self.mass)
        s = s[:, :, None]
        # at most 2**31
        a = np.where(s >= 0, round_shift(self.sums, np.maximum(s, 0)), self.sums << np.maximum(-s, 0))
        return round_shift(a * r[:, :, None], 16) << self.top[:, :, None]


def integer_part(score) -> np.ndarray:
    """Whole log2 units of scores in float64."""
    return score.astype(np.int64) >> 16


@cache
def exp2_fractions() -> np.ndarray:
    """Twice EXP2's value for each fraction of 16 bits, int32."""
    d = np.arange(1 << 16)
    return (2 * EXP2(d >> 8, d & 0xff)).astype(np.int32)


def running_maximum(scores, maximum) -> np.ndarray:
    """The reference exponent at each row, (..., rows), from ``maximum`` (...) on: one above a score's integer part,
    once that exceeds it by HEADROOM."""
    t = np.arange(scores.shape[-1])
    maximum = np.broadcast_to(maximum[..., None], scores.shape)
    while (above := scores >= maximum + HEADROOM).any():
        first = above.argmax(axis=-1)[..., None]
        raised = np.take_along_axis(scores, first, axis=-1) + 1
        maximum = np.where(above.any(axis=-1, keepdims=True) & (t >= first), raised, maximum)
    return maximum
