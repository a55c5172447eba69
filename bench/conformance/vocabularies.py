"""Vocabularies of every kind, made from the project's own 512 entries by rules alone: the same bytes on every
machine."""
import functools
import json
import struct
from pathlib import Path

from llama2_host.tokenizer.json_tokenizer import BYTE_TO_CHAR
from llama2_host.tokenizer.sentencepiece_model import BPE, BYTE, CONTROL, NORMAL, NORMALIZER, TRAINER, UNKNOWN
from llama2_host.tokenizer.base import Tokenizer
from llama2_host.tokenizer import load as load_tokenizer

ROOT = Path(__file__).resolve().parents[2]
CHAT = ["<|im_start|>", "<|im_end|>"]


@functools.cache
def scored() -> Tokenizer:
    return load_tokenizer(ROOT / "models" / "stories.tokenizer.bin")


def entries() -> list[tuple[str, float, int]]:
    """Text, score and sentencepiece's kind of each entry."""
    own = scored()
    texts = ["<unk>", "<s>", "</s>", *(piece.decode().replace(" ", "▁") for piece in own.pieces[3:])]
    kinds = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * (len(texts) - 259)
    return list(zip(texts, own.scores, kinds))


def merges(ids: dict[str, int], ranks: dict[str, float]) -> list[tuple[str, str]]:
    """Every way to make an entry of two, the best rank first."""
    found = [(rank, ids[text[:cut]], ids[text[cut:]], text[:cut], text[cut:]) for text, rank in ranks.items()
             for cut in range(1, len(text)) if text[:cut] in ids and text[cut:] in ids]
    return [(left, right) for *_, left, right in sorted(found)]

# tokenizer.json -----------------------------------------------------------------------------------


def token(id: int, text: str, **flags) -> dict:
    """An added token, special and found in the text as it is unless said otherwise."""
    return {"id": id, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            "special": True} | flags


def _described(vocabulary, pairs, added, **parts) -> dict:
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
             "end_of_word_suffix": None,
             "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": vocabulary,
             "merges": [list(pair) for pair in pairs]}
    parts = {"normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None, **parts}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, **parts, "model": model}


def byte_level(digits: bool = False, added=None) -> dict:
    """A vocabulary like GPT-2's and SmolLM2's: <|endoftext|> and ChatML's tokens at 0 to 2, then bytes, then the
    entries."""
    texts = ["<|endoftext|>", *CHAT, *(BYTE_TO_CHAR[byte] for byte in range(256))]
    for piece in scored().pieces[259:]:
        text = "".join(BYTE_TO_CHAR[byte] for byte in piece)
        if text not in texts:
            texts.append(text)
    ids = {text: id for id, text in enumerate(texts)}
    split = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    if digits:
        split = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, split]}
    added = [token(id, texts[id]) for id in range(3)] if added is None else added
    return _described(ids, merges(ids, {text: id for text, id in ids.items() if id >= 259}), added, pre_tokenizer=split,
                      decoder={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True})


def llama(scheme: str, *, chat: bool = True, added=None, post=True) -> dict:
    """A vocabulary like LLaMA-2's: byte fallback, and a space before a text by a normaliser (``prepend``) or by
    Metaspace's ``scheme``."""
    own = entries()
    texts = [text for text, *_ in own] + (CHAT if chat else [])
    ids = {text: id for id, text in reversed(list(enumerate(texts)))}
    pairs = merges(ids, {text: -score for text, score, kind in own if kind == NORMAL})
    steps = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
             {"type": "Fuse"}]
    strip = [] if scheme == "never" else [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    parts = {"decoder": {"type": "Sequence", "decoders": steps + strip}}
    if scheme == "prepend":
        parts["normalizer"] = {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
    else:
        parts["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": False}
    if post:
        parts["post_processor"] = {"type": "TemplateProcessing", "single": [
            {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [
            {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}
    added = [token(id, texts[id]) for id in range(3)] if added is None else added
    described = _described(ids, pairs, added, **parts)
    described["model"] |= {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True}
    return described

# Other files --------------------------------------------------------------------------------------


def sentencepiece(*, extra=(), drop_bytes: bool = False, rename: dict[int, str] | None = None, **settings) -> bytes:
    """A .model file; ``extra`` are (piece, kind) added at the end, ``settings`` those of
    llama2_host.tokenizer.sentencepiece_model.Model."""
    own = [(text, score, kind) for text, score, kind in entries() if not (drop_bytes and kind == BYTE)]
    own = [(dict(rename or {}).get(id, text), *rest) for id, (text, *rest) in enumerate(own)]
    own += [(piece, 0.0, kind) for piece, kind in extra]
    data = b""
    for text, score, kind in own:
        data += _field(1, _field(1, text.encode()) + b"\x15" + struct.pack("<f", score) + _number(3, kind))
    settings = {"model_type": BPE, "byte_fallback": not drop_bytes, "remove_extra_whitespaces": False} | settings
    parts = [b"".join(_any(number, settings[name]) for number, name in names.items() if name in settings)
             for names in (TRAINER, NORMALIZER)]
    return data + _field(2, parts[0]) + _field(3, parts[1])


@functools.cache
def charsmap(rule: str) -> bytes:
    """The table that the package has for a rule, taken from a model of nothing."""
    import io

    import sentencepiece as package

    from llama2_host.tokenizer.sentencepiece_model import parse
    written = io.BytesIO()
    package.SentencePieceTrainer.train(sentence_iterator=iter(["a b c d e"] * 9), model_writer=written, vocab_size=9,
                                       model_type="bpe",
                                       normalization_rule_name=rule, minloglevel=2)
    return parse(written.getvalue()).charsmap


def _any(number: int, value) -> bytes:
    return _number(number, value) if isinstance(value, int) else _field(number, value.encode() if isinstance(value, str)
                                                                        else value)


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(int(value) % (1 << 64))


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    data = b""
    while value > 127:
        data, value = data + bytes([value & 127 | 128]), value >> 7
    return data + bytes([value])


def tokenizer_bin(age: str) -> bytes:
    """llama2.c's file: ``newest``, or ``early`` with bytes as bare characters."""
    own = scored()
    if age == "newest":
        return own.pack_pieces()
    pieces = [*own.pieces[:3], *(chr(byte).encode() for byte in range(256)), *own.pieces[259:]]
    return Tokenizer(pieces, own.scores).pack_pieces()


def gguf(path: Path, kind: str, *, extra=(), keys: dict | None = None, pre: str = "smollm") -> None:
    """A GGUF file with a vocabulary and the keys that a model of nothing needs; ``extra`` are (text, type) at the
    end."""
    from gguf import GGUFWriter
    writer = GGUFWriter(path, "llama")
    for name, value in {"context_length": 64, "embedding_length": 32, "block_count": 1, "feed_forward_length": 64,
                        "attention.head_count": 4, "rope.dimension_count": 8}.items():
        writer.add_uint32(f"llama.{name}", value)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model(kind)
    if kind == "llama":
        own = entries()
        texts, scores, types = ([entry[i] for entry in own] for i in range(3))
    else:
        described = byte_level()
        texts = list(described["model"]["vocab"])
        scores, types = [0.0] * len(texts), [CONTROL] * 3 + [NORMAL] * (len(texts) - 3)
        writer.add_tokenizer_pre(pre)
        writer.add_token_merges([" ".join(pair) for pair in described["model"]["merges"]])
    writer.add_token_list(texts + [text for text, _ in extra])
    writer.add_token_scores(scores + [0.0] * len(extra))
    writer.add_token_types(types + [type for _, type in extra])
    for name, value in ({"bos_token_id": 1, "eos_token_id": 2} | (keys or {})).items():
        if isinstance(value, bool):
            writer.add_bool(f"tokenizer.ggml.{name}", value)
        elif isinstance(value, int):
            writer.add_uint32(f"tokenizer.ggml.{name}", value)
        elif isinstance(value, str):
            writer.add_string(f"tokenizer.{name}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def as_json(value) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
