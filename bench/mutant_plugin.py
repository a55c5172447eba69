"""A plugin for pytest that writes which test runs, how long it took and whether it passed, and bounds its time.

Loaded by bench.mutants. Reads from the environment MUTANTS_REPORT, the file that it appends lines of JSON to, and
MUTANTS_TESTS, a JSON file with the tests to run, in their order, and the seconds that each takes; with null all run.
A test that takes far longer ends the process by a signal, which also stops C code that hangs.
"""
import json
import os
import signal
import subprocess
from pathlib import Path

#: Of the processor's time and of the clock's, beyond what a multiple of the test's usual time allows.
PROCESSOR_S, CLOCK_S = 6, 45
TIMES_PROCESSOR, TIMES_CLOCK = 3, 8
HANGS = (-signal.SIGPROF, -signal.SIGALRM)          #: exit statuses


def _say(**what):
    with open(os.environ["MUTANTS_REPORT"], "a") as file:
        file.write(json.dumps(what) + "\n")


def _usual_s():
    return json.loads(Path(os.environ["MUTANTS_TESTS"]).read_text())


def pytest_collection_modifyitems(config, items):
    usual_s = _usual_s()
    if usual_s is not None:
        place = {name: n for n, name in enumerate(usual_s)}
        wanted = sorted((item for item in items if item.nodeid in place), key=lambda item: place[item.nodeid])
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in place])
        items[:] = wanted


def pytest_runtest_logstart(nodeid):
    _say(begins=nodeid)
    usual_s = _usual_s()
    if usual_s is not None:
        signal.setitimer(signal.ITIMER_PROF, PROCESSOR_S + TIMES_PROCESSOR*usual_s[nodeid])
        signal.setitimer(signal.ITIMER_REAL, CLOCK_S + TIMES_CLOCK*usual_s[nodeid])


def pytest_exception_interact(call):
    error = call.excinfo.value
    if isinstance(error, subprocess.CalledProcessError) and str(error.cmd[0]).endswith("gcc"):
        _say(refused=error.returncode)


def pytest_runtest_logreport(report):
    _say(test=report.nodeid, seconds=report.duration, passed=report.outcome == "passed",
         skipped=report.outcome == "skipped")


def pytest_sessionfinish():
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
