"""Runs a built simulator: ``with Simulator(vsim, dram_image=...) as sim: ... sim.url``."""
import collections
import ctypes
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path

DRAM_SIZE        = 256 << 20    # bytes, of the MT41K128M16
START_TIMEOUT_S  = 60           # with a 256 MiB image on a busy machine
STOP_TIMEOUT_S   = 30           # a waveform is completed meanwhile
PR_SET_PDEATHSIG = 1           # Ref: prctl(2)
TIME             = r"simulated (\d+) ps\n"


#: Why no beat of the stream arrived in a cycle, as soc/sim/stream_watch.py counts it.
WATCH_CAUSES = {
    "beats":      "one arrived",
    "embedding":  "an embedding row's beat came instead",
    "cpu":        "a beat for the CPU or its cache came instead",
    "refresh":    "asked for, but the DRAM was being refreshed, or its rows opened again after that",
    "store":      "asked for, but K/V rows were being written, or the bus turned around after that",
    "row":        "asked for, but on its way: another row was being opened, or the first beat of a run is late",
    "idle":       "not asked for: no command was executing (CPU, link)",
    "turnaround": "not asked for: the next step's embedding waited for its token, or its row",
    "attention":  "not asked for: the buffer was full while attention worked",
    "vector":     "not asked for: the buffer was full while a command waited for earlier results (norms, RoPE, SiLU, "
                  "quantiser)",
    "compute":    "not asked for: the buffer was full, a matrix took its beats",
    "commands":   "not asked for: no further command was there to read for",
}

class SimulatorError(Exception):
    """The simulator did not start, or has ended."""


def traces(vsim):
    """Returns whether this Vsim can write waveforms."""
    return b"trace_from_ps=" in vsim.read_bytes()


def die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Simulator:
    """A running Vsim, whose UART is at ``url``.

    Parameters
    ----------
    vsim : Path
        What ``targets.sim.build`` returned.
    dram_image : Path or None
        File that fills the DRAM from its base when the simulation starts.
    port : int
        Of the UART, on the loopback interface; 0 takes a free one.
    flash : Path or None
        File that is the content of the SPI flash, of a build with board pins.
    trace : soc.sim.trace.Trace or None
        The waveform that it writes, of a build with ``trace``.
    train : bool
        Have the firmware train the DRAM's lanes, which it otherwise spares a simulation.
    fault : str or None
        One of llama2_spec.simulation.DRAM_FAULTS, to be planted in the DRAM.
    log : Path or None
        File for what the simulator prints; None makes one in the build's ``logs`` directory.
    """
    def __init__(self, vsim, dram_image=None, port=0, log=None, flash=None, trace=None, train=False, fault=None):
        self.vsim       = Path(vsim).resolve()
        self.dram_image = dram_image and Path(dram_image).resolve()
        self.port       = port
        self.log        = log and Path(log)
        self.flash      = flash and Path(flash).resolve()
        self.trace      = trace
        self.switches   = (["+dram_train"] if train else []) + ([f"+dram_fault={fault}"] if fault else [])
        self.process    = None
        self.url        = None

    @property
    def pid(self):
        return self.process.pid

    def start(self):
        if not self.vsim.exists():
            raise SimulatorError(f"no simulator at {self.vsim}: build it with python targets/sim.py --build")
        gateware_dir = self.vsim.parent.parent
        command      = [str(self.vsim), *self.switches]
        if self.dram_image:
            self.check_image()
            command.append(f"+dram={self.dram_image}")
        if self.trace:
            self.check_trace()
            command += self.trace.arguments(self.clk_freq())
        if self.log is None:
            logs = gateware_dir.parent/"logs"
            logs.mkdir(exist_ok=True)
            fd, name = tempfile.mkstemp(prefix="sim-", suffix=".log", dir=logs)
            os.close(fd)
            self.log = Path(name)
        with open(self.log, "w") as log:
            # A session of its own: Ctrl-C at the terminal is for the client, which stops us when it is done.
            self.process = subprocess.Popen(command, cwd=gateware_dir, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, env=self.environment(),
                start_new_session=True, preexec_fn=die_with_parent)
        try:
            self.url = self.wait_for(r"listening on (\w+://\S+)\n", START_TIMEOUT_S)
        except BaseException:
            self.stop()
            raise
        return self

    def environment(self):
        flash = {"SIM_FLASH": str(self.flash)} if self.flash else {}
        return {**os.environ, "SIM_UART_PORT": str(self.port), **flash}

    def clk_freq(self):
        """Frequency of the simulated system clock in Hz, from sim_config.js."""
        config = json.loads((self.vsim.parent.parent/"sim_config.js").read_text())
        return next(module["args"]["freq_hz"] for module in config if module.get("module") == "clocker")

    def check_trace(self):
        if not traces(self.vsim):
            raise SimulatorError(
                f"{self.vsim} writes no waveforms: build it with python targets/sim.py --build --trace")
        try:
            self.trace.path.open("ab").close()
        except OSError as error:
            raise SimulatorError(f"cannot write the waveform {self.trace.path}: {error.strerror}") from None

    def check_image(self):
        try:
            size = self.dram_image.stat().st_size
        except OSError as error:
            raise SimulatorError(f"cannot read the DRAM image {self.dram_image}: {error.strerror}") from None
        if size > DRAM_SIZE:
            raise SimulatorError(f"DRAM image {self.dram_image} has {size} bytes, the DRAM {DRAM_SIZE}")

    def wait_for(self, pattern, timeout_s, after=0):
        """First group of the first match of ``pattern`` in the log, from character ``after`` on."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            ended = self.process.poll() is not None    # asked before the log is read, which is then complete
            if match := re.search(pattern, self.output()[after:]):
                return match[1]
            if ended:
                raise SimulatorError(f"simulator ended with status {self.process.returncode}:\n{self.output()[-500:]}")
            time.sleep(0.02)
        raise SimulatorError(f"simulator has not come up after {timeout_s} s, see {self.log}")

    def output(self):
        return self.log.read_text(errors="replace")

    def violations(self):
        """DRAM timing violations so far: what was violated, how often."""
        return collections.Counter(re.findall(r"\] ([^\n\]]*violation[^\n]*?)(?: on bank *\d+)?(?:: *\S+)?\n",
                                              self.output()))

    def watch(self):
        """For each result of the core so far: cycles since reset by cause (WATCH_CAUSES), and their sum ``cycles``."""
        lines = re.findall(r"^\[watch\] (.*)$", self.output(), re.MULTILINE)
        return [dict(zip(words[::2], map(int, words[1::2]))) for words in map(str.split, lines)]

    def time_ps(self):
        """Simulated time since the start."""
        seen = len(self.output())
        os.kill(self.pid, signal.SIGUSR1)
        return int(self.wait_for(TIME, START_TIMEOUT_S, after=seen))

    def cpu_s(self):
        """Processor time the simulator has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12]))/os.sysconf("SC_CLK_TCK")    # Ref: proc(5), utime and stime

    def stop(self):
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self):
        return self.start()

    def __exit__(self, *exception):
        self.stop()
