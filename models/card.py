"""Computes the figures of the model card and writes them into models/README.md.

    python -m models.card --corpus ../shared/corpus --compare ../shared/models/stories260K.bin
    ../shared/models/tok512.bin

Without --corpus it only prints what the model achieves on the stories of this repository, bench/stories.txt.

Everything is computed with the float reference from the exported files; torch is not needed.
"""

import argparse
import math
from pathlib import Path

import numpy as np

from llama2_host import checkpoint, tokenizer
from llama2_host.checkpoint import Checkpoint
from models.stories import read_stories, read_tales
from llama2_spec.reference import Reference, softmax

README = Path(__file__).with_name("README.md")
OWN_STORIES = README.parent.parent / "bench" / "stories.txt"
BEGIN, END = "<!-- figures: begin, written by models/card.py -->\n", "<!-- figures: end -->\n"
SEEDS, SAMPLE_TOKENS, TEMPERATURE, TOP_P = range(1, 11), 200, 1.0, 0.9


def load(model: Path, vocabulary: Path) -> Checkpoint:
    """A checkpoint that brings its tokenizer along, as ``tokenizer``."""
    loaded = checkpoint.load(model)
    loaded.tokenizer = tokenizer.load(vocabulary, loaded.config.vocab_size)
    return loaded


def measure(checkpoint: Checkpoint, stories: list[str]) -> tuple[float, float]:
    """(perplexity per token, bits per byte), teacher-forced, BOS before each story; cut at the context."""
    reference, nats, tokens, size = Reference(checkpoint.config, checkpoint.tensors), 0.0, 0, 0
    for story in stories:
        ids = checkpoint.tokenizer.encode(story)[:checkpoint.config.seq_len + 1]
        probabilities = softmax(reference.logits(ids[:-1]).astype(np.float64))
        nats -= np.log(probabilities[np.arange(len(ids) - 1), ids[1:]]).sum()
        tokens += len(ids) - 1
        size += len(checkpoint.tokenizer.decode(ids).encode())
    return math.exp(nats / tokens), nats / math.log(2) / size


class Xorshift:
    """llama2.c's random numbers: xorshift* on 64 bits, 24 of them in [0, 1)."""

    def __init__(self, seed: int):
        self.state = seed

    def draw(self) -> float:
        mask = (1 << 64) - 1
        self.state ^= self.state >> 12
        self.state ^= self.state << 25 & mask
        self.state ^= self.state >> 27
        return ((self.state * 0x2545F4914F6CDD1D & mask) >> 32 >> 8) / (1 << 24)


def top_p(logits: np.ndarray, coin: float) -> int:
    """A token of the smallest set that holds TOP_P of the probability."""
    probabilities = softmax(logits / np.float32(TEMPERATURE))
    order = np.argsort(-probabilities, kind="stable")
    cumulative = np.cumsum(probabilities[order])
    kept = int(np.argmax(cumulative > TOP_P))
    return int(order[np.argmax(cumulative > coin * cumulative[kept])])


def sample(checkpoint: Checkpoint, seed: int) -> str:
    """A story of at most SAMPLE_TOKENS tokens from nothing but BOS."""
    reference, random, ids = Reference(checkpoint.config, checkpoint.tensors), Xorshift(seed), [1]
    for position in range(SAMPLE_TOKENS):
        token = top_p(reference.step(ids[-1], position), random.draw())
        if token in (checkpoint.tokenizer.bos_id, checkpoint.tokenizer.eos_id):
            break
        ids.append(token)
    return checkpoint.tokenizer.decode(ids)


def longest_shared_run(text: str, corpus: str) -> str:
    """The longest piece of ``text`` that ``corpus`` holds letter for letter."""
    best = ""
    for start in range(len(text)):
        while start + len(best) < len(text) and text[start:start + len(best) + 1] in corpus:
            best = text[start:start + len(best) + 1]
    return best


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--model", type=Path, default=README.with_name("stories.bin"))
    parser.add_argument("--tokenizer", type=Path, default=README.with_name("stories.model"))
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("MODEL", "TOKENIZER"),
                        help="a second model to measure")
    return parser.parse_args()


def row(name: str, model: Checkpoint, text: str, stories: list[str]) -> tuple[str, float]:
    """A line of the table, and its bits per byte."""
    perplexity, bits_per_byte = measure(model, stories)
    return (f"| {name} | {model.n_parameters:,} | {text} | {perplexity:.4f} | {math.log(perplexity):.4f} | "
            f"{bits_per_byte:.4f} |", bits_per_byte)


def figures(args) -> str:
    """The generated part of the card."""
    checkpoint = load(args.model, args.tokenizer)
    held_out = read_stories(args.corpus / "calib_stories.txt")
    evaluation = read_stories(args.corpus / "eval_stories.txt")
    unseen = set(held_out)
    stories = [s for s in read_stories(args.corpus / "tinystories.txt") if s not in unseen]
    corpus = "\n\n".join(stories + read_tales(args.corpus / "grimm.txt") + read_tales(args.corpus / "andersen.txt"))

    models = {args.model.name: checkpoint}
    if args.compare:
        models[args.compare[0].name] = load(*args.compare)
    lines = ["| model | parameters | text | perplexity per token | nats per token | bits per byte |",
             "|---|---|---|---|---|---|"]
    bits = []
    for text, texts in [("held-out stories (validation)", held_out), ("eval_stories.txt", evaluation),
                        (OWN_STORIES.name, read_stories(OWN_STORIES))]:
        for name, model in models.items():
            if not text.startswith("held-out") or model is checkpoint:
                line, bits_per_byte = row(name, model, text, texts)
                bits.append(bits_per_byte)
                lines.append(line)
    if args.compare:
        lines += ["", f"Bits per byte on eval_stories.txt, over those of {args.compare[0].name}: "
                      f"**{bits[1] / bits[2]:.3f}**."]

    samples = [sample(checkpoint, seed) for seed in SEEDS]
    run = max((longest_shared_run(text, corpus) for text in samples), key=len)
    human = max((longest_shared_run(text, corpus) for text in evaluation), key=len)
    lines += ["", f"Longest run of text that the samples share with the training data: {len(run)} characters, "
                  f"{len(run.split())} words: \"{one_line(run)}\".", "",
              f"For comparison, the longest run of the 30 evaluation stories: {len(human)} characters, "
              f"{len(human.split())} words: \"{one_line(human)}\".",
              "", f"### Samples: seeds 1 to {len(samples)}, {SAMPLE_TOKENS} tokens, temperature {TEMPERATURE}, "
                  f"top-p {TOP_P}, none left out", ""]
    for seed, text in zip(SEEDS, samples):
        lines += [f"{seed}. {one_line(text)}"]
    return "\n".join(lines) + "\n"


def one_line(text: str) -> str:
    return " / ".join(line.strip() for line in text.split("\n") if line.strip())


def main():
    args = arguments()
    if args.corpus is None:
        print(row(args.model.name, load(args.model, args.tokenizer), OWN_STORIES.name, read_stories(OWN_STORIES))[0])
        return
    generated = figures(args)
    text = README.read_text()
    before, rest = text.split(BEGIN)
    README.write_text(before + BEGIN + "\n" + generated + "\n" + END + rest.split(END)[1])
    print(generated)


if __name__ == "__main__":
    main()
