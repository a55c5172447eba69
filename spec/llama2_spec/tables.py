"""The function tables, with linear interpolation, that golden and hardware share.

Each table is (base, slope) per segment: ``f(i, t) = base[i] + ((slope[i] * t) >> shift)`` for ``t`` in
``0 .. 2**t_bits - 1``. The worst error of each is stated and tested (tests/spec/test_tables.py).
"""
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Table:
    """A function in ``2**index_bits`` linear segments. ``slope`` is in units of 2**-(shift - t_bits) per segment."""
    name: str
    index_bits: int
    t_bits: int
    shift: int
    base: tuple[int, ...]
    slope: tuple[int, ...]

    @property
    def base_bits(self) -> int:
        return max(self.base).bit_length()

    @property
    def slope_bits(self) -> int:
        """Signed width that holds every slope."""
        return max(int(s).bit_length() if s >= 0 else int(-s - 1).bit_length() for s in self.slope) + 1

    def __call__(self, index, t):
        """Look up and interpolate, elementwise in int64."""
        base, slope = _arrays(self)
        return base[index] + ((slope[index] * np.asarray(t, np.int64)) >> self.shift)


_cache: dict[str, tuple[np.ndarray, np.ndarray]] = {}


def _arrays(table):
    if table.name not in _cache:
        _cache[table.name] = (np.array(table.base, np.int64), np.array(table.slope, np.int64))
    return _cache[table.name]


def _table(name, f, edges, t_bits, guard=4):
    """Segments between ``edges`` (one more than segments); the chord is lowered by half its sag and by the floor."""
    y = f(edges)
    middle = f((edges[:-1] + edges[1:]) / 2)
    lift = (middle - (y[:-1] + y[1:]) / 2) / 2 + 0.5 - 2.0 ** -(guard + 1)
    base = np.floor(y[:-1] + lift).astype(np.int64)
    # The slope starts from the rounded base, so that the segment still ends where the next begins.
    slope = np.round((y[1:] + lift - base) * 2 ** guard).astype(np.int64)
    return Table(name, (len(base) - 1).bit_length(), t_bits, t_bits + guard,
                 tuple(int(v) for v in np.maximum(base, 0)), tuple(int(v) for v in slope))


#: 2**(f) for f in [0, 1): 16 fraction bits in, 2**15 .. 2**16 - 1 out.
EXP2 = _table("exp2", lambda f: np.minimum(2.0 ** (15 + f), 65535.0), np.arange(257) / 256, 8)
#: 2**31 / m for m in [2**15, 2**16): 21 bits below the leading one in (9 index, 12 t), 2**15 .. 2**16 out.
RECIPROCAL = _table("reciprocal", lambda m: 2.0 ** 16 / m, 1 + np.arange(513) / 512, 12)
#: 2**15 / sqrt(f) for f in [1/4, 1), indexed by f's top 10 bits from 256: 2**15 .. 2**16 out.
RSQRT = _table("rsqrt", lambda i: 2.0 ** 15 / np.sqrt(np.maximum(i, 256) / 1024), np.arange(1025.0), 12)
#: |sin| of a quarter turn: 9 index bits, 12 t: 0 .. 2**16 out.
SINE = _table("sine", lambda i: 65536 * np.sin(np.pi / 2 * i), np.arange(513) / 512, 12)


def _sag(z):
    """How far SiLU lies below ReLU: z * sigmoid(-z), in 2**-18."""
    return 2.0 ** 18 * z / (1 + np.exp(z))


#: z * sigmoid(-z) for z in [0, 16), in 2**-18: 1024 segments of 2**-7, then 128 of 2**-4 (t is 14 bits in both).
SILU_SAG = _table("silu_sag", _sag, np.concatenate([np.arange(1024) / 128, 8 + np.arange(129) / 16]), 14)
TABLES = (EXP2, RECIPROCAL, RSQRT, SINE, SILU_SAG)


def weight(d):
    """Softmax weight ``2**d``: d in log2 units, Q.16, below 2; 2**14 is 1.0. Underflows to 0."""
    d = np.asarray(d, np.int64)
    mantissa = EXP2((d >> 8) & 0xff, d & 0xff)
    shift = np.minimum(1 - (d >> 16), 63)
    return (mantissa >> shift) + np.where(shift > 0, (mantissa >> np.maximum(shift - 1, 0)) & 1, 0)


def reciprocal(total):
    """``(r, s)`` with ``1/total ~ r * 2**-(31 + s)`` for 1 <= total < 2**48: r in 2**15 .. 2**16, s = bit_length -
    16."""
    n = int(total).bit_length()
    m = int(total) >> (n - 22) if n >= 22 else int(total) << (22 - n)
    return int(RECIPROCAL((m >> 12) & 0x1ff, m & 0xfff)), n - 16


def reciprocals(totals):
    """:func:`reciprocal` of an array: arrays r and s."""
    totals = np.asarray(totals, np.int64)
    n = np.frexp(totals.astype(np.float64))[1].astype(np.int64)     # exact: below 2**48
    m = np.where(n >= 22, totals >> np.maximum(n - 22, 0), totals << np.maximum(22 - n, 0))
    return RECIPROCAL((m >> 12) & 0x1ff, m & 0xfff), n - 16


def rsqrt(s):
    """``(r, e)`` with ``1/sqrt(s) ~ r * 2**(e)``: r in 2**15 .. 2**16; s >= 1 of any width."""
    n = int(s).bit_length()
    half = (n + 1) >> 1                     # s = f * 4**half, f in [1/4, 1)
    f = (int(s) << 22) >> (2 * half)        # 22 fraction bits: 10 index, 12 t
    return int(RSQRT(f >> 12, f & 0xfff)), -15 - half


def sine_cosine(phase):
    """sin and cos, signed with 16 fraction bits, of a phase in turns / 2**32."""
    phase = np.asarray(phase, np.int64) & 0xffffffff

    def sine(p):
        quadrant, x = p >> 30, p & 0x3fffffff
        x = np.where(quadrant & 1, 0x3fffffff - x, x)
        y = SINE(x >> 21, (x >> 9) & 0xfff)
        return np.where(quadrant & 2, -y, y)
    return sine(phase), sine((phase + 0x40000000) & 0xffffffff)


def silu(g):
    """SiLU of Q14.18, to Q14.18: max(g, 0) minus a table of the sag of |g|."""
    g = np.asarray(g, np.int64)
    z = np.minimum(np.abs(g), (16 << 18) - 1)
    near = z < 8 << 18
    index = np.where(near, z >> 11, 1024 + ((z - (8 << 18)) >> 14))
    t = np.where(near, (z & 0x7ff) << 3, z & 0x3fff)
    return np.maximum(g, 0) - SILU_SAG(index, t)
