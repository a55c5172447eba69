"""The memories of a design, as Yosys finds them in its Verilog, and the block RAM that Vivado takes for them."""
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from soc.memories import RAM_STYLES, ROM_STYLES, block_rams


@dataclass(frozen=True)
class Memory:
    """A memory of the flat design.

    ``name`` is its path, ``style`` what its ``ram_style`` or ``rom_style`` says, or None; ``synchronous`` tells that
    all its reads are clocked: only such a one can be block RAM.
    """
    name: str
    width: int
    depth: int
    reads: int
    writes: int
    synchronous: bool
    style: str | None

    @property
    def styled(self):
        """Returns whether it has a style that Vivado knows."""
        return self.style in (RAM_STYLES if self.writes else ROM_STYLES)

    @property
    def block_rams(self):
        """BRAM36 as Vivado extends its depth; without a style that Vivado knows it counts as block RAM if it can be."""
        if not self.synchronous or (self.styled and self.style != "block"):
            return 0
        return block_rams(self.width, self.depth, max(self.reads, 1))


def _memory(name, cell, styles):
    """``styles`` are the styles of signals, by bit: a table that is a case statement in the source has the style of the
    signal that it drives."""
    def number(key):
        return int(cell["parameters"][key], 2)
    reads  = number("RD_PORTS")
    style  = cell["attributes"].get("ram_style" if number("WR_PORTS") else "rom_style")
    signal = {styles.get(bit) for bit in cell["connections"]["RD_DATA"]}
    if style is None and not number("WR_PORTS") and len(signal) == 1:
        style = signal.pop()
    return Memory(re.sub(r"\$\d+", "", name), number("WIDTH"), number("SIZE"), reads, min(number("WR_PORTS"), 1),
                  number("RD_CLK_ENABLE") == (1 << reads) - 1, style)


def find(sources: list, top: str, out: Path, directory: Path) -> list:
    """The memories of the design in ``sources`` (Verilog); ``out`` is a folder for Yosys' files, ``directory`` holds
    contents."""
    from bench.synthesis import run_yosys
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    netlist = out/"memories.json"
    run_yosys([*(f'read_verilog "{source}"' for source in sources), f"hierarchy -top {top}", "proc", "flatten", "opt",
               "memory_dff", "memory_collect", f"write_json {os.path.relpath(netlist, directory)}"], out/"memories.log",
              directory)
    module = json.loads(netlist.read_text())["modules"][top]
    netlist.unlink()    # large
    styles = {bit: net["attributes"]["rom_style"] for net in module["netnames"].values()
              if "rom_style" in net["attributes"]
              for bit in net["bits"]}
    found  = [_memory(name, cell, styles) for name, cell in module["cells"].items() if cell["type"] == "$mem_v2"]
    return sorted(found, key=lambda memory: memory.name)
