"""Reads the vocabulary in a GGUF file, to encode, print and end as llama.cpp does."""
# Ref: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md for the keys; llama.cpp's llama-vocab.cpp for what they
# mean

from pathlib import Path

from llama2_host.tokenizer import ends
from llama2_host.tokenizer.byte_level import describe, split_by
from llama2_host.checkpoint.gguf_file import GgufFile
from llama2_host.tokenizer.gguf_tokenizer import GgufTokenizer
from llama2_host.tokenizer.json_tokenizer import JsonTokenizer
from llama2_host.tokenizer.llama3_ranks import LLAMA3_SPLIT
from llama2_host.tokenizer.sentencepiece_model import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED
from llama2_host.tokenizer.base import TokenizerError

SHOWN = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")    #: printed, whatever their type
GPT2 = [{"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]
DIGITS = [{"type": "Digits", "individual_digits": True}, *GPT2]
#: how a text is split before merging, by the names in GGUF files
SPLITS = {"gpt-2": GPT2, "smollm": DIGITS, "llama-bpe": split_by(LLAMA3_SPLIT)}
SPLITS |= dict.fromkeys(("phi-2", "gigachat", "mellum"), GPT2)
LLAMA3 = ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2")
SPLITS |= dict.fromkeys((*LLAMA3, "dbrx", "smaug-bpe"), SPLITS["llama-bpe"])


class Entries:
    """Texts and types of a file's tokens, with the types that llama.cpp corrects."""

    def __init__(self, value, path: Path):
        texts = value("tokens")
        if not isinstance(texts, list) or len(texts) < 3 or not all(isinstance(text, str) for text in texts):
            raise TokenizerError(f"{path}: no vocabulary in this file: pass one with --tokenizer")
        self.texts = [text or f"[EMPTY_{id}]" for id, text in enumerate(texts)]
        types = value("token_type")
        self.types = list(types) if isinstance(types, list) and len(types) == len(texts) else [NORMAL] * len(texts)
        self.ids = {text: id for id, text in enumerate(self.texts)}

    def special(self, value, name: str, default: int | None) -> int | None:
        """An id that the file names; what is not in the vocabulary counts as not named."""
        id = value(f"{name}_token_id")
        return id if isinstance(id, int) and 0 <= id < len(self.texts) else default

    def correct(self, stops) -> None:
        """Tokens that end by their names are control tokens, those that could and do not are none; nor are those in
        ``SHOWN``."""
        for name in {*ends.NAMES, *(name for row in ends.FILL_IN for name in row)} & set(self.ids):
            if self.ids[name] in stops:
                self.types[self.ids[name]] = CONTROL
            elif name in ends.AS_TEXT:
                self.types[self.ids[name]] = NORMAL if name == "</s>" else USER_DEFINED
        for name in SHOWN:
            if name in self.ids:
                self.types[self.ids[name]] = USER_DEFINED

    def of_type(self, *types) -> dict[str, int]:
        return {text: id for id, text in enumerate(self.texts) if self.types[id] in types}


def load(path: Path):
    """The tokenizer of a GGUF file; CheckpointError for a damaged one."""
    file = GgufFile.open(path)
    value = lambda name: file.value(f"tokenizer.ggml.{name}")
    kind = value("model")
    if kind not in ("llama", "gpt2"):
        raise TokenizerError(f"{path}: unsupported: a vocabulary of type {str(kind)[:40]!r}, expected llama or gpt2: "
                             "pass another with --tokenizer")
    entries = Entries(value, path)
    told = (1, 2) if kind == "llama" else (None, None)
    bos, eos = (entries.special(value, name, default) for name, default in zip(("bos", "eos"), told))
    named = [eos, entries.special(value, "eot", None), entries.special(value, "eom", None)]
    stops = tuple(ends.by_llama_cpp(entries.ids, [id for id in named if id is not None]))
    entries.correct(stops)
    texts = {name: entries.texts[id] for name, id in (("bos_token", bos), ("eos_token", eos)) if id is not None}
    options = {"bos_id": bos, "eos_id": eos, "stop_ids": stops, "special_texts": texts,
               "adds_eos": value("add_eos_token") is True}
    return (_scored if kind == "llama" else _byte_level)(value, entries, options, path)


def _scored(value, entries: Entries, options: dict, path: Path) -> GgufTokenizer:
    scores = value("scores")
    scores = [0.0] * len(entries.texts) if scores is None else scores
    if not isinstance(scores, list) or len(scores) < len(entries.texts) or not all(score == score for score in scores):
        raise TokenizerError(f"{path}: {len(entries.texts)} entries without as many scores: copy the file again")
    special = entries.of_type(CONTROL, USER_DEFINED, UNKNOWN)
    pieces = [text.encode("utf-8", "replace") for text in entries.texts]
    silent = tuple(id for id, type in enumerate(entries.types) if type not in (NORMAL, USER_DEFINED, BYTE))
    unknown = entries.special(value, "unknown", 0)
    return GgufTokenizer(pieces, [float(score) for score in scores[:len(pieces)]], specials=special, unk_id=unknown,
                         silent_ids=silent, adds_bos=value("add_bos_token") is not False,
                         space_prefix=value("add_space_prefix") is not False, **options)


def _byte_level(value, entries: Entries, options: dict, path: Path) -> JsonTokenizer:
    pre = value("pre")
    if pre not in SPLITS:
        raise TokenizerError(f"{path}: unsupported: text is split as {str(pre)[:40]!r} has it, expected one of "
                             f"{', '.join(map(str, SPLITS))}: pass the model's tokenizer.json with --tokenizer")
    merges, adds_bos = value("merges"), value("add_bos_token")
    if not isinstance(merges, list) or not all(isinstance(merge, str) and merge.count(" ") == 1 for merge in merges):
        raise TokenizerError(f"{path}: no merges in this file's vocabulary: pass one with --tokenizer")
    marked = {id: (text, type in (CONTROL, UNKNOWN))
              for id, (text, type) in enumerate(zip(entries.texts, entries.types))
              if type in (CONTROL, USER_DEFINED, UNKNOWN)}
    content = describe(entries.texts, merges, marked, SPLITS[pre], whole_words=pre in LLAMA3)
    adds_bos = adds_bos if isinstance(adds_bos, bool) else pre in LLAMA3
    return JsonTokenizer(content, name=path, adds_bos=adds_bos, as_llama_cpp=True,
                         unused_ids=entries.of_type(UNUSED).values(), **options)
