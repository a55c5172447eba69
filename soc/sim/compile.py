"""Turns generated gateware into the simulator Vsim, once per content; holds the lock and the log of a build."""
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
VSIM = Path("obj_sim")/"Vsim"    # below the gateware directory, from which it must run


class BuildError(Exception):
    """A build failed; the message says where its log is."""


@contextlib.contextmanager
def lock(directory):
    """Let one process at a time build in ``directory``; others wait."""
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory/".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def output_to(path):
    """Send this process's and its children's output to ``path``; a failure becomes a BuildError with its end."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(fd) for fd in (1, 2)]
    try:
        with open(path, "w") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            for fd in (1, 2):
                os.dup2(log.fileno(), fd)
            yield
    except (subprocess.CalledProcessError, OSError) as error:
        tail = "\n".join(path.read_text(errors="replace").splitlines()[-12:])
        raise BuildError(f"{tail}\nbuild failed ({error}); everything it printed is in {path}") from error
    finally:
        for fd, copy in zip((1, 2), saved):
            os.dup2(copy, fd)
            os.close(copy)


def digest(gateware_dir, sources):
    """SHA-256 of what Vsim is made of; comments (they carry dates) and memory contents do not count."""
    tools  = [gateware_dir/"sim_init.cpp", *HERE.glob("*.c"), *HERE.glob("*.cpp"), *HERE.glob("*.mk")]
    result = hashlib.sha256(subprocess.check_output(["verilator", "--version"]))
    for path in [*sources, *tools]:
        result.update(re.sub(rb"//[^\n]*", b"", Path(path).read_bytes()))
    return result.hexdigest()


def compile(gateware_dir, sources, modules):
    """Verilate and compile ``sources`` with the LiteX simulation ``modules``, unless that has been done."""
    stamp, current = gateware_dir/"compiled", digest(gateware_dir, sources)
    if (gateware_dir/VSIM).exists() and stamp.exists() and stamp.read_text() == current:
        return
    stamp.unlink(missing_ok=True)
    for stale in (VSIM.parent, Path("modules")):
        shutil.rmtree(gateware_dir/stale, ignore_errors=True)
    subprocess.run(["make", "-f", str(HERE/"sim.mk"), f"HERE={HERE}", f"VERILOG={' '.join(map(str, sources))}",
        f"MODULES={' '.join(modules)}"], cwd=gateware_dir, check=True)
    stamp.write_text(current)
