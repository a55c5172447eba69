"""Gives every memory of a generated design a style that Vivado knows, and counts the block RAM that Vivado takes for
it.

Left to itself, Vivado decides by rules of its own, and a memory that was meant for look-up tables may take block RAM,
of which the smallest board has least. So nothing is left to it: a unit may name a memory's style, and :func:`style`
decides all others. Ref: AMD UG901, ram_style and rom_style; UG473, 7 Series Memory Resources; AR 61995, a memory's
depth is extended to a power of two.
"""
import re
from unittest import mock

#: Attribute of a memory whose style this module chose, because its unit names none. The choice is for the smallest
#: board, an Artix: see :func:`soc.open_tools.synth_ecp5`.
BY_RULE = "by_rule"

#: Values of ``ram_style`` and ``rom_style`` that Vivado knows and that a 7-series device has.
RAM_STYLES = ("block", "distributed", "registers")
ROM_STYLES = ("block", "distributed")

#: A memory goes to look-up tables if they are at most this many for each half of a block RAM. The smallest board has
#: 208 for each half, and logic needs more than half of them.
TABLES_PER_HALF = 72

#: Depth of half a block RAM and of a whole one by width, the widest first.
HALVES = {36: 512, 18: 1024, 9: 2048, 4: 4096, 2: 8192, 1: 16384}
WHOLES = {72: 512, 36: 1024, 18: 2048, 9: 4096, 4: 8192, 2: 16384, 1: 32768}


def block_rams(width, depth, reads=1):
    """BRAM36, in halves, of a memory of ``depth`` words with one write port, or none, and ``reads`` read ports.

    Every port reads a copy of its own. The depth counts as the next power of two.
    """
    depth  = 1 << max(depth - 1, 0).bit_length()
    deeper = -(-depth // max(WHOLES.values()))
    depth  = min(depth, max(WHOLES.values()))
    half   = max((wide for wide, deep in HALVES.items() if deep >= depth), default=0)
    whole  = max(wide for wide, deep in WHOLES.items() if deep >= depth)
    halves = min(2*n + (-(-max(width - n*whole, 0) // half) if half else 0)
                 for n in range(-(-width // whole) + 1) if half or n*whole >= width)
    return deeper * reads * halves / 2


def lookup_tables(width, depth):
    """Look-up tables of a memory with a write port and a read port in RAM32M and RAM64M, without the multiplexers
    between them."""
    return 4 * (-(-width // 6) if depth <= 32 else -(-depth // 64) * -(-width // 3))


def style(width, depth, synchronous=True):
    """The style of a memory that names none: ``block`` or ``distributed``."""
    if not synchronous:
        return "distributed"    # block RAM cannot be read without a clock
    return "distributed" if lookup_tables(width, depth) <= 2 * TABLES_PER_HALF * block_rams(width, depth) else "block"

# Amaranth -----------------------------------------------------------------------------------------

class Styles:
    """The part of Amaranth's platform interface that makes memories: each gets a style."""
    def get_memory(self, memory):
        from amaranth.hdl import Shape
        attribute   = "ram_style" if memory.write_ports else "rom_style"
        synchronous = all(port.domain != "comb" for port in memory.read_ports)
        if attribute not in memory.attrs:
            memory.attrs[BY_RULE]   = 1
            memory.attrs[attribute] = style(Shape.cast(memory.shape).width, memory.depth, synchronous)
        return memory.elaborate(None)

# LiteX --------------------------------------------------------------------------------------------

def place(module, where):
    """Override the rule's style for the memories of a Migen ``module`` and of the modules below it; call it before
    finalisation."""
    for special in module._fragment.specials:
        special.placed = where
    for _, below in module._submodules:
        place(below, where)


def litex_styles():
    """A context in which LiteX writes its memories with their styles."""
    from litex.gen.fhdl import memory
    plain = memory._memory_generate_verilog

    def styled(name, special, namespace, add_data_file):
        attribute = "ram_style" if any(port.we is not None for port in special.ports) else "rom_style"
        placed    = getattr(special, "placed", None)
        where     = placed or style(special.width, special.depth, not any(port.async_read for port in special.ports))
        text      = plain(name, special, namespace, add_data_file)
        styles    = ("" if placed else f"(* {BY_RULE} = 1 *) ") + f'(* {attribute} = "{where}" *) '
        return re.sub(r"^reg (?=\[[^\]]*\] \w+\[)", f"{styles}reg ", text, count=1, flags=re.M)

    return mock.patch.object(memory, "_memory_generate_verilog", styled)
