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


class Durations:
    """Seconds of each test by file, kept in a JSON file; and which passed in the tree as it is now."""
    def __init__(self, path: Path):
        self.path, self.tree, self._one = path, tree_digest(), threading.Lock()
        self.kept = json.loads(path.read_text()) if path.exists() else {}

    def of(self, tests: Path) -> dict[str, float]:
        return self.kept[self._name(tests)]["tests"]

    def lacks(self, tests: Path) -> bool:
        return self.kept.get(self._name(tests), {}).get("made") != _digest(tests)

    def add(self, tests: Path, seconds: dict[str, float]):
        self.kept[self._name(tests)] = {"made": _digest(tests), "tree": self.tree, "tests": seconds}
        self._write()

    def passes_now(self, test: str) -> bool:
        """Whether a test is known to pass in this tree; one of an earlier tree has to show it."""
        kept = self.kept[test.split("::")[0]]
        return kept["tree"] == self.tree or test in kept.get("again", {}).get(self.tree, [])

    def passed(self, test: str):
        again = self.kept[test.split("::")[0]].setdefault("again", {})
        self.kept[test.split("::")[0]]["again"] = {self.tree: again.get(self.tree, []) + [test]}
        self._write()

    def _name(self, tests):
        return tests.relative_to(ROOT).as_posix()

    def _write(self):
        with self._one:
            part = self.path.with_suffix(f".{os.getpid()}")
            part.write_text(json.dumps(self.kept, indent=1))
            os.replace(part, self.path)


def _digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


class Tree:
    """A copy of the working tree below the system's temporary folder, which goes when it is closed."""
    def __init__(self, objects: Path):
        self._folder = tempfile.TemporaryDirectory(prefix="llama2-mutants-")
        self.root, self.objects, self._marks = Path(self._folder.name)/"tree", objects, 0
        for name in _files():
            (self.root/name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT/name, self.root/name)
        environment = {name: value for name, value in os.environ.items() if name != "WAVES"} | {
            "PYTHONPATH": ":".join(str(self.root/part) for part in ("", "host", "spec"))}
        self._server = subprocess.Popen([sys.executable, "-m", "bench.mutant_server"], cwd=self.root, env=environment,
                                        text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def close(self):
        self._server.stdin.close()
        self._server.wait()
        self._folder.cleanup()

    def measure(self, tests: Path) -> dict[str, float]:
        """Seconds of each test of a file, nothing being changed; skipped ones are left out.

        Raises
        ------
        BaselineError
            One fails.
        """
        status, report = self._pytest([tests.relative_to(ROOT).as_posix()], usual_s=None)
        failed = [line["test"] for line in report if line.get("passed") is False and not line["skipped"]]
        if failed or status not in (0, 1, 5):       # 1: the run fails where a test is skipped; 5: all are marked
            raise BaselineError(f"{(failed or [tests.name])[0]} fails without a mutant: mend it first")
        skipped = {line["test"] for line in report if line.get("skipped")}
        seconds: dict[str, float] = {}
        for line in report:
            if "seconds" in line and line["test"] not in skipped:
                seconds[line["test"]] = round(seconds.get(line["test"], 0) + line["seconds"], 3)
        return seconds

    def judge(self, path: Path, mutant: Mutant, durations: Durations, limit_s: float) -> tuple[str, str]:
        """What becomes of a mutant, and the test that caught it: caught, hangs, stillborn or survives.

        Tests of the nearest files are asked first; the others, for ``limit_s`` of their usual time, if all of those
        pass.
        """
        near = mutant_tests.near_files(path)
        for files in (near, mutant_tests.nearest(path).keys() - near):
            tests = mutant_tests.stage(files, path, self._seconds(files, durations), limit_s)
            fate, by = self._with(path, mutant, tests) if tests else ("", "")
            if fate:
                if by and not durations.passes_now(by):
                    self._must_pass(by)
                    durations.passed(by)
                return fate, by
        return "survives", ""

    def _seconds(self, files, durations):
        """Of each test of the files; those that nobody measured are measured now."""
        for tests in sorted(files):
            if durations.lacks(tests):
                durations.add(tests, self.measure(tests))
        return {tests: durations.of(tests) for tests in files}

    def _with(self, path, mutant, tests):
        place = self.root/path.relative_to(ROOT)
        self._put(place, mutant.source)
        try:
            return self._ask(tests, compiled=path.suffix == ".c")
        finally:
            shutil.copy2(ROOT/path.relative_to(ROOT), place)

    def _put(self, place, source):
        """Python looks at a file's time and size to tell whether it has to compile it again."""
        place.write_text(source)
        self._marks += 1
        os.utime(place, (self._marks, self._marks))

    def _ask(self, stage: dict[str, float], *, compiled: bool) -> tuple[str, str]:
        """The fate that these tests find, and the test; nothing if all pass. What is ``compiled`` may be refused."""
        status, report = self._pytest(sorted({test.split("::")[0] for test in stage}), usual_s=stage)
        ran = next((line["begins"] for line in reversed(report) if "begins" in line), "")
        if status == 0:
            return "", ""
        if status in HANGS:
            return "hangs", ran
        if compiled and any("refused" in line for line in report):
            return "stillborn", ""
        failed = [line["test"] for line in report if line.get("passed") is False]
        if failed:
            return "caught", failed[0]
        if status in NOT_COLLECTED and not ran:
            return "stillborn", ""
        if ran and status not in NOT_COLLECTED:     # the process ended, as where UBSan or a signal ends it
            return "caught", ran
        raise RuntimeError(f"pytest ends with {status} after {ran or 'no test'}")

    def _must_pass(self, test):
        status, _ = self._pytest([test.split("::")[0]], usual_s={test: 60.0})
        if status != 0:
            raise BaselineError(f"{test} fails without a mutant: mend it first")

    def _pytest(self, files, *, usual_s):
        report, tests = Path(self._folder.name)/"report.jsonl", Path(self._folder.name)/"tests.json"
        report.write_text("")
        tests.write_text(json.dumps(usual_s))
        arguments = ["-q", "--tb=no", "-p", "no:cacheprovider", "-p", "bench.mutant_plugin", "-m", mutant_tests.MARKS,
                     *(["-x"] if usual_s else []), *files]
        asked = {"arguments": arguments, "environment": {"MUTANTS_REPORT": str(report), "MUTANTS_TESTS": str(tests),
                                                         "FIRMWARE_OBJECTS": str(self.objects)}}
        self._server.stdin.write(json.dumps(asked) + "\n")
        self._server.stdin.flush()
        status = int(self._server.stdout.readline())
        return status, [json.loads(line) for line in report.read_text().splitlines()]
