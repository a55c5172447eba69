"""The first part of attention: the query heads' dot products with the keys of their K/V head."""
from types import SimpleNamespace

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.lib.numeric import UNCHECKED, delay

#: What the model's shape means to attention, minus one each: the last value of a counter. A slot is eight elements.
SHAPE = data.StructLayout({"last_head": 6, "last_kv_head": 6, "last_rep": 6, "last_slot": 4, "last_header": 3,
                           "last_beat": 10})

#: What is known of a (beat, query head), later of a dot product.
TAG = data.StructLayout({"head": 6, "rep": 6, "last_rep": 1, "first_row": 1, "first_slot": 1, "last_slot": 1,
                         "k_exponent": 6, "v_exponent": 6})


def key_layout():
    """A K beat and the exponents of its K/V head."""
    return data.StructLayout({"beat": 128, "k_exponent": 6, "v_exponent": 6})


def ring_depth(max_heads):
    """Weights on their way or waiting: a row's at least, or its values would never come; a power of two."""
    return max(2 << (max_heads - 1).bit_length(), 64)      # they are some 35 cycles on their way


def query_members(columns, max_heads, max_dim):
    """The members that fill a column's query: element ``head * head_dim + i``, and the exponent of a head; and choose
    one."""
    column = range(max(columns, 2))
    return {
        "q_write": In(data.StructLayout({"en": 1, "column": column, "address": range(max_dim), "data": signed(16)})),
        "q_exponent_write": In(data.StructLayout({"en": 1, "column": column, "head": range(max_heads), "data": 6})),
        "column": In(column),
    }


class AttentionDots(wiring.Component):
    """The dot products of :func:`llama2_spec.golden.attend`. One (beat, query head) per cycle; a key is taken only
    while the weights it leads to have places, so nothing behind the issue stalls.

    Members
    -------
    keys : In(stream of key_layout)
        Held for as many cycles as query heads share it.
    release : In(1)
        A K/V head's weights were used: n_rep more may be produced.
    column : In(column)
        Whose query it is; held while keys are.
    dot, tag, exponent, valid : Out(signed(39)), Out(TAG), Out(6), Out(1)
        Of the last beat of a row's K/V head: the dot product, the exponent of its query.
    shape : In(SHAPE)
        What the model's shape means to attention; constant while rows come.
    start : In(1)
        A new set of rows begins; no key is on its way.
    q_write : In(struct of en 1, column, address, data signed 16)
        An element of a column's query, ``address`` = head * head_dim + i; written while ``en``.
    q_exponent_write : In(struct of en 1, column, head, data 6)
        The exponent of a head of a column's query; written while ``en``.
    """
    latency = 7         #: from a row's last beat of a K/V head to the dot product

    def __init__(self, *, columns, max_heads, max_dim):
        self.columns, self.max_heads, self.max_dim = columns, max_heads, max_dim
        super().__init__({
            "shape": In(SHAPE), **query_members(columns, max_heads, max_dim),
            "start": In(1), "keys": In(stream.Signature(key_layout())), "release": In(1),
            "dot": Out(signed(39)), "tag": Out(TAG), "exponent": Out(6), "valid": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        s = SimpleNamespace()               # signals that several steps share
        self._query(m, s)
        self._issue_registers(m, s)
        self._issue(m, s)
        self._products(m, s)
        self._partials(m, s)
        return m

    def _query(self, m, s):
        """The queries."""
        s.shape, s.key = self.shape, self.keys.payload
        slot_bits, s.head_bits = (self.max_dim // 8 - 1).bit_length(), (self.max_heads - 1).bit_length()
        m.submodules.query = query = memory.Memory(shape=data.ArrayLayout(signed(16), 8),
                                                   depth=self.columns << slot_bits, init=[], attrs=UNCHECKED)
        m.submodules.query_exponents = exponents = memory.Memory(shape=6, depth=self.columns << s.head_bits, init=[],
                                                                      attrs=UNCHECKED)
        q_in, s.q_out = query.write_port(granularity=1), query.read_port()
        e_in, s.e_out = exponents.write_port(), exponents.read_port()
        q_write = delay(m, self.q_write, 1, "q_write")
        q_exponent_write = delay(m, self.q_exponent_write, 1, "q_exponent_write")
        m.d.comb += [
            q_in.addr.eq(Cat((q_write.address >> 3)[:slot_bits], q_write.column)),
            q_in.en.eq(q_write.en << q_write.address[:3]), *(q_in.data[i].eq(q_write.data) for i in range(8)),
            e_in.addr.eq(Cat(q_exponent_write.head, q_exponent_write.column)), e_in.en.eq(q_exponent_write.en),
            e_in.data.eq(q_exponent_write.data),
        ]

    def _issue_registers(self, m, s):
        """Where the walk is."""
        # Issue: query heads fastest, then slots, then K/V heads; what a comparison says is known a cycle ahead
        ring = ring_depth(self.max_heads)
        s.tag0 = Signal(TAG)
        s.room = Signal(range(ring), init=ring - 1)         # a full ring would look empty
        s.slot, s.rep, s.head, s.group, s.group_head = Signal(4), Signal(6), Signal(6), Signal(6), Signal(6)
        s.address, s.slot_address = Signal(range(self.max_dim // 8)), Signal(range(self.max_dim // 8), init=1)
        s.first_row, s.issue, s.pause, s.has_room, s.spent = Signal(), Signal(), Signal(), Signal(init=1), Signal()
        s.first_slot, s.last_slot, s.last_rep, s.last_group = Signal(), Signal(), Signal(), Signal()
        s.one_slot, s.one_rep, s.one_group, s.alone = Signal(), Signal(), Signal(), Signal()
        s.heads, s.given, s.stride = Signal(7), Signal(7), Signal(5)
        m.d.sync += [s.one_slot.eq(s.shape.last_slot == 0), s.one_rep.eq(s.shape.last_rep == 0),
                     s.one_group.eq(s.shape.last_kv_head == 0),
                     s.alone.eq(s.shape.last_head == 0), s.heads.eq(s.shape.last_rep + 1),
                     s.stride.eq(s.shape.last_slot + 1)]
        m.d.comb += [
            # A head's mass is updated in two cycles; with several heads its turns are further apart.
            s.issue.eq(self.keys.valid & ~s.pause & ~(s.last_slot & ~s.has_room)),
            self.keys.ready.eq(s.issue & s.last_rep), s.q_out.addr.eq(Cat(s.address, self.column)),
            s.tag0.head.eq(s.head), s.tag0.rep.eq(s.rep), s.tag0.last_rep.eq(s.last_rep),
            s.tag0.first_row.eq(s.first_row),
            s.tag0.first_slot.eq(s.first_slot), s.tag0.last_slot.eq(s.last_slot),
            s.tag0.k_exponent.eq(s.key.k_exponent), s.tag0.v_exponent.eq(s.key.v_exponent),
        ]

    def _issue(self, m, s):
        """The next (beat, query head)."""
        # Three may follow before it is known that there is no more room
        m.d.sync += [s.pause.eq(s.issue & s.alone), s.spent.eq(s.issue & s.last_slot),
                     s.given.eq(Mux(self.release, s.heads, 0)),
                     s.room.eq(s.room - s.spent + s.given), s.has_room.eq(s.room[2:] != 0)]
        with m.If(s.issue):
            m.d.sync += [s.last_rep.eq(Mux(s.last_rep, s.one_rep, s.rep + 1 == s.shape.last_rep)), s.rep.eq(s.rep + 1),
                         s.head.eq(s.head + 1), s.address.eq(s.address + s.stride)]
            with m.If(s.last_rep):
                m.d.sync += [s.rep.eq(0), s.head.eq(s.group_head), s.slot.eq(s.slot + 1), s.first_slot.eq(0),
                             s.address.eq(s.slot_address), s.slot_address.eq(s.slot_address + 1),
                             s.last_slot.eq(Mux(s.last_slot, s.one_slot, s.slot + 1 == s.shape.last_slot))]
                with m.If(s.last_slot):
                    m.d.sync += [s.slot.eq(0), s.first_slot.eq(1), s.head.eq(s.head + 1), s.group_head.eq(s.head + 1),
                                 s.address.eq(s.address + 1), s.slot_address.eq(s.address + 2), s.group.eq(s.group + 1),
                                 s.last_group.eq(Mux(s.last_group, s.one_group, s.group + 1 == s.shape.last_kv_head))]
                    with m.If(s.last_group):
                        m.d.sync += [s.group.eq(0), s.head.eq(0), s.group_head.eq(0), s.address.eq(0),
                                     s.slot_address.eq(1), s.first_row.eq(0)]
        with m.If(self.start):
            m.d.sync += [s.first_row.eq(1), s.first_slot.eq(1), s.last_rep.eq(s.one_rep), s.last_slot.eq(s.one_slot),
                         s.last_group.eq(s.one_group)]

    def _products(self, m, s):
        """Products and their sums."""
        # 1: query; 2, 3: again, beside its multipliers; 4: products; 5: sums of two; 6: of eight; 7: dot so far
        beat3 = delay(m, s.key.beat, 3, "beat")
        query3 = delay(m, s.q_out.data.as_value(), 2, "query")
        products, twos = [], []
        for i in range(8):
            product = Signal(signed(32), name=f"product{i}", reset_less=True)
            m.d.sync += product.eq(query3[16 * i:16 * i + 16].as_signed() * beat3[16 * i:16 * i + 16].as_signed())
            products.append(product)
        for i in range(0, 8, 2):    # in a DSP slice
            two = Signal(signed(33), name=f"two{i}", reset_less=True)
            m.d.sync += two.eq(products[i + 1] + products[i])
            twos.append(two)
        s.eight = Signal(signed(35), reset_less=True)
        m.d.sync += s.eight.eq((twos[0] + twos[1]) + (twos[2] + twos[3]))

    def _partials(self, m, s):
        """Dots so far."""
        tag4, valid5 = delay(m, s.tag0, 4, "tag4"), delay(m, s.issue, 5, "valid5", valid=True)
        tag5 = delay(m, tag4, 1, "tag5")
        tag6, valid6 = delay(m, tag5, 1, "tag6"), delay(m, valid5, 1, "valid6", valid=True)
        m.submodules.partials = partials = memory.Memory(shape=signed(39), depth=self.max_heads, init=[])
        partial_in, partial_out = partials.write_port(), partials.read_port(domain="comb")
        dot, partial6 = Signal(signed(39)), Signal(signed(39), reset_less=True)
        # With one head after the other, what is read is just being written
        again5 = delay(m, valid5 & (tag4.rep == tag5.rep), 1, "again5")
        m.d.sync += partial6.eq(Mux(tag5.first_slot, 0, Mux(again5, dot, partial_out.data)))
        m.d.comb += [
            partial_out.addr.eq(tag5.rep), dot.eq(s.eight + partial6),
            partial_in.addr.eq(tag6.rep), partial_in.data.eq(dot), partial_in.en.eq(valid6),
        ]
        m.d.comb += [
            self.dot.eq(delay(m, dot, 1, "dot7")), self.tag.eq(delay(m, tag6, 1, "tag7")),
            self.valid.eq(delay(m, valid6 & tag6.last_slot, 1, "valid7", valid=True)),
            s.e_out.addr.eq(Cat(tag6.head[:s.head_bits], self.column)), self.exponent.eq(s.e_out.data),
        ]
