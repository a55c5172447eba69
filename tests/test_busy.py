"""A machine that is busy by chance: every process of the command stands still now and then, and goes on."""
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import PATIENCE_S, ended, until

ROOT = Path(__file__).resolve().parents[1]
#: Two processes; the first tells the number of the second, and ends with 3 once it is told to.
COMMAND = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
print(child.pid, flush=True)
sys.stdin.readline()
child.communicate()
sys.exit(3)
"""


@pytest.fixture
def busy(tmp_path):
    """The process, the child of its command, and the pids that were held up so far."""
    log = tmp_path/"log"
    options = ["--longest", "0.02", "--pause", "0.01", "--log", log]
    process = subprocess.Popen([sys.executable, "-m", "tests.busy", *options, sys.executable, "-c", COMMAND], cwd=ROOT,
                               text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        child = int(process.stdout.readline())
        yield process, child, lambda: {int(line.split()[1]) for line in log.read_text().splitlines()}
    finally:
        process.kill()
        process.communicate()


def test_every_process_is_held_up_and_the_status_is_the_command_s(busy):
    process, child, held = busy
    until(lambda: child in held() and len(held()) == 2)
    process.communicate("go on\n", timeout=PATIENCE_S)
    assert process.returncode == 3


def test_what_is_ended_leaves_nothing_that_stands_still(busy):
    process, child, held = busy
    until(lambda: child in held() and len(held()) == 2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 128 + signal.SIGTERM
    until(lambda: all(map(ended, held())))


def test_no_command_is_one_line():
    done = subprocess.run([sys.executable, "-m", "tests.busy"], cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 2 and done.stderr.splitlines()[-1].endswith("no command: python -m tests.busy make test")


def test_a_command_that_is_not_there_is_one_line():
    done = subprocess.run([sys.executable, "-m", "tests.busy", "./no-such"], cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("./no-such is no program that can be run")
