"""K/V rows from DRAM or from the chip, taken apart into what the scores and what the values of attention need."""
from types import SimpleNamespace

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.attention.dots import SHAPE, key_layout
from accel.lib.numeric import UNCHECKED, delay

KEY_BUFFER = 24     # beats: keeps the scores busy while a V row with n_rep >= 2 passes
ON_THEIR_WAY = 8    # slots at most that come after :attr:`Waiting.room` has fallen


class Waiting(wiring.Component):
    """A queue that refuses nothing and says in time that it is nearly full; all it says comes from registers.

    Parameters
    ----------
    limit : int
        Entries with which there is no more ``room``.
    attrs : dict
        Of the memory.

    Members
    -------
    write : In(1)
        An entry comes; there is always a place for it.
    data : In(shape)
        Valid with ``write``.
    room : Out(1, init=1)
        Fewer than ``limit`` entries wait; from a register, so up to ``ON_THEIR_WAY`` may come after it has fallen.
    output : Out(stream of shape)
        The oldest entry; held until taken.
    """
    latency = 2         #: from a write to the output

    def __init__(self, shape, *, limit, attrs=None):
        self.shape, self.limit, self.attrs = shape, limit, attrs or {}
        super().__init__({"write": In(1), "data": In(shape), "room": Out(1, init=1),
                          "output": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        depth = 1 << (self.limit + ON_THEIR_WAY - 1).bit_length()
        # An entry is read a cycle after it was written or later
        m.submodules.storage = storage = memory.Memory(shape=self.shape, depth=depth, init=[],
                                                       attrs={**UNCHECKED, **self.attrs})
        w, r = storage.write_port(), storage.read_port()
        level, some, read = Signal(range(depth + 1)), Signal(), Signal()
        m.d.comb += [
            w.data.eq(self.data), w.en.eq(self.write),
            read.eq(some & (~self.output.valid | self.output.ready)), r.en.eq(read), self.output.payload.eq(r.data),
        ]
        produce, consume = Signal.like(w.addr), Signal.like(r.addr)
        m.d.comb += [w.addr.eq(produce), r.addr.eq(consume)]
        m.d.sync += [produce.eq(produce + self.write), self.room.eq(level < self.limit),
                     some.eq(self.write | Mux(read, level > 1, level != 0))]
        with m.If(self.write ^ read):
            m.d.sync += level.eq(level + Mux(read, -1, 1))
        with m.If(read):
            m.d.sync += [consume.eq(consume + 1), self.output.valid.eq(1)]
        with m.Elif(self.output.ready):
            m.d.sync += self.output.valid.eq(0)
        return m


class RowSplitter(wiring.Component):
    """K/V rows to slots of K, each with its head's exponents, and slots of V, each in a queue of its own.

    A slot is eight elements of 16 bits: a beat as it is, or one half after the other of a beat of 8-bit elements. There
    is one a cycle, so an 8-bit row takes as many cycles as its 16-bit one, less the header, and half of the memory.

    Members
    -------
    narrow : In(2)
        Elements of 8 bits, of V (bit 0) and of K (bit 1).
    beats, newest, local : In(stream of 128), In(stream of 128), In(1)
        Rows from DRAM, of which there are none while ``local``; rows held on chip, of which there are only then.
    start, rows : In(1), In(17)
        Take this many rows from the next cycle on; ``rows`` comes a cycle after ``start``.
    abort : In(1)
        Take nothing from the next cycle on; a reset follows.
    shape : In(SHAPE)
        What the model's shape means to attention; constant while rows come.
    keys : Out(stream of key_layout)
        Slots of K with their head's exponents; held until taken.
    values : Out(stream of 128)
        Slots of V; held until taken.
    """
    latency = None      #: varies


    def __init__(self, *, max_heads, v_buffer):
        self.max_heads, self.v_buffer = max_heads, v_buffer
        super().__init__({
            "shape": In(SHAPE), "start": In(1), "rows": In(17), "narrow": In(2), "abort": In(1),
            "beats": In(stream.Signature(128)), "newest": In(stream.Signature(128)), "local": In(1),
            "keys": Out(stream.Signature(key_layout())), "values": Out(stream.Signature(128)),
        })

    def elaborate(self, platform):
        m = Module()
        s = SimpleNamespace()               # signals that several steps share
        self._queues(m, s)
        self._take(m, s)
        self._beat(m, s)
        self._exponents(m, s)
        self._slots(m, s)
        return m

    def _queues(self, m, s):
        """Queues behind the splitter, what the shape means."""
        s.shape = self.shape
        m.submodules.keys = s.keys = Waiting(key_layout(), limit=KEY_BUFFER, attrs={"ram_style": "distributed"})
        m.submodules.values = s.values = Waiting(128, limit=self.v_buffer)
        wiring.connect(m, s.keys.output, wiring.flipped(self.keys))
        wiring.connect(m, s.values.output, wiring.flipped(self.values))

        # What comes next, so that whether it is taken is known a cycle ahead
        s.of_header, s.of_keys, s.of_values = Signal(), Signal(), Signal()        # at most one
        s.narrow, last_beats = Signal(2), [Signal(10, name=f"last_{name}_beat") for name in ("v", "k")]
        m.d.sync += s.narrow.eq(self.narrow)
        m.d.sync += [each.eq(Mux(s.narrow[i], s.shape.last_beat >> 1, s.shape.last_beat))
                     for i, each in enumerate(last_beats)]
        s.last_v, s.last_k = last_beats

    def _take(self, m, s):
        """What comes next, so that whether it is taken is known a cycle ahead."""
        left, final_row, to_come, last = Signal(17), Signal(), Signal(10), Signal()
        s.ready, s.taken, s.two = Signal(), Signal(), Signal()
        room, room_then = Signal(), Signal()
        m.d.comb += [
            self.beats.ready.eq(s.ready), self.newest.ready.eq(s.ready),
            s.taken.eq(s.ready & (self.beats.valid | self.newest.valid)),
            # Half a beat may be left over
            s.two.eq((s.narrow[0] & s.of_values | s.narrow[1] & s.of_keys) & (~last | s.shape.last_beat[0])),
            room.eq(Mux(s.of_values, s.values.room, s.keys.room & (s.of_header | s.of_keys))),
            room_then.eq(Mux(s.of_keys, s.values.room, s.keys.room & ~(s.of_values & final_row))),
        ]
        m.d.sync += s.ready.eq(~self.abort & (self.start | Mux(s.taken, ~s.two & Mux(last, room_then, room), room)))
        with m.If(s.taken):
            m.d.sync += [to_come.eq(to_come - 1), last.eq(to_come == 1)]
            with m.If(last):
                m.d.sync += [s.of_header.eq(s.of_values & ~final_row), s.of_keys.eq(s.of_header),
                             s.of_values.eq(s.of_keys)]
                with m.If(s.of_header):
                    m.d.sync += [to_come.eq(s.last_k), last.eq(s.last_k == 0)]
                with m.Elif(s.of_keys):
                    m.d.sync += [to_come.eq(s.last_v), last.eq(s.last_v == 0)]
                with m.Else():
                    m.d.sync += [to_come.eq(s.shape.last_header), last.eq(s.shape.last_header == 0),
                                 left.eq(left - 1), final_row.eq(left == 2)]
        # A row has three beats at least
        with m.If(~s.of_header & ~s.of_keys & ~s.of_values):
            m.d.sync += [to_come.eq(s.shape.last_header), last.eq(s.shape.last_header == 0)]
        with m.If(self.start):
            m.d.sync += s.of_header.eq(1)
        with m.If(delay(m, self.start, 1, "begun", valid=True)):
            m.d.sync += [left.eq(self.rows), final_row.eq(self.rows == 1)]

    def _beat(self, m, s):
        """A beat, whose second half follows a cycle later."""
        # A beat, whose second half follows a cycle later: two registers: reader's buffer -> slots
        beats0, newest0, local0 = (delay(m, value, 1, name) for value, name in (
            (self.beats.payload, "beats0"), (self.newest.payload, "newest0"), (self.local, "local0")))
        ready0 = delay(m, s.ready, 1, "ready0")
        narrow0 = delay(m, s.narrow[0] & s.of_values | s.narrow[1] & s.of_keys, 1, "narrow0")
        header0, key0, value0, more0 = (delay(m, value, 1, name, valid=True) for value, name in (
            (s.taken & s.of_header, "header0"), (s.taken & s.of_keys, "key0"), (s.taken & s.of_values, "value0"),
            (s.taken & s.two, "more0")))
        s.raw = Signal(128, reset_less=True)
        s.header1, s.key1, s.value1, s.narrow1, more1, s.second1 = (Signal(name=f"{name}1") for name in
                                                          ("header", "key", "value", "narrow", "more", "second"))
        with m.If(ready0):
            m.d.sync += [s.raw.eq(Mux(local0, newest0, beats0)), s.narrow1.eq(narrow0)]
        m.d.sync += [s.header1.eq(header0), s.key1.eq(key0 | more1 & s.key1), s.value1.eq(value0 | more1 & s.value1),
                     more1.eq(more0), s.second1.eq(more1)]

    def _exponents(self, m, s):
        """The header of the row."""
        # Exponents have six bits; the row being split is the only one whose header is kept.
        m.submodules.header = s.header = memory.Memory(shape=data.ArrayLayout(6, 16),
                                                       depth=-(-2 * self.max_heads // 16), init=[])
        write, header_at = s.header.write_port(), Signal(3)
        m.d.comb += [write.addr.eq(header_at), write.en.eq(s.header1),
                     *(write.data[i].eq(s.raw[8 * i:8 * i + 6]) for i in range(16))]
        s.bytes_at, slot = [Signal(7, name=f"{name}_byte") for name in "kv"], Signal(4)
        with m.If(s.header1):
            m.d.sync += [header_at.eq(header_at + 1), s.bytes_at[0].eq(0), s.bytes_at[1].eq(s.shape.last_kv_head + 1),
                         slot.eq(0)]
        with m.If(s.key1):
            m.d.sync += [header_at.eq(0), slot.eq(slot + 1)]
            with m.If(slot == s.shape.last_slot):
                m.d.sync += [slot.eq(0), *(at.eq(at + 1) for at in s.bytes_at)]

    def _slots(self, m, s):
        """Slots into their queues."""
        # One choice per byte, see llama2_spec.image.row_elements
        slot_of = s.keys.data.beat
        for i in range(0, 128, 16):
            low = Signal(8, name=f"low{i}")
            m.d.comb += [low.eq(Mux(s.second1, s.raw[i + 8:i + 16], s.raw[i:i + 8])),
                         slot_of[i:i + 16].eq(Cat(low, Mux(s.narrow1, low[7].replicate(8), s.raw[i + 8:i + 16])))]
        for at, exponent in zip(s.bytes_at, (s.keys.data.k_exponent, s.keys.data.v_exponent)):
            read = s.header.read_port(domain="comb")
            m.d.comb += [read.addr.eq(at >> 4), exponent.eq(read.data[at[:4]])]
        m.d.comb += [s.keys.write.eq(s.key1), s.values.write.eq(s.value1), s.values.data.eq(slot_of)]
