"""Gives the answer of llama2.c's run.c for a tokenizer.bin: its algorithm, by its description, in the simplest form."""
import struct


def says(data: bytes, texts: list[str], decode: list[list[int]]) -> dict:
    """Ids with BOS first, and what the ids print."""
    pieces, scores = _read(data)
    return {"ids": [[1, *_encode(pieces, scores, text.encode("utf-8", "surrogateescape"))] for text in texts],
            "texts": [_decode(pieces, ids) for ids in decode], "ends": [1, 2]}


def _read(data: bytes):
    pieces, scores, at = [], [], 4
    while at < len(data):
        score, length = struct.unpack_from("<fi", data, at)
        pieces.append(data[at + 8:at + 8 + length])
        scores.append(score)
        at += 8 + length
    bare = [chr(byte).encode() for byte in range(256)]
    if pieces[3:259] == bare:                   # an early file: the same vocabulary, its bytes by another name
        pieces[3:259] = [b"<0x%02X>" % byte for byte in range(256)]
    return pieces, scores


def _characters(data: bytes) -> list[bytes]:
    """Runs of a byte and the continuation bytes behind it, four at most."""
    found = []
    for byte in data:
        if found and byte & 0xC0 == 0x80 and len(found[-1]) < 4:
            found[-1] += bytes([byte])
        else:
            found.append(bytes([byte]))
    return found


def _encode(pieces, scores, data: bytes) -> list[int]:
    if not data:
        return []
    ids = [pieces.index(b" ")]
    for char in _characters(data):
        ids += [pieces.index(char)] if char in pieces else [byte + 3 for byte in char]
    while True:
        best = None
        for i in range(len(ids) - 1):
            joined = pieces[ids[i]] + pieces[ids[i + 1]]
            if joined in pieces and (best is None or scores[pieces.index(joined)] > scores[best[1]]):
                best = i, pieces.index(joined)
        if best is None:
            return ids
        ids[best[0]:best[0] + 2] = [best[1]]


def _decode(pieces, ids: list[int]) -> str:
    """Without what llama2.c's own marks for BOS and EOS would print; one space behind BOS is left out."""
    data, before = b"", 1
    for id in ids:
        piece = b"" if id in (1, 2) else pieces[id]
        if before == 1 and piece[:1] == b" ":
            piece = piece[1:]
        data += bytes([id - 3]) if 3 <= id < 259 else piece
        before = id
    return data.decode("utf-8", "replace")
