"""Turns text into token ids and back as llama2.c does, by the merge scores of a vocabulary; holds what all kinds
share."""
# Ref: karpathy/llama2.c, run.c encode and decode; Sennrich et al. 2016, byte-pair encoding

import codecs
import heapq
import re
import struct
from collections.abc import Iterable

from llama2_host.errors import HostError
from llama2_host.tokenizer import section

UNK, BOS, EOS = 0, 1, 2
FIRST_BYTE = 3                             # id of "<0x00>", the other bytes follow
BYTE_PIECES = [b"<0x%02X>" % byte for byte in range(256)]

EACH_BYTE = "host.each_byte"               #: in place of what is no character: a sign for each of its bytes


def _each_byte(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)    # only decoding names this
    return "\N{REPLACEMENT CHARACTER}" * (error.end - error.start), error.end


codecs.register_error(EACH_BYTE, _each_byte)


class TokenizerError(HostError, ValueError):
    """One line: what is wrong with the tokenizer, what was expected, what to try."""


class Tokenizer:
    """A vocabulary of byte pieces with merge scores. Ids 0, 1, 2 are unknown, BOS, EOS unless said otherwise.

    With byte fallback (the 256 bytes are entries, from id 3 in LLaMA-2) every text survives encode and decode
    unchanged.

    Parameters
    ----------
    pieces, scores : list
        Bytes and merge score by id.
    specials : dict of str to int
        Texts that are one token wherever they occur, as chat templates need them; the output leaves them out.
    stop_ids : tuple of int
        Ids that end a text, at least EOS.
    adds_bos, adds_eos, space_prefix : bool
        Does :meth:`encode` begin with BOS, end with EOS, and put a space before the text?
    silent_ids : tuple of int
        Ids that the output leaves out; None: BOS, EOS and the special ones.
    special_texts : dict of str to str
        How special tokens are written, by the name that chat templates know them by: ``bos_token``... None: BOS and
        EOS.
    """
    kind = "scored"         #: in a packed vocabulary
    errors = "replace"      #: how bytes that are no character are printed, as codecs name it
    chat_bos = False        #: does a chat begin with BOS where its template writes none?

    def __init__(self, pieces: list[bytes], scores: list[float], *, specials: dict[str, int] | None = None,
                 unk_id: int = UNK,
                 bos_id: int = BOS, eos_id: int = EOS, stop_ids: tuple[int, ...] = (), adds_bos: bool = True,
                 space_prefix: bool = True, adds_eos: bool = False, silent_ids: Iterable[int] | None = None,
                 special_texts: dict[str, str] | None = None):
        self.pieces, self.scores = pieces, scores
        self.specials = dict(specials or {})
        self.unk_id, self.bos_id, self.eos_id = unk_id, bos_id, eos_id
        self.stop_ids = tuple(stop_ids) or (bos_id, eos_id)     # llama2.c ends a story at BOS, too
        self.adds_bos, self.adds_eos, self.space_prefix = adds_bos, adds_eos, space_prefix
        self.special_texts = special_texts
        self._first_byte = _find_bytes(pieces)
        self.byte_fallback = self._first_byte is not None
        reserved = {unk_id, bos_id, eos_id, UNK, BOS, EOS, *self.specials.values()}
        if self._first_byte is not None:
            reserved.update(range(self._first_byte, self._first_byte + 256))
        self.silent_ids = frozenset({bos_id, eos_id, *self.specials.values()} if silent_ids is None else silent_ids)
        # The lowest id wins where a piece occurs twice; special pieces are never made from text.
        self._ids = {piece: id for id, piece in reversed(list(enumerate(pieces))) if id not in reserved}
        # The longest goes first where one is the beginning of another.
        longest_first = sorted(self.specials, key=len, reverse=True)
        self._split = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if longest_first else None

    @property
    def vocab_size(self) -> int:
        return len(self.pieces)

    # Files ------------------------------------------------------------------------------------

    def pack(self) -> bytes:
        """Bytes for a model image: a llama2.c tokenizer.bin, or that and what it cannot say."""
        options = self.options()
        if type(self) is Tokenizer and options == Tokenizer(self.pieces, self.scores).options():
            return self.pack_pieces()
        return section.pack_scored(self.kind, self.pack_pieces(), options)

    def options(self) -> dict:
        """The constructor's arguments beside pieces and scores."""
        return {"specials": self.specials, "unk_id": self.unk_id, "bos_id": self.bos_id, "eos_id": self.eos_id,
                "stop_ids": self.stop_ids, "adds_bos": self.adds_bos, "space_prefix": self.space_prefix,
                "adds_eos": self.adds_eos,
                "silent_ids": sorted(self.silent_ids), "special_texts": self.special_texts}

    def with_stops(self, stop_ids: tuple[int, ...]) -> "Tokenizer":
        """The same vocabulary; other ids end a text."""
        return type(self)(self.pieces, self.scores, **self.options() | {"stop_ids": tuple(stop_ids)})

    def pack_pieces(self) -> bytes:
        """The bytes of a llama2.c tokenizer.bin."""
        parts = [struct.pack("<i", max(map(len, self.pieces)))]
        for piece, score in zip(self.pieces, self.scores):
            parts.append(struct.pack("<fi", score, len(piece)) + piece)
        return b"".join(parts)

    # Text -------------------------------------------------------------------------------------

    def encode(self, text: str, bos: bool = True, eos: bool = False) -> list[int]:
        """Token ids of ``text``: a space is put before it, then the best-scored neighbours merge."""
        ids = [self.bos_id] if bos and self.adds_bos else []
        for part in self._split.split(text) if self._split else [text]:
            if part in self.specials:
                ids.append(self.specials[part])
            elif part:
                # sentencepiece has the space before the first part and before what follows a special token.
                ids += self._merge([id for char in (" " if self.space_prefix else "") + part
                                    for id in self._char_ids(char)])
        return ids + [self.eos_id] if eos or bos and self.adds_eos else ids

    def encode_chat(self, text: str) -> list[int]:
        """Token ids of a rendered conversation, whose template writes its own BOS, or a kind's BOS before it."""
        ids = self.encode(text, bos=False)
        return [self.bos_id, *ids] if self.chat_bos and self.adds_bos and ids[:1] != [self.bos_id] else ids

    def strips_after(self, id: int, strip: bool) -> bool:
        """Returns whether the next piece loses its leading space after a silent id."""
        return id == self.bos_id

    def strips_on(self, piece: bytes) -> bool:
        """Returns whether the next piece loses its leading space, too, after the first one did."""
        return False

    def decode(self, ids: Iterable[int]) -> str:
        """Text of whole ``ids``; the space that encode put first is removed again."""
        decoder = Decoder(self)
        return "".join([decoder.feed(id) for id in ids]) + decoder.finish()

    def _char_ids(self, char: str) -> list[int]:
        # Bytes of a command line that are no UTF-8 arrive as lone surrogates, and leave as bytes.
        try:
            piece = char.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            piece = "\N{REPLACEMENT CHARACTER}".encode()
        if piece in self._ids:
            return [self._ids[piece]]
        return [self._first_byte + byte for byte in piece] if self._first_byte is not None else [self.unk_id]

    def piece(self, id: int, first: bool) -> bytes:
        """The bytes that an id adds to a text; the first piece leaves out the space that encode put first."""
        if (byte := self.byte(id)) is not None:
            return byte
        piece = self.pieces[id]
        return piece[1:] if first and self.space_prefix and piece[:1] == b" " else piece

    def byte(self, id: int) -> bytes | None:
        """The byte that an entry of byte fallback stands for; None for any other entry."""
        if self._first_byte is None or not 0 <= id - self._first_byte < 256:
            return None
        return bytes([id - self._first_byte])

    def _merge(self, ids: list[int]) -> list[int]:
        """Merge the neighbours of the highest score, the leftmost on ties, until none are left."""
        # A heap over a linked list: the same merges as llama2.c's repeated scan, in n log n.
        after = list(range(1, len(ids) + 1))
        before = list(range(-1, len(ids) - 1))
        gone: set[int] = set()              # places whose piece is part of the one before it
        heap: list[tuple[float, int, tuple[int, int], int]] = []

        def offer(left):
            if left < 0 or after[left] >= len(ids):
                return
            pair = ids[left], ids[after[left]]
            merged = self._ids.get(self.pieces[pair[0]] + self.pieces[pair[1]])
            if merged is not None:
                heapq.heappush(heap, (-self.scores[merged], left, pair, merged))

        for left in range(len(ids)):
            offer(left)
        while heap:
            _, left, pair, merged = heapq.heappop(heap)
            right = after[left]
            if left in gone or right >= len(ids) or (ids[left], ids[right]) != pair:
                continue                   # one of the two is in another piece by now
            ids[left] = merged
            gone.add(right)
            after[left] = after[right]
            if after[left] < len(ids):
                before[after[left]] = left
            offer(before[left])
            offer(left)
        return [id for place, id in enumerate(ids) if place not in gone]


class Decoder:
    """Text of a stream of tokens, whole characters only.

    Parameters
    ----------
    tokenizer : Tokenizer
    after_bos : bool
        The stream starts a text: the first piece loses its leading space.
    """

    def __init__(self, tokenizer: Tokenizer, after_bos: bool = True):
        self.tokenizer = tokenizer
        self._strip = after_bos
        self._utf8 = codecs.getincrementaldecoder("utf-8")(tokenizer.errors)

    def feed(self, id: int) -> str:
        """The text that ``id`` completes; empty while a character is half told, and for BOS, EOS and special tokens."""
        if checked(self.tokenizer, id) in self.tokenizer.silent_ids:
            self._strip = self.tokenizer.strips_after(id, self._strip)
            return ""
        piece = self.tokenizer.piece(id, self._strip)
        self._strip = self._strip and self.tokenizer.strips_on(piece)
        return self._utf8.decode(piece)

    def finish(self) -> str:
        """The rest of a character that was never completed."""
        return self._utf8.decode(b"", final=True)


def checked(tokenizer, id: int) -> int:
    """The id, if the vocabulary has it."""
    if not 0 <= id < tokenizer.vocab_size:
        raise TokenizerError(f"token {id} is not in the vocabulary of {tokenizer.vocab_size}: "
                             "use the tokenizer that the model was trained with")
    return id


def _find_bytes(pieces: list[bytes]) -> int | None:
    """The id of "<0x00>" if all 256 bytes follow in order."""
    for first in (FIRST_BYTE, *([pieces.index(BYTE_PIECES[0])] if BYTE_PIECES[0] in pieces else [])):
        if pieces[first:first + 256] == BYTE_PIECES:
            return first
    return None
