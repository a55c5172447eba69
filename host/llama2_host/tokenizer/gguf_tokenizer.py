"""Gives text for token ids and back as llama.cpp does with a GGUF file's scored vocabulary."""
# Ref: https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp, llm_tokenizer_spm and
# tokenizer_st_partition

import heapq

from llama2_host.tokenizer.base import BYTE_PIECES, Tokenizer

SPACE = "▁".encode()


class GgufTokenizer(Tokenizer):
    """A scored vocabulary whose special tokens are found first, the longest before all others.

    What differs from llama2.c: characters merge by their texts, whether or not each is an entry; the text that follows
    a special token begins with a space of the tokenizer's own. Pieces are as the file has them, with "▁" for a space.
    """
    kind = "gguf"
    chat_bos = True         #: a chat begins with BOS whether or not its template writes one

    def __init__(self, pieces, scores, **options):
        super().__init__(pieces, scores, **options)
        self._ids = {piece: id for id, piece in enumerate(pieces) if piece}
        # Byte fallback, wherever its entries are; a vocabulary may have the bare character in place of one.
        self._of_byte = [self._ids.get(name, self._ids.get(bytes([byte]), self.unk_id))
                         for byte, name in enumerate(BYTE_PIECES)]
        self._byte = {id: bytes([byte]) for byte, id in enumerate(self._of_byte)
                      if self.pieces[id] == BYTE_PIECES[byte]}
        self._raw = frozenset(self.specials.values())
        self._longest_first = longest_first(self.specials)

    def encode(self, text: str, bos: bool = True, eos: bool = False) -> list[int]:
        """Token ids of ``text``; ``bos``: with what a text begins and ends with."""
        ids = [self.bos_id] if bos and self.adds_bos else []
        after_special = True
        for part in partition(_bytes(text), self._longest_first):
            if isinstance(part, int):
                ids.append(part)
            else:
                prefix = b" " if self.space_prefix and after_special else b""
                ids += self._merged((prefix + part).replace(b" ", SPACE))
            after_special = isinstance(part, int)
        return ids + [self.eos_id] if eos or bos and self.adds_eos else ids

    def strips_after(self, id: int, strip: bool) -> bool:
        """Returns whether the next piece loses its leading space after a silent id. The first piece of a text does, BOS
        or not."""
        return strip and id == self.bos_id

    def _merged(self, text: bytes) -> list[int]:
        """Neighbours of the best score merge first, the leftmost on ties; what is no entry is told in bytes."""
        symbols = [char for char in _characters(text)]
        after, before = list(range(1, len(symbols) + 1)), list(range(-1, len(symbols) - 1))
        heap: list[tuple[float, int, bytes]] = []

        def offer(left):
            if left >= 0 and after[left] < len(symbols):
                joined = symbols[left] + symbols[after[left]]
                if (id := self._ids.get(joined)) is not None:
                    heapq.heappush(heap, (-self.scores[id], left, joined))

        for left in range(len(symbols)):
            offer(left)
        while heap:
            _, left, joined = heapq.heappop(heap)
            right = after[left]
            if not symbols[left] or right >= len(symbols) or symbols[left] + symbols[right] != joined:
                continue                   # one of the two is in another piece by now
            symbols[left], symbols[right] = joined, b""
            after[left] = after[right]
            if after[left] < len(symbols):
                before[after[left]] = left
            offer(before[left])
            offer(left)
        return [id for symbol in symbols if symbol for id in self._told(symbol)]

    def _told(self, symbol: bytes) -> list[int]:
        if symbol in self._ids:
            return [self._ids[symbol]]
        return [self._of_byte[byte] for byte in symbol]

    def byte(self, id: int) -> bytes | None:
        """The byte that an entry of byte fallback stands for; None for any other entry."""
        return self._byte.get(id)

    def piece(self, id: int, first: bool) -> bytes:
        """The bytes that an id adds to a text; the first piece leaves out the space that encode put first."""
        piece = self.byte(id) or (self.pieces[id] if id in self._raw else self.pieces[id].replace(SPACE, b" "))
        return piece[1:] if first and self.space_prefix and piece[:1] == b" " else piece


def _bytes(text: str) -> bytes:
    # Bytes of a command line that are no UTF-8 arrive as lone surrogates, and leave as bytes.
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def longest_first(specials: dict[str, int]) -> list[tuple[bytes, int]]:
    """Special tokens in the order in which llama.cpp looks for them."""
    return sorted(((text.encode("utf-8", "replace"), id) for text, id in specials.items() if text),
                  key=lambda special: -len(special[0]))


def partition(text: bytes, specials: list[tuple[bytes, int]]) -> list[bytes | int]:
    """Texts, and the ids of special tokens between them; each is looked for in what the ones before it left."""
    parts: list[bytes | int] = [text] if text else []
    for special, id in specials:
        if special in text:
            parts = [piece for part in parts for piece in (_cut(part, special, id) if isinstance(part, bytes)
                                                           else [part])]
    return parts


def _cut(text: bytes, special: bytes, id: int) -> list[bytes | int]:
    first, *rest = text.split(special)
    parts: list[bytes | int] = [first]
    for part in rest:
        parts += [id, part]
    return [part for part in parts if part != b""]


def _characters(text: bytes):
    """Characters by what their first byte says, as llama.cpp cuts them."""
    at = 0
    while at < len(text):
        length = (1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 4)[text[at] >> 4]
        yield text[at:at + length]
        at += length
