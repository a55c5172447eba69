"""The K/V rows of the positions being decoded: filled by the quantiser, read by attention, written to DRAM once.

A row lies here as in DRAM: exponent beats, K heads, V heads; see docs/image.md.
"""
from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.numeric import UNCHECKED, delay
from accel.ports import NativeWrite
from llama2_spec.registers import Dest


class KvRows(wiring.Component):
    """Owner of the newest rows, and the only writer of the cache.

    Members
    -------
    n_kv_heads, slots, narrow : In
        Constants of the model: K/V heads, eights of elements of K or of V in a row, and whether V's elements (bit 0) and
        K's (bit 1) have 8 bits.
    write, exponent_write : In
        An element of K or V (``dest``), or the exponent of ``head``. With 8 bits a mantissa of 2**7 is clamped.
    read_start : In
        Hand out rows 0 .. ``read_rows`` - 1 at ``beats``.
    store_start : In
        Write ``store_rows`` rows to DRAM from beat ``base``; ``stored`` pulses when the last was accepted; meanwhile
        ``storing`` and not ``busy``: nothing else may touch the rows.
    """
    def __init__(self, *, columns, max_kv_dim, max_heads, addr_width=24):
        self.columns, self.addr_width = columns, addr_width
        self.stride = 1 << (2 * max_kv_dim // 8 - 1).bit_length()               # beats of K and V
        self.header_stride = 1 << (-(-2 * max_heads // 16) - 1).bit_length()    # beats of exponents
        super().__init__({
            "n_kv_heads": In(7), "slots": In(10), "narrow": In(2),
            "write": In(1), "exponent_write": In(1), "dest": In(3), "column": In(range(max(columns, 2))),
            "index": In(13), "head": In(7), "mantissa": In(16), "exponent": In(6),
            "read_start": In(1), "read_rows": In(range(columns + 1)), "beats": Out(stream.Signature(128)),
            "store_start": In(1), "store_rows": In(range(columns + 1)), "base": In(addr_width), "stored": Out(1),
            "port": Out(NativeWrite(addr_width, 128)), "busy": Out(1), "storing": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.rows = rows = memory.Memory(shape=data.ArrayLayout(8, 16), depth=self.columns * self.stride, init=[],
                                                attrs=UNCHECKED)
        # Exponents lie apart, in distributed memory: beside them K and V would need twice the block RAM.
        m.submodules.headers = headers = memory.Memory(shape=data.ArrayLayout(6, 16), init=[],
                                                       depth=self.columns * self.header_stride, attrs=UNCHECKED)
        w, r = rows.write_port(granularity=1), rows.read_port()
        header_w, header_r = headers.write_port(granularity=1), headers.read_port()
        bits, header_bits = (self.stride - 1).bit_length(), (self.header_stride - 1).bit_length()
        first_v, last_beat, last_header, row_beats = Signal(bits), Signal(bits), Signal(header_bits), Signal(bits + 1)
        # Constants of the model: they settle long before the first token
        k_beats, v_beats = (Mux(self.narrow[i], (self.slots + 1) >> 1, self.slots) for i in (1, 0))
        m.d.sync += [first_v.eq(k_beats), last_beat.eq(first_v + v_beats - 1), last_header.eq((2 * self.n_kv_heads - 1) >> 4),
                     row_beats.eq(last_header + last_beat + 2)]
        place = Signal(bits)
        byte = Signal(8)
        of_v, narrow_element, low, enable = Signal(), Signal(), Signal(8), Signal(16)
        m.d.comb += [of_v.eq(self.dest == Dest.V), narrow_element.eq(Mux(of_v, self.narrow[0], self.narrow[1]))]
        # Two cycles later: block RAM lies far
        is_v, narrow, index, head, into, mantissa, exponent = (delay(m, value, 1, name) for value, name in (
            (of_v, "is_v"), (narrow_element, "narrow"), (self.index, "index"), (self.head, "head"), (self.column, "written_column"),
            (self.mantissa, "mantissa"), (self.exponent, "exponent")))
        write, exponent_write = (delay(m, value, 1, name, valid=True) for value, name in (
            (self.write, "write"), (self.exponent_write, "exponent_write")))
        m.d.comb += [
            place.eq(Mux(is_v, first_v, 0) + Mux(narrow, index[4:], index[3:])),
            # Elements i and 8 + i of 8 bits lie side by side, see llama2_spec.image.row_elements
            enable.eq(Mux(narrow, 1, 0b11) << Cat(narrow & index[3], index[:3])),
            low.eq(Mux(narrow & mantissa[7] & ~mantissa[15], 0x7f, mantissa[:8])),
            byte.eq(head + Mux(is_v, self.n_kv_heads, 0)),
        ]
        for port, address, enables, value, times in (
                (header_w, Cat(byte[4:4 + header_bits], into), Mux(exponent_write, 1 << byte[:4], 0), exponent, 16),
                (w, Cat(place, into), Mux(write, enable, 0), Cat(low, Mux(narrow, low, mantissa[8:])), 8)):
            enable_later = Signal(16, name=f"enable{times}")
            m.d.sync += enable_later.eq(enables)
            m.d.comb += [port.addr.eq(delay(m, address, 1, f"address{times}")), port.en.eq(enable_later),
                         port.data.as_value().eq(delay(m, value, 1, f"value{times}").replicate(times))]

        # Reading: one walker, for attention or for the store; behind it a memory's register and one more ------
        storing, left_rows = self.storing, Signal.like(self.read_rows)
        beat, in_header, column = Signal(bits), Signal(), Signal(range(max(self.columns, 2)))
        final, final_row = Signal(), Signal()       # of the header or of the rest; of all
        walking, read, held, read_header = Signal(), Signal(), Signal(), Signal()
        to_port, to_beats = Signal(), Signal()      # what is held goes to DRAM, to attention
        leave, issue = Signal(), Signal()
        value = Signal(128, reset_less=True)
        port = self.port
        m.d.comb += [
            held.eq(to_port | to_beats),
            leave.eq(~to_port & ~to_beats | to_port & port.wdata_ready | to_beats & self.beats.ready),
            issue.eq(walking & (~read | leave)),
            r.addr.eq(Cat(beat, column)), r.en.eq(issue),
            header_r.addr.eq(Cat(beat[:header_bits], column)), header_r.en.eq(issue),
        ]
        with m.If(issue):
            m.d.sync += [read.eq(1), read_header.eq(in_header)]
        with m.Elif(leave):
            m.d.sync += read.eq(0)
        with m.If(leave):
            exponents = Cat(*(Cat(header_r.data[i], Const(0, 2)) for i in range(16)))
            m.d.sync += [to_port.eq(read & storing), to_beats.eq(read & ~storing), value.eq(Mux(read_header, exponents, r.data))]
        start = self.read_start | self.store_start
        with m.If(start):
            m.d.sync += [storing.eq(self.store_start), left_rows.eq(Mux(self.store_start, self.store_rows, self.read_rows)),
                         beat.eq(0), in_header.eq(1), column.eq(0), walking.eq(1), final.eq(last_header == 0),
                         final_row.eq(Mux(self.store_start, self.store_rows, self.read_rows) == 1)]
        with m.Elif(issue):
            m.d.sync += [beat.eq(beat + 1), final.eq(beat + 1 == Mux(in_header, last_header, last_beat))]
            with m.If(final):
                m.d.sync += [beat.eq(0), in_header.eq(~in_header), final.eq(Mux(in_header, last_beat, last_header) == 0)]
                with m.If(~in_header):
                    m.d.sync += [column.eq(column + 1), left_rows.eq(left_rows - 1), final_row.eq(left_rows == 2)]
                    with m.If(final_row):
                        m.d.sync += walking.eq(0)

        # DRAM: once the first beat is there, data can follow its command without a pause -------------------------
        address, commands, command_rows = Signal(self.addr_width), Signal(bits + 1), Signal.like(self.read_rows)
        fire = Signal()
        m.d.comb += [
            port.cmd_valid.eq(to_port & (command_rows != 0)), port.cmd_addr.eq(address),
            fire.eq(port.cmd_valid & port.cmd_ready),
            port.wdata_valid.eq(to_port), port.wdata_data.eq(value), self.beats.valid.eq(to_beats), self.beats.payload.eq(value),
        ]
        with m.If(self.store_start):
            m.d.sync += [address.eq(self.base), commands.eq(row_beats), command_rows.eq(self.store_rows)]
        with m.Elif(fire):
            m.d.sync += [address.eq(address + 1), commands.eq(commands - 1)]
            with m.If(commands == 1):
                m.d.sync += [commands.eq(row_beats), command_rows.eq(command_rows - 1)]
        working = walking | read | held
        with m.If(storing & ~working & ~start):
            m.d.comb += self.stored.eq(1)
            m.d.sync += storing.eq(0)
        m.d.comb += self.busy.eq(working & ~storing)
        return m
