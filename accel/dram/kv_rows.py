"""The K/V rows of the positions being decoded: filled by the quantiser, read by attention, written to DRAM once.

A row lies here as in DRAM: exponent beats, K heads, V heads; see docs/image.md.
"""
from types import SimpleNamespace

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.interfaces import ModelConstants, NewestJob, Quantised, StoreJob
from accel.lib.numeric import UNCHECKED, delay
from accel.dram.ports import NativeWrite
from accel.lib.stream import HalfRate
from llama2_spec.registers import Dest


class KvRows(wiring.Component):
    """Owns the newest rows, and is the only writer of the cache. Rows are laid out by
    :func:`llama2_spec.image.row_elements`. Writes are never stalled; beats are held until taken.

    Members
    -------
    slots : In(10)
        Constants of the model: K/V heads, eights of elements of K or of V in a row, and whether V's elements (bit 0)
        and K's (bit 1) have 8 bits.
    model : In(ModelConstants)
        Constants of the model, see the interface.
    elements : In(Quantised)
        An element of K or V, or the exponent of ``head``. With 8 bits a mantissa of 2**7 is clamped.
    newest : In(NewestJob)
        Hand out rows ``first`` .. ``last`` at ``beats``.
    beats : Out(stream of 128)
        Rows as they lie in DRAM; held until taken.
    store : In(StoreJob)
        Write a run of rows to DRAM. As many runs as there are columns fit: one is written, the others wait for their
        turn. While ``storing`` not ``busy``, and nothing else may touch the rows.
    port : Out(NativeWrite)
        To DRAM.
    busy : Out(1)
        Work is in flight; a fence waits for its end.
    beat_stored : Out(1)
        A beat was written.
    """
    latency = None      #: varies
    budget_lut = 344

    def __init__(self, *, columns, max_kv_dim, max_heads, addr_width=24):
        self.columns, self.addr_width = columns, addr_width
        self.stride = 1 << (2 * max_kv_dim // 8 - 1).bit_length()               # beats of K and V
        self.header_stride = 1 << (-(-2 * max_heads // 16) - 1).bit_length()    # beats of exponents
        super().__init__({
            "model": In(ModelConstants()), "slots": In(10), "elements": In(Quantised(columns, routed=True)),
            "newest": In(NewestJob(columns)), "beats": Out(stream.Signature(128)),
            "store": In(StoreJob(columns, addr_width)),
            "port": Out(NativeWrite(addr_width, 128)), "busy": Out(1), "beat_stored": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        s = SimpleNamespace()               # signals that several steps share
        self._memories(m, s)
        self._write(m, s)
        self._read(m, s)
        self._runs(m, s)
        self._walk(m, s)
        self._dram(m, s)
        return m

    def _memories(self, m, s):
        """Rows, exponents, and what the shape means."""
        s.elements, s.newest, s.store = self.elements, self.newest, self.store
        m.submodules.rows = rows = memory.Memory(shape=data.ArrayLayout(8, 16), depth=self.columns * self.stride,
                                                 init=[],
                                                attrs=UNCHECKED)
        # Exponents lie apart, in distributed memory: beside them K and V would need twice the block RAM.
        m.submodules.headers = headers = memory.Memory(shape=data.ArrayLayout(6, 16), init=[],
                                                       depth=self.columns * self.header_stride, attrs=UNCHECKED)
        s.w, s.r = rows.write_port(granularity=1), rows.read_port()
        s.header_w, s.header_r = headers.write_port(granularity=1), headers.read_port()
        s.bits, s.header_bits = (self.stride - 1).bit_length(), (self.header_stride - 1).bit_length()
        s.first_v = Signal(s.bits)
        s.last_beat = Signal(s.bits)
        s.last_header = Signal(s.header_bits)
        s.row_beats = Signal(s.bits + 1)
        # Constants of the model: they settle long before the first token
        k_beats, v_beats = (Mux(self.model.narrow[i], (self.slots + 1) >> 1, self.slots) for i in (1, 0))
        m.d.sync += [s.first_v.eq(k_beats), s.last_beat.eq(s.first_v + v_beats - 1),
                     s.last_header.eq((2 * self.model.n_kv_heads - 1) >> 4),
                     s.row_beats.eq(s.last_header + s.last_beat + 2)]
        s.place = Signal(s.bits)
        s.byte = Signal(8)
        s.of_v = Signal()
        s.narrow_element = Signal()
        s.low = Signal(8)
        s.enable = Signal(16)
        m.d.comb += [s.of_v.eq(s.elements.dest == Dest.V),
                     s.narrow_element.eq(Mux(s.of_v, self.model.narrow[0], self.model.narrow[1]))]

    def _write(self, m, s):
        """Elements and exponents into the rows."""
        # Two cycles later: the path router -> block RAM is split
        is_v, narrow, index, head, into, mantissa, exponent = (delay(m, value, 1, name) for value, name in (
            (s.of_v, "is_v"), (s.narrow_element, "narrow"), (s.elements.index, "index"), (s.elements.head, "head"),
            (s.elements.column, "written_column"),
            (s.elements.mantissa, "mantissa"), (s.elements.exponent, "exponent")))
        write, exponent_write = (delay(m, value, 1, name, valid=True) for value, name in (
            (s.elements.write, "write"), (s.elements.exponent_write, "exponent_write")))
        m.d.comb += [
            s.place.eq(Mux(is_v, s.first_v, 0) + Mux(narrow, index[4:], index[3:])),
            # Elements i and 8 + i of 8 bits lie side by side, see llama2_spec.image.row_elements
            s.enable.eq(Mux(narrow, 1, 0b11) << Cat(narrow & index[3], index[:3])),
            s.low.eq(Mux(narrow & mantissa[7] & ~mantissa[15], 0x7f, mantissa[:8])),
            s.byte.eq(head + Mux(is_v, self.model.n_kv_heads, 0)),
        ]
        for port, address, enables, value, times in (
                (s.header_w, Cat(s.byte[4:4 + s.header_bits], into), Mux(exponent_write, 1 << s.byte[:4], 0), exponent,
                 16),
                (s.w, Cat(s.place, into), Mux(write, s.enable, 0), Cat(s.low, Mux(narrow, s.low, mantissa[8:])), 8)):
            enable_later = Signal(16, name=f"enable{times}")
            m.d.sync += enable_later.eq(enables)
            m.d.comb += [port.addr.eq(delay(m, address, 1, f"address{times}")), port.en.eq(enable_later),
                         port.data.as_value().eq(delay(m, value, 1, f"value{times}").replicate(times))]

    def _read(self, m, s):
        """What is read, held and handed on."""
        # Reading: one walker, for attention or for the store; behind it a memory's register and one more
        s.storing = Signal()                # the walker is at work for the store
        s.beat = Signal(s.bits)
        s.in_header = Signal()
        s.column = Signal(range(self.columns))
        # Of the header or of the rest; of all.
        s.final = Signal()
        s.final_row = Signal()
        s.walking = Signal()
        s.read = Signal()
        s.held = Signal()
        read_header = Signal()
        # What is held goes to DRAM, to attention.
        s.to_port = Signal()
        s.to_beats = Signal()
        leave = Signal()
        s.issue = Signal()
        s.value = Signal(128, reset_less=True)
        s.port = self.port
        m.d.comb += [
            s.held.eq(s.to_port | s.to_beats),
            leave.eq(~s.to_port & ~s.to_beats | s.to_port & s.port.wdata_ready | s.to_beats & self.beats.ready),
            s.issue.eq(s.walking & (~s.read | leave)),
            s.r.addr.eq(Cat(s.beat, s.column)), s.r.en.eq(s.issue),
            s.header_r.addr.eq(Cat(s.beat[:s.header_bits], s.column)), s.header_r.en.eq(s.issue),
        ]
        with m.If(s.issue):
            m.d.sync += [s.read.eq(1), read_header.eq(s.in_header)]
        with m.Elif(leave):
            m.d.sync += s.read.eq(0)
        with m.If(leave):
            exponents = Cat(*(Cat(s.header_r.data[i], Const(0, 2)) for i in range(16)))
            m.d.sync += [s.to_port.eq(s.read & s.storing), s.to_beats.eq(s.read & ~s.storing),
                         s.value.eq(Mux(read_header, exponents, s.r.data))]

    def _runs(self, m, s):
        """Runs to be stored, one after the other."""
        column = range(self.columns)        # of no bits, where there is one
        s.run = data.StructLayout({"first": column, "last": column, "base": self.addr_width})
        s.next_run = Signal(s.run)
        s.begin_run = Signal()
        waiting = Signal()
        job = Signal(s.run)
        m.d.comb += [job[name].eq(getattr(s.store, name)) for name in s.run.members]
        if self.columns == 1:               # one run at a time, so none waits
            m.d.comb += [s.next_run.eq(job), s.begin_run.eq(s.store.start), s.store.room.eq(~s.store.storing)]
        else:
            # Registers in a row, beside the one that is written: they take no LUTs, as a memory would
            stages = [HalfRate(s.run) for _ in range(self.columns - 1)]
            for i, stage in enumerate(stages):
                m.submodules[f"waiting{i}"] = stage
            for stage, following in zip(stages, stages[1:]):
                wiring.connect(m, stage.output, following.input)
            into, out = stages[0].input, stages[-1].output
            m.d.comb += [into.valid.eq(s.store.start), into.payload.eq(job), s.store.room.eq(into.ready),
                         waiting.eq(Cat(stage.busy for stage in stages).any()), out.ready.eq(~s.storing),
                         s.begin_run.eq(out.valid & ~s.storing), s.next_run.eq(out.payload)]
        with m.If(s.store.start):
            m.d.sync += s.store.storing.eq(1)
        with m.Elif(s.store.stored & ~waiting):
            m.d.sync += s.store.storing.eq(0)

    def _walk(self, m, s):
        """The walker over beats and columns."""
        first, last, last_column = (Signal.like(s.column, name=name) for name in ("first", "last", "last_column"))
        m.d.comb += [first.eq(Mux(s.begin_run, s.next_run.first, s.newest.first)),
                     last.eq(Mux(s.begin_run, s.next_run.last, s.newest.last))]
        s.start = s.newest.start | s.begin_run
        with m.If(s.start):
            m.d.sync += [s.storing.eq(s.begin_run), s.beat.eq(0), s.in_header.eq(1), s.column.eq(first),
                         last_column.eq(last), s.walking.eq(1), s.final.eq(s.last_header == 0),
                         s.final_row.eq(first == last)]
        with m.Elif(s.issue):
            m.d.sync += [s.beat.eq(s.beat + 1), s.final.eq(s.beat + 1 == Mux(s.in_header, s.last_header, s.last_beat))]
            with m.If(s.final):
                m.d.sync += [s.beat.eq(0), s.in_header.eq(~s.in_header),
                             s.final.eq(Mux(s.in_header, s.last_beat, s.last_header) == 0)]
                with m.If(~s.in_header):
                    m.d.sync += [s.column.eq(s.column + 1), s.final_row.eq(s.column + 1 == last_column)]
                    with m.If(s.final_row):
                        m.d.sync += s.walking.eq(0)

    def _dram(self, m, s):
        """Rows to DRAM."""
        # DRAM: once the first beat is there, data can follow its command without a pause
        address = Signal(self.addr_width)
        commands = Signal(s.bits + 1)
        rows_behind = Signal.like(s.column)
        commanding = Signal()
        fire = Signal()
        m.d.comb += [
            s.port.cmd_valid.eq(s.to_port & commanding), s.port.cmd_addr.eq(address),
            fire.eq(s.port.cmd_valid & s.port.cmd_ready),
            s.port.wdata_valid.eq(s.to_port), s.port.wdata_data.eq(s.value), self.beats.valid.eq(s.to_beats),
            self.beats.payload.eq(s.value),
        ]
        with m.If(s.begin_run):
            m.d.sync += [address.eq(s.next_run.base), commands.eq(s.row_beats), commanding.eq(1),
                         rows_behind.eq(s.next_run.last - s.next_run.first)]
        with m.Elif(fire):
            m.d.sync += [address.eq(address + 1), commands.eq(commands - 1)]
            with m.If(commands == 1):
                m.d.sync += [commands.eq(s.row_beats), rows_behind.eq(rows_behind - 1), commanding.eq(rows_behind != 0)]
        working = s.walking | s.read | s.held
        with m.If(s.storing & ~working & ~s.start):
            m.d.comb += s.store.stored.eq(1)
            m.d.sync += s.storing.eq(0)
        m.d.comb += [self.busy.eq(working & ~s.storing), self.beat_stored.eq(s.port.wdata_valid & s.port.wdata_ready)]
