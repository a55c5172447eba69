"""Reads llama2.c's tokenizer.bin: pieces with their merge scores."""
# Ref: karpathy/llama2.c, tokenizer.py export and run.c build_tokenizer

import struct

from llama2_host.tokenizer import llama3_ranks
from llama2_host.tokenizer.base import BYTE_PIECES, EOS, FIRST_BYTE, Tokenizer, TokenizerError
from llama2_host.tokenizer.json_tokenizer import JsonTokenizer

MAX_PIECE_BYTES = 4096                     # longer than any real piece: a guard against foreign files
BARE_BYTES = [chr(byte).encode() for byte in range(256)]    # what early files have in place of BYTE_PIECES
WITHOUT_SCORES = b"\5\0\0\0<unk>"


def read(data: bytes, name="tokenizer") -> Tokenizer | JsonTokenizer:
    """The tokenizer in a file's bytes; ``name`` begins the error messages."""
    if data[:len(WITHOUT_SCORES)] == WITHOUT_SCORES:
        raise TokenizerError(f"{name}: unsupported: the first kind of tokenizer.bin, without the scores that encoding "
                             "needs: take a newer one, or the tokenizer.model that it was made from")
    pieces, scores = _entries(data, name)
    if len(pieces) <= EOS:
        raise TokenizerError(f"{name}: {len(pieces)} entries, expected unknown, BOS, EOS and more: "
                             "copy the file again")
    if llama3_ranks.is_llama3(pieces):      # the same file for LLaMA-3, where a score is a rank
        return llama3_ranks.from_ranks(pieces[:-llama3_ranks.LLAMA3_SPECIALS], name)
    if pieces[FIRST_BYTE:FIRST_BYTE + 256] == BARE_BYTES:
        pieces[FIRST_BYTE:FIRST_BYTE + 256] = BYTE_PIECES
    return Tokenizer(pieces, scores)


def _entries(data: bytes, name) -> tuple[list[bytes], list[float]]:
    pieces: list[bytes] = []
    scores: list[float] = []
    offset = 4
    longest = struct.unpack_from("<i", data)[0] if len(data) >= 4 else 0
    if not 0 < longest <= MAX_PIECE_BYTES:
        raise TokenizerError(f"{name}: no llama2.c tokenizer: longest piece of {longest} bytes, expected 1 to "
                             f"{MAX_PIECE_BYTES}: pass tokenizer.bin, tokenizer.model or tokenizer.json")
    while offset < len(data):
        if len(data) - offset < 8:
            raise TokenizerError(f"{name}: truncated in entry {len(pieces)}: {len(data) - offset} bytes left, "
                                 "expected 8 or more: copy the file again")
        score, length = struct.unpack_from("<fi", data, offset)
        offset += 8
        if not 0 <= length <= longest:
            raise TokenizerError(f"{name}: entry {len(pieces)} has {length} bytes, expected 0 to {longest}: "
                                 "damaged, or no llama2.c tokenizer")
        if length > len(data) - offset:
            raise TokenizerError(f"{name}: truncated in entry {len(pieces)}: {len(data) - offset} bytes left, "
                                 f"expected {length}: copy the file again")
        if score != score:
            raise TokenizerError(f"{name}: entry {len(pieces)} has no number as its score: copy the file again")
        pieces.append(data[offset:offset + length])
        scores.append(score)
        offset += length
    return pieces, scores
