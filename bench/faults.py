"""Faults by the hundred thousand between the shipped client and the real firmware, in virtual time: ``python -m
bench.faults``.

The firmware is compiled for this PC under ASan and UBSan, with a toy core; the line drops, flips, repeats, invents,
delays and cuts off bytes; boards are reset, trapped and unplugged; flash is written while power fails; conversations
run beside each other in slots. An operation ends as it would have ended without faults, or with one true line; a chat
goes on. ``--seed N --scenario NAME`` repeats one trial and tells what happens; ``--scenario NAME`` alone is a campaign
of that scenario, which is not recorded.
"""
import argparse
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from bench import records

ROOT    = Path(__file__).resolve().parent.parent
RESULTS = ROOT/"bench"/"results"/"faults.json"
ENOUGH  = 100_000    # faults of a campaign
ROUND   = 6          # seeds of a scenario that a process takes at once
FIRST_SEEDS = (1, 1_000_001)
PRELOAD = "LD_PRELOAD"
SLOTS   = ("several", "several", "several", "chats_together", "upload")


def under_asan():
    """Begin again with ASan's library in the process, which a sanitized library in Python needs."""
    if "libasan" in os.environ.get(PRELOAD, ""):
        return
    library = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    # Python's own memory is never given back whole, which is no leak of ours.
    environment = os.environ | {PRELOAD: library.stdout.strip(), "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
                                "PYTHONPATH": str(ROOT)}
    os.execve(sys.executable, [sys.executable, "-m", "bench.faults", *sys.argv[1:]], environment)


def scenarios():
    """By name; every campaign takes all of them in turn."""
    from tests.faults.trial import Scenario
    return {
        "few faults":         Scenario(rate=1e-4),
        "many faults":        Scenario(rate=1e-3),
        "a bad line":         Scenario(rate=3e-3, resets=0.05, pulls=0.05, operations=20, loaded=True),
        "a terrible line":    Scenario(rate=1e-2, resets=0.02, pulls=0.02, operations=20, loaded=True,
                                       only=("hello", "statistics", "generate", "abort", "generate")),
        "the first rate":     Scenario(rate=1e-3, hurries=False),
        "a slow core":        Scenario(rate=2e-3, commands=2, operations=8, loaded=True),
        "one column":         Scenario(rate=2e-3, columns=1, commands=400, loaded=True),
        "resets":             Scenario(rate=2e-4, resets=0.8, pulls=0.1),
        "a loose cable":      Scenario(rate=2e-4, resets=0.1, pulls=0.8),
        "flash":              Scenario(rate=5e-4, resets=0.5, operations=8, only=("store", "upload", "store")),
        "chats":              Scenario(rate=3e-3, resets=0.3, pulls=0.2, operations=8, only=("chat",),
                                       loaded=True),
        "long generations":   Scenario(rate=4e-3, resets=0.05, operations=12, only=("long_generation",),
                                       loaded=True),
        "several slots":      Scenario(rate=4e-4, resets=0.05, pulls=0.05, columns=4, sets=4, operations=8,
                                       only=SLOTS, loaded=True),
        "slots, a bad line":  Scenario(rate=3e-3, resets=0.05, pulls=0.05, operations=6, only=SLOTS, loaded=True),
        "slots, one column":  Scenario(rate=1e-3, columns=1, commands=400, operations=6, only=SLOTS, loaded=True),
        "slots, resets":      Scenario(rate=2e-4, resets=0.6, pulls=0.3, columns=4, operations=8, only=SLOTS,
                                       loaded=True),
    }


class Bench:
    """What a process needs for any number of trials."""
    def __init__(self):
        from tests.faults.models import models
        from tests.faults.oracle import Oracle
        from tests.faults.trial import virtual
        from tests.faults.world import Firmware
        self._stack = ExitStack()
        self._stack.enter_context(virtual())    # as long as this process lives
        self.firmware, self.models = Firmware(), models()
        self.oracle = Oracle(self.firmware, self.models)

    def trial(self, seed, scenario, say=lambda *_: None):
        from tests.faults.trial import Result, Trial
        trial = Trial(self.firmware, self.oracle, self.models, seed, scenario, say)
        try:
            return trial.run()
        except RuntimeError:    # no way back: it is among the failures
            return trial.result
        except Exception as error:
            failed = Result(trials=1)
            failed.failures.append((seed, "the trial", repr(error)))
            return failed


_BENCH = None


def work(name, seeds):
    """A process's share: the results of a scenario's seeds."""
    global _BENCH
    _BENCH = _BENCH or Bench()
    from tests.faults.trial import Result
    total = Result()
    for seed in seeds:
        total += _BENCH.trial(seed, scenarios()[name])
    total.failures = [(name, *failure) for failure in total.failures]
    return total


def campaign(first_seed, enough, processes, names):
    """These scenarios in turn, round after round, until there were enough faults."""
    from tests.faults.trial import Result
    total, started_s, first = Result(), time.monotonic(), first_seed
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        while sum(total.faults.values()) < enough:
            rounds = [pool.submit(work, name, range(first, first + ROUND)) for name in names]
            for one in rounds:
                total += one.result()
            first += ROUND
            print(f"{sum(total.faults.values()):,} faults, {total.trials} trials, {len(total.failures)} failures, "
                  f"{time.monotonic() - started_s:.0f} s", file=sys.stderr, flush=True)
    return {
        "seeds": [first_seed, first - 1], "trials": total.trials, "faults": sum(total.faults.values()),
        "by_kind": dict(sorted(total.faults.items())), "operations": dict(sorted(total.ended.items())),
        "in_slots": dict(sorted(total.beside.items())), "tokens_compared": total.tokens, "bytes": total.bytes,
        "longest_operation_s": round(total.longest_s, 1),
        "seconds": round(time.monotonic() - started_s), "failures": total.failures,
    }


def replay(seed, name):
    """One trial, told as it goes."""
    result = Bench().trial(seed, scenarios()[name], say=print)
    print(result)
    return len(result.failures)


def show(one):
    print(f"seeds {one['seeds'][0]} to {one['seeds'][1]}: {one['faults']:,} faults in {one['trials']} trials, "
          f"{one['tokens_compared']:,} tokens compared, longest operation {one['longest_operation_s']} s, "
          f"{len(one['failures'])} failures")
    for name, seed, operation, what in one["failures"]:
        print(f"  python -m bench.faults --scenario {name!r} --seed {seed}    # {operation}: {what.splitlines()[-1]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, help="repeat this seed of --scenario, and tell what happens")
    parser.add_argument("--scenario", help="only this one")
    parser.add_argument("--faults", type=int, default=ENOUGH, help="of each campaign")
    parser.add_argument("--first-seed", type=int, action="append", help="of a campaign; may be repeated")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.seed is not None and args.scenario is None:
        parser.error("--seed needs --scenario")
    if args.scenario not in (None, *scenarios()):
        parser.error(f"no scenario {args.scenario!r}: {', '.join(scenarios())}")
    under_asan()
    if args.seed is not None:
        return 1 if replay(args.seed, args.scenario) else 0
    campaigns = []
    for first_seed in args.first_seed or FIRST_SEEDS:
        names = list(scenarios()) if args.scenario is None else [args.scenario]
        campaigns.append(campaign(first_seed, args.faults, args.processes, names))
        show(campaigns[-1])
        if args.scenario is None:
            records.write(args.output, RESULTS.stem, {"campaigns": campaigns}, indent=2)
    return 1 if any(one["failures"] for one in campaigns) else 0


if __name__ == "__main__":
    sys.exit(main())
