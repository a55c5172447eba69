"""Measures which branches of spec/, host/ and firmware/ the tests take that need no simulator: ``python -m
bench.coverage`` (`make coverage`).

coverage.py counts in every Python process of the tests, the command lines and servers that they start among them; gcov
counts in the firmware that they compile for this PC. A branch that nobody takes is printed with its line, unless its
reason stands beside it: ``# pragma: no cover: why`` in Python, an entry of tests/firmware/untaken.txt for the firmware.
The run fails where a test fails, a target is missed, or a reason is not needed any more. ``--report`` prints what the
last run found once more.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from bench import records
from tests.firmware import library

ROOT    = Path(__file__).resolve().parent.parent
RESULTS = ROOT/"bench"/"results"/"coverage.json"
BUILD   = ROOT/"build"/"coverage"
REASONS = ROOT/"tests"/"firmware"/"untaken.txt"
MARKS   = "not soc and not uart and not reference and not install and not web"
#: Folders of tests; each group is a process.
GROUPS  = (("tests/host",), ("tests/spec", "tests/server", "tests/firmware", "tests/fuzz", "tests/faults"))
#: Least share of the branches, in percent.
TARGETS = {"spec": 95, "host": 95, "firmware": 90}


@dataclass
class Counted:
    """A file: its lines and branches, those that were reached, and lines with one that was not."""
    lines: int = 0
    lines_reached: int = 0
    branches: int = 0
    branches_taken: int = 0
    missed: list[str] = field(default_factory=list)

    def __iadd__(self, other):
        self.lines, self.lines_reached = self.lines + other.lines, self.lines_reached + other.lines_reached
        self.branches, self.branches_taken = self.branches + other.branches, self.branches_taken + other.branches_taken
        return self

    @property
    def percent(self):
        """Of the branches, or of the lines where there is no branch."""
        done, all_of_them = ((self.branches_taken, self.branches) if self.branches
                             else (self.lines_reached, self.lines))
        return 100*done/all_of_them if all_of_them else 100.0

    def figures(self):
        return {"lines": self.lines, "lines_reached": self.lines_reached, "branches": self.branches,
                "branches_taken": self.branches_taken}


# Measuring ----------------------------------------------------------------------------------------


def environment():
    """Of the tests: Python processes count from their start, and firmware is compiled so that it counts."""
    return os.environ | {"COVERAGE_PROCESS_START": str(ROOT/"pyproject.toml"), "COVERAGE_FILE": str(BUILD/"data"),
                         library.COUNTED: str(BUILD/"firmware")}


def run_tests(folders):
    """One process's tests; whether all passed."""
    command = [sys.executable, "-m", "coverage", "run", "-m", "pytest", "-q", "-m", MARKS, *folders]
    log = BUILD/f"{Path(folders[0]).name}.log"
    with open(log, "w") as file:
        done = subprocess.run(command, cwd=ROOT, env=environment(), stdout=file, stderr=subprocess.STDOUT)
    print(f"{' '.join(folders)}: {log.read_text().strip().splitlines()[-1]}", file=sys.stderr, flush=True)
    return done.returncode == 0


def measure(processes):
    """Run all tests; whether they passed."""
    shutil.rmtree(BUILD, ignore_errors=True)
    (BUILD/"firmware").mkdir(parents=True)
    with ThreadPoolExecutor(processes) as pool:
        return all(list(pool.map(run_tests, GROUPS)))


# Python -------------------------------------------------------------------------------------------


def python_files():
    """What coverage.py counted, by the file's path."""
    if not (BUILD/"data").exists():
        subprocess.run([sys.executable, "-m", "coverage", "combine", "-q"], cwd=ROOT, env=environment(), check=True)
    subprocess.run([sys.executable, "-m", "coverage", "json", "-q", "-o", BUILD/"python.json"], cwd=ROOT,
                   env=environment(), check=True)
    return {path: python_file(found) for path, found in json.loads((BUILD/"python.json").read_text())["files"].items()}


def python_file(found):
    """A file of coverage.py's report."""
    summary = found["summary"]
    lines = [f"{line}" for line in found["missing_lines"]]
    jumps = [f"{line} to {'the end' if to < 0 else to}" for line, to in found.get("missing_branches", ())
             if line not in found["missing_lines"]]
    return Counted(summary["num_statements"], summary["covered_lines"], summary.get("num_branches", 0),
                   summary.get("covered_branches", 0), lines + jumps)


# Firmware -----------------------------------------------------------------------------------------


def gcov(notes):
    """What one build counted: (file, line, reached, branches as they were taken) of all lines."""
    told = subprocess.run(["gcov", "--json-format", "--branch-probabilities", "--stdout", *notes], cwd=BUILD,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    for line in told.stdout.splitlines():
        for file in json.loads(line)["files"]:
            for one in file["lines"]:
                yield file["file"], one["line_number"], one["count"], [branch["count"] for branch in one["branches"]]


def firmware_lines():
    """By file and line of firmware/*.c: how often it was reached, and each of its branches."""
    reached = defaultdict(lambda: defaultdict(lambda: [0, []]))
    for folder in sorted((BUILD/"firmware").iterdir()):
        notes = sorted(folder.glob("*.gcno"))
        for file, line, count, branches in gcov(notes) if notes else ():
            if Path(file).parent != ROOT/"firmware" or not file.endswith(".c"):
                continue
            known = reached[Path(file).name][line]
            known[0] += count
            if len(known[1]) not in (0, len(branches)):
                raise ValueError(f"{file}:{line} has {len(branches)} branches in one build, {len(known[1])} in another")
            known[1] = [a + b for a, b in zip(known[1] or [0]*len(branches), branches)]
    return reached


def firmware_files(reasons):
    """What gcov counted, by the file's path; branches in ``reasons`` do not count, and are taken out of it."""
    found = {}
    for name, lines in sorted(firmware_lines().items()):
        text, one = (ROOT/"firmware"/name).read_text().splitlines(), Counted()
        for number, (count, branches) in sorted(lines.items()):
            untaken = sum(taken == 0 for taken in branches)
            if (count == 0 or untaken) and reasons.pop((name, text[number - 1].strip()), None):
                count, untaken, branches = 1, 0, [taken for taken in branches if taken]
            one += Counted(1, count != 0, len(branches), len(branches) - untaken)
            if count == 0 or untaken:
                one.missed.append(f"{number}: {text[number - 1].strip()}"
                                  + (f"  ({untaken} of {len(branches)})" if count and len(branches) > 2 else ""))
        found[f"firmware/{name}"] = one
    return found


def reasons():
    """By file and text of a line of the firmware, why some branch of it cannot be taken on a PC."""
    found, reason = {}, ""
    for line in REASONS.read_text().splitlines():
        if line.startswith("#"):
            reason = line.strip("# ")
        elif line.strip():
            name, text = line.split(": ", 1)
            found[name, text.strip()] = reason
    return found


# Telling ------------------------------------------------------------------------------------------


def package(path):
    """The row of a table that a file belongs to: a package of Python, or a file of the firmware."""
    parts = Path(path).parts
    if parts[0] == "firmware":
        return path
    return "/".join(parts[:-1])


def summed(files, key):
    total = defaultdict(Counted)
    for path, one in sorted(files.items()):
        total[key(path)] += one
    return total


def tell(files):
    """What no test reaches, line by line."""
    for path, one in sorted(files.items()):
        for missed in one.missed:
            print(f"{path}:{missed}")
    for room, one in summed(files, lambda path: Path(path).parts[0]).items():
        print(f"{room}: {one.branches_taken:,} of {one.branches:,} branches, {one.percent:.2f} %; "
              f"{one.lines_reached:,} of {one.lines:,} lines")


def main():
    parser = argparse.ArgumentParser(prog="python -m bench.coverage", description=__doc__.split("\n\n")[0])
    parser.add_argument("--report", action="store_true", help="of the last run; records nothing")
    parser.add_argument("--processes", type=int, default=min(os.cpu_count() or 1, len(GROUPS)))
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.report and not BUILD.exists():
        parser.error("there is no last run: leave --report out")
    passed = args.report or measure(args.processes)
    unused = reasons()
    files = python_files() | firmware_files(unused)
    tell(files)
    rooms = summed(files, lambda path: Path(path).parts[0])
    problems = [f"{room}: {one.percent:.2f} % of the branches, {TARGETS[room]} are wanted"
                for room, one in rooms.items() if one.percent < TARGETS[room]]
    problems += [f"tests/firmware/untaken.txt: {name}: every branch of this line is taken, or it is gone: {text}"
                 for name, text in unused]
    problems += [] if passed else ["tests failed: see build/coverage/*.log"]
    print(*problems, sep="\n", end="\n" if problems else "")
    if not args.report:
        records.write(args.output, RESULTS.stem, {
            "command": "python -m bench.coverage", "rooms": {room: one.figures() for room, one in rooms.items()},
            "packages": {name: one.figures() for name, one in summed(files, package).items()},
            "untaken": {path: one.missed for path, one in sorted(files.items()) if one.missed}})
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
