"""The references' Python environment, apart from the product's: it is made once from pinned packages, then kept in
build/."""
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "conformance-venv"
REQUIREMENTS = ROOT / "bench" / "conformance-requirements.txt"
LLAMA_CPP = "llama-cpp-python==0.3.36"
#: only the vocabulary is needed: neither this machine's own instructions nor the tools
CMAKE_ARGS = ("-DGGML_NATIVE=OFF -DGGML_OPENMP=OFF -DLLAVA_BUILD=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_COMMON=OFF "
              "-DLLAMA_CURL=OFF -DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_FLAGS=-O1 -DCMAKE_C_FLAGS=-O1")


def make(folder: Path = FOLDER) -> Path:
    """The environment's interpreter; it is installed where it is missing. llama.cpp takes minutes to build."""
    python = folder / "bin" / "python"
    done = folder / "installed"
    wanted = REQUIREMENTS.read_text() + LLAMA_CPP
    if not done.is_file() or done.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", str(REQUIREMENTS)], check=True)
        subprocess.run([*pip, "--no-deps", "--no-binary", "llama-cpp-python", LLAMA_CPP], check=True,
                       env=os.environ | {"CMAKE_ARGS": CMAKE_ARGS, "CMAKE_BUILD_PARALLEL_LEVEL": "2"})
        done.write_text(wanted)
    return python


class References:
    """Answers of the process that runs in the environment; a context manager."""

    def __init__(self, python: Path):
        script = Path(__file__).with_name("references.py")
        self._process = subprocess.Popen([str(python), str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         stderr=subprocess.DEVNULL, text=True)

    def ask(self, **job) -> dict:
        """One job's answer."""
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the references' process ended with status {self._process.wait()}")
        return json.loads(line)

    def __enter__(self) -> "References":
        return self

    def __exit__(self, *_) -> None:
        self._process.stdin.close()
        self._process.wait()
