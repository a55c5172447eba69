"""The quantised vectors that matrices multiply: x^ in one half, attention output or hidden vector in the other."""
from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from spec.numerics import WORD


class Activations(wiring.Component):
    """One element written, one word of 16 read in a cycle, for every column.

    Members
    -------
    clear : In
        Forget the largest exponent of ``clear_buffer`` of the columns in the mask, before it is written anew.
    write, exponent_write : In
        An element, or the exponent of the chunk at ``index``, of ``buffer`` of ``column``.
    both : In
        One position is decoded: column 1 is a copy of column 0.
    address, odd_word, read_buffer : In
        Word to read, column 1 the odd one of its chunk with ``odd_word``; ``words`` follow one cycle later,
        ``offsets`` (largest exponent minus the chunk's) two.
    largest : Out
        Largest exponent of the read buffer, a column each.
    """
    def __init__(self, *, columns, max_dim, max_hidden_dim):
        self.columns = columns
        self.second = max_dim // WORD                       # where the other half begins
        self.depth = self.second + -(-max(max_dim, max_hidden_dim) // WORD)
        super().__init__({
            "clear": In(columns), "clear_buffer": In(1),
            "write": In(1), "exponent_write": In(1), "buffer": In(1), "column": In(range(max(columns, 2))),
            "index": In(13), "mantissa": In(16), "exponent": In(6),
            "both": In(1), "address": In(12), "odd_word": In(1), "read_buffer": In(1),
            "words": Out(256 * columns), "offsets": Out(data.ArrayLayout(6, columns)),
            "largest": Out(data.ArrayLayout(6, columns)),
        })

    def elaborate(self, platform):
        m = Module()
        bits = (self.depth - 1).bit_length()
        read_address, write_word = Signal(bits), Signal(bits)
        m.d.comb += [read_address.eq(self.address + Mux(self.read_buffer, self.second, 0)),
                     write_word.eq(self.index[4:] + Mux(self.buffer, self.second, 0))]
        # A chunk is two words; the second half must begin on a chunk
        for c in range(self.columns):
            mine, cleared, address = self.column == c, self.clear[c], read_address
            if c == 1:
                mine, cleared = mine | self.both, cleared | (self.both & self.clear[0])
                address = read_address | self.odd_word
            m.submodules[f"words{c}"] = words = memory.Memory(shape=data.ArrayLayout(16, WORD), depth=self.depth, init=[])
            w, r = words.write_port(granularity=1), words.read_port()
            m.d.comb += [w.addr.eq(write_word), w.data.as_value().eq(self.mantissa.replicate(WORD)),
                         w.en.eq(Mux(self.write & mine, 1 << self.index[:4], 0)),
                         r.addr.eq(address), self.words[256 * c:256 * c + 256].eq(r.data)]
            m.submodules[f"exponents{c}"] = exponents = memory.Memory(shape=6, depth=(self.depth + 1) // 2, init=[])
            w, r = exponents.write_port(), exponents.read_port()
            largest = [Signal(6, name=f"largest{c}_{b}") for b in range(2)]
            m.d.comb += [w.addr.eq(write_word >> 1), w.data.eq(self.exponent), w.en.eq(self.exponent_write & mine),
                         r.addr.eq(read_address >> 1)]
            m.d.comb += self.largest[c].eq(Array(largest)[self.read_buffer])
            m.d.sync += self.offsets[c].eq(self.largest[c] - r.data)
            for b in range(2):
                with m.If(cleared & (self.clear_buffer == b)):
                    m.d.sync += largest[b].eq(0)
                with m.Elif(self.exponent_write & mine & (self.buffer == b) & (self.exponent > largest[b])):
                    m.d.sync += largest[b].eq(self.exponent)
        return m
