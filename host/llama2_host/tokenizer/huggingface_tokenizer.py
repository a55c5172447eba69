"""Makes the tokenizer of a Hugging Face folder from everything that lies in it, merged as transformers 5 merges it."""
# Ref: https://github.com/huggingface/transformers: AutoTokenizer, TokenizersBackend, LlamaTokenizer, GPT2Tokenizer

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama2_host import nested_json
from llama2_host.tokenizer import sentencepiece_model
from llama2_host.checkpoint.errors import CheckpointError
from llama2_host.checkpoint.fields import read_json
from llama2_host.tokenizer.json_tokenizer import JsonTokenizer, expect_bpe, expect_ids, guarded
from llama2_host.tokenizer.sentencepiece_json import backend_of_model, llama, llama_of_model
from llama2_host.tokenizer.base import TokenizerError

SETTINGS, MAP, ADDED, CONFIG = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "config.json"
BESIDE = (SETTINGS, MAP, ADDED, CONFIG)
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
#: tokenizer classes that build their own and take only entries and merges from a tokenizer.json
LLAMA, CODE_LLAMA, GPT2, BACKEND = "LlamaTokenizer", "CodeLlamaTokenizer", "GPT2Tokenizer", "TokenizersBackend"
LLAMAS = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
DEFAULTS: dict[str, dict[str, Any]] = {LLAMA: LLAMAS, CODE_LLAMA: LLAMAS | {"add_bos_token": True},
            GPT2: dict.fromkeys(("unk_token", "bos_token", "eos_token"), "<|endoftext|>"), BACKEND: {}}
#: special tokens that CodeLlamaTokenizer has, whatever the settings say
FILL_IN = {"prefix_token": "▁<PRE>", "middle_token": "▁<MID>", "suffix_token": "▁<SUF>", "eot_token": "▁<EOT>",
           "fill_token": "<FILL_ME>"}


def lies_in_folder(path: Path) -> bool:
    """Returns whether this vocabulary is a part of a Hugging Face folder."""
    return (path.parent / SETTINGS).is_file() or (path.parent / CONFIG).is_file()


def load(content: str | None, model: sentencepiece_model.Model | None, path: Path, vocab_size: int) -> JsonTokenizer:
    """The tokenizer of the folder with ``path`` in it: of a tokenizer.json's text, or of a sentencepiece model."""
    # Files from anywhere: a field of another type shows as whichever exception Python or the package happens to raise.
    return guarded(lambda: _load(content, model, path, vocab_size), path, "damaged tokenizer, or the files beside it")


def _load(content: str | None, model: sentencepiece_model.Model | None, path: Path, vocab_size: int) -> JsonTokenizer:
    described = _described(content, path)
    if described:
        expect_bpe(described, path)
        expect_ids(described, path)
    told = _read(path, SETTINGS)
    kind = _class(told, _read(path, CONFIG), content or "")
    added = _settle(told, path, described)
    if model is not None and kind in (LLAMA, CODE_LLAMA):
        backend = llama_of_model(model, told, code=kind == CODE_LLAMA)
    elif model is not None:
        backend = backend_of_model(model, told, added)
    else:
        backend = guarded(lambda: _rebuild(kind, content or "", described, told), path)
    for name, text in DEFAULTS[kind].items():
        told.setdefault(name, text)
    if kind == CODE_LLAMA:
        told["own"] = FILL_IN | told["own"]
        told["additional_special_tokens"] = [*(told.get("additional_special_tokens") or []), *FILL_IN.values()]
    specials = Specials.of(told)
    special = guarded(lambda: _add(backend, specials, added, vocab_size), path)
    bos, eos = (_id(backend, specials.named.get(name)) for name in ("bos_token", "eos_token"))
    if backend.post_processor is None or "add_bos_token" in told or "add_eos_token" in told:
        _begin_and_end(backend, specials, told, bos, eos)
    return JsonTokenizer(_written(backend, special), name=path, bos_id=bos, eos_id=eos, vocab_size=vocab_size,
                         special_texts={name: str(token) for name, token in specials.named.items()},
                         split_special=told.get("split_special_tokens") is True)


def _described(content: str | None, path: Path) -> dict:
    try:
        described = nested_json.loads(content) if content is not None else {}
        if not isinstance(described, dict) or content is not None and not isinstance(described.get("model"), dict):
            raise ValueError("no model")
        return described
    except (ValueError, RecursionError):
        raise TokenizerError(f"{path}: no tokenizer.json: copy the file again") from None


def _read(path: Path, name: str) -> dict:
    try:
        return read_json(path.parent / name) if (path.parent / name).is_file() else {}
    except CheckpointError as error:
        raise TokenizerError(str(error)) from None


def _class(told: dict, config: dict, content: str) -> str:
    """Name of transformers' class for this folder: one that we rebuild, or the general one, which trusts the file."""
    named = told.get("tokenizer_class") or config.get("tokenizer_class")
    named = named.removesuffix("Fast") if isinstance(named, str) else ""
    if named not in (LLAMA, CODE_LLAMA, GPT2) or config.get("model_type") in ("mistral", "mixtral", "ministral"):
        return BACKEND
    return BACKEND if named == LLAMA and '"ByteLevel"' in content else named

# What the files say about special tokens ----------------------------------------------------------


@dataclass
class Specials:
    """Special tokens: by name, and those that have none."""
    named: dict = field(default_factory=dict)
    extra: list = field(default_factory=list)

    @classmethod
    def of(cls, told: dict) -> "Specials":
        """The special tokens in a folder's merged settings."""
        named = {name: told[name] for name in NAMED if _is_token(told.get(name))}
        extra = told.get("extra_special_tokens", told.get("additional_special_tokens"))
        if isinstance(extra, dict):
            named |= {name: token for name, token in extra.items() if _is_token(token)}
        named |= {name: token for name, token in told.get("own", {}).items() if _is_token(token)}
        return cls(named, [token for token in extra if _is_token(token)] if isinstance(extra, list) else [])


def _is_token(value) -> bool:
    from tokenizers import AddedToken
    return isinstance(value, (str, AddedToken)) and bool(str(getattr(value, "content", value)))


def _token(value, special: bool | None = None):
    """A token that is written as an object; anything else as it is."""
    from tokenizers import AddedToken
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        return value
    flags = {name: bool(value[name]) for name in ("single_word", "lstrip", "rstrip", "normalized", "special")
             if name in value}
    return AddedToken(value["content"], **flags | ({} if special is None else {"special": special}))


def _settle(told: dict, path: Path, described: dict) -> dict:
    """Merge what lies beside into ``told``; returns the added tokens by id."""
    if described:                       # the file's own post-processor says it
        told.pop("add_bos_token", None)
        told.pop("add_eos_token", None)
    if not told.get("extra_special_tokens") and "additional_special_tokens" in told:
        told["extra_special_tokens"] = told.pop("additional_special_tokens")
    _set_aside(told)
    added = told.get("added_tokens_decoder")
    if isinstance(added, dict):         # the newer files say all; the older ones beside them are not read
        added = {int(id): _token(token) for id, token in added.items() if str(id).isdecimal()
                 and isinstance(token, dict)}
    else:
        added = _older(told, path, described)
        _set_aside(told)
    added = {id: token for id, token in added.items() if _is_token(token)}
    texts = {str(token): token for token in added.values()}
    for name in [name for name in NAMED if name in told]:
        token = _token(told[name])
        told[name] = texts.get(str(token), token)
    for name in ("extra_special_tokens", "additional_special_tokens"):
        if isinstance(told.get(name), list):
            told[name] = [_token(token) for token in told[name]]
    padding = described.get("padding")
    if isinstance(padding, dict) and isinstance(padding.get("pad_token"), str):
        told.setdefault("pad_token", padding["pad_token"])
    return added


def _set_aside(told: dict) -> None:
    """Special tokens with names of the model's own, ``image_token`` say, to ``own``."""
    own = told.setdefault("own", {})
    for name in [name for name in told if name not in NAMED and name.endswith("_token") and _is_token(told[name])]:
        own[name] = told.pop(name)
    if isinstance(told.get("extra_special_tokens"), dict):
        own.update((name, _token(token)) for name, token in told.pop("extra_special_tokens").items())


def _older(told: dict, path: Path, described: dict) -> dict:
    """Added tokens by id, of the files that settings without ``added_tokens_decoder`` have beside them."""
    from tokenizers import AddedToken
    for name, value in _read(path, MAP).items():
        if name == "extra_special_tokens" and isinstance(value, list):
            before = list(told.get(name) or [])
            value = before + [token for token in (_token(token, True) for token in value) if token not in before]
        elif isinstance(value, list):
            value = [_token(token, True) for token in value]
        told[name] = _token(value, True)
    special = {str(_token(told[name])) for name in NAMED if told.get(name)}
    special |= {str(_token(token)) for token in told.get("extra_special_tokens") or []}
    added = {}
    for text, id in _read(path, ADDED).items():
        if isinstance(id, int):
            added[id] = AddedToken(text, normalized=text not in special, special=text in special)
    for token in described.get("added_tokens") or []:
        if isinstance(token, dict) and isinstance(token.get("id"), int):
            added[token["id"]] = _token(token)
    return added

# The tokenizer itself -----------------------------------------------------------------------------


def _rebuild(kind: str, content: str, described: dict, told: dict):
    """Rebuild the tokenizer as its class does: the general class takes the file as it is, the others take its entries,
    merges and post-processor."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    whole = Tokenizer.from_str(content)
    if kind == BACKEND:
        return whole
    vocabulary = described["model"]["vocab"]
    # pairs, or refused by the package
    merges: list[Any] = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge)
                         for merge in described["model"].get("merges") or []]
    if kind in (LLAMA, CODE_LLAMA):
        backend = llama(vocabulary, merges, told, code=kind == CODE_LLAMA)
    else:
        backend = Tokenizer(models.BPE(vocabulary, merges, continuing_subword_prefix="", end_of_word_suffix="",
                                       fuse_unk=False))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(told.get("add_prefix_space")))
        backend.decoder = decoders.ByteLevel()
    if whole.post_processor is not None:
        backend.post_processor = whole.post_processor
    return backend


def _add(backend, specials: Specials, added: dict, rows: int) -> set[str]:
    """Give the tokenizer the tokens that it does not have, in the order that decides their ids, as far as the model has
    rows.

    Returns the texts of those that are special.
    """
    from tokenizers import AddedToken
    known = backend.get_added_tokens_decoder().values()
    seen = {repr(token) for token in known}
    new = [token for _, token in sorted(added.items()) if repr(token) not in seen]
    texts = {str(token) for token in [*known, *new]}
    for token in [*specials.named.values(), *specials.extra]:
        if str(token) not in texts and token not in new:      # one text may be told twice: the last one's flags hold
            new.append(token)
    named = {str(token) for token in specials.named.values()}
    for i, token in enumerate(new):
        if isinstance(token, str):
            new[i] = AddedToken(token, special=True)
        elif str(token) in named:
            token.special = True
    next_id = backend.get_vocab_size(with_added_tokens=True)
    for token in new:
        absent = backend.token_to_id(str(token)) is None
        if not (absent and rows and next_id >= rows):
            backend.add_tokens([token])
            next_id += absent
    return {str(token) for token in [*known, *new] if token.special}


def _written(backend, special: set[str]) -> str:
    """The tokenizer's text; what was special once stays so, which the package knows but does not write."""
    content = backend.to_str()
    if all(token.special for token in backend.get_added_tokens_decoder().values() if str(token) in special):
        return content
    described = json.loads(content)
    for token in described["added_tokens"]:
        token["special"] |= token["content"] in special
    return json.dumps(described, ensure_ascii=False)


def _id(backend, token) -> int | None:
    return None if token is None else backend.token_to_id(str(token))


def _begin_and_end(backend, specials: Specials, told: dict, bos: int | None, eos: int | None) -> None:
    """A post-processor with BOS and EOS as the settings have it, neither where they say nothing."""
    from tokenizers import processors
    first = [(str(specials.named["bos_token"]), bos)] if told.get("add_bos_token") and bos is not None else []
    last = [(str(specials.named["eos_token"]), eos)] if told.get("add_eos_token") and eos is not None else []
    single = [*(text for text, _ in first), "$A", *(text for text, _ in last)]
    backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=first + last)
