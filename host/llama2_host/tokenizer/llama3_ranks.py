"""Reads LLaMA-3's own tokenizer.model: lines of base64 in the order in which pieces merge, and 256 special tokens."""
# Ref: https://github.com/openai/tiktoken for ranks; Meta's tokenizer.py for the special tokens

import base64
import binascii
from pathlib import Path

from llama2_host.tokenizer.byte_level import describe, split_by
from llama2_host.tokenizer.json_tokenizer import BYTE_TO_CHAR, JsonTokenizer
from llama2_host.tokenizer.base import TokenizerError

LLAMA3_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| "
                r"?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
                r"\s+(?!\S)|\s+")
LLAMA3_NAMED = {0: "begin_of_text", 1: "end_of_text", 4: "finetune_right_pad_id", 6: "start_header_id",
                7: "end_header_id", 8: "eom_id", 9: "eot_id", 10: "python_tag"}
LLAMA3_SPECIALS = 256
LLAMA3_STOPS = (1, 8, 9)


def is_ranks(head: bytes) -> bool:
    """Lines of base64 and rank, the first of rank 0."""
    piece, space, rest = head.partition(b" ")
    return bool(space) and 4 <= len(piece) <= 12 and rest[:2] in (b"0\n", b"0\r")


def read_ranks(data: bytes, path: Path) -> list[bytes]:
    pieces: list[bytes] = []
    try:
        for line in data.splitlines():
            piece, rank = line.split()
            if int(rank) != len(pieces):
                raise ValueError(f"rank {int(rank)} on line {len(pieces) + 1}")
            pieces.append(base64.b64decode(piece, validate=True))
    except (ValueError, binascii.Error) as error:
        raise TokenizerError(f"{path}: damaged LLaMA-3 tokenizer ({str(error)[:80]}): copy the file again") from None
    return pieces


def is_llama3(pieces: list[bytes]) -> bool:
    """Returns whether a vocabulary ends with LLaMA-3's special tokens."""
    return len(pieces) > LLAMA3_SPECIALS and pieces[-LLAMA3_SPECIALS] == b"<|begin_of_text|>"


def from_ranks(pieces: list[bytes], name) -> JsonTokenizer:
    """LLaMA-3's vocabulary: pieces in the order in which they merge, then 256 special tokens."""
    if len(set(pieces)) != len(pieces) or not all(0 < len(piece) <= 4096 for piece in pieces):
        raise TokenizerError(f"{name}: damaged LLaMA-3 tokenizer (an entry twice, or empty): copy the file again")
    if not {bytes([byte]) for byte in range(256)} <= set(pieces):
        raise TokenizerError(f"{name}: damaged LLaMA-3 tokenizer (not all bytes are entries): copy the file again")
    reserved = iter(range(LLAMA3_SPECIALS))
    texts = [f"<|{LLAMA3_NAMED[i]}|>" if i in LLAMA3_NAMED else f"<|reserved_special_token_{next(reserved)}|>"
             for i in range(LLAMA3_SPECIALS)]
    first = len(pieces)
    ranks = {piece: rank for rank, piece in enumerate(pieces)}
    merges = [" ".join(map(_characters, parts)) for piece in pieces if len(parts := _last_merge(piece, ranks)) == 2]
    content = describe([_characters(piece) for piece in pieces], merges,
                        {first + i: (text, True) for i, text in enumerate(texts)}, split_by(LLAMA3_SPLIT),
                       whole_words=True)
    return JsonTokenizer(content, name=name, bos_id=first, eos_id=first + 1, adds_bos=True,
                         stop_ids=tuple(first + i for i in LLAMA3_STOPS))


def _last_merge(piece: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    """The two parts that become ``piece``: what merging by lower ranks leaves of it.

    There are more than two parts if no merge makes it: such an entry is only found whole, see ``whole_words``.
    """
    parts, limit = [piece[i:i + 1] for i in range(len(piece))], ranks[piece]
    while len(parts) > 2:
        best, at = min((ranks.get(a + b, limit), i) for i, (a, b) in enumerate(zip(parts, parts[1:])))
        if best >= limit:
            break
        parts[at:at + 2] = [parts[at] + parts[at + 1]]
    return parts


def _characters(piece: bytes) -> str:
    return "".join(BYTE_TO_CHAR[byte] for byte in piece)
