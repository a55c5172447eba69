"""The tokenizer section of a model image where llama2.c's tokenizer.bin cannot say it: compressed JSON behind a
magic."""
import base64
import json
import zlib

MAGIC = b"TOKZ"                     #: as the length of a longest piece, which tokenizer.bin begins with, it would be
                                    #: huge


def matches(data: bytes) -> bool:
    return data[:len(MAGIC)] == MAGIC


def pack(kind: str, content: str, options: dict) -> bytes:
    """``content`` is the vocabulary as its kind has it, ``options`` what its constructor takes beside it."""
    text = json.dumps({"kind": kind, "content": content, "options": options}, ensure_ascii=False, separators=(",", ":"))
    return MAGIC + zlib.compress(text.encode(), 6)


def pack_scored(kind: str, binary: bytes, options: dict) -> bytes:
    """Pack a :class:`llama2_host.tokenizer.base.Tokenizer` that has more than pieces and scores."""
    return pack(kind, base64.b64encode(binary).decode(), options)
