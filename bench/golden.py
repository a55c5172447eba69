"""Measures how many tokens per second the integer decoder itself does on this machine: ``python -m bench.golden``.

Random weights in the shapes of stories260K and stories15M: one position after another, as a generation goes, and
positions of a known text, which go through the layers in blocks.
"""
import argparse
import os
import time
from pathlib import Path

import numpy as np

from bench import records
from llama2_host.checkpoint.layout import shapes
from llama2_spec.golden import Golden
from llama2_spec.image import Image, build
from llama2_spec.model import ModelConfig

ROOT = Path(__file__).parent.parent
SHAPES = {
    "stories260K": ModelConfig(dim=64, hidden_dim=172, n_layers=5, n_heads=8, n_kv_heads=4, head_dim=8, vocab_size=512,
                               seq_len=512),
    "stories15M": ModelConfig(dim=288, hidden_dim=768, n_layers=6, n_heads=6, n_kv_heads=6, head_dim=48,
                              vocab_size=32000, seq_len=256),
}
POSITIONS = 256


def random_image(config: ModelConfig, format: str) -> Image:
    """Weights of the scale of trained ones."""
    rng = np.random.default_rng(0)
    tensors = {name: (rng.standard_normal(shape) * shape[-1] ** -0.5 if len(shape) == 2
                      else np.ones(shape)).astype(np.float32)
               for name, shape in shapes(config).items()}
    return Image.parse(build(config, tensors, format=format))


def measure(name: str, format: str) -> dict:
    """Tokens per second over the first positions, both ways; their logits are compared."""
    config = SHAPES[name]
    golden, tokens = Golden(random_image(config, format)), np.random.default_rng(1).integers(
        0, config.vocab_size, POSITIONS)
    seconds, rows = {}, {}
    for way, logits in (("step", lambda: [golden.step(int(t), p) for p, t in enumerate(tokens)]),
                        ("text", lambda: list(golden.logits(tokens.tolist())))):
        start_s = time.monotonic()
        rows[way] = np.stack([row.values for row in logits()])
        seconds[way] = time.monotonic() - start_s
    assert (rows["step"] == rows["text"]).all()
    return {"shape": name, "format": format, "positions": POSITIONS,
            "tokens_per_second_step": POSITIONS / seconds["step"],
            "tokens_per_second_text": POSITIONS / seconds["text"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=ROOT / "bench" / "results" / "golden.json")
    args = parser.parse_args()
    rows = [measure(name, format) for name in SHAPES for format in ("q8", "q4")]
    for r in rows:
        print(f"{r['shape']} {r['format']}: {r['tokens_per_second_step']:.0f} tokens/s one by one, "
              f"{r['tokens_per_second_text']:.0f} in blocks")
    records.write(args.json, "golden", {"command": "python -m bench.golden", "cores": os.cpu_count(), "rows": rows})


if __name__ == "__main__":
    main()
