"""Random decoders on the core alone, each step equal to golden's: ``python -m bench.fuzz_core`` (`make fuzz-core`).

A seed is a shape with its formats and K/V format, a core with its columns, attention lanes, softmax pipes and candidate
sets, some slots, and a handful of steps that mix them (tests/accel/fuzz.py). Verilator compiles each of the cores once.
``--seed N`` repeats one; ``--endless`` goes on until it is interrupted, and a run that ended goes on where it was.
"""
import argparse
import functools
import random
import sys
import traceback
from pathlib import Path

from bench import campaign, records

ROOT    = Path(__file__).resolve().parent.parent
RESULTS = ROOT/"bench"/"results"/"fuzz-core.json"
SHAPES  = 500
SOURCES = [ROOT/"bench"/"fuzz_core.py", ROOT/"tests"/"shapes.py",
           *(ROOT/"tests"/"accel"/name for name in ("core_bench.cpp", "decoder.py", "fuzz.py", "steps.py",
                                                    "verilated.py"))]


def work(seed, say=lambda text: None):
    """One seed's decoder."""
    from tests.accel import fuzz
    plan = fuzz.random_plan(seed)
    say(plan)
    counts = fuzz.features(plan)
    try:
        return {"counts": {**counts, **fuzz.play(plan, random.Random(seed + 1))}, "failure": ""}
    except (AssertionError, TimeoutError) as error:
        where = traceback.extract_tb(error.__traceback__)[-1].line
        return {"counts": counts, "failure": f"{type(error).__name__}: {error or where}"}


def tell(done):
    print(f"seed {done['seed']}: {done['counts'].get('steps', 0)} steps, {done['cpu_s']} s of a processor"
          f"{', FAILED' if done['failure'] else ''}", file=sys.stderr, flush=True)


def sums(counts):
    return (f"{counts.get('steps', 0):,} steps, {counts.get('results compared', 0):,} results, "
            f"{counts.get('logits', 0):,} logits, {counts.get('rows', 0):,} K/V rows equal to golden's")


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz_core", description=__doc__.split("\n\n")[0])
    campaign.add_options(parser, "shapes", RESULTS)
    parser.add_argument("--shapes", type=int, default=SHAPES, help="seeds (default %(default)s)")
    parser.add_argument("--endless", action="store_true", help="go on until interrupted; records nothing")
    args = parser.parse_args(argv)
    if args.seed is not None:
        done = campaign.attempt(functools.partial(work, say=print), args.seed)
        print({name: value for name, value in done["counts"].items() if value}, done["failure"] or "equal", sep="\n")
        return 1 if done["failure"] else 0
    run = campaign.Campaign("fuzz-core", work, sources=SOURCES, processes=args.processes, fresh=args.fresh)
    whole = lambda results: not args.endless and len(results) >= args.shapes
    try:
        results = run.run(args.first_seed, whole, seconds=args.seconds, say=tell)
    except KeyboardInterrupt:
        results = run.results(args.first_seed)
    if not results:
        return 1
    record = campaign.summary(results if args.endless else results[:args.shapes])
    campaign.show(record, sums(record["counts"]), parser.prog.removeprefix("python -m "))
    if whole(results):
        records.write(args.output, RESULTS.stem, record)
    elif not args.endless:
        print(campaign.unfinished(record))
    return 1 if record["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
