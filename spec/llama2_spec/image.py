"""The model image is one file that is also the DRAM's content: header, directory, tables, texts, then the weight
stream.

Tensors lie in the order in which the core consumes them. Offsets count bytes from the start of the file, or beats where
they say so.
"""
import io
import struct
import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from llama2_spec import packing
from llama2_spec.image_check import check_entries, check_header
from llama2_spec.image_layout import (
    CHECKED_FROM, ENTRY, ENTRY_FIELDS, GROUP, HEADER, HEADER_BYTES, HEADER_FIELDS, MAGIC, PAYLOAD_ALIGN, VERSION, Entry,
    Format,
    ImageError, check, columns, crcs, matrix_rows, order, payload_bytes, tensor_bytes, weights)
from llama2_spec.model import KvFormat, ModelConfig
from llama2_spec.numerics import split_scale
from llama2_spec.packing import BEAT, Quantised
from llama2_spec.program import Kind

# Re-exports the layout's names, so that readers and writers of images import this module alone.
__all__ = ["CHECKED_FROM", "ENTRY", "ENTRY_FIELDS", "GROUP", "HEADER", "HEADER_BYTES", "HEADER_FIELDS", "MAGIC",
           "PAYLOAD_ALIGN", "VERSION",
           "Entry", "Format", "Image", "ImageError", "Kind", "build", "check", "columns", "crcs", "matrix_rows",
           "native", "order",
           "payload_bytes", "quantised", "row_elements", "row_layout", "tensor_bytes", "weights", "write"]


def _gain(values, dim: int) -> tuple[bytes, int]:
    """Gains times sqrt(dim) as int16 with one exponent; dim counts the elements that the norm averages over."""
    values = np.asarray(values, np.float64) * np.sqrt(dim)
    largest = float(np.abs(values).max())
    exponent = max(int(np.floor(np.log2(largest))) - 14, packing.MIN_EXPONENT) if largest else 0
    codes = np.clip(np.round(values / 2.0 ** exponent), -32768, 32767).astype("<i2")
    return codes.tobytes() + bytes(-len(codes) * 2 % BEAT), exponent


def _planned(choice, tensors, names, groups):
    """The pieces of a tensor with their weights: as they are if it is quantised already, else in the chosen format and
    group size."""
    if isinstance(choice, Quantised):
        return _ready(choice, [tensors[name] for name in names])
    format, group = choice
    return _pieces(tensors, names, format, group or GROUP[format], groups)


def _ready(whole: Quantised, parts):
    """The pieces of a tensor that is quantised already."""
    step = _rows_at_a_time(parts[0].shape)
    for a in range(0, parts[0].shape[0], step):
        rows = slice(a * len(parts), (a + step) * len(parts))
        piece = Quantised(whole.format, whole.group, whole.codes[rows], whole.zeros[rows], whole.mantissas[rows],
                          whole.exponent)
        yield piece, _interleave([np.asarray(part[a:a + step], np.float32) for part in parts])


def quantised(tensors, names, format: str, group: int, groups=None) -> Quantised:
    """A whole tensor of the image, as :func:`write` makes it of the named tensors of a checkpoint."""
    pieces = [piece for piece, _ in _pieces(tensors, names, format, group, groups)]
    codes, zeros, mantissas = (np.concatenate([getattr(piece, name) for piece in pieces])
                               for name in ("codes", "zeros", "mantissas"))
    return Quantised(format, pieces[0].group, codes, zeros, mantissas, pieces[0].exponent)


def _pieces(tensors, names, format: str, group: int, groups):
    """Yields a tensor as Quantised pieces of consecutive rows, each with its weights as float32.

    A piece is small, so a tensor of any size fits in memory. Rows alternate where several tensors of a checkpoint make
    one.
    """
    step = _rows_at_a_time(tensors[names[0]].shape)
    rows = range(0, tensors[names[0]].shape[0], step)
    held = native(names, format, groups)
    if held:
        codes, scales, size = [part.codes for part in held], [part.scales for part in held], held[0].group
        largest = max(float(np.max(part[a:a + step], initial=0)) for part in scales for a in rows)
        exponent = packing.scale_exponent(largest)
        for a in rows:
            values, steps = (_interleave([np.asarray(part[a:a + step]) for part in held]) for held in (codes, scales))
            weights = values * np.repeat(np.asarray(steps, np.float32), size, axis=1)[:, :values.shape[1]]
            yield packing.carried_over(values, steps, size, exponent, format), weights
        return
    parts = [tensors[name] for name in names]
    exponent = packing.scale_exponent(max(packing.largest_scale(part[a:a + step], format=format, group=group)
                                          for part in parts for a in rows))
    for a in rows:
        weights = _interleave([np.asarray(part[a:a + step], np.float32) for part in parts])
        yield packing.quantise(weights, format=format, group=group, exponent=exponent), weights


def _rows_at_a_time(shape) -> int:
    """Whole superblocks of about a million weights."""
    return max((1 << 20) // shape[1] // packing.SUPERBLOCK, 1) * packing.SUPERBLOCK


def native(names, format: str, groups) -> list[packing.Native] | None:
    """The parts of a tensor, if the file holds all of them in this format and in groups of one size."""
    stored = [groups.get(name) if groups else None for name in names]
    parts = [part.rowwise() if part and part.format == format else None for part in stored]
    held = [part for part in parts if part is not None]
    return held if len(held) == len(parts) and len({part.group for part in held}) == 1 else None


def _interleave(parts):
    return parts[0] if len(parts) == 1 else np.stack(parts, axis=1).reshape(-1, parts[0].shape[1])


def build(config: ModelConfig, tensors, **options) -> bytes:
    """Like :func:`write`, but returns the image in memory."""
    file = io.BytesIO()
    write(file, config, tensors, **options)
    return file.getvalue()


def write(file, config: ModelConfig, tensors, *, format: str = "q8", group: int | None = None, tokenizer: bytes = b"",
          template: str = "", provenance: str = "", groups=None, plan=None, report=lambda done: None,
          watch=lambda kind, layer, weights, piece: None) -> int:
    """Quantise a checkpoint's tensors and write the image to an empty, seekable file; returns its length in bytes.

    ``tensors`` are arrays, or anything whose slices of rows are: no more than a slice is held in memory. ``group`` is
    64 for q8 and 32 for q4 unless given; ``groups`` holds the file's own groups (:class:`llama2_spec.packing.Native`),
    whose codes are carried over unchanged. ``plan`` has for a (kind, layer) its own (format, group), or the tensor
    already quantised. ``report(done)`` is told how many weights of :func:`weights` are written; ``watch(kind, layer,
    weights, piece)`` sees consecutive rows of every matrix as float32, and quantised.
    """
    check(config)
    plan = plan or {}
    items = list(order(config))
    rope = _rope(config).astype("<u4").tobytes()
    texts = [tokenizer, template.encode(), provenance.encode()]
    rope_offset = HEADER_BYTES + len(items) * ENTRY.size
    offsets, at = [], rope_offset + len(rope)
    for text in texts:
        offsets.append(at)
        at += -(-len(text) // 4) * 4
    payload_offset = -(-at // PAYLOAD_ALIGN) * PAYLOAD_ALIGN
    file.seek(payload_offset)
    stream = _Stream(file, payload_offset)
    directory, done = [], 0
    for kind, layer, names in items:
        stream.begin()
        if kind == Kind.GAIN:
            data, exponent = _gain(tensors[names[0]], config.norm_dim)
            stream.write(data)
            entry = Format.Q8, 0, exponent, layer, len(data) // BEAT, config.dim
        else:
            rows = 0
            for piece, exact in _planned(plan.get((kind, layer), (format, group)), tensors, names, groups):
                watch(kind, layer, exact, piece)
                stream.write(packing.pack(piece))
                rows, done = rows + piece.rows, done + piece.codes.size
                report(done)
            entry = Format[piece.format.upper()], piece.group, piece.exponent, layer, piece.words, rows
        directory.append(Entry(kind, *entry, stream.start // BEAT, stream.length // BEAT, stream.crc))
    body = b"".join(entry.pack() for entry in directory) + rope
    for text, offset in zip(texts, offsets):
        body += bytes(offset - HEADER_BYTES - len(body)) + text
    body += bytes(payload_offset - HEADER_BYTES - len(body))
    mantissa, exponent = split_scale(np.log2(np.e) / np.sqrt(config.score_dim))
    values = (MAGIC, VERSION, stream.at, 0, payload_offset, stream.at - payload_offset, stream.payload_crc,
              config.dim, config.hidden_dim, config.n_layers, config.n_heads, config.n_kv_heads, config.head_dim,
              config.vocab_size, config.seq_len, int(config.tied),
              round(config.norm_dim * config.norm_epsilon * 2 ** 32),
              mantissa | (exponent & 0xff) << 16, config.norm_epsilon, config.rope_theta, HEADER_BYTES, len(items),
              rope_offset, offsets[0], len(texts[0]), offsets[1], len(texts[1]), offsets[2], len(texts[2]),
              KvFormat(config.kv))
    header = bytearray(HEADER.pack(*values).ljust(HEADER_BYTES, b"\0"))
    struct.pack_into("<I", header, 12, zlib.crc32(bytes(header[CHECKED_FROM:]) + body))
    file.seek(0)
    file.write(bytes(header) + body)
    return stream.at


class _Stream:
    """Writes the weight stream to a file, and keeps the offset, the tensor's CRC and the whole stream's."""

    def __init__(self, file, at: int):
        self.file, self.at, self.payload_crc = file, at, 0
        self.begin()

    def begin(self) -> None:
        """The next tensor starts here."""
        self.start, self.length, self.crc = self.at, 0, 0

    def write(self, data: bytes) -> None:
        if self.at + len(data) >= 1 << 32:
            raise ImageError("the image would be larger than 4 GiB, which its 32-bit lengths cannot say: "
                             "choose --format q4 or a smaller model")
        self.file.write(data)
        self.at, self.length = self.at + len(data), self.length + len(data)
        self.crc, self.payload_crc = zlib.crc32(data, self.crc), zlib.crc32(data, self.payload_crc)


def _rope(config: ModelConfig) -> np.ndarray:
    i = np.arange(config.score_dim // 2)
    turns = config.rope_theta ** (-2.0 * i / config.score_dim) / np.asarray(config.rope_factors or 1.0) / (2 * np.pi)
    added = (config.head_dim - config.score_dim) // 2       # pairs of zeros: they turn to zeros
    return np.round(np.pad(turns, (0, added)) * 2.0 ** 32).astype(np.uint64)


def _true_sizes(header) -> dict[str, Any]:
    """The sizes before zeros were added, recovered from the constants that depend on them; 0 if no zeros were added.

    An epsilon of fewer than 12 bits does not reveal the size; dim then counts as the true one.
    """
    mantissa, exponent = header["score_scale"] & 0xffff, header["score_scale"] >> 16 & 0xff
    score_scale = mantissa * 2.0 ** (exponent - 256 * (exponent >> 7))
    head_dim = round((np.log2(np.e) / score_scale) ** 2) if mantissa else 0
    epsilon, unit = header["epsilon"], header["norm_epsilon"] * 2.0 ** 32
    dim = round(epsilon / unit) if epsilon >= 1 << 12 and unit > 0 else 0
    return {"true_dim": dim if 0 < header["dim"] - dim < 16 else 0,
            "true_head_dim": head_dim if 0 < header["head_dim"] - head_dim < 16 else 0}


@dataclass
class Image:
    """A parsed image; ``data`` is bytes, or a file mapped to memory."""
    data: bytes
    config: ModelConfig
    header: dict
    entries: tuple[Entry, ...]

    @classmethod
    def parse(cls, data: bytes, *, weights: bool = True) -> "Image":
        """Check and read; raises :class:`ImageError` with what is wrong.

        What was parsed can be used without further checks: every offset, length and number is within its bounds.
        Without ``weights`` the weight stream may be missing, and only what lies before it is used.
        """
        if len(data) < HEADER_BYTES:
            raise ImageError(f"the image is {len(data)} bytes, shorter than its header: copy it again")
        h = dict(zip((name for name, _, _ in HEADER_FIELDS), HEADER.unpack_from(data)))
        if h["magic"] != MAGIC:
            raise ImageError("not a model image (no LLMI at its start): make one with llama2-host convert")
        if h["version"] != VERSION:
            raise ImageError(
                f"image version {h['version']}, this program reads {VERSION}: convert the checkpoint again")
        if len(data) != h["file_bytes"]:
            raise ImageError(f"the image is {len(data)} bytes, its header says {h['file_bytes']}: copy it again")
        if (not HEADER_BYTES <= h["payload_offset"] <= len(data)
                or zlib.crc32(data[CHECKED_FROM:h["payload_offset"]]) != h["header_crc"]):
            raise ImageError("the image's header is damaged (CRC): copy or convert it again")
        if zlib.crc32(memoryview(data)[h["payload_offset"]:]) != h["payload_crc"]:
            raise ImageError("the image's weights are damaged (CRC): copy or convert it again")
        if h["kv_format"] not in tuple(KvFormat):
            raise ImageError(f"K/V format {h['kv_format']}, this program knows "
                             f"{', '.join(f'{f:d} ({f.name.lower()})' for f in KvFormat)}: convert the checkpoint "
                             "again")
        config = ModelConfig(**{name: h[name] for name in ("dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads",
                                                           "head_dim",
                                                           "vocab_size", "seq_len")},
                             norm_epsilon=float(h["norm_epsilon"]), rope_theta=float(h["rope_theta"]),
                             tied=bool(h["tied"]),
                             kv=KvFormat(h["kv_format"]))
        check_header(h, config)
        config = replace(config, **_true_sizes(h))
        entries = []
        for i in range(h["entries_count"]):
            kind, format, *fields, crc, _, _ = ENTRY.unpack_from(data, h["entries_offset"] + i * ENTRY.size)
            if kind not in tuple(Kind) or format not in tuple(Format):
                raise ImageError(f"the image's tensor number {i} is of kind {kind} and format {format}, which this "
                                 "program does not know: convert the checkpoint again")
            group, exponent, layer, words, rows, offset_beats, beats = fields
            entries.append(Entry(Kind(kind), Format(format), group, exponent, layer, words, rows, offset_beats, beats,
                                 crc))
        image = cls(data, config, h, tuple(entries))
        check_entries(image, weights=weights)
        return image

    def header_with(self, *, seq_len: int, kv: KvFormat) -> bytes:
        """The first HEADER_BYTES of the image with the same weights and another context; only the header depends on the
        context."""
        values = self.header | {"seq_len": seq_len, "kv_format": int(kv)}
        header = bytearray(HEADER.pack(*values.values()).ljust(HEADER_BYTES, b"\0"))
        checked = bytes(header[CHECKED_FROM:]) + bytes(self.data[HEADER_BYTES:self.header["payload_offset"]])
        struct.pack_into("<I", header, 12, zlib.crc32(checked))
        return bytes(header)

    def replaced(self, data, seq_len: int, kv: KvFormat) -> "Image":
        """This image with the bytes ``data``, whose header comes from :meth:`header_with` for the same context."""
        header = dict(zip(self.header, HEADER.unpack_from(data)))
        return Image(data, replace(self.config, seq_len=seq_len, kv=kv), header, self.entries)

    def _section(self, name: str) -> bytes:
        at = self.header[f"{name}_offset"]
        return self.data[at:at + self.header[f"{name}_bytes"]]

    @property
    def tokenizer(self) -> bytes:
        return self._section("tokenizer")

    @property
    def template(self) -> str:
        return self._section("template").decode()

    @property
    def provenance(self) -> str:
        return self._section("provenance").decode()

    @cached_property
    def rope(self) -> np.ndarray:
        """Turns per position * 2**32, (head_dim / 2,)."""
        return np.frombuffer(self.data, "<u4", self.config.head_dim // 2, self.header["rope_offset"]).astype(np.int64)

    def beats(self, entry: Entry) -> bytes:
        return self.data[entry.offset_beats * BEAT:(entry.offset_beats + entry.beats) * BEAT]

    def gain(self, entry: Entry) -> np.ndarray:
        return np.frombuffer(self.beats(entry), "<i2", entry.rows).astype(np.int64)

    def tensor(self, entry: Entry) -> Quantised:
        return packing.unpack(self.beats(entry), rows=entry.rows, columns=columns(self.config, entry.kind),
                              format=entry.format.name.lower(), group=entry.group, exponent=entry.exponent)

    @property
    def embedding(self) -> Entry:
        return self.entries[-1]



def row_layout(config: ModelConfig) -> tuple[int, int]:
    """Header beats and beats in all of one position's row in a layer of the K/V cache."""
    head = -(-2 * config.n_kv_heads // BEAT)
    return head, head + sum(-(-config.kv_dim * bits // (8 * BEAT)) for bits in (config.kv.k_bits, config.kv.v_bits))


def row_elements(mantissas: np.ndarray, bits: int) -> bytes:
    """K's or V's elements (kv_dim,) in their beats of a row: 8 of 16 bits, or 16 of 8 bits.

    Elements i and 8 + i of 8 bits lie side by side, so the core unpacks either eight with one selector per byte. If
    half of the last beat is unused, it holds zeros in this array and anything in DRAM.
    """
    if bits == 16:
        return mantissas.astype("<i2").tobytes()
    eights = np.zeros((-(-len(mantissas) // BEAT) * 2, 8), np.int8)
    eights.reshape(-1)[:len(mantissas)] = mantissas
    return eights.reshape(-1, 2, 8).swapaxes(1, 2).tobytes()
