"""Quantised tensors, and the layout of their codes and scales in beats of the weight stream.

A tensor is superblocks of 8 rows: G scale beats (G = weight groups per row; beat g holds the scale words of group g of
the 8 rows), then the data beats of its 4 row pairs. Of a pair, activation word k (16 columns) is two q8 beats (row 2i,
row 2i+1) or one q4 beat (low nibbles row 2i, high nibbles row 2i+1). Rows are padded to whole words with the zero code.
The last superblock holds only the pairs that exist; an odd last row is paired with a row of zeros.
"""
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from llama2_spec.numerics import SCALE_BITS, WORD
from llama2_spec.tensors import HasRows

BEAT = 16               #: bytes
SUPERBLOCK = 8          #: rows
GROUPS = (64, 32)       #: columns that may share a scale
FEW_STEPS = 16          #: a scale of fewer steps of the tensor's exponent is rounded up
MIN_EXPONENT = -128     #: of a tensor's scales, and of gains: the least that eight bits say
ZERO_POINT_LOW = 12     #: a scale word is {zero point: 4, mantissa: 12}


@dataclass
class Quantised:
    """Real weights = (codes - zeros) * mantissas * 2**exponent, group by group along the columns."""
    format: str             #: q8 or q4
    group: int              #: 32 or 64 columns
    codes: np.ndarray       #: int16 (rows, columns)
    zeros: np.ndarray       #: int16 (rows, groups); 0 in q8
    mantissas: np.ndarray   #: int16 (rows, groups), 0..4095
    exponent: int           #: of the tensor

    @property
    def rows(self) -> int:
        return self.codes.shape[0]

    @property
    def words(self) -> int:
        """Activation words per row."""
        return -(-self.codes.shape[1] // WORD)

    def centred(self) -> np.ndarray:
        """codes - zeros, int32 (rows, words * 16); 0 where padded."""
        columns = self.codes.shape[1]
        zeros = np.repeat(self.zeros, self.group, axis=1)[:, :columns]
        out = np.zeros((self.rows, self.words * WORD), np.int32)
        out[:, :columns] = self.codes.astype(np.int32) - zeros
        return out

    def scaled(self, rows=slice(None)) -> np.ndarray:
        """(codes - zeros) * mantissas, int64 (rows, words * 16): the integers behind the reals; 0 where padded."""
        columns = self.codes.shape[1]
        spread = lambda values: np.repeat(values[rows], self.group, axis=-1)[..., :columns].astype(np.int64)
        out = np.zeros((*spread(self.zeros).shape[:-1], self.words * WORD), np.int64)
        out[..., :columns] = (self.codes[rows] - spread(self.zeros)) * spread(self.mantissas)
        return out

    def real(self) -> np.ndarray:
        """The weights as float32."""
        return (self.scaled()[:, :self.codes.shape[1]] * 2.0 ** self.exponent).astype(np.float32)


def quantise(weights, *, format: str = "q8", group: int = 64, exponent: int | None = None) -> Quantised:
    """Round to nearest, symmetric (q8) or with a 4-bit zero point (q4); scales rounded to 12-bit mantissas first.

    ``exponent`` is :func:`largest_scale`'s of the whole tensor where ``weights`` are only some of its rows.
    """
    weights = np.asarray(weights, np.float32)
    rows, columns = weights.shape
    groups = -(-columns // group)
    padded = np.zeros((rows, groups * group), np.float64)
    padded[:, :columns] = weights
    blocks = padded.reshape(rows, groups, group)
    scale, low = group_scales(blocks, format)
    mantissas, exponent = scale_mantissas(scale, exponent)
    step = np.maximum(mantissas, 1)[:, :, None] * 2.0 ** exponent
    if format == "q8":
        zeros = np.zeros_like(mantissas)
        codes = np.clip(np.round(blocks / step), -127, 127)
    else:
        zeros = np.clip(np.round(-low / step[:, :, 0]), 0, 15).astype(np.int64)
        codes = np.clip(np.round(blocks / step) + zeros[:, :, None], 0, 15)
    codes = codes.reshape(rows, -1)[:, :columns].astype(np.int16)
    return Quantised(format, group, codes, zeros.astype(np.int16), mantissas.astype(np.int16), exponent)


def group_scales(blocks, format: str):
    """Steps of groups (rows, groups, group), and in q4 their lowest values, at most 0."""
    if format == "q8":
        return np.maximum(blocks.max(axis=2), -blocks.min(axis=2)) / 127, None
    low, high = np.minimum(blocks.min(axis=2), 0), np.maximum(blocks.max(axis=2), 0)
    return (high - low) / 15, low


def largest_scale(weights, *, format: str, group: int) -> float:
    """The largest step that :func:`quantise` would give any group of these rows."""
    weights = np.asarray(weights, np.float32)
    rows, columns = weights.shape
    whole = columns // group * group
    parts = [weights[:, :whole].reshape(rows, -1, group)] if whole else []
    if whole < columns:
        parts.append(weights[:, None, whole:])
    return max(float(group_scales(part.astype(np.float64), format)[0].max(initial=0)) for part in parts)


class Native(NamedTuple):
    """A tensor that a checkpoint's file holds quantised, in groups."""
    codes: HasRows          #: int8 (rows, columns): -128..127 in q8, -8..8 in q4, without both -8 and 8 in a group
    scales: HasRows         #: float (rows, groups), or flat where the groups run over the flattened tensor
    group: int              #: columns that share a scale
    format: str = "q8"

    def rowwise(self) -> "Native | None":
        """The tensor in groups of 64 or 32 within a row, with the same codes and scales; None if a group ends amid 32
        columns.

        Groups that straddle rows or are longer than 64 become shorter ones, which repeat the scale.
        """
        rows, columns = self.codes.shape
        if len(self.scales.shape) == 2 and self.group in GROUPS:
            return self
        if len(self.scales.shape) == 2:
            return None
        for group in GROUPS:
            if self.group % group == 0 and columns % group == 0:
                starts = np.arange(0, rows * columns, group)
                return Native(self.codes, np.asarray(self.scales)[starts // self.group].reshape(rows, -1), group,
                              self.format)
        return None


def carried_over(codes, scales, group: int, exponent: int | None = None, format: str = "q8") -> Quantised:
    """A tensor with the codes of a :class:`Native`, and each group's float scale rounded to a mantissa."""
    scales = np.asarray(scales, np.float64)
    mantissas, exponent = scale_mantissas(scales, exponent)
    codes, zeros = np.asarray(codes, np.int16), np.zeros(mantissas.shape, np.int16)
    coarse = mantissas < FEW_STEPS          # such a scale differs from the file's, so the codes must, too
    if coarse.any():
        change = np.where(coarse, scales / (np.maximum(mantissas, 1) * 2.0 ** exponent), 1)
        codes = np.round(codes * np.repeat(change, group, axis=1)[:, :codes.shape[1]]).astype(np.int16)
    if format == "q4":
        rows, columns = codes.shape
        padded = np.zeros((rows, zeros.shape[1] * group), np.int16)
        padded[:, :columns] = codes
        zeros = np.where(padded.reshape(rows, -1, group).max(axis=2) > 7, 7, 8).astype(np.int16)
        codes = codes + np.repeat(zeros, group, axis=1)[:, :columns]
    return Quantised(format, group, codes, zeros, mantissas.astype(np.int16), exponent)


def scale_mantissas(scales, exponent: int | None = None) -> tuple[np.ndarray, int]:
    """12-bit mantissas of non-negative scales that share one exponent: the given one, or their largest's."""
    if exponent is None:
        exponent = scale_exponent(float(scales.max(initial=0)))
    exact = scales / 2.0 ** exponent
    # A group far below the tensor's largest gets a mantissa that covers its weights, and uses fewer codes.
    return np.where(exact < FEW_STEPS, np.ceil(exact), np.round(exact)).astype(np.int64), exponent


def scale_exponent(largest: float) -> int:
    """The exponent at which a tensor's largest scale has a 12-bit mantissa."""
    if largest == 0:
        return -24
    exponent = int(np.floor(np.log2(largest))) - SCALE_BITS + 1
    return max(exponent + (round(largest / 2.0 ** exponent) >= 1 << SCALE_BITS), MIN_EXPONENT)


def scale_beats(words: int, group: int) -> int:
    """Scale beats of a superblock: weight groups per row."""
    return -(-words * WORD // group)


def tensor_beats(rows: int, words: int, format: str, group: int) -> int:
    """Beats of a packed tensor."""
    pairs = (rows + 1) // 2
    return -(-rows // SUPERBLOCK) * scale_beats(words, group) + pairs * words * (2 if format == "q8" else 1)


def row_beats(words: int, format: str, group: int) -> int:
    """Beats that hold one row, as the embedding fetch reads it."""
    return scale_beats(words, group) + words


def pack(tensor: Quantised) -> bytes:
    """The tensor's beats."""
    rows, words, groups = tensor.rows, tensor.words, scale_beats(tensor.words, tensor.group)
    blocks = -(-rows // SUPERBLOCK)
    codes = np.zeros((blocks * SUPERBLOCK, words * WORD), np.int16)
    if tensor.format == "q4":       # the zero code of a padded column is its group's zero point
        codes[:rows] = np.repeat(tensor.zeros, tensor.group, axis=1)[:, :words * WORD]
    codes[:rows, :tensor.codes.shape[1]] = tensor.codes
    scales = np.zeros((blocks * SUPERBLOCK, groups), np.int64)
    scales[:rows] = tensor.mantissas.astype(np.int64) | tensor.zeros.astype(np.int64) << ZERO_POINT_LOW
    head = scales.reshape(blocks, SUPERBLOCK, groups).transpose(0, 2, 1).astype("<u2")
    head = np.ascontiguousarray(head).view(np.uint8).reshape(blocks, -1)
    pairs = codes.reshape(blocks * 4, 2, words, WORD)
    if tensor.format == "q8":
        data = pairs.transpose(0, 2, 1, 3).astype(np.int8).view(np.uint8)
    else:
        data = (pairs[:, 0] | pairs[:, 1] << 4).astype(np.uint8)
    body = np.ascontiguousarray(data).reshape(blocks, -1)
    packed = np.concatenate([head, body], axis=1).tobytes()
    return packed[:tensor_beats(rows, words, tensor.format, tensor.group) * BEAT]


def unpack(data, *, rows: int, columns: int, format: str, group: int, exponent: int) -> Quantised:
    """Inverse of :func:`pack`."""
    words = -(-columns // WORD)
    groups = scale_beats(words, group)
    blocks = -(-rows // SUPERBLOCK)
    stride = (groups + 4 * words * (2 if format == "q8" else 1)) * BEAT
    padded = np.zeros(blocks * stride, np.uint8)
    padded[:len(data)] = np.frombuffer(data, np.uint8)
    padded = padded.reshape(blocks, stride)
    scales = np.ascontiguousarray(padded[:, :groups * BEAT]).view("<u2").reshape(blocks, groups, SUPERBLOCK)
    scales = scales.transpose(0, 2, 1).reshape(-1, groups)[:rows]
    body = np.ascontiguousarray(padded[:, groups * BEAT:])
    if format == "q8":
        codes = body.view(np.int8).reshape(blocks * 4, words, 2, WORD).transpose(0, 2, 1, 3)
    else:
        nibbles = body.reshape(blocks * 4, words, WORD)
        codes = np.stack([nibbles & 15, nibbles >> 4], axis=1)
    codes = codes.reshape(-1, words * WORD)[:rows, :columns].astype(np.int16)
    return Quantised(format, group, codes, (scales >> ZERO_POINT_LOW).astype(np.int16),
                     (scales & 0xfff).astype(np.int16), exponent)
