"""What quantisation and integers cost: golden against float32, per model and format; ``python -m bench.accuracy``.

Two comparisons, on the evaluation stories, BOS per story, teacher-forced: golden against float32 on the *same quantised
weights* (KL divergence: what the integer datapath costs) and golden against float32 on the checkpoint's own weights
(perplexity: what the format costs). Without ``../shared`` the committed stories of bench/stories.txt are used.
"""
import argparse
import json
from pathlib import Path

import numpy as np

from host import checkpoint
from host.tokenizer import Tokenizer
from spec import image as image_module
from spec.golden import Golden
from spec.image import Image, Kind
from spec.numerics import ROW_FRACTION
from spec.reference import Reference

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"
NAMES = {Kind.WQ: "wq", Kind.WK: "wk", Kind.WV: "wv", Kind.WO: "wo", Kind.W2: "w2"}


def text_path() -> Path:
    """The evaluation stories, or ours where they are missing."""
    path = SHARED / "corpus" / "eval_stories.txt"
    return path if path.exists() else ROOT / "bench" / "stories.txt"


def stories(limit: int) -> list[str]:
    """The evaluation stories, ``limit`` of them at most."""
    path = text_path()
    texts = [t.strip() for t in path.read_text().split("<|endoftext|>")]
    return [t for t in texts if t][:limit]


def dequantised(image: Image, tensors) -> dict:
    """The image's own weights as float32, under the checkpoint's names; gains too."""
    out = dict(tensors)
    gains = []
    for e in image.entries:
        if e.kind == Kind.GAIN:
            gains.append((image.gain(e) * 2.0 ** e.exponent / np.sqrt(image.config.dim)).astype(np.float32))
            continue
        real = image.tensor(e).real()
        if e.kind in NAMES:
            out[f"layers.{e.layer}.{NAMES[e.kind]}"] = real
        elif e.kind == Kind.W13:
            out[f"layers.{e.layer}.w1"], out[f"layers.{e.layer}.w3"] = real[0::2], real[1::2]
        else:
            out["classifier" if e.kind == Kind.CLASSIFIER and not image.config.tied else "embedding"] = real
    for i in range(image.config.n_layers):
        out[f"layers.{i}.attention_norm"], out[f"layers.{i}.ffn_norm"] = gains[2 * i], gains[2 * i + 1]
    out["final_norm"] = gains[-1]
    return out


def log_softmax(x):
    x = np.asarray(x, np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def golden_logits(golden: Golden, ids) -> np.ndarray:
    """Teacher-forced logits of every position."""
    return np.stack([golden.step(t, p).values for p, t in enumerate(ids)]) / 2.0 ** ROW_FRACTION


def measure(path: Path, tokenizer_path: Path, format: str, limit: int) -> dict:
    """Perplexities, divergence and greedy agreement of one checkpoint in one format."""
    source = checkpoint.load(path)
    tokenizer = Tokenizer.load(tokenizer_path, source.config.vocab_size)
    image = Image.parse(image_module.build(source.config, source.tensors, format=format, groups=source.groups))
    float32 = Reference(source.config, source.tensors)
    same = Reference(source.config, dequantised(image, source.tensors))
    golden = Golden(image)
    nats = {"float32": 0.0, "golden": 0.0}
    kl, worst, agree, tokens, characters = 0.0, 0.0, 0, 0, 0
    for text in stories(limit):
        ids = tokenizer.encode(text)[:source.config.seq_len]
        following = np.arange(len(ids) - 1), np.array(ids[1:])
        rows = golden_logits(golden, ids)[:-1]
        ours, theirs = log_softmax(rows), log_softmax(same.logits(ids)[:-1])
        exact = log_softmax(float32.logits(ids)[:-1])
        divergence = (np.exp(theirs) * (theirs - ours)).sum(axis=1)
        kl, worst = kl + divergence.sum(), max(worst, float(divergence.max()))
        agree += int((ours.argmax(axis=1) == exact.argmax(axis=1)).sum())
        nats["float32"] -= exact[following].sum()
        nats["golden"] -= ours[following].sum()
        tokens, characters = tokens + len(ids) - 1, characters + len(text.encode())
    perplexity = {k: float(np.exp(v / tokens)) for k, v in nats.items()}
    result = {"model": path.name, "format": format, "text": text_path().name, "tokens": tokens,
              "perplexity_float32": perplexity["float32"], "perplexity_golden": perplexity["golden"],
              "delta_percent": 100 * (perplexity["golden"] / perplexity["float32"] - 1),
              "bits_per_byte_float32": nats["float32"] / np.log(2) / characters,
              "bits_per_byte_golden": nats["golden"] / np.log(2) / characters,
              "kl_same_weights": kl / tokens, "kl_same_weights_worst": worst, "top1_agreement": agree / tokens,
              "bits_per_weight": 8 * image.header["payload_bytes"] / sum(t.size for t in source.tensors.values()),
              "flags": sorted(golden.flags.raised)}
    expected = SHARED / "models" / "expected.json"
    if expected.exists() and path.name == "stories260K.bin":
        result["expected_greedy"] = [greedy_agreement(golden, r) for r in json.loads(expected.read_text())["records"]]
    return result


def greedy_agreement(golden: Golden, record) -> dict:
    """How far golden's own greedy text equals float32's."""
    ids = list(record["prompt_ids"])
    for position in range(len(record["ids"]) - 1):
        logits = golden.step(ids[position], position)
        if position + 1 == len(ids):
            ids.append(logits.argmax)
    same = next((i for i, (a, b) in enumerate(zip(ids, record["ids"])) if a != b), len(ids))
    return {"prompt": record["prompt"], "equal_tokens": same, "of": len(record["ids"])}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stories", type=int, default=30)
    parser.add_argument("--json", type=Path, default=ROOT / "bench" / "results" / "accuracy.json")
    args = parser.parse_args()
    models = [(SHARED / "models" / "stories260K.bin", SHARED / "models" / "tok512.bin"),
              (ROOT / "models" / "stories.bin", ROOT / "models" / "stories.tokenizer.bin")]
    rows = []
    for path, tokenizer in models:
        for format in ("q8", "q4"):
            if not path.exists():
                print(f"{path.name}: not there, left out")
                continue
            rows.append(measure(path, tokenizer, format, args.stories))
            r = rows[-1]
            print(f"{r['model']} {format}: perplexity {r['perplexity_float32']:.4f} -> {r['perplexity_golden']:.4f} "
                  f"({r['delta_percent']:+.3f} %), KL on the same weights {r['kl_same_weights']:.1e}, "
                  f"top-1 {r['top1_agreement']:.4f}, {r['bits_per_byte_float32']:.4f} bits per byte", flush=True)
            for g in r.get("expected_greedy", ()):
                print(f"    greedy {g['prompt'][:32]!r}: {g['equal_tokens']} of {g['of']} tokens equal float32's")
    args.json.write_text(json.dumps({"command": "python -m bench.accuracy", "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
