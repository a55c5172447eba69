"""The number formats and roundings that golden and hardware share, each under one name.

All values are integers. A real value is ``mantissa * 2**exponent``; the exponent of a fixed format is minus its
number of fraction bits.
"""
import numpy as np

from llama2_spec.tables import weight

WORD = 16              #: activations per word: one per lane
CHUNK = 32             #: activations that share an exponent
MANTISSA_BITS = 16     #: signed width of an activation, of a norm gain and, unless 8, of a K or V element
RESIDUAL_FRACTION = 16 #: residual stream: signed Q16.16
ROW_FRACTION = 18      #: rows of q, k, v, gate, up and logits: signed Q14.18
HIDDEN_FRACTION = 22   #: SiLU(gate) * up: signed Q26.22
OUTPUT_FRACTION = 33   #: attention output before it is quantised: signed Q15.33
SCORE_FRACTION = 16    #: scores, in log2 units: signed Q16.16
WEIGHT_FRACTION = 14   #: softmax weight p: 2**14 is 1.0, at most 2**16 - 1
WIDE = 48              #: signed width of whatever the quantiser takes, and of row and value accumulators
SCALE_BITS = 12        #: unsigned mantissa of a weight group's scale
HEADROOM = 2           #: the running maximum is raised when a score exceeds it by this many powers of two
LOG2_E = 1549082005       #: log2(e) with 30 fraction bits
#: Longest row of a matrix: chunks of 32 products of at most 2**7 * 2**15 * 2**12 that fit 48 bits signed, 8,192 columns
MAX_ROW = CHUNK * (1 << WIDE - 1 - 5 - 7 - 15 - SCALE_BITS)
INDEX_BITS = 13        #: of an element's index within a vector, and of dim: the largest number is 8,191
MAX_DIM = (1 << INDEX_BITS) - 1
MAX_HEAD_DIM = 128      #: elements of a head that attention's units hold
MAX_SEQ_LEN = 1 << 16  #: |w * v| < 2**31: 2**16 positions fit the 48-bit accumulator


def floor_shift(x, shift):
    """``x >> shift``, towards minus infinity; ``shift`` beyond 63 acts as 63."""
    return x >> np.minimum(shift, 63)


def round_shift(x, shift):
    """``x / 2**shift`` to the nearest integer, ties upwards. ``shift`` is 0..63; x fits 63 bits."""
    shift = np.minimum(shift, 63)
    return (x >> shift) + np.where(shift > 0, (x >> np.maximum(shift - 1, 0)) & 1, 0)


def saturate(x, bits):
    """Clamp to a signed field of ``bits``."""
    return np.clip(x, -(1 << bits - 1), (1 << bits - 1) - 1)


def bit_length(x) -> np.ndarray:
    """Bits of a non-negative integer below 2**62, elementwise; 0 for 0."""
    x = np.asarray(x, np.int64)
    n = np.zeros(x.shape, np.int64)
    for step in (32, 16, 8, 4, 2, 1):
        big = x >= (np.int64(1) << step)
        n += np.where(big, step, 0)
        x = np.where(big, x >> step, x)
    return n + (x > 0)


def quantise(values, bits=MANTISSA_BITS):
    """Quantise vectors (chunks of activations, heads) to mantissas of ``bits``. The elements of a vector share the
    smallest exponent >= 0 that holds all of them.

    values: int64 (..., elements), 48 bits signed. Returns mantissas int64 of the same shape and exponents (...,).
    A value that rounds up to 2**(bits - 1) saturates.
    """
    values = np.asarray(values, np.int64)
    magnitude = np.bitwise_or.reduce(values ^ (values >> 63), axis=-1)
    exponent = np.maximum(bit_length(magnitude) - (bits - 1), 0)
    mantissa = np.minimum(round_shift(values, exponent[..., None]), (1 << bits - 1) - 1)
    return mantissa, exponent


def split_scale(value: float, bits: int = 16) -> tuple[int, int]:
    """Write a positive real as ``mantissa * 2**exponent`` with a mantissa of exactly ``bits`` bits."""
    if not value > 0:
        raise ValueError(f"a scale must be positive, not {value}")
    mantissa, exponent = np.frexp(value)
    m = int(round(float(mantissa) * (1 << bits)))
    if m == 1 << bits:
        m, exponent = m >> 1, exponent + 1
    return m, int(exponent) - bits


def pack_scale(value: float) -> int:
    """A positive real as the core's scale word: 16-bit mantissa, signed exponent in bits 23:16."""
    mantissa, exponent = split_scale(value)
    return mantissa | (exponent & 0xff) << 16


def logit_scale(temperature: int, low: int = 0) -> int:
    """Model.LOGIT_SCALE, log2(e) / temperature, rounded down to 16 bits.

    temperature: Q16.16; low: 32 more bits of its fraction. Their leading 32 bits count; not both are 0.
    """
    whole = temperature << 32 | low                         # Q16.48
    n = whole.bit_length()
    leading = whole >> n - 32 if n > 32 else whole << 32 - n
    quotient = (LOG2_E << 32) // leading                    # times 2**(18 - n)
    bits = quotient.bit_length()
    return (quotient >> bits - 16) | ((bits - 16 + 18 - n) & 0xff) << 16


def logit_to_log2(logit, scale: int):
    """A logit, Q14.18, in log2 units, Q16.16, by the scale word ``scale``."""
    mantissa, exponent = scale & 0xffff, (scale >> 16 & 0xff) - (scale >> 16 & 0x80) * 2
    shift = ROW_FRACTION - SCORE_FRACTION - exponent
    return saturate(round_shift(np.asarray(logit, np.int64) * mantissa, max(shift, 0)), 32)


def exp2_weight(log2, maximum):
    """Softmax weight of a score in log2 units, Q16.16, against an integer reference exponent."""
    return weight(np.asarray(log2, np.int64) - (np.asarray(maximum, np.int64) << SCORE_FRACTION))
