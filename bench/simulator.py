"""Measures the simulator: how long it takes to build and how fast it runs, into bench/results/simulator.json."""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import soc.amaranth
from bench import records, side_by_side
from soc.sim import tools
from soc.sim.simulator import Simulator
from targets import sim

RESULTS = Path(__file__).parent/"results"/"simulator.json"
IDLE_S  = 5


def timed(function, *args, **kwargs):
    """Result of the call, and its seconds."""
    start  = time.monotonic()
    result = function(*args, **kwargs)
    return result, time.monotonic() - start


def processor():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def khz(simulator, workload):
    """Simulated kHz of wall-clock time, and of processor time (which leaves other work on the machine out), while
    ``workload`` runs."""
    def sample():
        return simulator.time_ps()*sim.SYS_CLK_FREQ/1e12, time.monotonic(), simulator.cpu_s()
    before = sample()
    workload()
    cycles, wall_s, cpu_s = (after - first for after, first in zip(sample(), before))
    return {"khz": round(cycles/wall_s/1e3), "khz_of_cpu": round(cycles/cpu_s/1e3)}


def client(*arguments):
    """Run the client, quietly."""
    subprocess.run([sys.executable, "-m", "llama2_host.cli", *map(str, arguments)], cwd=sim.ROOT, check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def build_from_scratch(directory):
    """Seconds of a build that finds nothing in the caches: software, conversion, Verilator."""
    with mock.patch.object(sim, "CACHE", directory/"vsim"), mock.patch.object(soc.amaranth, "CACHE",
                                                                              directory/"amaranth"):
        return timed(sim.build, directory/"sim")[1]


def measure(model, tokenizer, steps, with_build, against=None, rounds=3):
    results = {"processor": processor(), "cores": os.cpu_count(),
               **dict(zip(("verilator", "compiler"), tools.versions()))}
    with tempfile.TemporaryDirectory() as temporary:
        if with_build:
            results["build_s"] = build_from_scratch(Path(temporary))
        vsim = sim.build()
        _, results["unchanged_build_s"] = timed(sim.build)
        image = None
        if model:
            image = Path(temporary)/"model.llm"
            client("convert", model, "-o", image, *(["--tokenizer", tokenizer] if tokenizer else []))
        (simulator, results["start_s"]) = timed(Simulator(vsim, image).start)
        try:
            results["idle"] = khz(simulator, lambda: time.sleep(IDLE_S))
            if model:
                results["decoding"] = khz(simulator, lambda: client(
                    "generate", "--port", simulator.url, "--model", image, "--temperature", 0, "--steps", steps,
                    "--prompt", "Once upon a time"))
            results["violations"] = sum(simulator.violations().values())
        finally:
            simulator.stop()
        if against:
            results["against"] = {"what": Path(against).name if Path(against).is_dir() else against,
                                  **side_by_side.compare(side_by_side.find(against), vsim, image, steps, rounds)}
    return {key: round(value, 2) if isinstance(value, float) else value for key, value in results.items()}


def main():
    parser = argparse.ArgumentParser(prog="python -m bench.simulator", description=__doc__)
    parser.add_argument("--model", type=Path, help="checkpoint or image to decode; without it the SoC idles")
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--steps", type=int, default=64, help="tokens (%(default)s)")
    parser.add_argument("--no-build", action="store_true", help="leave out the build from scratch")
    parser.add_argument("--against", metavar="OLD", help="decode side by side with another simulator: the folder of a "
                                                         "build, as build/sim of "
                        "another clone, or a commit; takes the project's own model if --model names none")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each of the two (%(default)s)")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the figures go (%(default)s)")
    args = parser.parse_args()
    model = args.model or (sim.ROOT/"models"/"stories.bin" if args.against else None)
    results = measure(model, args.tokenizer, args.steps, not args.no_build, args.against, args.rounds)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    records.write(args.json, "simulator", results, indent=2)
    print(json.dumps(results, indent=2))
    return 0 if side_by_side.equal(results.get("against")) else 1


if __name__ == "__main__":
    sys.exit(main())
