"""Walks the (word, query head) pairs of K/V rows: the order in which both sides of attention work."""
from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

#: What the model's shape means to attention, minus one each: the last value of a counter. A slot is eight elements, a
#: word as many slots as meet one query head in a cycle; a head's last word may be filled in part: it lacks ``pad``
#: slots.
SHAPE = data.StructLayout({"last_head": 6, "last_kv_head": 6, "last_rep": 6, "last_slot": 4, "last_word": 4,
                           "pad": 2, "last_header": 3, "last_beat": 10})


def word_depth(lanes, max_heads, max_dim):
    """Words that all query heads have at most: a head's last one may lack all slots but one."""
    slots = lanes // 8
    return (max_dim // 8 + max_heads * (slots - 1)) // slots


class Walker(wiring.Component):
    """Steps through query heads fastest, then words, then K/V heads, then rows. What a comparison says is known a cycle
    ahead, so all outputs are registers.

    Parameters
    ----------
    depth : int
        Words of all query heads at most.
    turns : int
        ``turn`` counts modulo this, a power of two or more than the heads of a row.
    endless : bool
        ``turn`` goes on from row to row; otherwise a row begins with 0.

    Members
    -------
    shape : In(SHAPE)
        What the model's shape means to attention; constant while rows come.
    start : In(1)
        The first row comes; between rows only.
    step : In(1)
        Go on to the next pair.
    rep : Out(6)
        Query head among those of its K/V head.
    turn : Out(range(turns))
        Query head of the row, or of all rows.
    address : Out(range(depth))
        Word ``head * words + word`` of the query or of the sums.
    first_row, first_word : Out(1)
        The row is the first; the word is the first of its K/V head.
    last_rep, last_word, last_group : Out(1)
        The query head is the last of its K/V head; the word is its last; the K/V head is the row's last.
    ends : Out(1)
        ``last_rep`` and ``last_word``: the K/V head's last pair.
    """
    latency = 1         #: from a step to the next pair

    def __init__(self, *, depth, turns, endless=False):
        self.depth, self.turns, self.endless = depth, turns, endless
        super().__init__({"shape": In(SHAPE), "start": In(1), "step": In(1), "rep": Out(6), "turn": Out(range(turns)),
                          "address": Out(range(depth)), "first_row": Out(1), "first_word": Out(1), "last_rep": Out(1),
                          "last_word": Out(1), "last_group": Out(1), "ends": Out(1)})

    def elaborate(self, platform):
        m = Module()
        word = Signal(4)
        group = Signal(6)
        stride = Signal(5)
        first_turn = Signal.like(self.turn)
        word_address = Signal(range(self.depth), init=1)
        one_rep, one_word, one_group, next_rep, next_word = (Signal(name=name) for name in (
            "one_rep", "one_word", "one_group", "next_rep", "next_word"))
        m.d.sync += [one_word.eq(self.shape.last_word == 0), one_rep.eq(self.shape.last_rep == 0),
                     one_group.eq(self.shape.last_kv_head == 0), stride.eq(self.shape.last_word + 1)]
        m.d.comb += [
            next_rep.eq(Mux(self.last_rep, one_rep, self.rep + 1 == self.shape.last_rep)),
            next_word.eq(Mux(self.last_rep, Mux(self.last_word, one_word, word + 1 == self.shape.last_word),
                             self.last_word)),
        ]
        with m.If(self.step):
            m.d.sync += [self.last_rep.eq(next_rep), self.last_word.eq(next_word), self.ends.eq(next_rep & next_word),
                         self.rep.eq(self.rep + 1), self.turn.eq(self.turn + 1),
                         self.address.eq(self.address + stride)]
            with m.If(self.last_rep):
                m.d.sync += [self.rep.eq(0), self.turn.eq(first_turn), word.eq(word + 1), self.first_word.eq(0),
                             self.address.eq(word_address), word_address.eq(word_address + 1)]
            with m.If(self.ends):
                m.d.sync += [word.eq(0), self.first_word.eq(1), group.eq(group + 1), self.turn.eq(self.turn + 1),
                             first_turn.eq(self.turn + 1), self.address.eq(self.address + 1),
                             word_address.eq(self.address + 2),
                             self.last_group.eq(Mux(self.last_group, one_group, group + 1 == self.shape.last_kv_head))]
                with m.If(self.last_group):
                    m.d.sync += [group.eq(0), self.address.eq(0), word_address.eq(1), self.first_row.eq(0)]
                    if not self.endless:
                        m.d.sync += [self.turn.eq(0), first_turn.eq(0)]
        with m.If(self.start):
            m.d.sync += [self.first_row.eq(1), self.first_word.eq(1), self.last_rep.eq(one_rep),
                         self.last_word.eq(one_word), self.ends.eq(one_rep & one_word), self.last_group.eq(one_group)]
        return m
