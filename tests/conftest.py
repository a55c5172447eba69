"""Names the waveforms that a run with WAVES wrote, and fails one that wrote none."""
import os

import pytest

from tests import waves


def wrote_none():
    return bool(os.environ.get("WAVES")) and not waves.WRITTEN


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    if wrote_none() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    if not os.environ.get("WAVES"):
        return
    for path in waves.WRITTEN:
        terminalreporter.write_line(f"waveform: {path}")
    if wrote_none():
        terminalreporter.write_line("no waveform: no test that ran simulates in Amaranth's simulator; TEST names one "
                                    "of tests/accel")
