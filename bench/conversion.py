"""Measures conversion: time and largest memory for known models' shapes with random weights; ``python -m
bench.conversion``.

Calibration reads a text of random words that is long enough for the most tokens that the converter ever takes for the
shape.
"""
import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench import records
from llama2_host.quantisation.cores import cores
from llama2_spec import image
from tests.host import smollm2

ROOT = Path(__file__).parent.parent
SHAPES = {
    "SmolLM2-135M": smollm2.CONFIG,
    #: Ref: huggingface.co/HuggingFaceTB/SmolLM2-360M-Instruct, config.json
    "SmolLM2-360M": replace(smollm2.CONFIG, dim=960, hidden_dim=2560, n_layers=32, n_heads=15, n_kv_heads=5),
    #: Ref: huggingface.co/TinyLlama/TinyLlama-1.1B-Chat-v1.0, config.json
    "TinyLlama-1.1B": replace(smollm2.CONFIG, dim=2048, hidden_dim=5632, n_layers=22, n_heads=32, n_kv_heads=4,
                              vocab_size=32000,
                              seq_len=2048, rope_theta=10000.0, tied=False),
}


#: The most memory that the process itself had resident: the kernel's figure for a child would begin with its parent's.
CHILD = """
import re, sys, time
from llama2_host.cli import main
status = main(sys.argv[1:])
print(time.process_time(), re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
sys.exit(status)
"""


#: The conversions that are measured for a shape: --format and, behind a plus, --calibrate.
FORMATS = {"SmolLM2-135M": ("q8", "q4", "q4+calibrate"), "SmolLM2-360M": ("q4+calibrate",),
           "TinyLlama-1.1B": ("q8", "q4")}
ALL_FORMATS = ("q8", "q4", "q4+calibrate")
#: Names that the record's parts may have, in their order.
PARTS = [f"{name} {format}" for name in SHAPES for format in ALL_FORMATS]
TEXT_WORDS = 40_000


def write_text(path: Path) -> Path:
    """Words of random letters, 200 to a story."""
    rng = np.random.default_rng(1)
    words = ["".join(rng.choice(list("etaoinshrdlu"), rng.integers(1, 9))) for _ in range(TEXT_WORDS)]
    path.write_text("<|endoftext|>".join(" ".join(words[at:at + 200]) for at in range(0, len(words), 200)))
    return path


def convert(folder: Path, output: Path, format: str) -> dict:
    """One conversion in a process of its own: its seconds, and the most memory it had resident."""
    format, _, calibrate = format.partition("+")
    options = ["--calibrate", str(write_text(output.with_name("text.txt")))] if calibrate else ["--embedding", format]
    start_s = time.monotonic()
    process = subprocess.run([sys.executable, "-c", CHILD, "convert", str(folder), "-o", str(output), "--format",
                              format, *options],
                             cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    cpu_s, resident_kib = process.stdout.split()[-2:]
    return {"wall_s": round(time.monotonic() - start_s, 1), "cpu_s": round(float(cpu_s), 1),
            "resident_mib": round(int(resident_kib) / 1024), "image_bytes": output.stat().st_size}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=ROOT / "bench" / "results" / "conversion.json")
    parser.add_argument("--only", choices=SHAPES, nargs="+", default=list(SHAPES), metavar="SHAPE",
                        help=f"of {', '.join(SHAPES)}")
    parser.add_argument("--formats", choices=ALL_FORMATS, nargs="+", help="these only")
    args = parser.parse_args()
    for name in args.only:
        config = SHAPES[name]
        with tempfile.TemporaryDirectory() as temporary:
            folder = smollm2.write(Path(temporary) / name, config=config)
            for format in args.formats or FORMATS[name]:
                result = {"command": f"python -m bench.conversion --only {name} --formats {format}",
                          "shape": name, "weights": image.weights(config), "format": format, "cores": cores(),
                          **convert(folder, Path(temporary) / "model.llm", format)}
                records.write_part(args.json, "conversion", f"{name} {format}", result, PARTS)
                print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
