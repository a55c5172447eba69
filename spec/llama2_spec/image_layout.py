"""The layout of a model image: header, directory, which tensors it holds and how long they are. This module reads and
writes no tensor.

:mod:`llama2_spec.image` writes and reads images, :mod:`llama2_spec.image_check` checks images from elsewhere.
"""
import struct
from dataclasses import dataclass
from enum import IntEnum

from llama2_spec import packing, program
from llama2_spec.model import ModelConfig
from llama2_spec.numerics import MAX_DIM, MAX_HEAD_DIM, MAX_ROW, WORD
from llama2_spec.packing import BEAT
from llama2_spec.program import Kind

MAGIC = b"LLMI"
VERSION = 1


class ImageError(ValueError):
    """A file that is not a whole, undamaged model image."""


class Format(IntEnum):
    """How a tensor's codes are stored."""
    Q8 = 0
    Q4 = 1


HEADER_FIELDS = (
    ("magic", "4s", "LLMI"),
    ("version", "I", "of this layout"),
    ("file_bytes", "I", "length of the image"),
    ("header_crc", "I", "CRC-32 of bytes 16 .. payload_offset - 1"),
    ("payload_offset", "I", "first byte of the weight stream; a multiple of 2048"),
    ("payload_bytes", "I", "length of the weight stream"),
    ("payload_crc", "I", "CRC-32 of the weight stream"),
    ("dim", "I", ""), ("hidden_dim", "I", ""), ("n_layers", "I", ""), ("n_heads", "I", ""), ("n_kv_heads", "I", ""),
    ("head_dim", "I", ""), ("vocab_size", "I", ""), ("seq_len", "I", "positions"),
    ("tied", "I", "1: the classifier is the embedding"),
    ("epsilon", "I", "Model.EPSILON"),
    ("score_scale", "I", "Model.SCORE_SCALE"),
    ("norm_epsilon", "f", "as in the checkpoint"),
    ("rope_theta", "f", "as in the checkpoint; the frequencies are normative"),
    ("entries_offset", "I", "directory"), ("entries_count", "I", ""),
    ("rope_offset", "I", "head_dim/2 words: turns per position * 2**32"),
    ("tokenizer_offset", "I", "llama2.c's tokenizer.bin, or compressed JSON behind TOKZ"),
    ("tokenizer_bytes", "I", "0: none"),
    ("template_offset", "I", "chat template: JSON in UTF-8"), ("template_bytes", "I", ""),
    ("provenance_offset", "I", "where the weights come from, UTF-8"), ("provenance_bytes", "I", ""),
    ("kv_format", "I", "KvFormat"),
)
HEADER = struct.Struct("<" + "".join(code for _, code, _ in HEADER_FIELDS))
HEADER_BYTES = 256
CHECKED_FROM = 16       #: header_crc covers from here
PAYLOAD_ALIGN = 2048
GROUP = {"q8": 64, "q4": 32}    #: columns that share a scale, unless said otherwise

ENTRY_FIELDS = (
    ("kind", "B", "Kind"), ("format", "B", "Format"), ("group", "B", "32 or 64"),
    ("exponent", "b", "power of two of the scales or gains"),
    ("layer", "H", ""), ("words", "H", "activation words per row; beats of a gain"),
    ("rows", "I", "rows; elements of a gain"), ("offset_beats", "I", "from the start of the image"), ("beats", "I", ""),
    ("crc32", "I", "of its beats"), ("reserved0", "I", ""), ("reserved1", "I", ""),
)
ENTRY = struct.Struct("<" + "".join(code for _, code, _ in ENTRY_FIELDS))


@dataclass(frozen=True)
class Entry:
    """One tensor of the directory, in execution order."""
    kind: Kind
    format: Format
    group: int
    exponent: int
    layer: int
    words: int
    rows: int
    offset_beats: int
    beats: int
    crc32: int

    def pack(self) -> bytes:
        return ENTRY.pack(self.kind, self.format, self.group, self.exponent, self.layer, self.words, self.rows,
                          self.offset_beats, self.beats, self.crc32, 0, 0)


def crcs(header: bytes) -> tuple[int, int]:
    """The CRCs of the header and of the weight stream, from the image's first bytes."""
    values = dict(zip((name for name, _, _ in HEADER_FIELDS), HEADER.unpack_from(header)))
    return values["header_crc"], values["payload_crc"]


def order(config: ModelConfig):
    """(kind, layer, checkpoint names) of every tensor, in the order of the stream: that of
    :mod:`llama2_spec.program`."""
    return program.tensors(config.n_layers, config.tied)


def columns(config: ModelConfig, kind: Kind) -> int:
    """Row length of a kind of tensor."""
    return {Kind.WO: config.q_dim, Kind.W2: config.hidden_dim}.get(kind, config.dim)


def matrix_rows(config: ModelConfig, kind: Kind) -> int:
    """Rows of a kind of matrix."""
    rows = {Kind.WQ: config.q_dim, Kind.WK: config.kv_dim, Kind.WV: config.kv_dim, Kind.WO: config.dim,
            Kind.W13: 2 * config.hidden_dim, Kind.W2: config.dim}
    return rows.get(kind, config.vocab_size)


def weights(config: ModelConfig) -> int:
    """Weights in matrices, a tied classifier counted once: what the conversion of a checkpoint has to do."""
    layer = 2 * config.dim * (config.q_dim + config.kv_dim) + 3 * config.dim * config.hidden_dim
    return config.n_layers * layer + config.vocab_size * config.dim * (1 if config.tied else 2)


def tensor_bytes(config: ModelConfig, kind: Kind, format: str, group: int | None = None) -> int:
    """Length of one matrix in the weight stream."""
    words = -(-columns(config, kind) // WORD)
    return packing.tensor_beats(matrix_rows(config, kind), words, format, group or GROUP[format]) * BEAT


def payload_bytes(config: ModelConfig, format: str, group: int | None = None, plan=None) -> int:
    """Length of the weight stream, before anything is converted; ``plan`` has a (format, group) for a (kind, layer)."""
    plan = plan or {}
    gain = -(-2 * config.dim // BEAT) * BEAT
    return sum(gain if kind == Kind.GAIN else tensor_bytes(config, kind, *plan.get((kind, layer), (format, group)))
               for kind, layer, _ in order(config))


def check(config: ModelConfig) -> None:
    """Refuse shapes that the layout cannot hold."""
    for name in ("dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "vocab_size", "seq_len"):
        if getattr(config, name) < 1:
            raise ImageError(f"{name} is {getattr(config, name)}: expected at least 1")
    if config.head_dim % 8 or config.head_dim > MAX_HEAD_DIM:
        raise ImageError(f"head_dim {config.head_dim} must be a multiple of 8 up to {MAX_HEAD_DIM}")
    if config.dim % 16 or config.q_dim % 16:
        raise ImageError(f"dim {config.dim} and n_heads * head_dim {config.q_dim} must be multiples of 16")
    if config.rope_factors and len(config.rope_factors) != config.score_dim // 2:
        raise ImageError(f"{len(config.rope_factors)} RoPE factors, expected one per pair, {config.score_dim // 2}")
    if config.hidden_dim > MAX_ROW:
        raise ImageError(f"hidden_dim {config.hidden_dim}: the core's 48-bit row sums hold rows of {MAX_ROW} columns "
                         "at most: use a smaller model")
    if max(config.dim, config.q_dim) > MAX_DIM:
        raise ImageError(f"dim {config.dim} and n_heads * head_dim {config.q_dim}: the core's 13-bit indices end at "
                         f"{MAX_DIM}: use a smaller model")
    if not round(config.norm_dim * config.norm_epsilon * 2 ** 32) < 1 << 32:
        raise ImageError(f"an RMSNorm epsilon of {config.norm_epsilon:g} with dim {config.norm_dim}: the core adds it "
                         f"to the sum of squares as a 32-bit fraction, so it must be below {1 / config.norm_dim:.2g}")
    if config.n_heads % config.n_kv_heads:
        raise ImageError(f"n_heads {config.n_heads} must be a multiple of n_kv_heads {config.n_kv_heads}")
