"""A copy of the tree in which one file at a time is a mutant, and the tests that judge it there."""
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from bench import mutant_tests
from bench.mutant_plugin import HANGS
from bench.mutation import Mutant
from tests import imports

ROOT = Path(__file__).resolve().parent.parent
NOT_COLLECTED = (2, 4)      #: pytest's exit statuses where a module cannot be imported
BEYOND = ("docs/", "bench/results/")        #: files without influence on a test's verdict of a mutant


class BaselineError(Exception):
    """A test fails although nothing is changed: it can't judge mutants."""


def _files() -> list[str]:
    """Files of the working tree that git knows or would add."""
    listed = subprocess.run(["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True,
                            check=True).stdout
    return sorted(name for name in listed.split("\0") if name and (ROOT/name).is_file())


def tree_digest() -> str:
    """16 hexadecimal digits of everything that a test may depend on."""
    hashed = hashlib.sha256()
    for name in _files():
        if not name.startswith(BEYOND):
            hashed.update(f"{name}\0".encode() + hashlib.sha256((ROOT/name).read_bytes()).digest())
    return hashed.hexdigest()[:16]


class Known:
    """What is known of tests, kept in a JSON file: the seconds of each, and the tree in which it passed last."""
    def __init__(self, path: Path):
        self.path, self.tree, self._one = path, tree_digest(), threading.Lock()
        self.kept = json.loads(path.read_text()) if path.exists() else {}

    def seconds(self) -> dict[str, float]:
        return {name: kept["seconds"] for name, kept in self.kept.items()}

    def passes(self, name: str) -> bool:
        """Whether a test passed in this tree, as it is or with a mutant that is none of its business."""
        return self.kept.get(name, {}).get("tree") == self.tree

    def add(self, passed: dict[str, float]):
        with self._one:
            for name, seconds in passed.items():
                self.kept[name] = {"seconds": round(seconds, 3), "tree": self.tree}
            part = self.path.with_suffix(f".{os.getpid()}")
            with open(part, "w") as file:
                json.dump(self.kept, file, indent=1)
            os.replace(part, self.path)


class Tree:
    """A copy of the working tree below the system's temporary folder, which goes when it is closed."""
    def __init__(self, objects: Path):
        self._folder = tempfile.TemporaryDirectory(prefix="llama2-mutants-")
        self.root, self.objects, self._marks = Path(self._folder.name)/"tree", objects, 0
        for name in _files():
            (self.root/name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT/name, self.root/name)
        self._environment = {name: value for name, value in os.environ.items() if name != "WAVES"} | {
            "PYTHONPATH": ":".join(str(self.root/part) for part in ("", "host", "spec"))}
        self._server = subprocess.Popen([sys.executable, "-m", "bench.mutant_server"], cwd=self.root,
                                        env=self._environment, text=True, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)

    def close(self):
        self._server.stdin.close()
        self._server.wait()
        self._folder.cleanup()

    def judge(self, path: Path, mutant: Mutant, known: Known, limit_s: float, *,
              thorough: bool = True) -> tuple[str, str]:
        """What becomes of a mutant, and the test that caught it: caught, hangs, stillborn or survives.

        Tests of the nearest files are asked first, the others if all of those pass; each time as many as usually take
        ``limit_s``. What survives them is asked by all tests of the nearest files, however long they take, if
        ``thorough``.

        Raises
        ------
        BaselineError
            The test that caught it fails without a mutant, too.
        """
        steps, near = mutant_tests.nearest(path), mutant_tests.near_files(path)
        rounds = [(near, limit_s), (steps.keys() - near, limit_s), (near, float("inf"))]
        for files, seconds in rounds if thorough else rounds[:2]:
            asked = {tests.relative_to(ROOT).as_posix(): 0 if tests in near else steps[tests] for tests in files}
            fate, by = self._with(path, mutant, asked, known, seconds) if asked else ("", "")
            if fate:
                if "::" in by and not known.passes(by):
                    self.must_pass(by, known)
                return fate, by
        return "survives", ""

    def _with(self, path, mutant, steps, known, limit_s):
        place = self.root/path.relative_to(ROOT)
        self._put(place, mutant.source)
        try:
            fate, by = self._ask(steps, known, limit_s, compiled=path.suffix == ".c")
            if fate == "uncollected":       # by the mutant's module, or by what a test's does with it
                return ("caught", by) if self._imports(path) else ("stillborn", "")
            return fate, by
        finally:
            shutil.copy2(ROOT/path.relative_to(ROOT), place)

    def _imports(self, path: Path) -> bool:
        """Whether the mutant can be imported by itself."""
        name = next(name for name, file in imports.modules().items() if file == path)
        return subprocess.run([sys.executable, "-c", f"import {name}"], cwd=self.root, env=self._environment,
                              stderr=subprocess.DEVNULL).returncode == 0

    def _put(self, place, source):
        """Python looks at a file's time and size to tell whether it has to compile it again."""
        place.write_text(source)
        self._marks += 1
        os.utime(place, (self._marks, self._marks))

    def _ask(self, steps: dict[str, int], known: Known, limit_s: float, *, compiled: bool) -> tuple[str, str]:
        """The fate that the tests of these files find, and the test; nothing if all pass. What is ``compiled`` may be
        refused by the compiler."""
        status, report = self._pytest({"steps": steps, "seconds": known.seconds(), "limit_s": limit_s})
        known.add(_passed(report))
        ran = next((line["begins"] for line in reversed(report) if "begins" in line), "")
        failed = [line["test"] for line in report if line.get("outcome") == "failed"]
        if status in HANGS:
            return "hangs", ran
        if compiled and any("refused" in line for line in report):
            return "stillborn", ""
        if failed:
            return "caught", failed[0]
        if ran and {"ends": ran} not in report:     # the process ended, as where UBSan or a signal ends it
            return "caught", ran
        uncollected = [line["uncollected"] for line in report if "uncollected" in line]
        if not ran and (uncollected or status in NOT_COLLECTED):
            return "uncollected", next(iter([*uncollected, *steps]))
        return "", ""

    def must_pass(self, name: str, known: Known):
        """Raises BaselineError if a test fails though nothing is changed."""
        _, report = self._pytest({"steps": {name: 0}, "seconds": {}, "limit_s": 1})
        passed = _passed(report)
        if name not in passed:
            raise BaselineError(f"{name} fails without a mutant: mend it first")
        known.add(passed)

    def _pytest(self, asked):
        report, tests = Path(self._folder.name)/"report.jsonl", Path(self._folder.name)/"tests.json"
        report.write_text("")
        with open(tests, "w") as file:
            json.dump({**asked, "steps": {name.split("::")[0]: n for name, n in asked["steps"].items()}}, file)
        arguments = ["-q", "-x", "--tb=no", "-p", "no:cacheprovider", "-p", "bench.mutant_plugin", "-m",
                     mutant_tests.MARKS, *asked["steps"]]
        run = {"arguments": arguments, "environment": {"MUTANTS_REPORT": str(report), "MUTANTS_TESTS": str(tests),
                                                       "FIRMWARE_OBJECTS": str(self.objects)}}
        self._server.stdin.write(json.dumps(run) + "\n")
        self._server.stdin.flush()
        status = int(self._server.stdout.readline())
        return status, [json.loads(line) for line in report.read_text().splitlines()]


def _passed(report) -> dict[str, float]:
    """Tests all of whose phases passed, with their seconds."""
    seconds: dict[str, float] = {}
    for line in report:
        if "outcome" in line:
            seconds[line["test"]] = seconds.get(line["test"], 0.0) + line["seconds"]
    for line in report:
        if line.get("outcome", "passed") != "passed":
            seconds.pop(line["test"], None)
    return {name: s for name, s in seconds.items() if {"ends": name} in report}
