"""VexRiscv's Verilog with its memories where a small device has room for them.

The generator asks for block RAM whatever a memory's size, for 32 registers as for a cache. It also keeps a cache's
bytes in separate memories, each of which takes half a block RAM, where one memory with byte enables holds all four. The
CPU behaves the same in every cycle.
"""
import re

from soc.memories import style

MEMORY = re.compile(r'\(\* ram_style = "\w+" \*\) reg \[(\d+):0\] (\w+) \[0:(\d+)\]')


def place_memories(text: str) -> str:
    """The CPU's Verilog ``text``, with the style of every memory as :func:`soc.memories.style` has it, its byte lanes
    joined."""
    for name in sorted(set(re.findall(r"reg \[7:0\] (\w+)_symbol0 \[0:", text))):
        text = _join_lanes(text, name)
    def restyled(found):
        width, name, depth = int(found[1]) + 1, found[2], int(found[3]) + 1
        return f'(* ram_style = "{style(width, depth)}" *) reg [{width - 1}:0] {name} [0:{depth - 1}]'
    return MEMORY.sub(restyled, text)


def _join_lanes(text, name):
    """One memory in place of ``name``_symbol0, ``name``_symbol1 and so on; ``text`` as it is if they are not read
    together."""
    lanes = len(re.findall(rf"reg \[7:0\] {name}_symbol\d \[0:", text))
    reads = re.compile("".join(rf" *(\w+) <= {name}_symbol{lane}\[(\w+)\];\n" for lane in range(lanes)))
    found = reads.findall(text)
    if len(found) != 1 or len(set(found[0][1::2])) != 1:
        return text
    data, address = found[0][::2], found[0][1]
    text  = reads.sub(f"      {{{', '.join(reversed(data))}}} <= {name}[{address}];\n", text)
    text  = re.sub(rf"{name}_symbol(\d)\[(\w+)\] <=",
                   lambda at: f"{name}[{at[2]}][{8*int(at[1]) + 7}:{8*int(at[1])}] <=", text)
    text  = re.sub(rf"reg \[7:0\] {name}_symbol0 \[0:", f"reg [{8*lanes - 1}:0] {name} [0:", text)
    return re.sub(rf' *\(\*[^*]*\*\) reg \[7:0\] {name}_symbol\d \[0:\d+\];\n', "", text)
