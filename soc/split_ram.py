"""On-chip memory of any size as several memories whose depths are powers of two, so that none of its block RAM is
empty."""
from migen import *

from litex.gen import *

# Ref: AMD AR 61995: in a 7-series device a memory of 6,144 words takes the block RAM of 8,192.

def power_of_two_parts(words):
    """Depths that add up to ``words``, each a power of two, the largest first."""
    return [1 << bit for bit in reversed(range(words.bit_length())) if words >> bit & 1]


class Contents:
    """Stands for the memory of a RAM towards LiteX: hands ``init`` out to the parts, which hold ``depths`` words."""
    def __init__(self, parts, depths):
        self.parts, self.depths, self.depth = parts, depths, sum(depths)

    @property
    def init(self):
        words = [(part.init or [])[:depth] for part, depth in zip(self.parts, self.depths)]
        return [word for part, depth in zip(words, self.depths) for word in part + [0]*(depth - len(part))]

    @init.setter
    def init(self, words):
        at = 0
        for part, depth in zip(self.parts, self.depths):
            part.init = list(words[at:at + depth])
            at += depth

# SplitRAM -----------------------------------------------------------------------------------------

class SplitRAM(LiteXModule):
    """A RAM or ROM of ``size`` bytes on ``bus`` (Wishbone, without bursts), with the timing of LiteX's
    ``wishbone.SRAM``.

    ``mem.init`` sets the contents, word by word, as that of ``wishbone.SRAM`` does. Beyond ``size`` it reads anything.
    """
    autocsr_exclude = {"mem"}

    def __init__(self, size, bus, init=(), read_only=False, name=None):
        if bus.bursting or bus.addressing != "word":
            raise ValueError("A split RAM takes single accesses by word")
        width    = len(bus.dat_r)
        depths   = power_of_two_parts(size // (width//8))
        self.bus = bus
        # Migen's memories have two words at least.
        self.mem = Contents([Memory(width, max(depth, 2), name=f"{name}{i}") for i, depth in enumerate(depths)], depths)
        self.mem.init = init

        # # #

        # The parts before hold a multiple of a part's depth, so its own address is the lower bits.
        select, selected = Signal(max=max(len(depths), 2)), Signal(max=max(len(depths), 2))
        choice = select.eq(len(depths) - 1)
        end    = self.mem.depth
        for i in reversed(range(len(depths) - 1)):
            end   -= depths[i + 1]
            choice = If(bus.adr[:bits_for(self.mem.depth - 1)] < end, select.eq(i)).Else(choice)
        self.comb += choice
        access = Signal()
        self.comb += access.eq(bus.cyc & bus.stb)
        reads = []
        for i, part in enumerate(self.mem.parts):
            port = part.get_port(write_capable=not read_only, we_granularity=0 if read_only else 8,
                                 mode=READ_FIRST if read_only else WRITE_FIRST)
            self.specials += part, port
            self.comb += port.adr.eq(bus.adr[:len(port.adr)])
            if not read_only:
                self.comb += [
                    port.dat_w.eq(bus.dat_w),
                    *[port.we[byte].eq(access & (select == i) & bus.we & bus.sel[byte]) for byte in range(width//8)],
                ]
            reads.append(port.dat_r)
        self.sync += [selected.eq(select), bus.ack.eq(access & ~bus.ack)]
        self.comb += Case(selected, {**{i: bus.dat_r.eq(data) for i, data in enumerate(reads[:-1])},
                                     "default": bus.dat_r.eq(reads[-1])})
