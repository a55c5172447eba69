"""Measures conversion: time and largest memory for known models' shapes with random weights; ``python -m bench.conversion``."""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from spec import image
from tests.host import smollm2

ROOT = Path(__file__).parent.parent
SHAPES = {
    "SmolLM2-135M": smollm2.CONFIG,
    #: Ref: huggingface.co/TinyLlama/TinyLlama-1.1B-Chat-v1.0, config.json
    "TinyLlama-1.1B": replace(smollm2.CONFIG, dim=2048, hidden_dim=5632, n_layers=22, n_heads=32, n_kv_heads=4, vocab_size=32000,
                              seq_len=2048, rope_theta=10000.0, tied=False),
}


#: The most memory that a process had resident, of its own: the kernel's figure for a child begins with its parent's.
CHILD = """
import re, sys, time
from host.cli import main
status = main(sys.argv[1:])
print(time.process_time(), re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
sys.exit(status)
"""


def convert(folder: Path, output: Path, format: str) -> dict:
    """One conversion in a process of its own: its seconds, and the most memory it had resident."""
    start_s = time.monotonic()
    process = subprocess.run([sys.executable, "-c", CHILD, "convert", str(folder), "-o", str(output), "--format", format,
                              "--embedding", format],
                             cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    cpu_s, resident_kib = process.stdout.split()[-2:]
    return {"wall_s": round(time.monotonic() - start_s, 1), "cpu_s": round(float(cpu_s), 1),
            "resident_mib": round(int(resident_kib) / 1024), "image_bytes": output.stat().st_size}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=ROOT / "bench" / "results" / "conversion.json")
    args = parser.parse_args()
    rows = []
    for name, config in SHAPES.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = smollm2.write(Path(temporary) / name, config=config)
            for format in ("q8", "q4"):
                rows.append({"shape": name, "weights": image.weights(config), "format": format,
                             **convert(folder, Path(temporary) / "model.llm", format)})
                print(json.dumps(rows[-1]), flush=True)
    args.json.write_text(json.dumps({"command": "python -m bench.conversion", "cores": os.cpu_count(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
