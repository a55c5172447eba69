"""The golden decoder: LLaMA-2 in integers, normative for the hardware, which equals it with ``==``.

Ref: Touvron et al. 2023 (the model), Zhang & Sennrich 2019 (RMSNorm), Su et al. 2021 (RoPE), Shazeer 2020 (SwiGLU),
Milakov & Gimelshein 2018 (online softmax). Every function is one unit of the core; arrays are int64.
"""
from dataclasses import dataclass, field

import numpy as np

from spec.image import Image, Kind, row_layout
from spec.numerics import (CHUNK, HEADROOM, HIDDEN_FRACTION, OUTPUT_FRACTION, RESIDUAL_FRACTION, ROW_FRACTION, WIDE,
                           WORD, exp2_weight, floor_shift, logit_to_log2, quantise, round_shift, saturate)
from spec.registers import MAX_CANDIDATES
from spec.tables import reciprocal, rsqrt, silu, sine_cosine, weight


@dataclass
class Vector:
    """A quantised vector: the input of a matrix-vector product. Real value = mantissa * 2**(exponent + unit)."""
    mantissas: np.ndarray    #: (words * 16,), zero where padded
    exponents: np.ndarray    #: one per chunk of 32
    unit: int

    @property
    def largest(self) -> int:
        return int(self.exponents.max())


def quantise_vector(values, unit: int) -> Vector:
    """48-bit values to chunks of 32 with an exponent each; a short last chunk is padded with zeros."""
    n = len(values)
    padded = np.zeros(-(-n // CHUNK) * CHUNK, np.int64)
    padded[:n] = values
    mantissas, exponents = quantise(padded.reshape(-1, CHUNK))
    return Vector(mantissas.reshape(-1)[:-(-n // WORD) * WORD], exponents, unit)


class Matrix:
    """A tensor ready for products: codes minus zero points as float64, exact in every product below 2**53."""

    def __init__(self, tensor):
        columns = tensor.words * WORD
        chunks = -(-columns // CHUNK)
        codes = np.zeros((tensor.rows, chunks * CHUNK), np.float64)
        codes[:, :columns] = tensor.centred()
        self.codes = codes.reshape(tensor.rows, chunks, CHUNK).transpose(1, 0, 2).copy()
        self.scales = np.repeat(tensor.mantissas.astype(np.int64), tensor.group // CHUNK, axis=1)[:, :chunks].T.copy()
        self.exponent = tensor.exponent

    def sums(self, vector: Vector):
        """Row sums relative to the vector's largest exponent: 48 bits signed, floor_shift per chunk."""
        mantissas = np.zeros(self.codes.shape[0] * CHUNK)
        mantissas[:len(vector.mantissas)] = vector.mantissas
        # 32 products of at most 2**7 * 2**15: 2**27, exact in float64
        dots = np.matmul(self.codes, mantissas.reshape(-1, CHUNK, 1))[:, :, 0].astype(np.int64)
        shifts = (vector.largest - vector.exponents)[:, None]
        return floor_shift(dots * self.scales, shifts).sum(axis=0)


@dataclass
class Flags:
    """The core's sticky error flags."""
    raised: set = field(default_factory=set)

    def saturate(self, x, bits, name):
        y = saturate(x, bits)
        if np.any(y != x):
            self.raised.add(name)
        return y

    def clamp(self, shift):
        if shift < 0:
            self.raised.add("shift_clamped")
        return max(shift, 0)


def scale_rows(sums, factor, exponent, fraction, flags):
    """Row sums times 1/rms (or 2**15) to 32 bits with ``fraction`` bits; ``exponent`` is that of sums * factor."""
    shift = flags.clamp(-(exponent + fraction))
    return flags.saturate(round_shift(sums * factor, shift), 32, "row_saturated")


def rotate(rows, position, frequencies):
    """RoPE on interleaved pairs: (heads, head_dim) Q14.18 to 33 bits."""
    sine, cosine = sine_cosine(position * frequencies)
    a, b = rows[:, 0::2], rows[:, 1::2]
    out = np.empty_like(rows)
    out[:, 0::2] = round_shift(a * cosine - b * sine, 16)
    out[:, 1::2] = round_shift(a * sine + b * cosine, 16)
    return out


def attend(q, q_exponents, rows, n_rep, score_scale):
    """One position's attention over K/V rows in order of t; returns (heads, head_dim), 48 bits, OUTPUT_FRACTION.

    q: (heads, head_dim) mantissas; rows: iterable of (k, k_exponents, v, v_exponents), k and v (kv_heads, head_dim).
    Per head a running integer maximum of the scores and of V's exponent; when either rises, sums shift down.
    """
    heads, head_dim = q.shape
    kv = heads // n_rep
    grouped = q.reshape(kv, n_rep, head_dim)
    mantissa, exponent = score_scale
    maximum = top = mass = acc = None
    for k, ke, v, ve in rows:
        dots = np.einsum("grd,gd->gr", grouped, k).reshape(heads)            # at most 2**37
        shift = 2 * ROW_FRACTION - 16 - exponent - q_exponents - np.repeat(ke, n_rep)
        score = saturate(round_shift(dots * mantissa, np.maximum(shift, 0)), 32)
        ve, vv = np.repeat(ve, n_rep), np.repeat(v, n_rep, axis=0)
        if maximum is None:
            maximum, top = (score >> 16) + 1, ve.copy()
            mass, acc = np.zeros(heads, np.int64), np.zeros((heads, head_dim), np.int64)
        rise = np.where((score >> 16) - maximum >= HEADROOM, (score >> 16) + 1 - maximum, 0)
        lift = np.maximum(ve - top, 0)
        maximum, top = maximum + rise, top + lift
        mass = floor_shift(mass, rise)
        acc = floor_shift(acc, np.minimum(rise + lift, 63)[:, None])
        p = weight(score - (maximum << 16))
        mass += p
        acc += round_shift(p, top - ve)[:, None] * vv
    out = np.empty_like(acc)
    for h in range(heads):
        r, s = reciprocal(mass[h])
        a = round_shift(acc[h], s) if s >= 0 else acc[h] << -s                # at most 2**31
        out[h] = round_shift(a * r, 16) << top[h]
    return out


@dataclass
class Logits:
    """What the logit unit yields for one position."""
    values: np.ndarray       #: int64 (vocab,), Q14.18
    argmax: int

    def kept(self, scale: int, limit: int = MAX_CANDIDATES):
        """Candidates [(token, logit)], largest first, lower id first on a tie; mass; maximum."""
        best = np.argsort(-self.values, kind="stable")[:limit]
        log2 = logit_to_log2(self.values, scale)
        maximum = int(log2.max() >> 16) + 1
        return [(int(i), int(self.values[i])) for i in best], running_mass(log2), maximum


def running_mass(log2) -> int:
    """Sum of weights in the order of the vocabulary; the reference rises with each new maximum's integer part."""
    log2 = np.asarray(log2, np.int64)
    ends = np.maximum.accumulate(log2 >> 16) + 1
    steps = np.flatnonzero(np.diff(ends)) + 1
    mass, reference = 0, int(ends[0])
    for part in np.split(np.arange(len(log2)), steps):
        mass >>= min(int(ends[part[0]]) - reference, 63)
        reference = int(ends[part[0]])
        mass += int(exp2_weight(log2[part], reference).sum())
    return mass


class Golden:
    """The integer decoder of one image, with its K/V cache."""

    def __init__(self, image: Image):
        self.image, self.config = image, image.config
        self.flags = Flags()
        self.matrices = [None if e.kind == Kind.GAIN else Matrix(image.tensor(e)) for e in image.entries]
        embedding = image.tensor(image.embedding)
        self.embedding = embedding.centred() * np.repeat(embedding.mantissas.astype(np.int64), embedding.group,
                                                         axis=1)[:, :embedding.words * WORD]
        self.embedding_exponent = embedding.exponent
        h = image.header
        self.epsilon = h["epsilon"]
        e = h["score_scale"] >> 16 & 0xff
        self.score_scale = h["score_scale"] & 0xffff, e - 256 * (e >> 7)
        self.cache = [[] for _ in range(self.config.n_layers)]   # rows (k, ke, v, ve)

    def step(self, token: int, position: int, *, classify: bool = True) -> Logits | None:
        """Decode one token at ``position``; earlier positions must be in the cache, later ones are dropped."""
        c = self.config
        if not 0 <= token < c.vocab_size:
            raise ValueError(f"token {token} is outside the vocabulary of {c.vocab_size}")
        if not 0 <= position < c.seq_len or position > len(self.cache[0]):
            raise ValueError(f"position {position}: {len(self.cache[0])} rows are cached, the context is {c.seq_len}")
        self.x = scale_rows(self.embedding[token][:c.dim], 1 << 15, self.embedding_exponent - 15, RESIDUAL_FRACTION,
                            self.flags)
        entries = iter(zip(self.image.entries, self.matrices))
        self._normalise(next(entries)[0])
        for layer in range(c.n_layers):
            q, k, v = (self._rows(next(entries)) for _ in range(3))
            self._store(layer, position, k, v)
            qm, qe = quantise(rotate(q.reshape(c.n_heads, -1), position, self.image.rope))
            out = attend(qm, qe, self.cache[layer][:position + 1], c.n_rep, self.score_scale)
            self.vector = quantise_vector(out.reshape(-1), -OUTPUT_FRACTION)
            gain = next(entries)[0]
            self._residual(next(entries), gain)
            rows = self._rows(next(entries))
            hidden = round_shift(silu(rows[0::2]) * rows[1::2], 2 * ROW_FRACTION - HIDDEN_FRACTION)
            self.vector = quantise_vector(self.flags.saturate(hidden, WIDE, "hidden_saturated"), -HIDDEN_FRACTION)
            gain = next(entries)[0]
            self._residual(next(entries), gain)
        if not classify:
            return None
        values = self._rows(next(entries))
        return Logits(values, int(values.argmax()))

    def _normalise(self, gain):
        """Quantise x * gain; keep 1/rms for the row sums that follow."""
        self.normed = quantise_vector(self.x * self.image.gain(gain), gain.exponent - RESIDUAL_FRACTION)
        squares = sum(int(v) * int(v) for v in self.x)              # Q32.32
        self.factor, e = rsqrt(squares + self.epsilon)
        self.factor_exponent = e + RESIDUAL_FRACTION

    def _rows(self, item):
        _, matrix = item
        v = self.normed
        return scale_rows(matrix.sums(v), self.factor, v.largest + v.unit + matrix.exponent + self.factor_exponent,
                          ROW_FRACTION, self.flags)

    def _residual(self, item, gain):
        _, matrix = item
        v = self.vector
        rows = scale_rows(matrix.sums(v), 1 << 15, v.largest + v.unit + matrix.exponent - 15, RESIDUAL_FRACTION, self.flags)
        self.x = self.flags.saturate(self.x + rows, 32, "residual_saturated")
        self._normalise(gain)

    def _store(self, layer, position, k, v):
        c = self.config
        km, ke = quantise(rotate(k.reshape(c.n_kv_heads, -1), position, self.image.rope))
        vm, ve = quantise(v.reshape(c.n_kv_heads, -1))
        del self.cache[layer][position:]
        self.cache[layer].append((km, ke, vm, ve))

    def kv_row(self, layer: int, position: int) -> bytes:
        """The row as it lies in DRAM: exponents, K heads, V heads."""
        km, ke, vm, ve = self.cache[layer][position]
        head, _ = row_layout(self.config)
        exponents = np.concatenate([ke, ve]).astype(np.uint8).tobytes().ljust(head * 16, b"\0")
        return exponents + km.astype("<i2").tobytes() + vm.astype("<i2").tobytes()

    def prefill(self, tokens, position: int) -> Logits:
        """Decode a prompt; the same arithmetic whatever number of columns the core has."""
        for i, token in enumerate(tokens[:-1]):
            self.step(token, position + i, classify=False)
        return self.step(tokens[-1], position + len(tokens) - 1)
