"""The quantised vectors that matrices multiply: x^ in one half, attention output or hidden vector in the other."""
from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In

from accel.interfaces import ActivationControl, ActivationRead, Quantised
from accel.lib.numeric import UNCHECKED, delay
from llama2_spec.numerics import WORD
from llama2_spec.registers import Dest


class Activations(wiring.Component):
    """One element is written and one word of 16 is read per cycle, for every column; never stalled. Holds the vectors
    of :func:`llama2_spec.golden.quantise_vector`.

    What is written can be read three cycles later. No word is read while it is written: then a block RAM needs nothing
    around it.

    Members
    -------
    elements : In(Quantised)
        An element, or the exponent of the chunk at ``index``. Attention's output and the hidden vector go to half 1,
        all else to half 0.
    control : In(ActivationControl)
        See the interface.
    read : In(ActivationRead)
        A word is not read while it is written.
    """
    latency = 1         #: from an address to its words
    budget_lut = 192

    def __init__(self, *, columns, max_dim, max_hidden_dim):
        self.columns = columns
        self.second = max_dim // WORD                       # where the other half begins
        self.depth = self.second + -(-max(max_dim, max_hidden_dim) // WORD)
        super().__init__({
            "elements": In(Quantised(columns, routed=True)), "control": In(ActivationControl(columns)),
            "read": In(ActivationRead(columns)),
        })

    def elaborate(self, platform):
        m = Module()
        bits, elements, control = (self.depth - 1).bit_length(), self.elements, self.control
        to_second = Signal()
        m.d.comb += to_second.eq((elements.dest == Dest.OUTPUT) | (elements.dest == Dest.SWIGLU))
        # Two stages for what is written, and all control in registers: the path router -> block RAM is split
        clear, clear_buffer = delay(m, control.clear, 1, "clear"), delay(m, control.clear_buffer, 1, "clear_buffer")
        write, exponent_write = (delay(m, value, 1, name, valid=True) for value, name in
                                 ((elements.write, "write"), (elements.exponent_write, "exponent_write")))
        buffer, column, index, mantissa, exponent, both = (delay(m, value, 1, name) for value, name in (
            (to_second, "buffer"), (elements.column, "column"), (elements.index, "index"),
            (elements.mantissa, "mantissa"), (elements.exponent, "exponent"), (control.both, "both")))
        read_buffer = delay(m, control.read_buffer, 1, "read_buffer")
        read_address = Signal(bits)
        m.d.comb += read_address.eq(self.read.address + Mux(read_buffer, self.second, 0))
        exponent2 = delay(m, exponent, 1, "exponent2")
        # A chunk is two words; the second half must begin on a chunk
        for c in range(self.columns):
            mine, cleared, address = column == c, clear[c], read_address
            if c == 1:
                mine, cleared = mine | both, cleared | (both & clear[0])
                address = read_address | self.read.odd_word
            m.submodules[f"words{c}"] = words = memory.Memory(shape=data.ArrayLayout(16, WORD), depth=self.depth,
                                                              init=[], attrs=UNCHECKED)
            w, r = words.write_port(granularity=1), words.read_port()
            write_word = Signal(bits, name=f"write_word{c}", attrs={"keep": "true"})
            m.d.sync += write_word.eq(index[4:] + Mux(buffer, self.second, 0))
            enable = Signal(WORD, name=f"enable{c}")
            # near its memories
            mantissa2 = Signal(16, name=f"mantissa2_{c}", reset_less=True, attrs={"keep": "true"})
            m.d.sync += [enable.eq((1 << index[:4]) & (write & mine).replicate(WORD)), mantissa2.eq(mantissa)]
            m.d.comb += [w.addr.eq(write_word), w.data.as_value().eq(mantissa2.replicate(WORD)), w.en.eq(enable),
                         r.addr.eq(address), self.read.words[c].eq(r.data)]
            m.submodules[f"exponents{c}"] = exponents = memory.Memory(shape=6, depth=(self.depth + 1) // 2, init=[],
                                                                      attrs=UNCHECKED)
            w, r = exponents.write_port(), exponents.read_port()
            largest = [Signal(6, name=f"largest{c}_{b}") for b in range(2)]
            m.d.comb += [w.addr.eq(write_word >> 1), w.data.eq(exponent2),
                         w.en.eq(delay(m, exponent_write & mine, 1, f"exponent_write{c}", valid=True)),
                         r.addr.eq(read_address >> 1)]
            m.d.comb += control.largest[c].eq(Array(largest)[control.read_buffer])
            read_largest = delay(m, Array(largest)[read_buffer], 1, f"read_largest{c}")
            m.d.sync += self.read.offsets[c].eq(read_largest - delay(m, r.data, 1, f"read_exponent{c}"))
            # Compared with what was the largest a cycle before: a chunk takes more than one
            larger = delay(m, elements.exponent > Array(largest)[to_second], 1, f"larger{c}")
            for b in range(2):
                with m.If(cleared & (clear_buffer == b)):
                    m.d.sync += largest[b].eq(0)
                with m.Elif(exponent_write & mine & (buffer == b) & larger):
                    m.d.sync += largest[b].eq(exponent)
        return m
