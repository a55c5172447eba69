"""Gives text for token ids and back by the sentencepiece package itself, for the models that llama2.c's files cannot
say."""

import base64
import re
from collections.abc import Iterable

from llama2_host.tokenizer import section
from llama2_host.tokenizer.sentencepiece_model import BPE, BYTE, CONTROL, MODELS, UNKNOWN, Model, parse
from llama2_host.tokenizer.base import BYTE_PIECES, EACH_BYTE, Tokenizer, TokenizerError, checked

SURROGATE = re.compile("[\ud800-\udfff]")
MAX_PADDING = 1 << 10       #: rows beyond the pieces that a model may have: they are rounded up


class SentencePieceTokenizer:
    """A tokenizer.model; the interface is :class:`llama2_host.tokenizer.base.Tokenizer`'s.

    Parameters
    ----------
    data : bytes
        The file.
    vocab_size : int
        The model's, where it has rows for more ids than the file has pieces.
    specials : dict of str to int
        Texts that are one token wherever they occur, as chat templates need them; the file's own are letters otherwise.
    """
    chat_bos = False
    errors = EACH_BYTE

    def __init__(self, data: bytes, *, vocab_size: int = 0, stop_ids: tuple[int, ...] = (),
                 specials: dict[str, int] | None = None,
                 name="tokenizer.model"):
        import sentencepiece               # only these files need it
        self._data, self._name = data, name
        self._model = parse_model(data, name)
        self._package = sentencepiece.SentencePieceProcessor()
        try:
            self._package.LoadFromSerializedProto(data)
            ids = [self._package.unk_id(), self._package.bos_id(), self._package.eos_id()]
        except (RuntimeError, OSError, ValueError, IndexError):
            raise damaged(name) from None
        self.unk_id, self.bos_id, self.eos_id = (id if id >= 0 else None for id in ids)
        self.vocab_size = max(vocab_size, len(self._model.pieces))
        self.stop_ids = (tuple(stop_ids)
                         or tuple(dict.fromkeys(id for id in (self.bos_id, self.eos_id) if id is not None)))
        self.adds_bos, self.adds_eos = self.bos_id is not None, False
        self.specials = dict(specials or {})
        self.special_texts = {role: self._model.pieces[id] for role, id in
                              (("bos_token", self.bos_id), ("eos_token", self.eos_id)) if id is not None}
        self.silent_ids = frozenset(id for id, kind in enumerate(self._model.kinds) if kind == CONTROL) | \
            frozenset(range(len(self._model.pieces), self.vocab_size))
        self._split = re.compile("(" + "|".join(map(re.escape, sorted(self.specials, key=len, reverse=True))) + ")") \
            if self.specials else None

    def with_stops(self, stop_ids: tuple[int, ...]) -> "SentencePieceTokenizer":
        """The same vocabulary; other ids end a text."""
        return SentencePieceTokenizer(self._data, name=self._name, **self.options() | {"stop_ids": stop_ids})

    def with_specials(self) -> "SentencePieceTokenizer":
        """The same vocabulary; its control pieces are tokens wherever a text has them, as chat templates write them."""
        controls = {piece: id for id, (piece, kind) in enumerate(zip(self._model.pieces, self._model.kinds))
                    if kind == CONTROL}
        return SentencePieceTokenizer(self._data, name=self._name, **self.options() | {"specials": controls})

    def options(self) -> dict:
        """The constructor's arguments beside the file."""
        return {"vocab_size": self.vocab_size, "stop_ids": self.stop_ids, "specials": self.specials}

    def pack(self) -> bytes:
        """Bytes for a model image."""
        return section.pack("sentencepiece", base64.b64encode(self._data).decode(), self.options())

    def encode(self, text: str, bos: bool = True, eos: bool = False) -> list[int]:
        """Token ids of ``text``, with BOS before it."""
        ids: list[int] = [self.bos_id] if bos and self.adds_bos and self.bos_id is not None else []
        text = SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)
        for part in self._split.split(text) if self._split else [text]:
            ids += [self.specials[part]] if part in self.specials else self._package.encode(part)
        return ids + [self.eos_id] if eos and self.eos_id is not None else ids

    def encode_chat(self, text: str) -> list[int]:
        """Token ids of a rendered conversation, whose template writes its own BOS."""
        return self.encode(text, bos=False)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of whole ``ids``, as the package gives it."""
        return self._package.decode([id for id in ids if checked(self, id) < len(self._model.pieces)])

    def strips_after(self, id: int, strip: bool) -> bool:
        """Returns whether the next piece loses its leading space after a silent id."""
        return strip

    def strips_on(self, piece: bytes) -> bool:
        """Returns whether the next piece loses its leading space, too: it does as long as the pieces before are
        empty."""
        return self._model.remove_extra_whitespaces and not piece

    def piece(self, id: int, first: bool) -> bytes:
        """The bytes that an id adds to a text; the first piece leaves out the space that encode put first."""
        kind, piece = self._model.kinds[id], self._model.pieces[id]
        if kind == BYTE:
            return bytes([int(piece[3:5], 16)]) if piece.encode() in BYTE_PIECES else piece.encode()
        if kind == UNKNOWN:
            return self._model.unk_surface.encode()
        piece = piece.replace("▁", " ")
        if first and piece[:1] == " " and (self._model.dummy_prefix or self._model.remove_extra_whitespaces):
            piece = piece[1:]
        return piece.encode()


def load(data: bytes, vocab_size: int | None, name):
    """The tokenizer of a sentencepiece file: a scored vocabulary where llama2.c's files can say it, else the
    package."""
    model = parse_model(data, name)
    expect_bpe(model, name)
    expect_rows(model, vocab_size, name)
    rows = max(vocab_size or 0, len(model.pieces))
    package = SentencePieceTokenizer(data, vocab_size=rows, name=name)
    if not model.as_llama2:
        return package
    pieces = [piece.replace("▁", " ").encode() for piece in model.pieces]
    pieces[1], pieces[2] = b"\n<s>\n", b"\n</s>\n"              # as llama2.c exports them
    padding = rows - len(pieces)
    return Tokenizer(pieces + [b""] * padding, model.scores + [0.0] * padding)


def expect_rows(model: Model, vocab_size: int | None, name) -> None:
    """Refuse a file for a model of another vocabulary; a few rows more than pieces are a padded one."""
    if vocab_size is not None and not 0 <= vocab_size - len(model.pieces) <= MAX_PADDING:
        raise TokenizerError(f"{name}: tokenizer has {len(model.pieces)} entries, the model has {vocab_size}: "
                             "use the tokenizer that the model was trained with")


def parse_model(data: bytes, name) -> Model:
    """The file's settings, or the refusal of a damaged one."""
    try:
        return parse(data)
    except (ValueError, OverflowError):
        raise damaged(name) from None


def expect_bpe(model: Model, name) -> None:
    """Refuse models that are no byte-pair encoding, by name."""
    if model.model_type != BPE:
        raise TokenizerError(f"{name}: unsupported: a sentencepiece model of type "
                             f"{MODELS.get(model.model_type, 'unknown')}, expected bpe as LLaMAs have: train it with "
                             "model_type=bpe")
    if len(model.pieces) < 3:
        raise TokenizerError(f"{name}: {len(model.pieces)} pieces, expected unknown, BOS, EOS and more: copy the file "
                             "again")


def damaged(name) -> TokenizerError:
    """The refusal of a file that is none."""
    return TokenizerError(f"{name}: damaged sentencepiece model, expected a whole .model file: copy the file again")


def matches(data: bytes) -> bool:
    """A sentencepiece model starts with its first piece: tags 0A len 0A len, as protobuf has them."""
    return len(data) > 4 and data[0] == 0x0A and data[2] == 0x0A and data[1] > data[3] + 1
