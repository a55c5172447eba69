"""Gives text for token ids and back from a tokenizer.json: byte-pair encodings, byte-level or with byte fallback."""
# Ref: https://github.com/huggingface/tokenizers; Radford et al. 2019 for the byte-level alphabet

import copy
import re
from collections.abc import Iterable

from host import nested_json, packed_tokenizer
from host.tokenizer import Decoder, TokenizerError

SPACE = "▁"             #: how sentencepiece writes a space
SURROGATE = re.compile("[\ud800-\udfff]")
BYTE = re.compile(r"<0x([0-9A-F]{2})>\Z")


def byte_alphabet() -> dict[str, int]:
    """The printable character that stands for each byte in byte-level vocabularies."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


ALPHABET = byte_alphabet()
BYTE_TO_CHAR = {byte: char for char, byte in ALPHABET.items()}


class JsonTokenizer:
    """A tokenizer.json with its special tokens; the interface is :class:`host.tokenizer.Tokenizer`'s.

    Parameters
    ----------
    content : str
        The file's text.
    bos_id, eos_id : int or None
        None where the vocabulary has no such token.
    stop_ids : tuple of int
        Ids that end a text.
    adds_bos : bool
        Does a text begin with BOS? None: as the file's post-processor has it.
    vocab_size : int
        The model's, where it has rows for more ids than the vocabulary.
    """

    def __init__(self, content: str, *, bos_id: int | None = None, eos_id: int | None = None, stop_ids: tuple[int, ...] = (),
                 adds_bos: bool | None = None, vocab_size: int = 0, name="tokenizer.json"):
        self._name, self.content = name, content
        self._tokenizer, described = _parse(content, name)
        pieces = self._tokenizer.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocab_size, max(pieces.values(), default=-1) + 1)
        if self.vocab_size > len(pieces) + (1 << 16):
            raise TokenizerError(f"{name}: ids up to {self.vocab_size - 1} for {len(pieces)} entries: copy the file again")
        added = self._tokenizer.get_added_tokens_decoder()
        self.specials = {token.content: id for id, token in added.items() if token.special}
        decode, self._strips = _decoder(described, name)
        self._pieces = [b""] * self.vocab_size
        for text, id in pieces.items():
            self._pieces[id] = text.encode("utf-8", "replace") if id in added else decode(text)
        self._mark(bos_id, eos_id, stop_ids, adds_bos)

    def with_ids(self, *, bos_id: int | None, eos_id: int | None, stop_ids: tuple[int, ...],
                 adds_bos: bool | None) -> "JsonTokenizer":
        """The same vocabulary with its special ids told."""
        tokenizer = copy.copy(self)
        tokenizer._mark(bos_id, eos_id, stop_ids, adds_bos)
        return tokenizer

    def _mark(self, bos_id, eos_id, stop_ids, adds_bos) -> None:
        for id in (bos_id, eos_id, *stop_ids):
            if id is not None and (isinstance(id, bool) or not isinstance(id, int) or not 0 <= id < self.vocab_size):
                raise TokenizerError(f"{self._name}: special id {str(id)[:20]} is not in the vocabulary of {self.vocab_size}: "
                                     "copy the model's whole folder")
        self.bos_id, self.eos_id, self.stop_ids = bos_id, eos_id, tuple(stop_ids)
        if adds_bos is None:
            adds_bos = bos_id is not None and self._tokenizer.encode("").ids[:1] == [bos_id]
        self.adds_bos = bool(adds_bos) and bos_id is not None
        self.silent_ids = frozenset(self.specials.values()) | {id for id in (bos_id, eos_id) if id is not None}

    def pack(self) -> bytes:
        """Bytes for a model image."""
        return packed_tokenizer.pack("json", self.content, {
            "bos_id": self.bos_id, "eos_id": self.eos_id, "stop_ids": self.stop_ids, "adds_bos": self.adds_bos,
            "vocab_size": self.vocab_size})

    def encode(self, text: str, bos: bool = True, eos: bool = False) -> list[int]:
        """Token ids of ``text``; special tokens in it are taken as such."""
        ids = [self.bos_id] if bos and self.adds_bos else []
        ids += _call(lambda: self._tokenizer.encode(_utf8(text), add_special_tokens=False), self._name).ids
        return ids + [self.eos_id] if eos and self.eos_id is not None else ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of whole ``ids``, without special tokens."""
        decoder = Decoder(self)
        return "".join([decoder.feed(id) for id in ids]) + decoder.finish()

    def piece(self, id: int, first: bool) -> bytes:
        """What an id adds to a text; a space that encode put first is left out of the first one."""
        piece = self._pieces[id]
        return piece[1:] if first and self._strips and piece[:1] == b" " else piece


def _parse(content: str, name):
    import tokenizers                   # only these files need it
    try:
        described = nested_json.loads(content)
        model = described["model"]
        kind = model.get("type", "BPE") if isinstance(model, dict) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise TokenizerError(f"{name}: no tokenizer.json: copy the file again") from None
    if kind != "BPE":
        raise TokenizerError(f"{name}: unsupported: a vocabulary of type {str(kind)[:40]}, expected BPE as LLaMAs have")
    tokenizer = _call(lambda: tokenizers.Tokenizer.from_str(content), name)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer, described


def _call(function, name):
    """Its errors are plain exceptions, and panics, which are none."""
    try:
        return function()
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        raise TokenizerError(f"{name}: damaged tokenizer.json ({' '.join(str(error).split())[:120]}): copy the file again") \
            from None


def _decoder(described: dict, name):
    """How an entry is written, and whether a text begins with a space of the tokenizer's own."""
    steps = _steps(described.get("decoder"))
    kinds = {step.get("type") for step in steps}
    if "ByteLevel" in kinds:
        return _from_alphabet, False
    if kinds & {"ByteFallback", "Metaspace"} or any(step.get("type") == "Replace" for step in steps):
        strips = any(step.get("type") == "Strip" and step.get("start") for step in steps) or \
            any(step.get("type") == "Metaspace" and step.get("prepend_scheme", "always") != "never" for step in steps)
        return _from_sentencepiece, strips
    raise TokenizerError(f"{name}: unsupported: a decoder of type {', '.join(map(str, kinds))[:60] or 'none'}, expected "
                         "ByteLevel, ByteFallback or Metaspace")


def _steps(decoder) -> list[dict]:
    """The decoder's parts, a sequence unfolded."""
    if not isinstance(decoder, dict):
        return []
    parts = decoder.get("decoders") if decoder.get("type") == "Sequence" else [decoder]
    return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []


def _from_alphabet(text: str) -> bytes:
    return b"".join(bytes([ALPHABET[char]]) if char in ALPHABET else char.encode("utf-8", "replace") for char in text)


def _from_sentencepiece(text: str) -> bytes:
    if byte := BYTE.match(text):
        return bytes([int(byte[1], 16)])
    return text.replace(SPACE, " ").encode("utf-8", "replace")


def _utf8(text: str) -> str:
    """Bytes of a command line that are no UTF-8 arrive as lone surrogates, which the package refuses."""
    return SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)
