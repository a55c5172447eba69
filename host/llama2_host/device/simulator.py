"""Starts and stops the verilated SoC (``targets/sim.py``) for a client, and says what it does on stderr."""
import ctypes
import importlib.util
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from llama2_host.errors import HostError
from llama2_host.progress import Progress

TARGET = Path("targets") / "sim.py"
LISTENING = "listening on "
STILL_WAITING_S = 30.0
STOP_TIMEOUT_S = 60.0          #: a busy machine may need as long; then it is killed
PR_SET_PDEATHSIG = 1
COLUMNS = (1, 2, 4)            #: that a simulated core may have, as targets/sim.py builds it


class SimulatorError(HostError):
    """The simulator did not start, or it reported DRAM timing violations."""


class Simulator:
    """A running simulator; a context manager. ``url`` is the port of its UART."""

    def __init__(self, model_image: Path | None = None, *, build: bool = True, arguments: tuple[str, ...] = (),
                 command: tuple[str, ...] | None = None, progress: Progress = Progress.silent):
        self.progress = progress
        self.url = ""
        self.errors: list[str] = []
        root = find_root() if command is None else Path.cwd()
        started = list(command or (find_python(root), str(TARGET), *(("--build",) if build else ()), "--run"))
        if model_image is not None:
            started += ["--model-image", str(Path(model_image).resolve())]
        # A session of its own: Ctrl-C is for the client, which ends the generation first and then the simulator.
        self.process = subprocess.Popen([*started, *arguments], cwd=root, stdin=subprocess.DEVNULL, text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
                                        preexec_fn=_die_with_parent if sys.platform == "linux" else None)
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read_stdout, daemon=True).start()
        self._stderr = threading.Thread(target=self._read_stderr, daemon=True)
        self._stderr.start()
        try:
            self._await_port()
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> "Simulator":
        return self

    def __exit__(self, kind, *_) -> None:
        code = self.stop()
        if kind is None and code:
            raise SimulatorError(self._complaint(code))

    def stop(self) -> int:
        """End it; 0 unless it failed or saw a DRAM timing violation."""
        self._end()
        self._stderr.join(timeout=1.0)
        return self.process.returncode

    def _end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    def _await_port(self) -> None:
        start_s = time.monotonic()
        while not self.url:
            try:
                line = self._lines.get(timeout=STILL_WAITING_S)
            except queue.Empty:
                self.progress.note(f"still waiting for the simulator ({time.monotonic() - start_s:.0f} s)")
                continue
            if line is None:
                raise SimulatorError(self._complaint(self.process.wait()))
            if line.startswith(LISTENING):
                self.url = line[len(LISTENING):].strip()

    def _complaint(self, code: int) -> str:
        self._stderr.join(timeout=1.0)
        last = self.errors[-1] if self.errors else f"status {code}"
        if "No module named" in last:
            last += ": pip install -r requirements.txt, or use the clone's .venv (make demo)"
        return f"the simulator failed: {last}"

    def _read_stdout(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _read_stderr(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            if line.strip():
                self.errors.append(line.strip())
                if not line.startswith((" ", "Traceback")):
                    self.progress.note(f"simulator: {line.strip()}")


def find_root() -> Path:
    """The clone that holds the simulator: where this package lies, or the working directory."""
    for root in (Path(__file__).resolve().parents[3], Path.cwd()):
        if (root / TARGET).exists():
            return root
    raise SimulatorError(f"--sim needs the project's sources ({TARGET} was not found): run it inside a clone, "
                         "or choose --port or --golden")


def find_python(root: Path) -> str:
    """An interpreter that has LiteX: this one, or the clone's virtual environment."""
    own = root / ".venv" / "bin" / "python"
    return sys.executable if importlib.util.find_spec("litex") or not own.exists() else str(own)


def _die_with_parent() -> None:
    # So that a client killed with SIGKILL leaves no simulator behind.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
