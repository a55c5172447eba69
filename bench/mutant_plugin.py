"""A plugin for pytest that puts tests in order, bounds the time of each, and writes which ran, for how long, and what
failed.

Loaded by bench.mutants. Reads from the environment MUTANTS_REPORT, the file that it appends lines of JSON to, and
MUTANTS_TESTS, a JSON file with the ``steps`` of each test file, the ``seconds`` that tests are known to take, and
``limit_s`` for all together. A test that takes far longer than it is known to ends the process by a signal, which also
stops C code that hangs.
"""
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

UNKNOWN_S = 1.0             #: of a test that never ran
#: Of the processor's time and of the clock's, beyond what a multiple of the test's usual time allows.
PROCESSOR_S, CLOCK_S = 6, 45
UNKNOWN_PROCESSOR_S  = 40
TIMES_PROCESSOR, TIMES_CLOCK = 3, 8
HANGS = (-signal.SIGPROF, -signal.SIGALRM)          #: exit statuses


def in_order(names: list[str], *, steps: dict[str, int], seconds: dict[str, float], limit_s: float) -> list[str]:
    """Tests by their distance, then the quickest first; as many as together take ``limit_s``, or one."""
    chosen, total_s = [], 0.0
    for name in sorted(names, key=lambda name: (steps[name.split("::")[0]], seconds.get(name, UNKNOWN_S))):
        total_s += seconds.get(name, UNKNOWN_S)
        if total_s > limit_s and chosen:
            break
        chosen.append(name)
    return chosen


def _say(**what):
    with open(os.environ["MUTANTS_REPORT"], "a") as file:
        file.write(json.dumps(what) + "\n")


def _asked():
    return json.loads(Path(os.environ["MUTANTS_TESTS"]).read_text())


def pytest_collection_modifyitems(config, items):
    named = {item.nodeid: item for item in items}
    wanted = in_order(list(named), **_asked())
    config.hook.pytest_deselected(items=[named[name] for name in named.keys() - set(wanted)])
    items[:] = [named[name] for name in wanted]


def pytest_collectreport(report):
    if report.failed:
        _say(uncollected=report.nodeid)


def pytest_runtest_logstart(nodeid):
    usual_s = _asked()["seconds"].get(nodeid)
    _say(begins=nodeid)
    if usual_s is None:
        signal.setitimer(signal.ITIMER_PROF, UNKNOWN_PROCESSOR_S)
        signal.setitimer(signal.ITIMER_REAL, UNKNOWN_PROCESSOR_S*TIMES_CLOCK)
    else:
        signal.setitimer(signal.ITIMER_PROF, PROCESSOR_S + TIMES_PROCESSOR*usual_s)
        signal.setitimer(signal.ITIMER_REAL, CLOCK_S + TIMES_CLOCK*usual_s)


def pytest_exception_interact(call):
    error = call.excinfo.value
    if isinstance(error, subprocess.CalledProcessError) and str(error.cmd[0]).endswith("gcc"):
        _say(refused=error.returncode)


def pytest_runtest_logreport(report):
    _say(test=report.nodeid, seconds=report.duration, outcome=report.outcome)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Tests that nobody knew may take longer together than was thought."""
    done = yield
    _say(ends=item.nodeid)
    if time.process_time() > 2*_asked()["limit_s"]:
        item.session.shouldstop = "the tests that passed took long enough"
    return done


def pytest_sessionfinish():
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
