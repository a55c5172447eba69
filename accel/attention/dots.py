"""The first part of attention: the query heads' dot products with the keys of their K/V head."""
from types import SimpleNamespace

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.attention.walker import SHAPE, Walker, word_depth
from accel.lib.numeric import UNCHECKED, delay
from accel.lib.pipeline import Pipeline

DOT = 39            #: bits of a dot product: 128 products of 32 bits

#: What is known of a (word, query head), later of a dot product.
TAG = data.StructLayout({"head": 6, "rep": 6, "last_rep": 1, "first_row": 1, "first_word": 1, "last_word": 1,
                         "k_exponent": 6, "v_exponent": 6})


def key_layout(lanes=8):
    """A word of K and the exponents of its K/V head."""
    return data.StructLayout({"word": 16 * lanes, "k_exponent": 6, "v_exponent": 6})


def ring_depth(max_heads):
    """Weights on their way or waiting: a row's at least, or its values would never come; a power of two."""
    return max(2 << (max_heads - 1).bit_length(), 64)      # they are some 35 cycles on their way


def query_members(columns, max_heads, max_dim):
    """The members that fill a column's query: element ``head * head_dim + i`` of ``head``, and the exponent of a head;
    and choose one."""
    column = range(max(columns, 2))
    return {
        "q_write": In(data.StructLayout({"en": 1, "column": column, "head": range(max_heads),
                                         "address": range(max_dim), "data": signed(16)})),
        "q_exponent_write": In(data.StructLayout({"en": 1, "column": column, "head": range(max_heads), "data": 6})),
        "column": In(column),
    }


class AttentionDots(wiring.Component):
    """The dot products of :func:`llama2_spec.golden.attend`. One (word, query head) per cycle; a key is taken only
    while the weights it leads to have places, so nothing behind the issue stalls.

    Lanes are slots of one head rather than heads of one slot: so one dot product ends per cycle at most, and the
    softmax pipe behind needs no queue. Where a head has so few slots that half the lanes would have nothing to do, two
    heads take a half each (``paired``), and two dot products end in a cycle.

    Parameters
    ----------
    lanes : int
        Multipliers: 8, 16, 32, eight for each slot of a word.
    pipes : int
        Dot products that may end in a cycle.

    Members
    -------
    keys : In(stream of key_layout)
        Held for as many cycles as query heads share it.
    release : In(1)
        A K/V head's weights were used: as many more may be produced.
    column : In(column)
        Whose query it is; held while keys are.
    paired : In(1)
        Heads come in pairs, which the shape counts as one head: the first half of the lanes has the even one, the
        second the odd one. Only with two ``pipes``; constant.
    dots, tag, exponents, valid : Out(array of signed(39)), Out(TAG), Out(array of 6), Out(1)
        Of the last word of a row's K/V head, for each pipe: the dot product, the exponent of its query. All but the
        first are valid only while ``paired``.
    shape : In(SHAPE)
        What the model's shape means to attention; constant while rows come.
    start : In(1)
        A new set of rows begins; no key is on its way.
    q_write : In(struct of en 1, column, head, address, data signed 16)
        An element of a column's query, ``address`` = head * head_dim + i; written while ``en``.
    q_exponent_write : In(struct of en 1, column, head, data 6)
        The exponent of a head of a column's query; written while ``en``.
    """
    #: from a row's last word of a K/V head to the dot product, with 8 lanes; a cycle more each time they double
    latency = 7

    def __init__(self, *, columns, max_heads, max_dim, lanes=8, pipes=1):
        self.columns, self.max_heads, self.max_dim, self.lanes, self.pipes = columns, max_heads, max_dim, lanes, pipes
        self.slots = lanes // 8
        self.latency = type(self).latency + (self.slots - 1).bit_length()
        super().__init__({
            "shape": In(SHAPE), "paired": In(1), **query_members(columns, max_heads, max_dim),
            "start": In(1), "keys": In(stream.Signature(key_layout(lanes))), "release": In(1),
            "dots": Out(data.ArrayLayout(signed(DOT), pipes)), "tag": Out(TAG),
            "exponents": Out(data.ArrayLayout(6, pipes)), "valid": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        s = SimpleNamespace()               # signals that several steps share
        self._query(m, s)
        self._exponents(m, s)
        self._room(m, s)
        self._issue(m, s)
        self._products(m, s)
        self._sums(m, s)
        self._partials(m, s)
        self._leave(m, s)
        return m

    def _query(self, m, s):
        """The queries: slot i of a word in bank i."""
        s.depth, bank_bits = word_depth(self.lanes, self.max_heads, self.max_dim), (self.slots - 1).bit_length()
        word_bits = (s.depth - 1).bit_length()
        write, pad = self.q_write, self.shape.pad
        # Where a head does not fill its last word, those behind it begin later
        place = Signal(word_bits + bank_bits)
        m.d.comb += place.eq((write.address >> 3) + sum(Mux(pad[i], write.head << i, 0) for i in range(bank_bits)))
        into, at = delay(m, write, 1, "q_write"), delay(m, place, 1, "q_place")
        s.words = []
        for i in range(self.slots):
            query = memory.Memory(shape=data.ArrayLayout(signed(16), 8), depth=self.columns << word_bits, init=[],
                                  attrs=UNCHECKED)
            m.submodules[f"query{i}" if i else "query"] = query
            port, read = query.write_port(granularity=1), query.read_port()
            mine = into.en & (at[:bank_bits] == i)
            m.d.comb += [port.addr.eq(Cat(at[bank_bits:], into.column)), port.en.eq(mine << into.address[:3]),
                         *(port.data[j].eq(into.data) for j in range(8))]
            s.words.append(read)

    def _exponents(self, m, s):
        """The queries' exponents; of a pair of heads one for each pipe."""
        head_bits = (self.max_heads - 1).bit_length()
        write, s.exponents = delay(m, self.q_exponent_write, 1, "q_exponent_write"), []
        for i in range(self.pipes):
            exponents = memory.Memory(shape=6, depth=self.columns << head_bits, init=[], attrs=UNCHECKED)
            m.submodules[f"query_exponents{i}" if i else "query_exponents"] = exponents
            port, read = exponents.write_port(), exponents.read_port()
            head, mine = write.head, write.en
            if self.pipes > 1:
                head = Mux(self.paired, write.head >> 1, write.head)
                mine = write.en & Mux(self.paired, write.head[0] == i, i == 0)
            m.d.comb += [port.addr.eq(Cat(head[:head_bits], write.column)), port.en.eq(mine), port.data.eq(write.data)]
            s.exponents.append(read)
        s.head_bits = head_bits

    def _room(self, m, s):
        """Whether weights have places."""
        ring = ring_depth(self.max_heads)
        # Full looks empty.
        room = Signal(range(ring), init=ring - 1)
        s.has_room = Signal(init=1)
        s.spent = Signal()
        heads = Signal(7)
        given = Signal(7)
        # Three may follow before it is known that there is no more room
        m.d.sync += [heads.eq(self.shape.last_rep + 1), given.eq(Mux(self.release, heads, 0)),
                     room.eq(room - s.spent + given), s.has_room.eq(room[2:] != 0)]

    def _issue(self, m, s):
        """The next (word, query head)."""
        key = self.keys.payload
        s.issue = Signal()
        s.tag0 = Signal(TAG)
        m.submodules.walker = walk = Walker(depth=s.depth, turns=self.max_heads)
        alone = Signal()
        pause = Signal()
        # A head's mass is updated in two cycles; with several heads its turns are further apart.
        m.d.sync += [alone.eq(self.shape.last_head == 0), pause.eq(s.issue & alone),
                     s.spent.eq(s.issue & walk.last_word)]
        m.d.comb += [
            walk.shape.eq(self.shape), walk.start.eq(self.start), walk.step.eq(s.issue),
            s.issue.eq(self.keys.valid & ~pause & ~(walk.last_word & ~s.has_room)),
            self.keys.ready.eq(s.issue & walk.last_rep),
            s.tag0.head.eq(walk.turn),
            *(s.tag0[name].eq(getattr(walk, name)) for name in ("rep", "last_rep", "first_row", "first_word",
                                                                "last_word")),
            s.tag0.k_exponent.eq(key.k_exponent), s.tag0.v_exponent.eq(key.v_exponent),
        ]
        s.pipe = pipe = Pipeline(m)
        s.tag, s.valid = pipe.carry("tag", pipe.enter(s.tag0)), pipe.carry("valid", pipe.enter(s.issue), valid=True)
        s.queries = [pipe.read(read, pipe.enter(Cat(walk.address, self.column))) for read in s.words]

    def _products(self, m, s):
        """Products, and their sums of a slot each."""
        # 1: query; 2, 3: again, beside its multipliers; 4: products; 5: sums of two; 6: of eight
        pipe, word, s.eights = s.pipe, s.pipe.carry("word", s.pipe.enter(self.keys.payload.word)), []
        for g, read in enumerate(s.queries):
            query = pipe.later(f"query{g}", read.as_value(), 2)
            key, products, twos = word.beside(query)[128 * g:128 * g + 128], [], []
            for i in range(8):
                a, b = (side[16 * i:16 * i + 16].as_signed() for side in (query, key))
                products.append(pipe.register(f"product{8 * g + i}", a * b, signed(32)))
            for i in range(0, 8, 2):    # in a DSP slice
                twos.append(pipe.register(f"two{8 * g + i}", products[i + 1] + products[i], signed(33)))
            s.eights.append(pipe.register(f"eight{g}", (twos[0] + twos[1]) + (twos[2] + twos[3]), signed(35)))

    def _sums(self, m, s):
        """Of a word; while paired of each half, and the first pipe has the first half's."""
        # 7 and later: a register for each level of adders
        pipe, parts = s.pipe, s.eights
        while len(parts) > 1:
            firsts, seconds = parts[::2], parts[1::2]
            if len(parts) == 2 and self.pipes > 1:
                s.second = pipe.later("second", parts[1])
                seconds = [pipe.combine(lambda half: Mux(self.paired, 0, half), parts[1])]
            parts = [pipe.register(f"sum{len(parts)}_{i}", a + b, signed(len(a) + 1))
                     for i, (a, b) in enumerate(zip(firsts, seconds))]
        s.sum, = parts

    def _partials(self, m, s):
        """Dots so far."""
        m.submodules.partials = partials = memory.Memory(shape=signed(DOT), depth=self.max_heads, init=[])
        # The dot so far is read in the stage before the sum's
        pipe, early, behind = s.pipe, s.tag.at(s.sum.stage - 1), s.tag.at(s.sum.stage - 2)
        valid = s.valid.beside(early)
        dot = Signal(signed(DOT))
        # With one head after the other, what is read is just being written
        again = pipe.later("again", pipe.combine(lambda rep: valid.plain & (rep == early.plain.rep), behind.rep))
        so_far = pipe.combine(Mux, again, dot, pipe.read(partials.read_port(domain="comb"), early.rep))
        partial = pipe.register("partial", pipe.combine(Mux, early.first_word, 0, so_far), signed(DOT))
        s.dot = pipe.enter(dot, pipe.drive((dot, s.sum + partial)))
        pipe.write(partials.write_port(), s.tag.beside(s.dot).rep, s.dot, s.valid.beside(s.dot))

    def _leave(self, m, s):
        """Dots of whole heads."""
        pipe, tag, valid = s.pipe, s.tag.beside(s.dot), s.valid.beside(s.dot)
        dots = [pipe.later("whole_dot", s.dot)] + ([pipe.later("second_dot", s.second)] if self.pipes > 1 else [])
        head = pipe.combine(lambda head: Cat(head[:s.head_bits], self.column), tag.head)
        left = pipe.drive((self.tag, s.tag.beside(dots[0])),
                          (self.valid, pipe.later("whole", valid & tag.last_word, valid=True)), *zip(self.dots, dots),
                          *((exponent, pipe.read(read, head)) for read, exponent in zip(s.exponents, self.exponents)))
        assert left == self.latency
