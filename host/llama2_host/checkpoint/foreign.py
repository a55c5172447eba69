"""Recognises files that are no llama2.c checkpoint by what they begin with, to refuse them by name."""
import re
import struct
from pathlib import Path

import numpy as np

from llama2_host.checkpoint.errors import CheckpointError

EXPORT = "export it with llama2.c's export.py"
TOKENIZER = "pass it with --tokenizer, and the model's weights with --model"
LFS = b"version https://git"
MAX_PIECE_BYTES = 4096          #: of an entry of a tokenizer.bin


# Rows: kind of file, its first bytes, what to do instead.
KINDS = [
    ("a GGML file",               lambda head: head[:4] in (b"lmgg", b"tjgg", b"fmgg"),  EXPORT),
    ("a PyTorch file",            lambda head: head[:4] == b"PK\3\4",                    EXPORT),
    ("a Python pickle",           lambda head: head[:2] in (b"\x80\2", b"\x80\4"),       EXPORT),
    ("a llama2.ts container",     lambda head: head[:5].lower() == b"llama" or head[5:10].lower() == b"llama", EXPORT),
    ("JSON, not weights",         lambda head: head[:1] == b"{" and head[1:2] in b' "\n\r',
     "name the model's folder"),
    ("a Git LFS pointer",         lambda head: head.startswith(LFS),                     "run git lfs pull"),
    ("a web page",                lambda head: head.lstrip()[:1] == b"<",                "download the file itself"),
    ("a gzip archive",            lambda head: head[:2] == b"\x1f\x8b",                  "unpack it first"),
    ("a sentencepiece tokenizer", lambda head: b"<unk>" in head[:12],                    TOKENIZER),
    ("a LLaMA-3 tokenizer",       lambda head: re.match(rb"[A-Za-z0-9+/]+={0,2} \d+\n", head), TOKENIZER),
]


def matches(head: bytes) -> bool:
    return any(starts(head) for _, starts, _ in KINDS)


def read(data: np.ndarray, path):
    head = bytes(data[:64])
    kind, _, advice = next(entry for entry in KINDS if entry[1](head))
    raise refusal(path, kind, advice)


def refusal(path, kind: str, advice: str) -> CheckpointError:
    """The error for a file that is something else."""
    return CheckpointError(f"{path}: this is {kind}, expected a checkpoint of llama2.c, GGUF or safetensors: {advice}")


def refuse_pointer(path: Path, head: bytes) -> None:
    """Refuse a file that Git left as a pointer to the real one."""
    if head.startswith(LFS):
        raise CheckpointError(f"{path}: this is a Git LFS pointer, the file itself was not fetched: run git lfs pull "
                              f"in {path.parent}")


def refuse_tokenizer(data: np.ndarray, path) -> None:
    """Refuse a llama2.c tokenizer.bin: entries of (score, length, bytes) that end exactly where the file does."""
    size, entries, at = len(data), 0, 4
    # numpy 1.26 does not say that arrays are buffers.
    view = memoryview(data)                     # type: ignore[arg-type]
    longest = struct.unpack_from("<i", view)[0] if size >= 4 else 0
    if not 0 < longest <= MAX_PIECE_BYTES:
        return
    while at + 8 <= size:
        score, length = struct.unpack_from("<fi", view, at)
        if not 0 <= length <= longest or score != score:
            return
        entries, at = entries + 1, at + 8 + length
    if at == size and entries >= 3:
        raise refusal(path, f"a llama2.c tokenizer of {entries} entries", TOKENIZER)
