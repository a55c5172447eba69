"""Recognises files that are no llama2.c checkpoint by their first bytes, to refuse them by name."""

import struct

import numpy as np

from host.checkpoint.errors import CheckpointError

EXPORT = "export it with llama2.c's export.py"


def _is_safetensors(head: bytes) -> bool:
    if len(head) < 9:
        return False
    length, = struct.unpack_from("<Q", head)
    return 2 <= length < 1 << 32 and head[8:9] == b"{"


# What the file is, how it starts, what to do instead.
KINDS = [
    ("a GGUF file",               lambda head: head[:4] == b"GGUF",                      EXPORT),
    ("a GGML file",               lambda head: head[:4] in (b"lmgg", b"tjgg", b"fmgg"),  EXPORT),
    ("a safetensors file",        _is_safetensors,                                       EXPORT),
    ("a PyTorch file",            lambda head: head[:4] == b"PK\3\4",                    EXPORT),
    ("a Python pickle",           lambda head: head[:2] in (b"\x80\2", b"\x80\4"),       EXPORT),
    ("a llama2.ts container",     lambda head: head[:5].lower() == b"llama",             EXPORT),
    ("a Git LFS pointer",         lambda head: head.startswith(b"version https://git"),  "run git lfs pull"),
    ("a web page",                lambda head: head.lstrip()[:1] == b"<",                "download the file itself"),
    ("a gzip archive",            lambda head: head[:2] == b"\x1f\x8b",                  "unpack it first"),
    ("a sentencepiece tokenizer", lambda head: b"<unk>" in head[:16],                    "pass it with --tokenizer"),
]


def matches(head: bytes) -> bool:
    return any(starts(head) for _, starts, _ in KINDS)


def read(data: np.ndarray, path):
    head = bytes(data[:64])
    kind, _, advice = next(entry for entry in KINDS if entry[1](head))
    raise CheckpointError(f"{path}: this is {kind}, expected a llama2.c checkpoint (v0, v1 or v2): {advice}")
