"""Describes a byte-level vocabulary as a tokenizer.json, for the formats that hold its entries and merges only."""
import json


def split_by(pattern: str) -> list[dict]:
    """Parts of the text by a regular expression, then bytes as characters."""
    return [{"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]


def describe(texts, merges, marked: dict[int, tuple[str, bool]], split, *, whole_words: bool) -> str:
    """A byte-level tokenizer.json; ``whole_words``: a word that is an entry is not merged from its letters."""
    vocabulary: dict[str, int] = {}
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
