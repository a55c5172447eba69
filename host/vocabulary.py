"""Finds and reads a model's vocabulary: tokenizer.json with what lies beside it, LLaMA-3's tokenizer.model, GGUF."""
# Ref: https://github.com/huggingface/transformers for the files of a folder; https://github.com/openai/tiktoken for ranks;
# https://github.com/ggml-org/ggml/blob/master/docs/gguf.md for a GGUF file's keys

import base64
import binascii
import contextlib
import functools
import json
from pathlib import Path

from host.checkpoint import gguf
from host.checkpoint.errors import CheckpointError
from host.checkpoint.fields import read_json
from host.checkpoint.gguf_file import GgufFile
from host.json_tokenizer import BYTE_TO_CHAR, JsonTokenizer
from host.tokenizer import Tokenizer, TokenizerError
from spec.protocol import MAX_STOPS

NAMES = ("tokenizer.json", "tokenizer.model", "tokenizer.bin")
BESIDE = ("tokenizer_config.json", "generation_config.json", "config.json")     #: what they say about special tokens
MAX_BYTES = 256 << 20
LLAMA3_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
                r"\s+(?!\S)|\s+")
LLAMA3_NAMED = {0: "begin_of_text", 1: "end_of_text", 4: "finetune_right_pad_id", 6: "start_header_id",
                7: "end_header_id", 8: "eom_id", 9: "eot_id", 10: "python_tag"}
LLAMA3_SPECIALS = 256
LLAMA3_STOPS = (1, 8, 9)
#: tokens that end a turn, whatever a file's keys say
ENDS = ("</s>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|endoftext|>", "<|end|>", "<end_of_turn>")
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4         #: types of a GGUF token


def load(path: Path, vocab_size: int | None = None):
    """The tokenizer of a file or folder, or None where it is one that :class:`Tokenizer` reads itself."""
    if path.is_dir():
        names = [name for name in NAMES if (path / name).is_file()]
        if not names:
            raise TokenizerError(f"{path}: cannot be read: no tokenizer in this folder: expected {', '.join(NAMES)}")
        return Tokenizer.load(path / names[0], vocab_size)
    stamps = []
    for file in (path, *(path.parent / name for name in BESIDE)):
        with contextlib.suppress(OSError):
            status = file.stat()
            stamps.append((file.name, status.st_ino, status.st_mtime_ns, status.st_size))
    return _load(path, vocab_size, tuple(stamps))


@functools.lru_cache(maxsize=2)
def _load(path: Path, vocab_size: int | None, stamps):
    """Kept as long as the files are the same: a vocabulary is looked for, then used, then shown."""
    try:
        with open(path, "rb") as file:
            head = file.read(64)
            if gguf.matches(head):
                return _fitting(_from_gguf(path), vocab_size, path)
            if not (head.lstrip()[:1] == b"{" or _is_ranks(head)):
                return None
            data = head + file.read(MAX_BYTES)
    except OSError:
        return None                     # says the caller, who opens it next
    except CheckpointError as error:
        raise TokenizerError(str(error)) from None
    if _is_ranks(head):
        return _fitting(from_ranks(_ranks(data, path), path), vocab_size, path)
    return _fitting(_from_json(data, path, vocab_size), vocab_size, path)


def _fitting(tokenizer, vocab_size: int | None, path: Path):
    if vocab_size is not None and tokenizer.vocab_size > vocab_size or \
            vocab_size is not None and isinstance(tokenizer, Tokenizer) and tokenizer.vocab_size != vocab_size:
        raise TokenizerError(f"{path}: tokenizer has {tokenizer.vocab_size} entries, the model has {vocab_size}: "
                             "use the tokenizer that the model was trained with")
    return tokenizer

# Folders of Hugging Face --------------------------------------------------------------------------


def _from_json(data: bytes, path: Path, vocab_size: int | None) -> JsonTokenizer:
    try:
        content = data.decode()
    except UnicodeDecodeError:
        raise TokenizerError(f"{path}: no tokenizer.json: it is not UTF-8: copy the file again") from None
    settings, generation, model = (_beside(path, name) for name in BESIDE)
    ids = JsonTokenizer(content, name=path, vocab_size=vocab_size or 0)
    bos = _special(ids, settings.get("bos_token"), _list(generation.get("bos_token_id")) or _list(model.get("bos_token_id")))
    eos = _special(ids, settings.get("eos_token"), _list(generation.get("eos_token_id")) or _list(model.get("eos_token_id")))
    stops = [eos, *_list(generation.get("eos_token_id")), *_list(model.get("eos_token_id"))]
    stops += [ids.specials[end] for end in ENDS if end in ids.specials]
    adds_bos = settings.get("add_bos_token")
    return ids.with_ids(bos_id=bos, eos_id=eos, stop_ids=_few(stops, ids.vocab_size),
                        adds_bos=adds_bos if isinstance(adds_bos, bool) else None)


def _beside(path: Path, name: str) -> dict:
    try:
        return read_json(path.parent / name) if (path.parent / name).is_file() else {}
    except CheckpointError as error:
        raise TokenizerError(str(error)) from None


def _special(tokenizer: JsonTokenizer, named, told: list[int]) -> int | None:
    """The id of a token that a file names, as a text or an object with it; else the first id told elsewhere."""
    text = named.get("content") if isinstance(named, dict) else named
    if isinstance(text, str) and text in tokenizer.specials:
        return tokenizer.specials[text]
    return next((id for id in told if id < tokenizer.vocab_size), None)


def _list(value) -> list[int]:
    """Ids of a field that holds one or several."""
    values = value if isinstance(value, list) else [value]
    return [id for id in values if isinstance(id, int) and not isinstance(id, bool) and id >= 0]


def _few(ids, vocab_size: int) -> tuple[int, ...]:
    """In order, each once, as many as a request carries."""
    return tuple(dict.fromkeys(id for id in ids if id is not None and id < vocab_size))[:MAX_STOPS]

# LLaMA-3 ------------------------------------------------------------------------------------------


def _is_ranks(head: bytes) -> bool:
    """Lines of base64 and rank, the first of rank 0."""
    piece, space, rest = head.partition(b" ")
    return bool(space) and 4 <= len(piece) <= 12 and rest[:2] in (b"0\n", b"0\r")


def _ranks(data: bytes, path: Path) -> list[bytes]:
    try:
        pieces = []
        for line in data.splitlines():
            piece, rank = line.split()
            if int(rank) != len(pieces):
                raise ValueError(f"rank {int(rank)} on line {len(pieces) + 1}")
            pieces.append(base64.b64decode(piece, validate=True))
    except (ValueError, binascii.Error) as error:
        raise TokenizerError(f"{path}: damaged LLaMA-3 tokenizer ({str(error)[:80]}): copy the file again") from None
    return pieces


def is_llama3(pieces: list[bytes]) -> bool:
    """Does a vocabulary end with LLaMA-3's special tokens?"""
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
    content = _describe([_characters(piece) for piece in pieces], merges,
                        {first + i: (text, True) for i, text in enumerate(texts)}, _split(LLAMA3_SPLIT), whole_words=True)
    return JsonTokenizer(content, name=name, bos_id=first, eos_id=first + 1, adds_bos=True,
                         stop_ids=tuple(first + i for i in LLAMA3_STOPS))


def _last_merge(piece: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    """The two parts that become ``piece``: what merging by lower ranks leaves of it.

    More than two where nothing makes it: such an entry is found whole only, see ``whole_words``.
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

# GGUF ---------------------------------------------------------------------------------------------


def _from_gguf(path: Path):
    file = GgufFile.open(path)
    value = lambda name: file.value(f"tokenizer.ggml.{name}")
    kind, texts = value("model"), value("tokens")
    if kind not in ("llama", "gpt2"):
        raise TokenizerError(f"{path}: unsupported: a vocabulary of type {str(kind)[:40]!r}, expected llama or gpt2: "
                             "pass another with --tokenizer")
    if not isinstance(texts, list) or len(texts) < 3 or not all(isinstance(text, str) for text in texts):
        raise TokenizerError(f"{path}: no vocabulary in this file: pass one with --tokenizer")
    types = value("token_type")
    types = types if isinstance(types, list) and len(types) == len(texts) else [NORMAL] * len(texts)
    marked = {id: (text, type == CONTROL) for id, (text, type) in enumerate(zip(texts, types)) if type in (CONTROL, USER_DEFINED)}
    bos, eos = value("bos_token_id"), value("eos_token_id")
    bos, eos = (id if isinstance(id, int) and 0 <= id < len(texts) else None for id in (bos, eos))
    stops = [eos, *_list(value("eot_token_id")), *_list(value("eom_token_id")),
             *(id for id, (text, _) in marked.items() if text in ENDS)]
    options = {"bos_id": bos, "eos_id": eos, "stop_ids": _few(stops, len(texts))}
    adds_bos = value("add_bos_token")
    if kind == "llama":
        return _scored(value, texts, marked, {**options, "adds_bos": adds_bos is not False}, path)
    pre = value("pre")
    if pre not in SPLITS:
        raise TokenizerError(f"{path}: unsupported: text is split as {str(pre)[:40]!r} has it, expected one of "
                             f"{', '.join(map(str, SPLITS))}: pass the model's tokenizer.json with --tokenizer")
    llama3 = SPLITS[pre] is SPLITS["llama-bpe"]
    merges = value("merges")
    if not isinstance(merges, list) or not all(isinstance(merge, str) and merge.count(" ") == 1 for merge in merges):
        raise TokenizerError(f"{path}: no merges in this file's vocabulary: pass one with --tokenizer")
    content = _describe(texts, merges, marked, SPLITS[pre], whole_words=llama3)
    return JsonTokenizer(content, name=path, adds_bos=adds_bos if isinstance(adds_bos, bool) else llama3, **options)


def _scored(value, texts, marked, options, path: Path) -> Tokenizer:
    scores = value("scores")
    if not isinstance(scores, list) or len(scores) != len(texts) or not all(score == score for score in scores):
        raise TokenizerError(f"{path}: {len(texts)} entries without as many scores: copy the file again")
    bos, eos = (options[key] if options[key] is not None else default for key, default in (("bos_id", 1), ("eos_id", 2)))
    unknown = value("unknown_token_id")
    pieces = [text.replace("▁", " ").encode("utf-8", "replace") for text in texts]
    named = {text: id for id, (text, _) in marked.items() if id not in (bos, eos) and text}
    if not named and (bos, eos) == (1, 2) and set(options["stop_ids"]) <= {1, 2} and options["adds_bos"]:
        pieces[1], pieces[2] = b"\n<s>\n", b"\n</s>\n"           # LLaMA-2's own, as llama2.c has it
        options["stop_ids"] = ()
    else:
        named |= {texts[bos]: bos, texts[eos]: eos}              # as chat templates write them
    return Tokenizer(pieces, scores, specials=named, unk_id=unknown if isinstance(unknown, int) else 0,
                     space_prefix=value("add_space_prefix") is not False, **{**options, "bos_id": bos, "eos_id": eos})


def _split(pattern: str) -> list[dict]:
    """Parts of the text by a regular expression, then bytes as characters."""
    return [{"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]


GPT2 = [{"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]
DIGITS = [{"type": "Digits", "individual_digits": True}, *GPT2]
#: how a text is split before merging, by the names in GGUF files
SPLITS = {"gpt-2": GPT2, "smollm": DIGITS, "llama-bpe": _split(LLAMA3_SPLIT)}
SPLITS |= {"llama3": SPLITS["llama-bpe"], "llama-v3": SPLITS["llama-bpe"]}


def _describe(texts, merges, marked: dict[int, tuple[str, bool]], split, *, whole_words: bool) -> str:
    """A byte-level tokenizer.json; ``whole_words``: a word that is an entry is not merged from its letters."""
    vocabulary = {}
    for id, text in enumerate(texts):
        vocabulary.setdefault(text, id)
    added = [{"id": id, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": special} for id, (text, special) in sorted(marked.items()) if text]
    return json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": split}, "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": whole_words,
                  "vocab": vocabulary, "merges": [merge.split(" ") for merge in merges]}}, ensure_ascii=False)
