"""Starting and stopping a simulator, played by small scripts."""
import io
import os
import subprocess
import sys

import pytest

from llama2_host import connection
from llama2_host.progress import Progress
from llama2_host.device.simulator import COLUMNS, Simulator, SimulatorError
from targets.sim import create_parser
from tests.waiting import ended, until

RUNNING = "import time, sys; print('listening on socket://127.0.0.1:4', flush=True); time.sleep(60)"


def simulator(script, *arguments, **options):
    return Simulator(command=(sys.executable, "-c", script, *arguments), **options)


def test_reads_the_port_and_stops():
    running = simulator(RUNNING)
    assert running.url == "socket://127.0.0.1:4"
    assert running.process.poll() is None
    running.stop()
    assert running.process.poll() is not None


def test_clean_end_is_no_error():
    script = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0));" + RUNNING
    with simulator(script) as running:
        assert running.process.poll() is None


def test_timing_violations_are_an_error():
    script = ("import signal, sys\n"
              "def stop(*_):\n    print('DRAM timing: 3 x tRCD violation', file=sys.stderr); sys.exit(1)\n"
              "signal.signal(signal.SIGTERM, stop)\n" + RUNNING)
    with pytest.raises(SimulatorError, match="the simulator failed: DRAM timing: 3 x tRCD violation"):
        with simulator(script):
            pass


def test_passes_the_image_on(tmp_path):
    script = "import sys; print('listening on', sys.argv[-1], flush=True); sys.stdin.read()"
    running = simulator(script, model_image=tmp_path / "a.llm")
    assert running.url == str(tmp_path / "a.llm")
    running.stop()


@pytest.mark.parametrize("script, message", [
    ("import sys; print('no compiler', file=sys.stderr); sys.exit(3)", "the simulator failed: no compiler"),
    ("import no_such_litex", "No module named 'no_such_litex': pip install -r requirements.txt"),
    ("pass", "the simulator failed: status 0"),
])
def test_failure_to_start_is_one_line(script, message):
    with pytest.raises(SimulatorError, match=message) as error:
        simulator(script)
    assert "\n" not in str(error.value)


def test_what_it_says_is_passed_on():
    notes = io.StringIO()
    notes.isatty = lambda: False
    running = simulator("import sys; print('building', file=sys.stderr, flush=True);" + RUNNING,
                        progress=Progress(notes))
    until(lambda: "simulator: building" in notes.getvalue())
    running.stop()


def test_its_core_has_the_columns_that_were_asked_for(monkeypatch):
    class Started(Exception):
        pass

    def start(image, *, arguments, **more):
        raise Started(*arguments)
    monkeypatch.setattr(connection, "Simulator", start)
    for columns, expected in ((4, ("--columns", "4")), (None, ())):
        with pytest.raises(Started) as started:
            connection.connect(sim=True, columns=columns)
        assert started.value.args == expected


def test_columns_are_those_that_the_simulator_is_built_with():
    options = create_parser()._option_string_actions
    assert tuple(options["--columns"].choices) == COLUMNS


@pytest.mark.parametrize("deaf", [True, False])
def test_stop_always_ends_it(deaf, monkeypatch):
    monkeypatch.setattr("llama2_host.device.simulator.STOP_TIMEOUT_S", 0.3)
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" if deaf else ""
    running = simulator(ignore + RUNNING)
    running.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(running.process.pid, 0)


def test_ends_with_a_client_that_is_killed():
    script = f"""
import os, signal, sys
from llama2_host.device.simulator import Simulator
print(Simulator(command=(sys.executable, "-c", {RUNNING!r})).process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    pid = int(subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, timeout=60).stdout)
    until(lambda: ended(pid))       # and does not go on without its client
