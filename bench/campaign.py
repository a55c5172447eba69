"""Runs a campaign's seeds and keeps what each did in a file, so that a run which was killed goes on where it was."""
import argparse
import bisect
import fcntl
import hashlib
import itertools
import json
import os
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

from bench import records
from bench.essence import essence

FOLDER = records.ROOT/"build"/"campaigns"
MOST   = 10         #: failures after which no further seed is begun: they are one fault's, or nothing works


def cpu_s() -> float:
    """Processor time of this process and of those that it has ended."""
    return sum(os.times()[:4])


def attempt(work: Callable[[int], dict], seed: int) -> dict:
    """What ``work`` says of a seed, or the error by which it failed; and the processor time that it took."""
    start_s = cpu_s()
    try:
        done = work(seed)
    except Exception:
        done = {"failure": traceback.format_exc(limit=-4)}
    return {"seed": seed, "counts": {}, "failure": "", "cpu_s": round(cpu_s() - start_s, 1), **done}


class Campaign:
    """``work(seed)`` returns a seed's ``counts``, to be added up, and its ``failure``, a text; both go into JSON.

    What is finished is kept under the record's ``name`` and a digest of the sources that the record depends on and of
    ``sources``, by which a seed means what it does: after a change of these a campaign begins anew. ``fresh`` forgets
    what was finished.
    """

    def __init__(self, name: str, work: Callable[[int], dict], *, sources: Iterable[Path] = (), processes: int = 1,
                 fresh: bool = False):
        self.work, self.processes = work, processes
        FOLDER.mkdir(parents=True, exist_ok=True)
        hashed = hashlib.sha256(records.digest(records.kind_of(name)).encode())
        for path in sorted(sources):
            hashed.update(essence(path))
        self.file = FOLDER/f"{name}-{hashed.hexdigest()[:16]}.jsonl"
        if fresh:
            self.file.unlink(missing_ok=True)
        self.finished = self._read()

    @contextmanager
    def _alone(self):
        """Two runs at a time would do the same seeds."""
        with open(self.file.with_suffix(".lock"), "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise SystemExit(f"another run of this campaign is at it ({self.file})") from None
            self.finished = self._read()
            yield

    def _read(self) -> dict[int, dict]:
        """What is finished, by seed; a line that a killed run left half is cut off."""
        lines = self.file.read_text().splitlines(keepends=True) if self.file.exists() else []
        if lines and not lines[-1].endswith("\n"):
            self.file.write_text("".join(lines[:-1]))
            del lines[-1]
        found = map(json.loads, lines)
        return {done["seed"]: done for done in found}

    def results(self, first: int) -> list[dict]:
        """Of the seeds from ``first`` on that are finished without a gap."""
        return [self.finished[seed] for seed in
                itertools.takewhile(self.finished.__contains__, itertools.count(first))]

    def run(self, first: int, enough: Callable[[list[dict]], bool], *, seconds: float | None = None,
            say: Callable[[dict], None] = lambda done: None) -> list[dict]:
        """Results of the seeds from ``first`` on: no more than are ``enough``, or as many as began within
        ``seconds`` and before there were too many failures."""
        deadline = time.monotonic() + seconds if seconds is not None else float("inf")
        left = (seed for seed in itertools.count(first) if seed not in self.finished)
        go_on = lambda: (not enough(self.results(first)) and time.monotonic() < deadline
                         and len(failures(list(self.finished.values()))) < MOST)
        with self._alone():
            if self.processes == 1:
                while go_on():
                    self._keep(attempt(self.work, next(left)), say)
            else:
                self._run_in_processes(left, go_on, say)
        found = self.results(first)
        return found[:bisect.bisect_left(range(len(found)), True, key=lambda count: enough(found[:count]))]

    def _run_in_processes(self, left, go_on, say) -> None:
        """As long as there is something to begin, each process has a seed; they end with what they have."""
        with ProcessPoolExecutor(self.processes, get_context("spawn")) as pool:
            begun: set[Future] = set()
            while begun or go_on():
                while len(begun) < self.processes and go_on():
                    begun.add(pool.submit(attempt, self.work, next(left)))
                ended, begun = wait(begun, return_when=FIRST_COMPLETED)
                for one in ended:
                    self._keep(one.result(), say)

    def _keep(self, done: dict, say: Callable[[dict], None]) -> None:
        with open(self.file, "a") as file:
            file.write(json.dumps(done) + "\n")
        self.finished[done["seed"]] = done
        say(done)


def total(results: list[dict]) -> Counter:
    """The sums of all counts."""
    counts: Counter = Counter()
    for one in results:
        counts.update(one["counts"])
    return counts


def failures(results: list[dict]) -> list[dict]:
    return [{"seed": one["seed"], "what": one["failure"]} for one in results if one["failure"]]


def summary(results: list[dict]) -> dict:
    """What every campaign's record has."""
    return {"seeds": [results[0]["seed"], results[-1]["seed"]], "counts": dict(sorted(total(results).items())),
            "cpu_s": round(sum(one["cpu_s"] for one in results)), "failures": failures(results)}


def add_options(parser: argparse.ArgumentParser, what: str, output: Path) -> None:
    """The options of every campaign, whose seeds are ``what``, in the plural; its record goes to ``output``."""
    parser.add_argument("--seed", type=int, help="repeat this one, and tell what happens")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, help=f"begin no more {what} after so long; the next run goes on")
    parser.add_argument("--processes", type=int, default=2, help=f"{what} at a time (default %(default)s)")
    parser.add_argument("--fresh", action="store_true", help="forget the seeds that are finished")
    parser.add_argument("--output", type=Path, default=output)


def show(record: dict, sums: str, program: str) -> None:
    """The ``sums`` of a record, and how ``program`` repeats what failed."""
    print(f"seeds {record['seeds'][0]} to {record['seeds'][1]}: {sums}, {record['cpu_s']:,} s of a processor, "
          f"{len(record['failures'])} failures")
    for failed in record["failures"]:
        print(f"  python -m {program} --seed {failed['seed']}    # {failed['what'].splitlines()[-1][:300]}")


def unfinished(record: dict) -> str:
    """What to do about a campaign that has not done enough."""
    if len(record["failures"]) >= MOST:
        return "so many failures end it: --fresh forgets them"
    return "not enough yet: the same command goes on"
