"""Makes seeded one-line mutants of the core, the firmware, the specification and the wire's client, and runs the tests
that concern each: ``python -m bench.mutants`` (`make mutants`).

A mutant lives in a copy of the tree below the system's temporary folder, so an interrupted run leaves nothing behind;
run again, it goes on where it stopped. A mutant is caught when a test fails, crashes or takes far longer than it does
otherwise; stillborn when it neither compiles nor imports. Every other one survives, until a person reads it: then a
test catches it, or it stands with its reason in bench/equivalent_mutants.py.

``--only PATH`` looks at one file or folder, at all its mutants with a large ``--count``; ``--minutes N`` stops after a
while. A part of a run writes no record.
"""
import argparse
import json
import queue
import signal
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import mutant_tests, records
from bench.equivalent_mutants import EQUIVALENT
from bench.mutant_plan import COUNT, SOURCES, Planned, digest, plan, sources
from bench.mutant_trees import BaselineError, Known, Tree

ROOT    = Path(__file__).resolve().parent.parent
RECORD  = ROOT/"bench"/"results"/"mutants.json"
STATE   = ROOT/"build"/"mutants"
FATES   = ("caught", "hangs", "stillborn", "equivalent", "survives")
SHARE   = 0.95    # of those that live, to be caught
LIMIT_S = 60      # of tests, by their usual time, that a mutant has to survive before all of the nearest files' run


@dataclass(frozen=True)
class Fate:
    """What became of a mutant: caught or hangs, by a test, stillborn, or survives.

    ``source`` is the digest of the file that it was made of; ``tests``, of a survivor's, of the tests nearest to it.
    """
    file: str
    name: str
    line: int
    fate: str
    by: str
    seconds: float
    source: str
    tests: str = ""

    @property
    def shown(self) -> str:
        """The fate, once it is known which survivors are equivalent."""
        return "equivalent" if self.fate == "survives" and self.name in EQUIVALENT.get(self.file, {}) else self.fate

# The run ------------------------------------------------------------------------------------------


class Campaign:
    """Judges planned mutants; keeps what it finds in a folder, and begins with what was found before."""
    def __init__(self, planned: list[Planned], folder: Path, *, limit_s: float):
        self.planned, self.folder, self.limit_s = planned, folder, limit_s
        self.sources = {one.path: digest(one.path) for one in planned}
        self.tests = {path: digest(*sorted(mutant_tests.near_files(path))) for path in self.sources}
        self.fates = {}
        for fate in self._before():
            path = ROOT/fate.file
            if self.sources.get(path) == fate.source and fate.tests in ("", self.tests[path]):
                self.fates[fate.file, fate.name] = fate

    def _before(self):
        kept = json.loads(RECORD.read_text())["mutants"] if RECORD.exists() else []
        log = self.folder/"fates.jsonl"
        kept += [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return [Fate(**one) for one in kept]

    def left(self) -> list[Planned]:
        return [one for one in self.planned if (one.file, one.name) not in self.fates]

    def run(self, jobs: int, until: float):
        """Judge what is left, until the monotonic clock shows ``until``.

        Raises
        ------
        BaselineError
            A test fails without a mutant.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        trees: queue.SimpleQueue[Tree] = queue.SimpleQueue()
        opened = [Tree(self.folder/"objects") for _ in range(jobs)]
        try:
            for tree in opened:
                trees.put(tree)
            known = Known(self.folder/"tests.json")
            self._each(jobs, until, trees, self.left(), lambda tree, one: self._judge(tree, one, known))
        finally:
            for tree in opened:
                tree.close()

    def _each(self, jobs, until, trees, things, act):
        def work(thing):
            if time.monotonic() < until:
                tree = trees.get()
                try:
                    act(tree, thing)
                finally:
                    trees.put(tree)
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(work, things))

    def _judge(self, tree, one, known):
        started_s = time.monotonic()
        read = one.name in EQUIVALENT.get(one.file, {})
        fate, by = tree.judge(one.path, one.mutant, known, self.limit_s, thorough=not read)
        found = Fate(one.file, one.name, one.mutant.line, fate, by, round(time.monotonic() - started_s, 1),
                     self.sources[one.path], self.tests[one.path] if fate == "survives" else "")
        self.fates[one.file, one.name] = found
        with open(self.folder/"fates.jsonl", "a") as log:
            log.write(json.dumps(asdict(found)) + "\n")
        print(f"{found.shown}{f' by {by}' if by else ''} ({found.seconds} s): {one.file}:{found.line}: {one.name}",
              flush=True)

    def found(self) -> list[Fate]:
        return [self.fates[one.file, one.name] for one in self.planned if (one.file, one.name) in self.fates]

# The outcome --------------------------------------------------------------------------------------


def counts(fates: list[Fate]) -> Counter:
    return Counter(fate.shown for fate in fates)


def share(fates: list[Fate]) -> float:
    """Of those that live, how many are caught; 0 if there are none."""
    number = counts(fates)
    lives = len(fates) - number["stillborn"]
    return (number["caught"] + number["hangs"])/lives if lives else 0.0


def summary(fates: list[Fate]) -> dict:
    """By file: how many mutants were made, by which test files they were caught, and the names of the survivors."""
    found = {}
    for file in sorted({fate.file for fate in fates}):
        own = [fate for fate in fates if fate.file == file]
        number = counts(own)
        found[file] = {"made": len(own), **{fate: number[fate] for fate in FATES},
                       "by": dict(sorted(Counter(fate.by.split("::")[0] for fate in own if fate.by).items())),
                       "survivors": [fate.name for fate in own if fate.shown == "survives"]}
    return found


def report(campaign: Campaign) -> bool:
    """Say what was found; whether it is good."""
    fates = campaign.found()
    number = counts(fates)
    print(f"{len(fates)} of {len(campaign.planned)} mutants: "
          + ", ".join(f"{number[fate]} {word}" for fate, word in (
              ("caught", "caught by a failing test"), ("hangs", "by one that hangs"), ("stillborn", "stillborn"),
              ("equivalent", "equivalent"), ("survives", "surviving"))) + f"; {100*share(fates):.1f} % of the living")
    for fate in fates:
        if fate.shown == "survives":
            print(f"  survives: {fate.file}:{fate.line}: {fate.name}")
    return not campaign.left() and not number["survives"] and share(fates) >= SHARE


def options(argv) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.mutants", description=__doc__.split("\n\n")[0])
    parser.add_argument("--seed", type=int, default=1, help="another draws other mutants")
    parser.add_argument("--count", type=int, default=COUNT, help=f"of all files together, default {COUNT}")
    parser.add_argument("--only", default="", metavar="PATH", help="a file, or a folder, from the root")
    parser.add_argument("--jobs", type=int, default=1, help="mutants that are judged at the same time")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="none begins later; the next run goes on")
    parser.add_argument("--list", action="store_true", help="show the mutants that would be judged, and judge none")
    args = parser.parse_args(argv)
    args.paths = sources(args.only)
    if not args.paths:
        parser.error(f"{args.only}: no source that is mutated; there are {', '.join(SOURCES)}")
    if args.jobs < 1 or args.count < 1:
        parser.error("--jobs and --count are 1 at least")
    return args


def main(argv=None) -> int:
    args = options(argv)
    planned = [one for one in plan(sources(), args.seed, args.count) if one.path in args.paths]
    campaign = Campaign(planned, STATE/f"seed-{args.seed}", limit_s=LIMIT_S)
    if args.list:
        print(*(f"{one.file}:{one.mutant.line}: {one.name}" for one in campaign.planned), sep="\n")
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)       # so that the copies of the tree go then, too
    try:
        campaign.run(args.jobs, time.monotonic() + 60*args.minutes)
    except BaselineError as error:
        sys.exit(f"bench.mutants: {error}")
    except KeyboardInterrupt:
        sys.exit("bench.mutants: stopped; the next run goes on")
    good = report(campaign)
    if not campaign.left() and not args.only and args.count >= COUNT:
        records.write(RECORD, RECORD.stem, {"seed": args.seed, "files": summary(campaign.found()),
                                            "mutants": [asdict(fate) for fate in campaign.found()]})
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
