"""Trains the default model from scratch on plain story text and writes it in llama2.c's format.

    python -m models.train --corpus ../shared/corpus --out models

The recipe is in models/README.md. Stories of calib_stories.txt are held out: they choose between recipes.
One thread and a fixed seed give the same weights again on the same machine.
"""

import argparse
import math
import random
import time
from pathlib import Path

import sentencepiece
import torch
import torch.nn.functional as F

from llama2_host.checkpoint.write import write_v0

from llama2_host.tokenizer import load as load_tokenizer
from models.muon import Muon
from models.network import Network
from models.stories import IGNORE, NameSwap, batches, encode, read_stories, read_tales, train_tokenizer
from llama2_spec.model import ModelConfig

SHAPE = dict(dim=96, hidden_dim=256, n_layers=4, n_heads=6, n_kv_heads=3, vocab_size=512, seq_len=512)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--corpus", type=Path, required=True,
                        help="folder with tinystories.txt, calib_stories.txt, grimm.txt, andersen.txt")
    parser.add_argument("--out", type=Path, default=Path("models"), help="folder of the exports")
    parser.add_argument("--name", default="stories", help="stem of the exported files")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=24, help="passes over the stories")
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--dropout", type=float, default=0.06,
                        help="at the end; it rises from zero, as the stories get known")
    parser.add_argument("--bpe-dropout", type=float, default=0.0,
                        help="share of merges skipped in --bpe-share of the stories")
    parser.add_argument("--bpe-share", type=float, default=0.5)
    parser.add_argument("--name-swap", type=float, default=0.5, help="share of stories with other names")
    parser.add_argument("--tales", type=float, default=0.25, help="fairy-tale passages per story at the start")
    parser.add_argument("--tales-until", type=float, default=0.3, help="part of training when tales have faded out")
    parser.add_argument("--clean-from", type=float, default=0.85,
                        help="part of training from which stories come unaltered")
    parser.add_argument("--lr", type=float, default=0.015, help="of the matrices (Muon)")
    parser.add_argument("--weight-decay", type=float, default=0.2, help="of the matrices (Muon)")
    parser.add_argument("--embedding-lr", type=float, default=0.004, help="of embedding and norms (Adam)")
    parser.add_argument("--embedding-decay", type=float, default=0.05)
    parser.add_argument("--ema", type=float, default=0.998, help="decay of the averaged weights, per step")
    for field, value in SHAPE.items():
        parser.add_argument("--" + field.replace("_", "-"), type=int, default=value)
    return parser.parse_args()


def epoch_text(args, stories, tales, swap, part: float, pieces, rng: random.Random):
    """Token sequences of one epoch; `part` of training is done. Early: altered stories and fairy tales."""
    share = args.tales * max(0.0, 1 - part / args.tales_until) if args.tales_until else 0.0
    clean = part >= args.clean_from
    texts = [swap(s, rng) if not clean and rng.random() < args.name_swap else s for s in stories]
    rng.shuffle(texts)
    altered = 0 if clean or not args.bpe_dropout else int(len(texts) * args.bpe_share)
    sequences = encode(pieces, texts[altered:])
    if altered:
        sequences += encode(pieces, texts[:altered], args.bpe_dropout)
    return sequences + encode(pieces, rng.sample(tales, min(len(tales), int(share * len(stories)))))


@torch.no_grad()
def bits_per_byte(network, stories: list[str], pieces, seq_len: int) -> float:
    """Teacher-forced, BOS before each story, its end not counted; stories are cut at the context."""
    network.eval()
    nats = size = 0
    for story, ids in zip(stories, encode(pieces, stories)):
        ids = torch.tensor(ids[:-1][:seq_len + 1])
        nats += F.cross_entropy(network(ids[None, :-1])[0], ids[1:], reduction="sum").item()
        size += len(story.encode())
    network.train()
    return nats / math.log(2) / size


def optimizers(args, network):
    matrices = [p for p in network.layers.parameters() if p.ndim == 2]
    norms = [p for p in network.parameters() if p.ndim == 1]
    muon = Muon(matrices, lr=args.lr, weight_decay=args.weight_decay)
    adam = torch.optim.AdamW([
        dict(params=[network.embedding], lr=args.embedding_lr, weight_decay=args.embedding_decay),
        dict(params=norms, lr=args.embedding_lr, weight_decay=0.0)], betas=(0.9, 0.98))
    for optimizer in (muon, adam):
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return muon, adam


def schedule(part: float, warmup: float = 0.01) -> float:
    """Learning rate over its peak: a short rise, then a straight line to zero."""
    return min(part / warmup, (1 - part) / (1 - warmup))


def train_epoch(args, network, averaged, optimizers, work, epoch: int) -> float:
    """One pass over the batches of `work`; returns its mean loss per token."""
    nats = tokens = 0
    for index, (inputs, targets) in enumerate(work):
        part = (epoch + index / len(work)) / args.epochs
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = group["peak_lr"] * schedule(part)
        targets = torch.from_numpy(targets).flatten()
        logits = network(torch.from_numpy(inputs)).flatten(0, 1)
        loss = F.cross_entropy(logits, targets, ignore_index=IGNORE)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        # The average forgets its random start at once, then gets slower.
        step = epoch * len(work) + index + 1
        decay = min(args.ema, step / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(averaged.parameters()), list(network.parameters()), 1 - decay)
        count = int((targets != IGNORE).sum())
        nats, tokens = nats + loss.item() * count, tokens + count
    return nats / tokens


def main():
    args = arguments()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    sentencepiece.set_random_generator_seed(args.seed)
    rng = random.Random(args.seed)

    held_out = read_stories(args.corpus / "calib_stories.txt")
    unseen = set(held_out)
    stories = [s for s in read_stories(args.corpus / "tinystories.txt") if s not in unseen]
    tales = read_tales(args.corpus / "grimm.txt") + read_tales(args.corpus / "andersen.txt")
    args.out.mkdir(parents=True, exist_ok=True)
    target = args.out / args.name
    target.with_suffix(".model").write_bytes(train_tokenizer(stories, args.vocab_size))
    target.with_suffix(".tokenizer.bin").write_bytes(load_tokenizer(f"{target}.model").pack())
    pieces = sentencepiece.SentencePieceProcessor(model_file=f"{target}.model")
    swap = NameSwap(stories)

    config = ModelConfig(**{field: getattr(args, field) for field in SHAPE}, head_dim=args.dim // args.n_heads)
    network = Network(config)
    averaged = Network(config).requires_grad_(False)
    averaged.load_state_dict(network.state_dict())
    print(f"{len(stories)} stories, {len(held_out)} held out, {len(tales)} passages of tales, "
          f"{sum(p.numel() for p in network.parameters())} parameters", flush=True)
    muon, adam = optimizers(args, network)

    start_s = time.monotonic()
    for epoch in range(args.epochs):
        sequences = epoch_text(args, stories, tales, swap, epoch / args.epochs, pieces, rng)
        work = list(batches(sequences, config.seq_len, args.batch_tokens, rng))
        network.set_dropout(args.dropout * epoch / args.epochs)
        train_loss = train_epoch(args, network, averaged, (muon, adam), work, epoch)
        print(f"epoch {epoch + 1}: {len(work)} steps, training {train_loss:.4f} nats/token, held out "
              f"{bits_per_byte(network, held_out, pieces, config.seq_len):.4f} (averaged weights "
              f"{bits_per_byte(averaged, held_out, pieces, config.seq_len):.4f}) bits/byte, "
              f"{time.monotonic() - start_s:.0f} s", flush=True)
        tensors = {name: weight.numpy() for name, weight in averaged.named_parameters()}
        write_v0(target.with_suffix(".bin"), config, tensors)


if __name__ == "__main__":
    main()
