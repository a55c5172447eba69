"""Runs a command as on a machine that is busy with something else: now and then one of its processes stands still.

A test that is green alone may count on a thing happening at once: that a client leaves before it is answered, say. On a
busy machine there are milliseconds between any two lines. ``python -m tests.busy --seed 3 make test`` stops (SIGSTOP) a
process of the command's tree, drawn by chance, lets it go on (SIGCONT) after up to ``--longest`` seconds, and so on
until the command ends; it ends with the command's status. One that stands still already is left to whoever stopped it.
"""
import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.waiting import state


def parents() -> dict[int, int]:
    """The parent of every process, by pid. Ref: proc(5)"""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            found[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):     # it has ended meanwhile
            continue
    return found


def tree(root: int) -> list[int]:
    """The process and all that it started, directly or not, as far as the parents live."""
    by_pid, found = parents(), {root}
    while grown := {pid for pid, parent in by_pid.items() if parent in found} - found:
        found |= grown
    return sorted(found & set(by_pid))


def hold_up(pid: int, seconds: float) -> bool:
    """Have a process stand still for a while; returns whether it was there, and running."""
    if state(pid) in (None, "T", "Z"):
        return False
    try:
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return False
    return True


def run(command: list[str], seed: int, longest_s: float, pause_s: float, log=None) -> int:
    """Run ``command``, holding up one of its processes after the other; returns its status."""
    chance  = random.Random(seed)
    process = subprocess.Popen(command)
    try:
        while process.poll() is None:
            time.sleep(chance.uniform(0, 2*pause_s))
            held    = chance.choice(tree(process.pid))
            seconds = longest_s*chance.random()**3          # many short, few long
            if hold_up(held, seconds) and log:
                print(f"{time.strftime('%X')} {held} {seconds:.3f} s", file=log, flush=True)
    except BaseException:                                   # Ctrl-C, or this program is ended
        process.terminate()
        process.wait()
        raise
    return process.returncode


def end(*_):
    sys.exit(128 + signal.SIGTERM)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m tests.busy", description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default %(default)s)")
    parser.add_argument("--longest", type=float, default=2.0, metavar="S",
                        help="a process stands still for so long at most (default %(default)s)")
    parser.add_argument("--pause", type=float, default=0.1, metavar="S",
                        help="on average, between two (default %(default)s)")
    parser.add_argument("--log", type=argparse.FileType("w"), metavar="FILE",
                        help="what stood still when, and for how long")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="with its arguments")
    args = parser.parse_args(argv)
    if not args.command:
        parser.error("no command: python -m tests.busy make test")
    if shutil.which(args.command[0]) is None:
        parser.error(f"{args.command[0]} is no program that can be run")
    signal.signal(signal.SIGTERM, end)
    status = run(args.command, args.seed, args.longest, args.pause, args.log)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
