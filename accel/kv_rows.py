"""The K/V rows of the positions being decoded: filled by the quantiser, read by attention, written to DRAM once.

A row lies here as in DRAM: exponent beats, K heads, V heads; see docs/image.md.
"""
from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, fifo, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.ports import NativeWrite
from spec.registers import Dest


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
        self.stride = 1 << (2 * max_kv_dim // 8 + -(-2 * max_heads // 16) - 1).bit_length()
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
        m.submodules.rows = rows = memory.Memory(shape=data.ArrayLayout(8, 16), depth=self.columns * self.stride, init=[])
        w, r = rows.write_port(granularity=1), rows.read_port()
        bits = (self.stride - 1).bit_length()
        head_beats, first_v, last_beat = Signal(6), Signal(bits), Signal(bits)
        # Constants of the model: they settle long before the first token
        k_beats, v_beats = (Mux(self.narrow[i], (self.slots + 1) >> 1, self.slots) for i in (1, 0))
        m.d.sync += [head_beats.eq((2 * self.n_kv_heads + 15) >> 4), first_v.eq(head_beats + k_beats),
                     last_beat.eq(first_v + v_beats - 1)]
        place, header = Signal(bits), Signal(bits)
        byte = Signal(8)
        is_v = self.dest == Dest.V
        narrow, low, enable = Signal(), Signal(8), Signal(16)
        m.d.comb += [
            narrow.eq(Mux(is_v, self.narrow[0], self.narrow[1])),
            place.eq(Mux(is_v, first_v, head_beats) + Mux(narrow, self.index[4:], self.index[3:])),
            # Elements i and 8 + i of 8 bits lie side by side, see spec.image.row_elements
            enable.eq(Mux(narrow, 1, 0b11) << Cat(narrow & self.index[3], self.index[:3])),
            low.eq(Mux(narrow & self.mantissa[7] & ~self.mantissa[15], 0x7f, self.mantissa[:8])),
            byte.eq(self.head + Mux(is_v, self.n_kv_heads, 0)), header.eq(byte >> 4),
        ]
        with m.If(self.exponent_write):
            m.d.comb += [w.addr.eq(Cat(header, self.column)), w.en.eq(1 << byte[:4]),
                         w.data.as_value().eq(Cat(self.exponent, Signal(2, name="pad")).replicate(16))]
        with m.Else():
            m.d.comb += [w.addr.eq(Cat(place, self.column)), w.en.eq(Mux(self.write, enable, 0)),
                         w.data.as_value().eq(Cat(low, Mux(narrow, low, self.mantissa[8:])).replicate(8))]

        # Reading: one walker, for attention or for the store ------------------------------------------------
        m.submodules.queue = queue = fifo.SyncFIFO(width=128, depth=8)
        storing, left_rows = self.storing, Signal.like(self.read_rows)
        beat, column = Signal(bits), Signal(range(max(self.columns, 2)))
        room = Signal(range(9), init=8)
        issue, issued = Signal(), Signal()
        walking = Signal()
        m.d.comb += [r.addr.eq(Cat(beat, column)), issue.eq(walking & (room != 0)),
                     queue.w_en.eq(issued), queue.w_data.eq(r.data)]
        m.d.sync += [issued.eq(issue), room.eq(room - issue + (queue.r_en & queue.r_rdy))]
        start = self.read_start | self.store_start
        with m.If(start):
            m.d.sync += [storing.eq(self.store_start), left_rows.eq(Mux(self.store_start, self.store_rows, self.read_rows)),
                         beat.eq(0), column.eq(0), walking.eq(1)]
        with m.Elif(issue):
            m.d.sync += beat.eq(beat + 1)
            with m.If(beat == last_beat):
                m.d.sync += [beat.eq(0), column.eq(column + 1), left_rows.eq(left_rows - 1)]
                with m.If(left_rows == 1):
                    m.d.sync += walking.eq(0)

        # DRAM: a command for each beat that waits in the queue ----------------------------------------------
        port = self.port
        commanded, ready_data = Signal(5), Signal(5)        # commands without data yet, beats in the queue
        address = Signal(self.addr_width)
        m.d.comb += ready_data.eq(queue.level)
        fire, taken = Signal(), Signal()
        m.d.comb += [
            port.cmd_valid.eq(storing & (commanded < ready_data)), port.cmd_addr.eq(address),
            fire.eq(port.cmd_valid & port.cmd_ready),
            port.wdata_valid.eq(storing & queue.r_rdy), port.wdata_data.eq(queue.r_data),
            taken.eq(port.wdata_valid & port.wdata_ready),
            self.beats.valid.eq(~storing & queue.r_rdy), self.beats.payload.eq(queue.r_data),
            queue.r_en.eq(Mux(storing, taken, self.beats.ready)),
        ]
        m.d.sync += commanded.eq(commanded + fire - taken)
        with m.If(self.store_start):
            m.d.sync += address.eq(self.base)
        with m.Elif(fire):
            m.d.sync += address.eq(address + 1)
        done = storing & (commanded == 0) & ~walking & ~issued & ~queue.r_rdy
        with m.If(done & ~start):
            m.d.comb += self.stored.eq(1)
            m.d.sync += storing.eq(0)
        m.d.comb += self.busy.eq((walking | issued | queue.r_rdy) & ~storing)
        return m
