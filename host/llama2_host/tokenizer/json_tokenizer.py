"""Gives text for token ids and back from a tokenizer.json: byte-pair encodings, byte-level or with byte fallback."""
# Ref: https://github.com/huggingface/tokenizers; Radford et al. 2019 for the byte-level alphabet

import copy
import re
from collections.abc import Iterable

from llama2_host import nested_json
from llama2_host.tokenizer import section
from llama2_host.tokenizer.gguf_tokenizer import longest_first, partition
from llama2_host.tokenizer.base import EACH_BYTE, TokenizerError, checked

SPACE = "▁"             #: how sentencepiece writes a space
SURROGATE = re.compile("[\ud800-\udfff]")
BYTE = re.compile(r"<0x([0-9A-F]{2})>\Z")
MAX_SPACES = 1 << 20    #: more than any piece has
MAX_HOLES = 1 << 16     #: ids without an entry, below the largest one


def byte_alphabet() -> dict[str, int]:
    """The printable character that stands for each byte in byte-level vocabularies."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


ALPHABET = byte_alphabet()
BYTE_TO_CHAR = {byte: char for char, byte in ALPHABET.items()}


class JsonTokenizer:
    """A tokenizer.json with its special tokens; the interface is :class:`llama2_host.tokenizer.base.Tokenizer`'s.

    Parameters
    ----------
    content : str
        The file's text.
    bos_id, eos_id : int or None
        None where the vocabulary has no such token.
    stop_ids : tuple of int
        Ids that end a text.
    adds_bos, adds_eos : bool
        Does a text begin with BOS, and end with EOS? ``adds_bos`` None: as the file's post-processor has it.
    vocab_size : int
        The model's, where it has rows for more ids than the vocabulary.
    special_texts : dict of str to str
        How special tokens are written, by the name that chat templates know them by: ``bos_token``... None: BOS and
        EOS.
    split_special : bool
        Special tokens in a text are letters, as transformers' ``split_special_tokens`` has it.
    as_llama_cpp : bool
        Of a GGUF file: special tokens are found the longest first, and a chat begins with BOS whether or not its
        template writes one.
    unused_ids : tuple of int
        Entries that print nothing, beside the special ones.
    """

    def __init__(self, content: str, *, bos_id: int | None = None, eos_id: int | None = None,
                 stop_ids: tuple[int, ...] = (),
                 adds_bos: bool | None = None, adds_eos: bool = False, vocab_size: int = 0, name="tokenizer.json",
                 special_texts: dict[str, str] | None = None, split_special: bool = False, as_llama_cpp: bool = False,
                 unused_ids: Iterable[int] = ()):
        self._name, self.content = name, content
        self._tokenizer, described = _parse(content, name)
        pieces = self._tokenizer.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocab_size, max(pieces.values(), default=-1) + 1)
        if self.vocab_size > len(pieces) + MAX_HOLES:
            raise TokenizerError(f"{name}: ids up to {self.vocab_size - 1} for {len(pieces)} entries: copy the file "
                                 "again")
        self._tokenizer.encode_special_tokens = self.split_special = split_special
        added = self._tokenizer.get_added_tokens_decoder()
        self.specials = {token.content: id for id, token in added.items()}
        special = {token.content for token in added.values() if token.special}
        self.silent_ids = frozenset(id for id in added if self._tokenizer.id_to_token(id) in special)
        self.special_texts, self.as_llama_cpp = special_texts, as_llama_cpp
        self._unused = frozenset(unused_ids)
        self._longest_first = longest_first(self.specials) if as_llama_cpp else []
        self.silent_ids |= self._unused
        decode, self._strip_first, self._strip_every = _decoder(described, name)
        self.errors = "replace" if decode is _from_alphabet else EACH_BYTE
        self._pieces = [b""] * self.vocab_size
        for id in pieces.values():
            # of some added tokens not the text in the file
            self._pieces[id] = decode(self._tokenizer.id_to_token(id))
        self._mark(bos_id, eos_id, stop_ids, adds_bos, adds_eos)

    def with_ids(self, *, bos_id: int | None, eos_id: int | None, stop_ids: tuple[int, ...],
                 adds_bos: bool | None) -> "JsonTokenizer":
        """The same vocabulary with its special ids told."""
        tokenizer = copy.copy(self)
        tokenizer._mark(bos_id, eos_id, stop_ids, adds_bos, self.adds_eos)
        return tokenizer

    def with_stops(self, stop_ids: tuple[int, ...]) -> "JsonTokenizer":
        """The same vocabulary; other ids end a text."""
        return self.with_ids(bos_id=self.bos_id, eos_id=self.eos_id, stop_ids=stop_ids, adds_bos=self._told_bos)

    def _mark(self, bos_id, eos_id, stop_ids, adds_bos, adds_eos) -> None:
        for id in (bos_id, eos_id, *stop_ids):
            if id is not None and (isinstance(id, bool) or not isinstance(id, int) or not 0 <= id < self.vocab_size):
                raise TokenizerError(f"{self._name}: special id {str(id)[:20]} is not in the vocabulary of "
                                     f"{self.vocab_size}: copy the model's whole folder")
        self.bos_id, self.eos_id, self.stop_ids = bos_id, eos_id, tuple(stop_ids)
        self._told_bos, self.adds_eos = adds_bos, bool(adds_eos) and eos_id is not None
        if adds_bos is None:
            adds_bos = bos_id is not None and guarded(lambda: self._tokenizer.encode(""),
                                                      self._name).ids[:1] == [bos_id]
        self.adds_bos = bool(adds_bos) and bos_id is not None

    def pack(self) -> bytes:
        """Bytes for a model image."""
        options = {"bos_id": self.bos_id, "eos_id": self.eos_id, "stop_ids": self.stop_ids, "adds_bos": self._told_bos,
                   "vocab_size": self.vocab_size, "adds_eos": self.adds_eos, "special_texts": self.special_texts,
                   "split_special": self.split_special, "as_llama_cpp": self.as_llama_cpp,
                   "unused_ids": sorted(self._unused)}
        return section.pack("json", self.content, options)

    def encode(self, text: str, bos: bool = True, eos: bool = False) -> list[int]:
        """Token ids of ``text``; special tokens in it are taken as such. ``bos``: with what a text begins and ends
        with."""
        by_file = bos and self._told_bos is None
        ids: list[int] = []
        for part in partition(text.encode("utf-8", "surrogatepass"),
                              self._longest_first) if self.as_llama_cpp else [text]:
            if isinstance(part, bytes):
                part = part.decode("utf-8", "surrogatepass")
            ids += [part] if isinstance(part, int) else \
                guarded(lambda part=part: self._tokenizer.encode(_utf8(part), add_special_tokens=by_file),
                        self._name).ids
        if bos and not by_file:
            ids = [self.bos_id] * self.adds_bos + ids
        eos = eos or bos and self.adds_eos
        return ids + [self.eos_id] if eos and self.eos_id is not None else ids

    def encode_chat(self, text: str) -> list[int]:
        """Token ids of a rendered conversation, whose template writes its own BOS."""
        ids = self.encode(text, bos=False)
        return [self.bos_id, *ids] if self.as_llama_cpp and self.adds_bos and ids[:1] != [self.bos_id] else ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of whole ``ids``, without special tokens, as the package gives it."""
        ids = [id for id in ids if checked(self, id) not in self._unused]
        return guarded(lambda: self._tokenizer.decode(ids, skip_special_tokens=True), self._name)

    def strips_after(self, id: int, strip: bool) -> bool:
        """Returns whether the next piece loses its leading space after a silent id. Only the first visible piece
        does."""
        return strip

    def strips_on(self, piece: bytes) -> bool:
        """Returns whether the next piece loses its leading space, too, after the first one did."""
        return False

    def piece(self, id: int, first: bool) -> bytes:
        """The bytes that an id adds to a text; the first piece leaves out a space that encode put first."""
        piece = self._pieces[id]
        if self._strip_every or first:
            count = self._strip_every if self._strip_every else self._strip_first
            piece = piece[min(count, len(piece) - len(piece.lstrip(b" "))):]
        return piece


def _parse(content: str, name):
    import tokenizers                   # only these files need it
    try:
        described = nested_json.loads(content)
        expect_bpe(described, name)
        expect_ids(described, name)
    except TokenizerError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError):
        raise TokenizerError(f"{name}: no tokenizer.json: copy the file again") from None
    tokenizer = guarded(lambda: tokenizers.Tokenizer.from_str(content), name)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer, described


def expect_bpe(described: dict, name) -> None:
    """Refuse vocabularies of other kinds, by name."""
    model = described["model"]
    kind = model.get("type", "BPE") if isinstance(model, dict) else None
    if kind != "BPE":
        raise TokenizerError(f"{name}: unsupported: a vocabulary of type {str(kind)[:40]}, expected BPE as LLaMAs have")


def expect_ids(described: dict, name) -> None:
    """Refuse ids far beyond the number of entries, before the package, which makes room for all of them: 8 GB for
    2^31."""
    vocabulary = described["model"].get("vocab")
    if not isinstance(vocabulary, dict):        # which the package refuses
        return
    entries = vocabulary | {token["content"]: token["id"] for token in described.get("added_tokens") or []}
    largest = max((id for id in entries.values() if isinstance(id, int)), default=-1)
    if largest >= len(entries) + MAX_HOLES:
        raise TokenizerError(f"{name}: ids up to {largest} for {len(entries)} entries: copy the file again")


def guarded(function, name, what: str = "damaged tokenizer.json"):
    """The package's result, with its errors as TokenizerError: they are plain exceptions, or panics, which derive from
    BaseException alone."""
    try:
        return function()
    except (KeyboardInterrupt, SystemExit, MemoryError, TokenizerError):
        raise
    except BaseException as error:
        raise TokenizerError(f"{name}: {what} ({' '.join(str(error).split())[:120]}): copy the file again") \
            from None


def _decoder(described: dict, name):
    """A function that writes an entry, and the number of leading spaces that the first piece loses and that every piece
    loses."""
    steps = _steps(described.get("decoder"))
    kinds = [step.get("type") for step in steps]
    if "ByteLevel" in kinds:
        return _from_alphabet, 0, 0
    if not set(kinds) & {"ByteFallback", "Metaspace", "Replace"}:
        raise TokenizerError(f"{name}: unsupported: a decoder of type {', '.join(map(str, kinds))[:60] or 'none'}, "
                             "expected ByteLevel, ByteFallback or Metaspace")
    if any(step.get("type") == "Metaspace" and step.get("prepend_scheme", "always") != "never" for step in steps):
        return _from_sentencepiece, MAX_SPACES, 0           # all that stand before the first one's letters
    strip = next((step for step in steps if step.get("type") == "Strip" and step.get("content") == " "), {})
    count = strip["start"] if isinstance(strip.get("start"), int) else 0
    fused = "Fuse" in kinds and "Strip" in kinds and kinds.index("Fuse") < kinds.index("Strip")
    return (_from_sentencepiece, count, 0) if fused else (_from_sentencepiece, 0, count)


def _steps(decoder) -> list[dict]:
    """The decoder's parts, a sequence unfolded."""
    if not isinstance(decoder, dict):
        return []
    parts = decoder.get("decoders") if decoder.get("type") == "Sequence" else [decoder]
    return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []


def _from_alphabet(text: str) -> bytes:
    """Bytes of a byte-level entry; one with any other character, as added tokens may have, is plain text."""
    if all(char in ALPHABET for char in text):
        return bytes(ALPHABET[char] for char in text)
    return text.encode("utf-8", "replace")


def _from_sentencepiece(text: str) -> bytes:
    if byte := BYTE.match(text):
        return bytes([int(byte[1], 16)])
    return text.replace(SPACE, " ").encode("utf-8", "replace")


def _utf8(text: str) -> str:
    """Bytes of a command line that are no UTF-8 arrive as lone surrogates, which the package refuses."""
    return SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)
