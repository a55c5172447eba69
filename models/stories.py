"""Gives the training script its text: cleaned stories, their tokenizer, and fresh batches every epoch."""

import collections
import io
import random
import re
from pathlib import Path

import numpy as np
import sentencepiece

SEPARATOR = "<|endoftext|>"
BOS = 1
IGNORE = -1  # target id of padding, left out of the loss

GIRLS = """Lily Sue Mia Lucy Anna Sara Sally Jane Amy Molly Daisy Sarah Lila Jill Emma Jen Ella Mary
    Jenny Polly Bella Susie Lulu Sandy Ann Penny""".split()
BOYS = """Tim Tom Ben Sam Timmy Bob Jack Joe John Tommy Billy Leo Benny Andy Jake Jimmy Bobby Jim
    Gary Frank Pete Fred""".split()


def read_stories(path: Path) -> list[str]:
    """The stories of a file, without the white space around them."""
    text = path.read_text(encoding="utf-8")
    return [story.strip() for story in text.split(SEPARATOR) if story.strip()]


def read_tales(path: Path, chunk_chars: int = 1000) -> list[str]:
    """A public-domain book as passages of whole paragraphs, without Gutenberg's header and footer."""
    text = path.read_text(encoding="utf-8-sig")
    text = re.split(r"\*\*\* ?START OF.*?\*\*\*", text)[-1]
    text = re.split(r"\*\*\* ?END OF.*?\*\*\*|\nEnd of (?:the )?Project Gutenberg", text)[0]
    for curly, plain in {"‘": "'", "’": "'", "“": '"', "”": '"', "--": " - "}.items():
        text = text.replace(curly, plain)
    passages, passage = [], ""
    for paragraph in re.split(r"\n\s*\n", text):
        paragraph = " ".join(paragraph.split())
        passage = f"{passage}\n{paragraph}".strip()
        if len(passage) >= chunk_chars:
            passages.append(passage)
            passage = ""
    return [p for p in passages if len(p) < 2 * chunk_chars]


def train_tokenizer(stories: list[str], vocab_size: int) -> bytes:
    """A sentencepiece model: byte-pair encoding with byte fallback and llama2.c's special ids."""
    lines = (line for story in stories for line in story.split("\n") if line)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines, model_writer=model, model_type="bpe", vocab_size=vocab_size,
        character_coverage=0.99995, byte_fallback=True, split_digits=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, num_threads=1, minloglevel=2)
    return model.getvalue()


class NameSwap:
    """Renames the children of a story, so that names are copied from the text rather than recalled."""

    def __init__(self, stories: list[str]):
        words = collections.Counter(re.findall(r"\b[A-Z][a-z]+\b", " ".join(stories)))
        self.lists = [(names, [words[name] + 1 for name in names]) for names in (GIRLS, BOYS)]

    def __call__(self, story: str, rng: random.Random) -> str:
        present = set(re.findall(r"\b[A-Z][a-z]+\b", story))
        swap = {}
        for names, counts in self.lists:
            for name in sorted(present.intersection(names)):
                other = rng.choices(names, counts)[0]
                if other not in present and other not in swap.values():
                    swap[name] = other
        if not swap:
            return story
        pattern = r"\b(" + "|".join(swap) + r")\b"
        return re.sub(pattern, lambda match: swap[match[0]], story)


def encode(pieces, texts: list[str], dropout: float = 0.0) -> list[list[int]]:
    """Token ids of each text between two BOS: the second one is how a story ends."""
    if dropout:
        ids = pieces.encode(texts, enable_sampling=True, alpha=dropout, num_threads=1)
    else:
        ids = pieces.encode(texts, num_threads=1)
    return [[BOS, *text, BOS] for text in ids]


def batches(sequences: list[list[int]], seq_len: int, batch_tokens: int, rng: random.Random):
    """Yield (inputs, targets) of about `batch_tokens`, sequences of like length together.

    A sequence longer than `seq_len` goes on in a second row, as generation past a full window would.
    """
    rows = []
    for ids in sequences:
        for start in range(0, len(ids) - 1, seq_len):
            rows.append(ids[start:start + seq_len + 1])
    rows.sort(key=lambda row: len(row) + rng.uniform(-20, 20))
    groups, group, longest = [], [], 0
    for row in rows:
        longest = max(longest, len(row) - 1)
        if group and longest * (len(group) + 1) > batch_tokens:
            groups.append(group)
            group, longest = [], len(row) - 1
        group.append(row)
    groups.append(group)
    rng.shuffle(groups)
    for group in groups:
        width = max(len(row) for row in group) - 1
        inputs = np.full((len(group), width), BOS, np.int64)
        targets = np.full((len(group), width), IGNORE, np.int64)
        for i, row in enumerate(group):
            inputs[i, :len(row) - 1] = row[:-1]
            targets[i, :len(row) - 1] = row[1:]
        yield inputs, targets
