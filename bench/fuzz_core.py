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


def show(record):
    """The sums, and how to repeat what failed."""
    counts = record["counts"]
    print(f"seeds {record['seeds'][0]} to {record['seeds'][1]}: {counts.get('steps', 0):,} steps, "
          f"{counts.get('results compared', 0):,} results, {counts.get('logits', 0):,} logits, "
          f"{counts.get('rows', 0):,} K/V rows equal to golden's, {record['cpu_s']:,} s of a processor, "
          f"{len(record['failures'])} failures")
    for failed in record["failures"]:
        print(f"  python -m bench.fuzz_core --seed {failed['seed']}    # {failed['what'].splitlines()[-1][:300]}")


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz_core", description=__doc__.split("\n\n")[0])
    parser.add_argument("--seed", type=int, help="repeat this one, and tell what it is")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--shapes", type=int, default=SHAPES, help="seeds (default %(default)s)")
    parser.add_argument("--endless", action="store_true", help="go on until interrupted; records nothing")
    parser.add_argument("--seconds", type=float, help="begin no shape after so long; the next run goes on")
    parser.add_argument("--processes", type=int, default=2, help="shapes at a time (default %(default)s)")
    parser.add_argument("--fresh", action="store_true", help="forget the seeds that are finished")
    parser.add_argument("--output", type=Path, default=RESULTS)
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
    show(record)
    if whole(results):
        records.write(args.output, RESULTS.stem, record)
    elif not args.endless:
        print(campaign.unfinished(record))
    return 1 if record["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
