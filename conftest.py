"""Fails a run that skipped a test, lists skips by reason, and leaves out the reference tests unless their data is
named."""
import collections
import signal
from pathlib import Path

import pytest

from bench import reference_data

RECORD = Path(__file__).parent/"build"/"skips.txt"    # `make test` ends with it


def pytest_configure(config):
    # `nohup make test` and jobs in the background ignore these, and so would the programs under test.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        reference_data.folder()
    except SystemExit as error:
        raise pytest.UsageError(str(error)) from None


def pytest_collection_modifyitems(config, items):
    """Tests of the reference data run where REFERENCE_DATA names it, whatever lies beside the repository."""
    if reference_data.folder() is None:
        left_out = [item for item in items if item.get_closest_marker("reference")]
        items[:] = [item for item in items if not item.get_closest_marker("reference")]
        config.hook.pytest_deselected(items=left_out)


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
    if is_controller(session.config) and session.exitstatus == pytest.ExitCode.OK and skips(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config):
    if not is_controller(config):
        return
    lines = [f"{count} skipped: {reason}  <- no test may be skipped: the run fails"
             for reason, count in sorted(skips(config).items())]
    for line in lines:
        terminalreporter.write_line(line)
    RECORD.parent.mkdir(exist_ok=True)
    with open(RECORD, "a") as file:
        file.writelines(f"{line}\n" for line in lines)
