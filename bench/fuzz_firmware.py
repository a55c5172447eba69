"""Fuzzes the firmware on this PC under ASan and UBSan: ``python -m bench.fuzz_firmware``.

A session is some dozens of inputs: frames with values from the edges of every check, raw bytes, divisions of the cache,
generations in several slots, damaged images in memory and flash, resets. Its replies must be whole frames, and no
command to the core may reach beyond the model and its cache. ``--batch N`` repeats a batch of 500 sessions;
``--libfuzzer SECONDS`` lets clang's fuzzer look for inputs that reach more of the code.
"""
import argparse
import os
import struct
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import records
from llama2_spec import emit_c
from tests.firmware import library
from tests.firmware.images import CONFIG, small_image

ROOT    = Path(__file__).resolve().parent.parent
FUZZ    = ROOT/"tests"/"fuzz"
RESULTS = ROOT/"bench"/"results"/"fuzz-firmware.json"
BATCH   = 500          # as in main.c
ENOUGH  = 80_000       # sessions, of more than ten inputs each
SHARE   = 20           # batches that a process takes at once
CHECKS  = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
COUNTS  = ("sessions", "frames", "replies", "refused", "images", "commands", "divisions", "together")


def build(folder, *, firmware=ROOT/"firmware", libfuzzer=False):
    """Compile firmware, fake core and fuzzer into ``folder``; the program, with the images beside it."""
    (folder/"generated").mkdir()
    (folder/"generated"/"llama2_spec.h").write_text(emit_c.header())
    images = [small_image(), small_image(format="q4"), small_image(CONFIG.__class__(**vars(CONFIG) | {"n_layers": 1}))]
    (folder/"images").write_bytes(b"".join(struct.pack("<I", len(image)) + image for image in images))
    sources = [path for path in sorted(firmware.glob("*.c")) if path.name not in library.ON_BOARD_ONLY]
    sources += [*library.FAKES, *sorted(FUZZ.glob("*.c"))]
    compiler = (["clang-19", "-fsanitize=fuzzer", "-DLIBFUZZER", "-Wno-gnu-variable-sized-type-not-at-end"]
                if libfuzzer else ["gcc"])
    includes = [f"-I{path}" for path in (folder, firmware, ROOT/"tests"/"firmware", FUZZ)]
    flags = [flag for flag in library.FLAGS if not flag.startswith(("-fsanitize", "-fno-sanitize"))]
    subprocess.run([*compiler, *flags, *CHECKS, *includes, "-o", folder/"fuzz", *sources,
                    *(library.counting() if firmware == ROOT/"firmware" and not libfuzzer else [])], check=True)
    return folder/"fuzz"


def batches(program, first, count):
    """Run these batches; their counts and what was said of those that failed."""
    done = subprocess.run([program, program.with_name("images"), str(first), str(count)], capture_output=True,
                          text=True, env=os.environ | {"ASAN_OPTIONS": "abort_on_error=1"})
    return [int(word) for word in done.stdout.split()], done.stderr if done.returncode else ""


def campaign(program, sessions, first, processes):
    started_s, totals, findings = time.monotonic(), [0]*len(COUNTS), []
    shares = -(-sessions//(BATCH*SHARE))
    with ThreadPoolExecutor(processes) as pool:
        for number, (counts, said) in enumerate(pool.map(
                lambda share: batches(program, first + share*SHARE, SHARE), range(shares))):
            totals = [a + b for a, b in zip(totals, counts)]
            findings += [said] if said else []
            if number % 10 == 9:
                print(f"{totals[0]:,} sessions, {len(findings)} findings, {time.monotonic() - started_s:.0f} s",
                      file=sys.stderr, flush=True)
    counts = dict(zip(COUNTS, totals))
    return {"first_batch": first, "batches": shares*SHARE, "inputs": counts["frames"] + counts["images"], **counts,
            "seconds": round(time.monotonic() - started_s), "findings": findings}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, help="repeat this one")
    parser.add_argument("--sessions", type=int, default=ENOUGH)
    parser.add_argument("--first", type=int, default=1, help="batch to begin with")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--libfuzzer", type=int, metavar="SECONDS", help="use clang's libFuzzer; records nothing")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        program = build(Path(folder), libfuzzer=args.libfuzzer is not None)
        if args.libfuzzer is not None:
            options = [f"-max_total_time={args.libfuzzer}", "-max_len=400", "-print_final_stats=1",
                       f"-artifact_prefix={ROOT}/build/"]
            return subprocess.run([program, *options],
                                  env=os.environ | {"FUZZ_IMAGES": str(program.with_name("images"))}).returncode
        if args.batch is not None:
            counts, said = batches(program, args.batch, 1)
            print(dict(zip(COUNTS, counts)), said)
            return 1 if said else 0
        result = campaign(program, args.sessions, args.first, args.processes)
    records.write(args.output, RESULTS.stem, result, indent=2)
    print({name: value for name, value in result.items() if name != "findings"}, *result["findings"], sep="\n")
    return 1 if result["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
