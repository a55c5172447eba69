"""Fails a test run that skipped anything for another reason than a missing ../shared, and lists skips by reason."""
import collections
from pathlib import Path

import pytest

EXCUSE = "../shared is missing"
RECORD = Path(__file__).parent/"build"/"skips.txt"    # `make test` ends with it


def skips(config):
    """Reasons of the skipped tests, with how many there were."""
    reports = config.pluginmanager.get_plugin("terminalreporter").stats.get("skipped", [])
    return collections.Counter(
        report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else str(report.longrepr)
        for report in reports)


def is_controller(config):
    return not hasattr(config, "workerinput")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    if is_controller(session.config) and session.exitstatus == pytest.ExitCode.OK:
        if any(EXCUSE not in reason for reason in skips(session.config)):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config):
    if not is_controller(config):
        return
    found = skips(config)
    lines = [f"{count} skipped: {reason}" + ("" if EXCUSE in reason else "  <- not an accepted reason: the run fails")
             for reason, count in sorted(found.items())]
    for line in lines:
        terminalreporter.write_line(line)
    RECORD.parent.mkdir(exist_ok=True)
    with open(RECORD, "a") as file:
        file.writelines(f"{line}\n" for line in lines)
