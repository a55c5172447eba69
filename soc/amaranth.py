"""Puts an Amaranth component into a LiteX SoC: its signature becomes Migen signals, its Verilog is cached by
content."""
import hashlib
import inspect
import os
import re
import warnings
from pathlib import Path

from migen import *

from litex.gen import *

ROOT  = Path(__file__).resolve().parent.parent
CACHE = ROOT/"build"/"amaranth"

# Verilog Cache ------------------------------------------------------------------------------------

def sources_digest(files, salt=""):
    """SHA-256 over the names and contents of ``files``, and ``salt``."""
    digest = hashlib.sha256(salt.encode())
    for path in sorted(set(map(Path, files))):
        digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def component_digest(component, name):
    """Digest of everything that a component's Verilog depends on: sources, parameters, the styles of memories, the
    converter's version."""
    import amaranth
    files      = [ROOT/"soc"/"memories.py", *(ROOT/"accel").rglob("*.py"), *(ROOT/"spec").rglob("*.py"),
                  inspect.getfile(type(component))]
    parameters = {k: v for k, v in vars(component).items() if isinstance(v, (bool, int, str, tuple, list))}
    return sources_digest(files, salt=f"{name} {amaranth.__version__} {sorted(parameters.items())!r}")


def resets_itself(component):
    """Returns whether the component has a port ``reset``, which replaces its clock domain's reset."""
    return "reset" in component.signature.members


def with_source_lines(text):
    """Verilog whose declarations and registers end in a comment that says where they stand, relative to the clone.

    It has as many lines as Amaranth writes without source lines, and nothing but comments is new: no tool sees a
    difference.
    """
    lines, place = [], ""
    for line in text.splitlines():
        if attribute := re.fullmatch(r"\s*\(\* (src|top|generator) = .*? \*\)", line):
            place = line if attribute[1] == "src" else place
            continue
        found = re.search(rf'"(?:[^"]*\|)?{re.escape(str(ROOT))}/(?!\.venv/)([^"|]+)', place)
        mark  = f"    // {found[1]}" if found and not line.startswith("module") else ""
        lines.append(re.sub(r'\(\* src = "[^"]*" \*\) ', "", line) + mark)
        place = ""
    return "\n".join(lines) + "\n"


def verilog_file(component, name):
    """Path of the component's Verilog, converted only when no cached copy has the same digest."""
    from amaranth.hdl import UnusedElaboratable
    from soc.memories import Styles
    path = CACHE/f"{name}-{component_digest(component, name)[:16]}.v"
    if path.exists():
        warnings.simplefilter("ignore", UnusedElaboratable)    # the cached copy makes elaboration unnecessary
    else:
        # Debian's Yosys is older than Amaranth accepts; the built-in one comes with the requirements.
        os.environ.setdefault("AMARANTH_USE_YOSYS", "builtin")
        from amaranth.back import verilog
        from amaranth.hdl import ClockDomain
        text = verilog.convert(component, name=name, platform=Styles(),
                               missing_domain=lambda domain: ClockDomain(domain, reset_less=resets_itself(component)))
        text = with_source_lines(text)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(text)
        os.replace(partial, path)    # a concurrent reader sees the whole file or none
    return path

# AmaranthInstance ---------------------------------------------------------------------------------

class AmaranthInstance(LiteXModule):
    """Wrap a :class:`amaranth.lib.wiring.Component` so that Migen logic can drive it.

    Every leaf of the component's signature becomes an attribute of the same name, its path joined by two underscores:
    member ``cmd_valid`` of port ``read0`` is ``read0__cmd_valid``. If the component has a port ``reset``, the SoC's
    reset drives that port and not the reset of the clock domain.
    """
    def __init__(self, platform, component, name):
        ports = {"i_clk": ClockSignal("sys"), "i_reset" if resets_itself(component) else "i_rst": ResetSignal("sys")}

        # # #

        for path, member, value in component.signature.flatten(component):
            if path == ("reset",):
                continue
            shape  = (value.as_value() if hasattr(value, "as_value") else value).shape()
            port   = "__".join(str(part) for part in path)
            signal = Signal((shape.width, shape.signed), name=port)
            setattr(self, port, signal)
            ports[("i_" if member.flow.name == "In" else "o_") + port] = signal
        self.specials += Instance(name, **ports)
        platform.add_source(str(verilog_file(component, name)))
