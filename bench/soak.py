"""Random sessions on the simulated SoC by the shipped client and firmware, each result equal to golden's: ``python -m
bench.soak`` (`make soak`).

A seed is a session: a model of a random shape and formats, one to eight slots, generations of every kind at the same
time, aborts, bad commands, reconnects, uploads (tests/soak/session.py). The run goes on until there are enough tokens
and logits; one that was killed goes on with the seeds that are left. ``--seed N`` repeats one session and tells what
happens: what is asked for is the same, but when an abort arrives depends on the machine.
"""
import argparse
import functools
import json
import random
import sys
import tempfile
from pathlib import Path

from bench import campaign, records

ROOT    = Path(__file__).resolve().parent.parent
RESULTS = ROOT/"bench"/"results"/"soak.json"
SOURCES = [ROOT/"bench"/"soak.py", ROOT/"tests"/"shapes.py", ROOT/"tests"/"accel"/"decoder.py",
           *(ROOT/"tests"/"soak").glob("[!t]*.py")]
TOKENS  = 10_000
LOGITS  = 1_000_000
ROUNDS  = 12         # of a session
#: The core that a session runs on: of each four seeds three take the first, the default build.
BUILDS  = {
    "2 columns": {},
    "4 columns, 16 lanes, 2 pipes, 4 candidate sets": {
        "columns": 4, "variant": {"attention_lanes": 16, "softmax_pipes": 2, "candidate_sets": 4}},
}


@functools.cache
def simulator(build):
    """The path of a build's Vsim, made if anything changed."""
    from targets import sim
    return sim.build(**BUILDS[build])


def session(seed, say=lambda *words: None):
    """The session of a seed."""
    from tests.soak.session import Session
    usual, other = BUILDS
    build = usual if seed % 4 else other
    with tempfile.TemporaryDirectory() as folder:
        result = Session(simulator(build), random.Random(seed), Path(folder), say).run(ROUNDS)
    return {"counts": {f"build {build}": 1, **result.counts}, "failure": result.failure}


def enough(tokens, logits, results):
    """So many of both were compared."""
    counts = campaign.total(results)
    return counts["tokens"] >= tokens and counts["logits"] >= logits


def tell(done):
    """A line for a session that has ended."""
    counts = done["counts"]
    print(f"seed {done['seed']}: {counts.get('generations', 0)} generations, {counts.get('tokens', 0)} tokens, "
          f"{counts.get('logits', 0):,} logits, {done['cpu_s']:.0f} s of a processor"
          f"{', FAILED' if done['failure'] else ''}",
          file=sys.stderr, flush=True)


def sums(counts):
    return (f"{counts.get('tokens', 0):,} tokens, {counts.get('logits', 0):,} logits, {counts.get('rows', 0):,} K/V "
            f"rows equal to golden's in {counts.get('generations', 0):,} generations, "
            f"{counts.get('violations', 0)} DRAM violations")


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__.split("\n\n")[0])
    campaign.add_options(parser, "sessions", RESULTS)
    parser.add_argument("--tokens", type=int, default=TOKENS, help="to be compared (default %(default)s)")
    parser.add_argument("--logits", type=int, default=LOGITS, help="to be compared (default %(default)s)")
    args = parser.parse_args(argv)
    if args.seed is not None:
        done = campaign.attempt(functools.partial(session, say=print), args.seed)
        print(json.dumps(done["counts"], indent=1), done["failure"], sep="\n")
        return 1 if done["failure"] else 0
    run = campaign.Campaign("soak", session, sources=SOURCES, processes=args.processes, fresh=args.fresh)
    whole = functools.partial(enough, args.tokens, args.logits)
    results = run.run(args.first_seed, whole, seconds=args.seconds, say=tell)
    if not results:
        return 1
    record = campaign.summary(results)
    campaign.show(record, sums(record["counts"]), parser.prog.removeprefix("python -m "))
    if whole(results):
        records.write(args.output, RESULTS.stem, record)
    else:
        print(campaign.unfinished(record))
    return 1 if record["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
