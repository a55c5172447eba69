"""Reads text for evaluation and calibration: stories with ``<|endoftext|>`` between them, or one text, as token
sequences."""
from collections.abc import Iterable
from pathlib import Path

from llama2_host.errors import HostError
from llama2_host.tokenizer.base import Tokenizer

SEPARATOR = "<|endoftext|>"


def stories(path: Path) -> list[str]:
    """The texts of a file, without surrounding white space."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise HostError(f"{path}: not UTF-8 at byte {error.start}: expected plain text") from None
    except OSError as error:
        raise HostError(f"cannot read {path}: {error.strerror or error}") from None
    return [story for story in map(str.strip, text.split(SEPARATOR)) if story]


def encoded(texts: Iterable[str], tokenizer: Tokenizer, seq_len: int) -> list[list[int]]:
    """Token ids of every text in the vocabulary's form; a text that is longer than the context continues in a further
    sequence.

    That one begins with BOS where the text does. Where a vocabulary adds none, nothing is put in: it begins with the
    last token of the sequence before, so that every token of the text but the first is predicted once.
    """
    out = []
    for text in texts:
        ids = tokenizer.encode(text)
        step = seq_len - 1
        if tokenizer.adds_bos and ids[:1] == [tokenizer.bos_id]:
            out += [ids[:1] + ids[at:at + step] for at in range(1, len(ids), step)]
        else:
            out += [ids[at:at + step + 1] for at in range(0, len(ids) - 1, step)]
    return [ids for ids in out if len(ids) > 1]


def sequences(path: Path, tokenizer: Tokenizer, seq_len: int) -> list[list[int]]:
    """Both: at least one sequence, or an error."""
    if seq_len < 2:
        raise HostError(f"a context of {seq_len} position predicts nothing: convert with --seq-len 2 or more")
    out = encoded(stories(path), tokenizer, seq_len)
    if not out:
        raise HostError(f"{path}: no text of two tokens or more: expected stories with {SEPARATOR} between them, or "
                        "one text")
    return out
