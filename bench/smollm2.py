"""Decodes SmolLM2-135M's whole shape, 30 layers of random weights, on the verilated SoC and in golden: ``python -m
bench.smollm2``."""
import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from bench import records
from targets import sim
from tests.host import smollm2
from tests.soc.test_smollm2 import compare

ROOT = Path(__file__).parent.parent


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=smollm2.CONFIG.n_layers)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--prompt", default="Once upon")
    parser.add_argument("--json", type=Path, default=ROOT / "bench" / "results" / "smollm2.json")
    args = parser.parse_args()
    vsim, start_s = sim.build(), time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        ids, expected, events = compare(vsim, Path(temporary), replace(smollm2.CONFIG, n_layers=args.layers),
                                        args.prompt, args.steps)
    tokens = [event.token for event in events]
    cycles = [(b.cycles - a.cycles) % (1 << 32) for a, b in zip(events, events[1:])]
    result = {"command": "python -m bench.smollm2", "layers": args.layers, "prompt_ids": ids, "golden": expected,
              "soc": tokens,
              "equal": tokens == expected, "cycles_per_token": cycles, "wall_s": round(time.monotonic() - start_s)}
    print(json.dumps(result))
    records.write(args.json, "smollm2", result)
    return 0 if result["equal"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
