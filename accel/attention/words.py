"""Gathers the slots of K or V beats into words: what the lanes of attention meet with one query head in a cycle."""
from types import SimpleNamespace

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.attention.walker import SHAPE


def slot_of(raw, second, narrow):
    """The slot that a beat is, or one of the two that a ``narrow`` beat holds; see
    :func:`llama2_spec.image.row_elements`. One choice per byte."""
    parts = []
    for i in range(0, 128, 16):
        low = Mux(second, raw[i + 8:i + 16], raw[i:i + 8])
        parts.append(Cat(low, Mux(narrow, low[7].replicate(8), raw[i + 8:i + 16])))
    return Cat(*parts)


def raw_layout(exponents):
    """A beat as it lies in DRAM, and what is known of the K/V heads of its first and its second slot."""
    return data.StructLayout({"beat": 128, "heads": data.ArrayLayout(exponents, 2)})


class Words(wiring.Component):
    """Slots of one K/V head to words; its last word has zeros where it has no slots.

    A beat of 8-bit elements gives both of its slots at once where they go into one word side by side, and otherwise one
    after the other; so a head of an odd number of slots costs cycles, and a slot a cycle is the least there is.

    Parameters
    ----------
    lanes : int
        Elements of a word, 16 or 32.
    exponents : int
        Bits that a K/V head brings along.

    Members
    -------
    shape : In(SHAPE)
        What the model's shape means to attention; constant while rows come.
    narrow : In(1)
        Elements of 8 bits; constant while rows come.
    paired : In(1)
        A word is two times the same half, see :class:`~accel.attention.dots.AttentionDots`; constant while rows come.
    beats : In(stream of raw_layout)
        The K or V beats of rows, from the first one on after a reset.
    words : Out(stream of struct of word 16 * lanes, head)
        Slots, first in the lowest bits; what belongs to their K/V head. Held until taken.
    """
    latency = 1         #: from a word's last beat to the word

    def __init__(self, *, lanes, exponents):
        self.lanes, self.slots, self.exponents = lanes, lanes // 8, exponents
        word = data.StructLayout({"word": 16 * lanes, "head": exponents})
        super().__init__({"shape": In(SHAPE), "narrow": In(1), "paired": In(1),
                          "beats": In(stream.Signature(raw_layout(exponents))), "words": Out(stream.Signature(word))})

    def elaborate(self, platform):
        m = Module()
        s = SimpleNamespace()               # signals that several steps share
        self._turn(m, s)
        self._step(m, s)
        self._gather(m, s)
        return m

    def _turn(self, m, s):
        """Where the next slot belongs."""
        # ``place``: in its word; ``second``: in its beat
        s.place = Signal(range(self.slots))
        s.second = Signal()
        s.slot = Signal(4)
        s.group = Signal(6)
        s.last_slot, s.last_group, s.two, s.full = (Signal(name=name) for name in (
            "last_slot", "last_group", "two", "full"))
        m.d.comb += [
            s.last_slot.eq(s.slot == self.shape.last_slot), s.last_group.eq(s.group == self.shape.last_kv_head),
            # Places of two slots begin with an even one
            s.two.eq(self.narrow & ~s.second & ~s.place[0] & ~s.last_slot),
            s.full.eq(s.last_slot | (s.two & (s.slot + 1 == self.shape.last_slot))
                      | (s.place + s.two == self.slots - 1)),
        ]

    def _step(self, m, s):
        """Take a slot, or both of a beat."""
        s.step = Signal()
        out = self.words
        head_ends = Signal()
        m.d.comb += [
            s.step.eq(self.beats.valid & (~s.full | ~out.valid | out.ready)),
            head_ends.eq(s.last_slot | (s.two & (s.slot + 1 == self.shape.last_slot))),
            # Half a beat may be left over at the end
            self.beats.ready.eq(s.step & (~self.narrow | s.second | s.two | (s.last_slot & s.last_group))),
        ]
        with m.If(s.step):
            m.d.sync += [s.second.eq(~self.beats.ready), s.slot.eq(s.slot + 1 + s.two),
                         s.place.eq(s.place + 1 + s.two)]
            with m.If(s.full):
                m.d.sync += s.place.eq(0)
            with m.If(head_ends):
                m.d.sync += [s.slot.eq(0), s.group.eq(Mux(s.last_group, 0, s.group + 1))]
        with m.If(s.step & s.full):
            m.d.sync += out.valid.eq(1)
        with m.Elif(out.ready):
            m.d.sync += out.valid.eq(0)

    def _gather(self, m, s):
        """The word so far, and the word that leaves."""
        raw, out, half = self.beats.payload, self.words, self.slots // 2
        one = slot_of(raw.beat, s.second, self.narrow)
        other = slot_of(raw.beat, 1, self.narrow)
        so_far = [Signal(128, name=f"slot{i}", reset_less=True) for i in range(self.slots - 1)]
        slots = []
        for i in range(self.slots):
            kept = Mux(s.place > i, so_far[i], 0) if i < self.slots - 1 else 0
            pair = Mux(s.two & (s.place == i - 1), other, kept) if i % 2 else kept
            slots.append(Mux(s.place == i, one, pair))
        with m.If(s.step):
            m.d.sync += [kept.eq(slot) for kept, slot in zip(so_far, slots)]
            with m.If(s.full):
                slots[half:] = [Mux(self.paired, a, b) for a, b in zip(slots, slots[half:])]
                m.d.sync += [out.payload.word.eq(Cat(*slots)),
                             out.payload.head.eq(Mux(s.second, raw.heads[1], raw.heads[0]))]
