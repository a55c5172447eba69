"""The quantised vectors that matrices multiply: x^ in one half, attention output or hidden vector in the other."""
from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from accel.numeric import UNCHECKED, delay
from llama2_spec.numerics import WORD


class Activations(wiring.Component):
    """One element written, one word of 16 read in a cycle, for every column.

    What is written can be read three cycles later. No word is read while it is written: then a block RAM needs nothing around it.

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
        ``offsets`` (largest exponent minus the chunk's) three. ``read_buffer`` is known two cycles before the first address.
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
        # Two stages for what is written, and all control in registers: block RAM takes its time, and lies far from who writes
        clear, clear_buffer = delay(m, self.clear, 1, "clear"), delay(m, self.clear_buffer, 1, "clear_buffer")
        write, exponent_write = (delay(m, value, 1, name, valid=True) for value, name in
                                 ((self.write, "write"), (self.exponent_write, "exponent_write")))
        buffer, column, index, mantissa, exponent, both = (delay(m, value, 1, name) for value, name in (
            (self.buffer, "buffer"), (self.column, "column"), (self.index, "index"), (self.mantissa, "mantissa"),
            (self.exponent, "exponent"), (self.both, "both")))
        read_buffer = delay(m, self.read_buffer, 1, "read_buffer")
        read_address = Signal(bits)
        m.d.comb += read_address.eq(self.address + Mux(read_buffer, self.second, 0))
        exponent2 = delay(m, exponent, 1, "exponent2")
        # A chunk is two words; the second half must begin on a chunk
        for c in range(self.columns):
            mine, cleared, address = column == c, clear[c], read_address
            if c == 1:
                mine, cleared = mine | both, cleared | (both & clear[0])
                address = read_address | self.odd_word
            m.submodules[f"words{c}"] = words = memory.Memory(shape=data.ArrayLayout(16, WORD), depth=self.depth, init=[],
                                                              attrs=UNCHECKED)
            w, r = words.write_port(granularity=1), words.read_port()
            write_word = Signal(bits, name=f"write_word{c}", attrs={"keep": "true"})
            m.d.sync += write_word.eq(index[4:] + Mux(buffer, self.second, 0))
            enable = Signal(WORD, name=f"enable{c}")
            mantissa2 = Signal(16, name=f"mantissa2_{c}", reset_less=True, attrs={"keep": "true"})     # near its memories
            m.d.sync += [enable.eq((1 << index[:4]) & (write & mine).replicate(WORD)), mantissa2.eq(mantissa)]
            m.d.comb += [w.addr.eq(write_word), w.data.as_value().eq(mantissa2.replicate(WORD)), w.en.eq(enable),
                         r.addr.eq(address), self.words[256 * c:256 * c + 256].eq(r.data)]
            m.submodules[f"exponents{c}"] = exponents = memory.Memory(shape=6, depth=(self.depth + 1) // 2, init=[],
                                                                      attrs=UNCHECKED)
            w, r = exponents.write_port(), exponents.read_port()
            largest = [Signal(6, name=f"largest{c}_{b}") for b in range(2)]
            m.d.comb += [w.addr.eq(write_word >> 1), w.data.eq(exponent2),
                         w.en.eq(delay(m, exponent_write & mine, 1, f"exponent_write{c}", valid=True)), r.addr.eq(read_address >> 1)]
            m.d.comb += self.largest[c].eq(Array(largest)[self.read_buffer])
            read_largest = delay(m, Array(largest)[read_buffer], 1, f"read_largest{c}")
            m.d.sync += self.offsets[c].eq(read_largest - delay(m, r.data, 1, f"read_exponent{c}"))
            # Compared with what was the largest a cycle before: a chunk takes more than one
            larger = delay(m, self.exponent > Array(largest)[self.buffer], 1, f"larger{c}")
            for b in range(2):
                with m.If(cleared & (clear_buffer == b)):
                    m.d.sync += largest[b].eq(0)
                with m.Elif(exponent_write & mine & (buffer == b) & larger):
                    m.d.sync += largest[b].eq(exponent)
        return m
