"""K/V rows from DRAM or from the chip, taken apart into what the scores and what the values of attention need."""
from types import SimpleNamespace

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.attention.dots import key_layout
from accel.attention.walker import SHAPE
from accel.attention.words import Words, raw_layout, slot_of
from accel.lib.numeric import UNCHECKED, delay

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
        level = Signal(range(depth + 1))
        some = Signal()
        read = Signal()
        m.d.comb += [
            w.data.eq(self.data), w.en.eq(self.write),
            read.eq(some & (~self.output.valid | self.output.ready)), r.en.eq(read), self.output.payload.eq(r.data),
        ]
        produce = Signal.like(w.addr)
        consume = Signal.like(r.addr)
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
    """K/V rows to words of K, each with its head's exponents, and words of V, each in a queue of its own.

    A slot is eight elements of 16 bits: a beat as it is, or one half after the other of a beat of 8-bit elements. With
    8 lanes a word is a slot, and one a cycle enters the queues: an 8-bit row takes as many cycles as its 16-bit one,
    less the header, and half of the memory. With more lanes beats wait as they come, one a cycle, and
    :class:`~accel.attention.words.Words` behind each queue make words of them, so K and V are taken apart at the same
    time.

    Parameters
    ----------
    k_buffer, v_buffer : int
        K beats and V beats that may wait, with 8 more a power of two.
    lanes : int
        Elements of a word: 8, 16, 32.

    Members
    -------
    narrow : In(2)
        Elements of 8 bits, of V (bit 0) and of K (bit 1).
    paired : In(1)
        See :class:`~accel.attention.words.Words`.
    beats, newest, local : In(stream of 128), In(stream of 128), In(1)
        Rows from DRAM, of which there are none while ``local``; rows held on chip, of which there are only then.
    start, rows : In(1), In(17)
        Take this many rows from the next cycle on; ``rows`` comes a cycle after ``start``.
    abort : In(1)
        Take nothing from the next cycle on; a reset follows.
    shape : In(SHAPE)
        What the model's shape means to attention; constant while rows come.
    keys : Out(stream of key_layout)
        Words of K with their head's exponents; held until taken.
    values : Out(stream of 16 * lanes)
        Words of V; held until taken.
    """
    latency = None      #: varies

    def __init__(self, *, max_heads, k_buffer, v_buffer, lanes=8):
        self.max_heads, self.k_buffer, self.v_buffer, self.lanes = max_heads, k_buffer, v_buffer, lanes
        self.raw = lanes > 8                # queues hold beats, otherwise slots
        super().__init__({
            "shape": In(SHAPE), "start": In(1), "rows": In(17), "narrow": In(2), "paired": In(1), "abort": In(1),
            "beats": In(stream.Signature(128)), "newest": In(stream.Signature(128)), "local": In(1),
            "keys": Out(stream.Signature(key_layout(lanes))), "values": Out(stream.Signature(16 * lanes)),
        })

    def elaborate(self, platform):
        m = Module()
        s = SimpleNamespace()               # signals that several steps share
        self._lengths(m, s)
        if self.raw:
            self._raw_queues(m, s)
        else:
            self._queues(m, s)
        self._take(m, s)
        self._beat(m, s)
        self._header(m, s)
        if self.raw:
            self._heads(m, s)
            self._beats(m, s)
        else:
            self._head(m, s)
            self._slots(m, s)
        return m

    def _lengths(self, m, s):
        """What the shape means."""
        s.shape = self.shape
        # What comes next, so that whether it is taken is known a cycle ahead
        # At most one.
        s.of_header = Signal()
        s.of_keys = Signal()
        s.of_values = Signal()
        s.narrow = Signal(2)
        last_beats = [Signal(10, name=f"last_{name}_beat") for name in ("v", "k")]
        m.d.sync += s.narrow.eq(self.narrow)
        m.d.sync += [each.eq(Mux(s.narrow[i], s.shape.last_beat >> 1, s.shape.last_beat))
                     for i, each in enumerate(last_beats)]
        s.last_v, s.last_k = last_beats

    def _queues(self, m, s):
        """Queues of slots."""
        m.submodules.keys = s.keys = Waiting(key_layout(), limit=self.k_buffer, attrs={"ram_style": "distributed"})
        m.submodules.values = s.values = Waiting(128, limit=self.v_buffer)
        wiring.connect(m, s.keys.output, wiring.flipped(self.keys))
        wiring.connect(m, s.values.output, wiring.flipped(self.values))

    def _raw_queues(self, m, s):
        """Queues of beats, and what makes words of them."""
        for name, sink, limit, exponents, i in (("keys", self.keys, self.k_buffer, 12, 1),
                                                ("values", self.values, self.v_buffer, 0, 0)):
            queue = Waiting(raw_layout(exponents), limit=limit)
            words = Words(lanes=self.lanes, exponents=exponents)
            m.submodules[name], m.submodules[f"{name}_words"] = queue, words
            setattr(s, name, queue)
            wiring.connect(m, queue.output, words.beats)
            m.d.comb += [words.shape.eq(self.shape), words.narrow.eq(s.narrow[i]), words.paired.eq(self.paired),
                         sink.valid.eq(words.words.valid), words.words.ready.eq(sink.ready)]
            if exponents:
                m.d.comb += [sink.payload.word.eq(words.words.payload.word),
                             Cat(sink.payload.k_exponent, sink.payload.v_exponent).eq(words.words.payload.head)]
            else:
                m.d.comb += sink.payload.eq(words.words.payload.word)

    def _take(self, m, s):
        """What comes next, so that whether it is taken is known a cycle ahead."""
        left = Signal(17)
        final_row = Signal()
        to_come = Signal(10)
        last = Signal()
        s.ready = Signal()
        s.taken = Signal()
        s.two = Signal()
        room = Signal()
        room_then = Signal()
        m.d.comb += [
            self.beats.ready.eq(s.ready), self.newest.ready.eq(s.ready),
            s.taken.eq(s.ready & (self.beats.valid | self.newest.valid)),
            # Half a beat may be left over
            s.two.eq((s.narrow[0] & s.of_values | s.narrow[1] & s.of_keys) & (~last | s.shape.last_beat[0])
                     if not self.raw else 0),
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

    def _header(self, m, s):
        """The header of the row."""
        # Exponents have six bits; the row being split is the only one whose header is kept.
        m.submodules.header = s.header = memory.Memory(shape=data.ArrayLayout(6, 16),
                                                       depth=-(-2 * self.max_heads // 16), init=[])
        write = s.header.write_port()
        header_at = Signal(3)
        m.d.comb += [write.addr.eq(header_at), write.en.eq(s.header1),
                     *(write.data[i].eq(s.raw[8 * i:8 * i + 6]) for i in range(16))]
        with m.If(s.header1):
            m.d.sync += header_at.eq(header_at + 1)
        with m.If(s.key1):
            m.d.sync += header_at.eq(0)

    def _exponent(self, m, s, at):
        """Exponent number ``at`` of the header."""
        read = s.header.read_port(domain="comb")
        m.d.comb += read.addr.eq(at >> 4)
        return read.data[at[:4]]

    def _head(self, m, s):
        """Which K/V head a slot belongs to."""
        s.bytes_at = [Signal(7, name=f"{name}_byte") for name in "kv"]
        slot = Signal(4)
        with m.If(s.header1):
            m.d.sync += [s.bytes_at[0].eq(0), s.bytes_at[1].eq(s.shape.last_kv_head + 1), slot.eq(0)]
        with m.If(s.key1):
            m.d.sync += slot.eq(slot + 1)
            with m.If(slot == s.shape.last_slot):
                m.d.sync += [slot.eq(0), *(at.eq(at + 1) for at in s.bytes_at)]

    def _heads(self, m, s):
        """Which K/V heads the slots of a beat belong to."""
        # An 8-bit beat may be the end of a head, of two heads, or the end of one and the beginning of the next.
        head = Signal(7)
        slot = Signal(4)
        v_byte = Signal(7)
        one = Signal()
        ends = [Signal(name=f"ends{i}") for i in range(2)]
        second = [head + ends[0], Mux(ends[0], 0, slot + 1)]
        m.d.sync += [v_byte.eq(s.shape.last_kv_head + 1), one.eq(s.shape.last_slot == 0)]
        m.d.comb += [ends[0].eq(slot == s.shape.last_slot),
                     ends[1].eq(Mux(ends[0], one, slot + 1 == s.shape.last_slot))]
        with m.If(s.header1):
            m.d.sync += [head.eq(0), slot.eq(0)]
        with m.If(s.key1):
            m.d.sync += [head.eq(second[0]), slot.eq(second[1])]
            with m.If(s.narrow[1]):
                m.d.sync += [head.eq(second[0] + ends[1]), slot.eq(Mux(ends[1], 0, second[1] + 1))]
        for i, at in enumerate((head, second[0][:7])):
            v_at = (at + v_byte)[:7]
            m.d.comb += s.keys.data.heads[i].eq(Cat(self._exponent(m, s, at), self._exponent(m, s, v_at)))

    def _slots(self, m, s):
        """Slots into their queues."""
        slot = Signal(128)
        m.d.comb += [slot.eq(slot_of(s.raw, s.second1, s.narrow1)), s.keys.data.word.eq(slot), s.values.data.eq(slot),
                     s.keys.write.eq(s.key1), s.values.write.eq(s.value1),
                     s.keys.data.k_exponent.eq(self._exponent(m, s, s.bytes_at[0])),
                     s.keys.data.v_exponent.eq(self._exponent(m, s, s.bytes_at[1]))]

    def _beats(self, m, s):
        """Beats into their queues."""
        m.d.comb += [s.keys.data.beat.eq(s.raw), s.values.data.beat.eq(s.raw),
                     s.keys.write.eq(s.key1), s.values.write.eq(s.value1)]
