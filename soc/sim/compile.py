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

from soc.sim import tools
from soc.sim.training import TrainingError
from soc.unspaced import unspaced

HERE = Path(__file__).resolve().parent
VSIM    = Path("obj_sim")/"Vsim"    # below the gateware directory, from which it must run
MODULES = Path("modules")
KEPT    = 8                         # builds in the cache, of some MB each


class BuildError(Exception):
    """A build failed; the message says where its log is."""


@contextlib.contextmanager
def lock(directory, wait=True):
    """Let one process at a time build in ``directory``; others wait, or are told False."""
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory/".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


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


def digest(gateware_dir, sources, options=()):
    """SHA-256 of everything that Vsim depends on: sources, flags, tools and their versions. Comments (which carry
    dates, and lines of Amaranth's sources) and memory contents do not count.
    """
    ours   = [gateware_dir/"sim_init.cpp", *(path for end in ("c", "h", "cpp", "mk")
                                             for path in sorted(HERE.glob(f"*.{end}")))]
    result = hashlib.sha256(repr((options, *tools.versions())).encode())
    for path in [*sources, *ours]:
        result.update(re.sub(rb"[ \t]*//[^\n]*", b"", Path(path).read_bytes()))
    return result.hexdigest()


def compile(gateware_dir, sources, modules, cache, *, train=None, trace=False):
    """Verilate and compile ``sources`` with the LiteX simulation ``modules``, unless that has been done.

    ``train`` (vsim) runs a first Vsim whose counts the second is compiled for; ``trace`` makes one that can write
    waveforms. ``cache`` keeps the results of the last builds: another firmware or a step back needs no compiler.
    Returns what the caller should be told, or nothing.
    """
    current = digest(gateware_dir, sources, (bool(train), trace, modules))
    stamp   = gateware_dir/"compiled"
    if (gateware_dir/VSIM).exists() and stamp.exists() and stamp.read_text() == current:
        return ""
    stamp.unlink(missing_ok=True)
    for stale in (VSIM.parent, MODULES):
        shutil.rmtree(gateware_dir/stale, ignore_errors=True)
    kept, note = cache/current[:16], ""
    if kept.exists():
        copy(kept, gateware_dir)
        os.utime(kept)
    else:
        note = build(gateware_dir, sources, modules, train, trace)
        if not note:
            keep(gateware_dir, kept)
    stamp.write_text(current)
    return note


def build(gateware_dir, sources, modules, train, trace):
    """Compile as asked. Returns the reason why there is no profile, or nothing."""
    if not train:
        make(gateware_dir, sources, modules, trace=trace)
        return ""
    objects = unspaced(gateware_dir)/VSIM.parent
    counting = tools.count_flags(objects)
    try:
        make(gateware_dir, sources, modules, counts=counting, link_counts=counting)
        train(gateware_dir/VSIM)
        flags, note = tools.use_flags(objects), ""
    except (TrainingError, tools.ToolError, subprocess.CalledProcessError) as error:
        why = (f"{tools.compiler()} makes no program that counts" if isinstance(error, subprocess.CalledProcessError)
               else error)
        flags, note = "", f"the simulator is compiled without a profile, and slower: its first run failed ({why})"
    for path in counted(gateware_dir/VSIM.parent):
        path.unlink(missing_ok=True)
    make(gateware_dir, sources, modules, counts=flags)
    return note


def counted(objects):
    """Object files that count what runs: all but those that rarely run and those that every model shares."""
    return [objects/VSIM.name, *objects.glob("*.fast.gch"), objects/"harness.o", objects/"sim_init.o",
            *(path for path in objects.glob("Vsim*.o") if "Slow" not in path.name)]


def make(gateware_dir, sources, modules, *, counts="", link_counts="", trace=False):
    """Run sim.mk."""
    import litex.build.sim.core
    names = [os.path.relpath(source, gateware_dir) for source in sources]
    subprocess.run(["make", "-f", str(HERE/"sim.mk"), f"HERE={unspaced(HERE)}", f"DIR={unspaced(gateware_dir)}",
        f"SRC_DIR={unspaced(next(iter(litex.build.sim.core.__path__)))}", f"VERILOG={' '.join(names)}",
        f"MODULES={' '.join(modules)}", f"VERILATOR={' '.join(tools.command())}",
        f"VARIABLES={' '.join(tools.make_variables())}", f"COUNTS={counts}", f"LINK_COUNTS={link_counts}",
        f"TRACE={'1' if trace else ''}"], cwd=gateware_dir, check=True)


def copy(source, target):
    """Copy Vsim and its modules."""
    shutil.copytree(source/MODULES, target/MODULES)
    (target/VSIM).parent.mkdir()
    shutil.copy2(source/VSIM, target/VSIM)


def keep(gateware_dir, kept):
    """Put a result into the cache, and let the oldest go."""
    partial = kept.with_name(f"{kept.name}.{os.getpid()}")
    partial.mkdir(parents=True)
    copy(gateware_dir, partial)
    try:
        partial.rename(kept)
    except OSError:    # another process has just stored the same result
        shutil.rmtree(partial)
    for old in sorted(kept.parent.iterdir(), key=os.path.getmtime)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
