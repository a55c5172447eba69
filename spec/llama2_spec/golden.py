"""The golden decoder: LLaMA-2 in integers, normative for the hardware, which equals it with ``==``.

It decodes many positions of a known text at a time. This only saves time: each position's integers are those that it
has alone.

Ref: Touvron et al. 2023 (the model), Zhang & Sennrich 2019 (RMSNorm), Su et al. 2021 (RoPE), Shazeer 2020 (SwiGLU),
Milakov & Gimelshein 2018 (online softmax). Every function is one unit of the core. Arrays are int64; their first axis
is the position.
"""
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from llama2_spec.attention import Cache, attend_block
from llama2_spec.image import Image, Kind, row_elements, row_layout
from llama2_spec.numerics import (CHUNK, HEADROOM, HIDDEN_FRACTION, OUTPUT_FRACTION, RESIDUAL_FRACTION, ROW_FRACTION,
                                  WIDE,
                           WORD, exp2_weight, floor_shift, logit_to_log2, quantise, round_shift, saturate)
from llama2_spec.registers import MAX_CANDIDATES
from llama2_spec.tables import reciprocal, rsqrt, silu, sine_cosine, weight


BLOCK = 64          #: positions that go through the layers together


@dataclass
class Vector:
    """Quantised vectors: the input of a matrix-vector product. Real value = mantissa * 2**(exponent + unit)."""
    mantissas: np.ndarray    #: (..., words * 16), zero where padded
    exponents: np.ndarray    #: (..., chunks), one per chunk of 32
    unit: int

    @property
    def largest(self) -> np.ndarray:
        return self.exponents.max(axis=-1)


def quantise_vector(values, unit: int) -> Vector:
    """48-bit values (..., n) to chunks of 32 with an exponent each; zeros fill a short last chunk."""
    n = values.shape[-1]
    padded = np.zeros((*values.shape[:-1], -(-n // CHUNK) * CHUNK), np.int64)
    padded[..., :n] = values
    mantissas, exponents = quantise(padded.reshape(*values.shape[:-1], -1, CHUNK))
    return Vector(mantissas.reshape(padded.shape)[..., :-(-n // WORD) * WORD], exponents, unit)


class Matrix:
    """A tensor that is ready for products: (codes - zero points) * scale mantissas as float64, chunk by chunk."""

    def __init__(self, tensor):
        columns = tensor.words * WORD
        chunks = -(-columns // CHUNK)
        scaled = np.zeros((tensor.rows, chunks * CHUNK), np.float64)
        scaled[:, :columns] = tensor.scaled()
        self.scaled = scaled.reshape(tensor.rows, chunks, CHUNK).transpose(1, 0, 2).copy()
        self.exponent = tensor.exponent

    def sums(self, vector: Vector):
        """Row sums (..., rows) relative to each vector's largest exponent: 48 bits signed, floor_shift per chunk.

        32 products of at most 2**7 * 2**15 times a mantissa below 2**12 stay below 2**39. A chunk's shift scales its
        activations by a power of two, so float64 is exact up to its floor, which is the shift's.
        """
        lead = vector.mantissas.shape[:-1]
        chunks, rows, _ = self.scaled.shape
        shifts = np.minimum(vector.largest[..., None] - vector.exponents, 63).reshape(-1, chunks, 1)
        mantissas = np.zeros((len(shifts), chunks * CHUNK))
        mantissas[:, :vector.mantissas.shape[-1]] = vector.mantissas.reshape(len(shifts), -1)
        scaled = np.ldexp(mantissas.reshape(-1, chunks, CHUNK), -shifts)
        sums = np.zeros((len(shifts), rows))
        for weights, activations in zip(self.scaled, scaled.swapaxes(0, 1)):
            sums += np.floor(activations @ weights.T)
        return sums.astype(np.int64).reshape(*lead, rows)


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
        if np.any(shift < 0):
            self.raised.add("shift_clamped")
        return np.maximum(shift, 0)


def scale_rows(sums, factor, exponent, fraction, flags):
    """Row sums (..., rows) times 1/rms (or 2**15) to 32 bits with ``fraction`` bits; ``exponent`` is that of sums *
    factor."""
    shift = flags.clamp(-(np.asarray(exponent) + fraction))[..., None]
    return flags.saturate(round_shift(sums * np.asarray(factor)[..., None], shift), 32, "row_saturated")


def rotate(rows, positions, frequencies):
    """RoPE on interleaved pairs: (..., heads, head_dim) Q14.18 to 33 bits; a position for each of ``...``."""
    sine, cosine = sine_cosine(np.asarray(positions)[..., None, None] * frequencies)
    a, b = rows[..., 0::2], rows[..., 1::2]
    out = np.empty_like(rows)
    out[..., 0::2] = round_shift(a * cosine - b * sine, 16)
    out[..., 1::2] = round_shift(a * sine + b * cosine, 16)
    return out


def attend(q, q_exponents, rows, n_rep, score_scale):
    """One position's attention over K/V rows in order of t; returns (heads, head_dim), 48 bits, OUTPUT_FRACTION.

    q: (heads, head_dim) mantissas; rows: iterable of (k, k_exponents, v, v_exponents), k and v (kv_heads, head_dim).
    Per head a running integer maximum of the scores and of V's exponent; when either rises, sums shift down.
    This is the definition; the decoder below uses :func:`llama2_spec.attention.attend_block`, which equals it.
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
    assert top is not None and mass is not None and acc is not None          # there is at least one row
    out = np.empty_like(acc)
    for h in range(heads):
        r, s = reciprocal(mass[h])
        a = round_shift(acc[h], s) if s >= 0 else acc[h] << -s                # at most 2**31
        out[h] = round_shift(a * r, 16) << top[h]
    return out


@dataclass
class Logits:
    """The logit unit's result for one position."""
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


def sum_of_squares(x) -> list[int]:
    """Exact sums over the last axis of 32-bit values squared, as Python integers."""
    high, low = x >> 16, x & 0xffff
    return [(int(a) << 32) + (int(b) << 17) + int(c) for a, b, c in
            zip((high * high).sum(axis=-1), (high * low).sum(axis=-1), (low * low).sum(axis=-1))]


class Golden:
    """The integer decoder of one image, with its K/V cache."""

    def __init__(self, image: Image):
        self.image, self.config = image, image.config
        self.flags = Flags()
        self.matrices = [None if e.kind == Kind.GAIN else Matrix(image.tensor(e)) for e in image.entries
                         if e.kind != Kind.EMBEDDING]
        self.embedding = image.tensor(image.embedding)
        h = image.header
        self.epsilon = h["epsilon"]
        e = h["score_scale"] >> 16 & 0xff
        self.score_scale = h["score_scale"] & 0xffff, e - 256 * (e >> 7)
        self.cache = [Cache(self.config.n_kv_heads, self.config.head_dim) for _ in range(self.config.n_layers)]

    def step(self, token: int, position: int, *, classify: bool = True) -> Logits | None:
        """Decode one token at ``position``; earlier positions must be in the cache, and later ones are dropped from
        it."""
        self.decode([token], position)
        return self._logits(slice(None))[0] if classify else None

    def prefill(self, tokens: Sequence[int], position: int) -> Logits:
        """Decode a prompt, yielding its last position's logits; the same integers whatever number of columns the core
        has."""
        for at in range(0, len(tokens), BLOCK):
            self.decode(tokens[at:at + BLOCK], position + at)
        return self._logits(slice(-1, None))[0]

    def logits(self, tokens: Sequence[int], position: int = 0) -> Iterator[Logits]:
        """Teacher-forced logits of every position, in order; computed block by block as they are asked for."""
        for at in range(0, len(tokens), BLOCK):
            self.decode(tokens[at:at + BLOCK], position + at)
            yield from self._logits(slice(None))

    def decode(self, tokens: Sequence[int], position: int) -> None:
        """Take tokens through all layers, the first at ``position``; rows of later positions are dropped."""
        c, n = self.config, len(tokens)
        for token in tokens:
            if not 0 <= token < c.vocab_size:
                raise ValueError(f"token {token} is outside the vocabulary of {c.vocab_size}")
        # The last layer counts: an interrupted step has written rows of the first layers only.
        cached = len(self.cache[-1])
        if not 0 <= position <= c.seq_len - n or position > cached:
            raise ValueError(f"position {position}: {cached} rows are cached, the context is {c.seq_len}")
        positions = position + np.arange(n)
        self.x = scale_rows(self.embedding.scaled(np.asarray(tokens))[:, :c.dim], 1 << 15, self.embedding.exponent - 15,
                            RESIDUAL_FRACTION, self.flags)
        entries = iter(zip(self.image.entries, self.matrices))
        self._normalise(next(entries)[0])
        for layer in range(c.n_layers):
            q, k, v = (self._rows(next(entries)) for _ in range(3))
            self._store(layer, positions, k, v)
            qm, qe = quantise(rotate(q.reshape(n, c.n_heads, -1), positions, self.image.rope))
            out = attend_block(qm, qe, self.cache[layer], position, c.n_rep, self.score_scale)
            self.vector = quantise_vector(out.reshape(n, -1), -OUTPUT_FRACTION)
            gain = next(entries)[0]
            self._residual(next(entries), gain)
            rows = self._rows(next(entries))
            hidden = round_shift(silu(rows[:, 0::2]) * rows[:, 1::2], 2 * ROW_FRACTION - HIDDEN_FRACTION)
            self.vector = quantise_vector(self.flags.saturate(hidden, WIDE, "hidden_saturated"), -HIDDEN_FRACTION)
            gain = next(entries)[0]
            self._residual(next(entries), gain)
        self.classifier = next(entries)

    def _logits(self, which) -> list[Logits]:
        v = self.normed
        rows = self._rows(self.classifier, Vector(v.mantissas[which], v.exponents[which], v.unit), which)
        return [Logits(values, int(values.argmax())) for values in rows]

    def _normalise(self, gain):
        """Quantise x * gain; keep 1/rms for the row sums that follow."""
        self.normed = quantise_vector(self.x * self.image.gain(gain), gain.exponent - RESIDUAL_FRACTION)
        roots = [rsqrt(squares + self.epsilon) for squares in sum_of_squares(self.x)]               # Q32.32
        self.factor, e = np.array(roots, np.int64).T
        self.factor_exponent = e + RESIDUAL_FRACTION

    def _rows(self, item, v=None, which=slice(None)):
        _, matrix = item
        v = v or self.normed
        return scale_rows(matrix.sums(v), self.factor[which],
                          v.largest + v.unit + matrix.exponent + self.factor_exponent[which], ROW_FRACTION, self.flags)

    def _residual(self, item, gain):
        _, matrix = item
        v = self.vector
        rows = scale_rows(matrix.sums(v), 1 << 15, v.largest + v.unit + matrix.exponent - 15, RESIDUAL_FRACTION,
                          self.flags)
        self.x = self.flags.saturate(self.x + rows, 32, "residual_saturated")
        self._normalise(gain)

    def _store(self, layer, positions, k, v):
        c, n = self.config, len(positions)
        km, ke = quantise(rotate(k.reshape(n, c.n_kv_heads, -1), positions, self.image.rope), c.kv.k_bits)
        vm, ve = quantise(v.reshape(n, c.n_kv_heads, -1), c.kv.v_bits)
        self.cache[layer].store(int(positions[0]), km, ke, vm, ve)

    def kv_row(self, layer: int, position: int) -> bytes:
        """The row as it lies in DRAM: exponents, K heads, V heads."""
        km, ke, vm, ve = self.cache[layer][position]
        (head, _), kv = row_layout(self.config), self.config.kv
        exponents = np.concatenate([ke, ve]).astype(np.uint8).tobytes().ljust(head * 16, b"\0")
        return exponents + row_elements(km.reshape(-1), kv.k_bits) + row_elements(vm.reshape(-1), kv.v_bits)
