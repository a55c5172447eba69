"""Runs Yosys over a generated design and counts the cells of the device that each unit costs."""
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from soc import open_tools

CORE = "llama2_core"
BETWEEN = "core, between units"

#: Stations that only join others. They are mapped together with the core, as a vendor's tool does that is not told to
#: keep the hierarchy: a boundary around a few gates would cost the look-up tables that both sides could share.
JOINTS = ("beats", "dispatch", "intake", "router", "status", "wide")

#: Look-up tables that one memory or shift register cell takes; LUT1 .. LUT6 take one each.
#: Ref: Xilinx UG474, 7 Series CLB. An ECP5's 16 x 4 memory takes the LUTs of three slices, less what it leaves: four.
MEMORY_LUTS = {
    "RAM32X1S": 1, "RAM64X1S": 1, "RAM128X1S": 2, "RAM256X1S": 4, "RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4,
    "RAM32M": 4, "RAM64M": 4, "SRL16E": 1, "SRLC32E": 1,
    "TRELLIS_DPR16X4": 4,
}

#: What a device has.
LIMITS = {
    "XC7A35T":        {"lut": 20800,  "ff": 41600,  "bram36": 50,  "dsp": 90},
    "XC7A100T":       {"lut": 63400,  "ff": 126800, "bram36": 135, "dsp": 240},
    "LFE5UM5G-85F":   {"lut": 83640,  "ff": 83640,  "bram36": 104, "dsp": 156},    # DP16KD: half a BRAM36 each
}

SYNTH = {
    # `clean -purge`: without it abc9 of this Yosys stops at two wires of one name. `abc9_lut`: a look-up table costs
    # the same whatever its inputs; Yosys prefers small ones, two of which a placer may put into one site, and takes
    # more of them.
    # `-nosrl`: what `shreg_extract` asks of Vivado
    "xc7":  [open_tools.ROMS, "synth_xilinx -family xc7 -flatten -nosrl -top {top} -run begin:map_luts", "clean -purge",
             "setattr -mod -set abc9_lut 5 " + " ".join(f"=LUT{n}" for n in range(1, 7)),
             "synth_xilinx -family xc7 -flatten -nosrl -top {top} -run map_luts:edif"],
    "ecp5": open_tools.synth_ecp5("-abc9 -top {top}"),    # as for the target's bitstream
}


def cost(cells: dict) -> dict:
    """Sum up ``{type: count}``."""
    def count(pattern):
        return sum(n for name, n in cells.items() if re.fullmatch(pattern, name))
    return {
        # An ECP5 carry cell is two LUTs with their carry chain; PFUMX and L6MUX21 belong to the slice
        "lut": count(r"LUT[1-6]|LUT6_2") + 2 * cells.get("CCU2C", 0)
               + sum(n * MEMORY_LUTS.get(name, 0) for name, n in cells.items()),
        "lut_memory": sum(n * MEMORY_LUTS.get(name, 0) for name, n in cells.items()),
        "ff": count(r"FD[RSCP]E(_1)?|TRELLIS_FF"),
        "bram36": cells.get("RAMB36E1", 0) + (cells.get("RAMB18E1", 0) + cells.get("DP16KD", 0)) / 2,
        "dsp": cells.get("DSP48E1", 0) + cells.get("MULT18X18D", 0),
    }


def run_yosys(commands: list, log: Path, directory: Path = None):
    """Run ``commands`` in a Yosys of its own, in ``directory``; RuntimeError with the end of the log if it fails."""
    log    = log.resolve()
    script = log.with_suffix(".ys")
    script.write_text("\n".join(commands) + "\n")
    # Its own command line knows no quotes: files are named from the directory where it runs, which may be called
    # anything.
    here = directory or log.parent
    command = f"tee -q -o {os.path.relpath(log, here)} script {os.path.relpath(script, here)}"
    code = f"from pyosys import libyosys as ys; ys.Design().run_pass({command!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=here, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True)
    if done.returncode:
        tail = log.read_text().splitlines()[-3:] if log.exists() else done.stdout.splitlines()[-3:]
        raise RuntimeError(f"yosys failed, see {log}: " + " / ".join(tail))


def unit_name(module: str) -> str:
    """The unit that a module directly below the core is."""
    return module.removeprefix(f"{CORE}.").split("$")[0]


def synthesise(sources: list, top: str, family: str, out: Path, directory: Path) -> dict:
    """Map ``sources`` (Verilog) to ``family``; ``{unit: cells}`` with the core's units and ``soc``, the rest.

    ``directory`` holds the contents of memories that the sources name.
    """
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    text = "".join(Path(source).read_text() for source in sources)
    names = set(re.findall(rf"^module \\?({CORE}(?:\.[^\s(]+)?)", text, re.M))
    # The units are the modules directly below the core, but for the joints; what is below them is counted with them.
    units = sorted(name for name in names if name.count(".") == 1 and unit_name(name) not in JOINTS)
    commands = [f'read_verilog "{source}"' for source in sources] + [f"hierarchy -top {top}"]
    commands += [f"setattr -mod -set keep_hierarchy 1 {name}" for name in [CORE, *units]]
    commands += [line.format(top=top) for line in SYNTH[family]]
    commands += [f"tee -q -o {os.path.relpath(out/'cells.json', directory)} stat -json"]
    run_yosys(commands, out/"yosys.log", directory)
    modules = json.loads((out/"cells.json").read_text())["modules"]
    cells = {}
    for name, module in modules.items():
        name = name.removeprefix("\\")
        counts = module["num_cells_by_type"]
        if name == top:
            cells["soc"] = counts
        elif name == CORE:
            cells[BETWEEN] = counts
        elif name in units:
            cells[unit_name(name)] = counts
    return cells
