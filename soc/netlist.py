"""Yosys' JSON netlist, rewritten between synthesis and placement."""
import json
import os
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def rewrite(path: Path, change):
    """Call ``change`` on the design in ``path``, replace the file and return the result of ``change``. If it raises,
    the file stays as it is."""
    design  = json.loads(Path(path).read_text())
    result  = change(design)
    partial = Path(f"{path}.{os.getpid()}")
    partial.write_text(json.dumps(design))
    os.replace(partial, path)
    return result


def command(module: str, path: str) -> str:
    """A line for a Yosys script that runs ``python -m module`` on the netlist it has written."""
    return f"exec -- PYTHONPATH={shlex.quote(str(ROOT))} {shlex.quote(sys.executable)} -m {module} {path}"
