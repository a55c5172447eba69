"""Recognises files that are no llama2.c checkpoint by their first bytes, to refuse them by name."""

import numpy as np

from host.checkpoint.errors import CheckpointError

EXPORT = "export it with llama2.c's export.py"


# What the file is, how it starts, what to do instead.
KINDS = [
    ("a GGML file",               lambda head: head[:4] in (b"lmgg", b"tjgg", b"fmgg"),  EXPORT),
    ("a PyTorch file",            lambda head: head[:4] == b"PK\3\4",                    EXPORT),
    ("a Python pickle",           lambda head: head[:2] in (b"\x80\2", b"\x80\4"),       EXPORT),
    ("a llama2.ts container",     lambda head: head[:5].lower() == b"llama",             EXPORT),
    ("JSON, not weights",         lambda head: head[:1] == b"{" and head[1:2] in b' "\n\r',   "name the model's folder"),
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
    raise CheckpointError(f"{path}: this is {kind}, expected a checkpoint of llama2.c, GGUF or safetensors: {advice}")
