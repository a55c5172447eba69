"""Reads a sentencepiece .model file: its pieces with their kinds, and the settings that decide how text is encoded."""
# Ref: https://protobuf.dev/programming-guides/encoding/; sentencepiece_model.proto of github.com/google/sentencepiece

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6     #: kinds of a piece; GGUF has the same
UNIGRAM, BPE = 1, 2
MODELS = {UNIGRAM: "unigram", BPE: "bpe", 3: "word", 4: "char"}
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


@dataclass
class Model:
    """The content of a file; the defaults are the format's own."""
    pieces: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    model_type: int = UNIGRAM
    byte_fallback: bool = False
    unk_id: int = 0
    bos_id: int = 1
    eos_id: int = 2
    unk_piece: str = "<unk>"
    bos_piece: str = "<s>"
    eos_piece: str = "</s>"
    unk_surface: str = " ⁇ "
    spaces_behind: bool = False             #: treat_whitespace_as_suffix
    charsmap: bytes = b""                   #: empty: identity
    dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    escape_whitespaces: bool = True

    @property
    def as_llama2(self) -> bool:
        """Returns whether llama2.c's tokenizer.bin can express this: byte-pair encoding of the text as it is, bytes at
        3 to 258."""
        return (self.model_type == BPE and self.byte_fallback and not self.charsmap and self.dummy_prefix
                and self.escape_whitespaces and not self.remove_extra_whitespaces and not self.spaces_behind
                and (self.unk_id, self.bos_id, self.eos_id) == (0, 1, 2)
                and self.kinds[:259] == [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256
                and set(self.kinds[259:]) <= {NORMAL})


TRAINER = {3: "model_type", 24: "spaces_behind", 35: "byte_fallback", 40: "unk_id", 41: "bos_id", 42: "eos_id",
           44: "unk_surface",
           45: "unk_piece", 46: "bos_piece", 47: "eos_piece"}
NORMALIZER = {2: "charsmap", 3: "dummy_prefix", 4: "remove_extra_whitespaces", 5: "escape_whitespaces"}


def parse(data: bytes) -> Model:
    """The model; ValueError for bytes that are none."""
    model = Model()
    for number, kind, value in _fields(data):
        if number == 1 and kind == BYTES:
            _piece(model, value)
        elif number in (2, 3) and kind == BYTES:
            names = TRAINER if number == 2 else NORMALIZER
            for inner, _, told in _fields(value):
                if inner in names:
                    _set(model, names[inner], told)
    if not model.pieces:
        raise ValueError("no pieces")
    return model


def _piece(model: Model, data: bytes) -> None:
    piece, score, kind = "", 0.0, NORMAL
    for number, wire, value in _fields(data):
        if number == 1 and wire == BYTES:
            piece = value.decode()
        elif number == 2 and wire == FIXED32:
            score = struct.unpack("<f", value)[0]
        elif number == 3 and wire == VARINT:
            kind = value
    model.pieces.append(piece)
    model.scores.append(score)
    model.kinds.append(kind)


def _set(model: Model, name: str, value) -> None:
    default = getattr(model, name)
    if isinstance(value, int) is not isinstance(default, int):
        raise ValueError(f"{name} is of another type")
    if isinstance(default, bool):
        value = bool(value)
    elif isinstance(default, int):              # negative numbers are written as 64 bits
        value -= (value >> 63) << 64
    elif isinstance(default, str):
        value = value.decode()
    setattr(model, name, value)


def _fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """Number, wire type and value of every field: integers for varints, bytes for the others."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        value: int | bytes
        if kind == VARINT:
            value, at = _varint(data, at)
        else:
            length = {FIXED64: 8, FIXED32: 4}.get(kind)
            if kind == BYTES:
                length, at = _varint(data, at)
            if length is None or at + length > len(data):
                raise ValueError(f"field {number} is damaged")
            value, at = data[at:at + length], at + length
        yield number, kind, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("truncated")
        byte, at = data[at], at + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (1 << 64) - 1, at
    raise ValueError("a number of more than 64 bits")
