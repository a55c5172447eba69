"""The command queue is a FIFO at both of its readers, under every interleaving of writes, look-ahead and execution."""
from amaranth.hdl import Assert, Cat, Elaboratable, Module, Mux, Signal

from llama2_spec.registers import COMMAND
from tests.proofs.streams import any_value, assert_held


class CommandQueueProof(Elaboratable):
    """Follows one command, chosen at will, from its four writes to both readers.

    The queue only moves bits, so one bit stands for the 32 of a word. Whatever is pushed while nothing is free is
    dropped.
    """
    def __init__(self, unit, *, depth):
        self.unit, self.depth = unit, depth

    def elaborate(self, platform):
        m = Module()
        m.submodules.unit = unit = self.unit
        write, bit, word = any_value(m, 1, "writes"), any_value(m, 1, "bit"), Signal(2)
        m.d.comb += [unit.write.eq(write), unit.word.eq(word), unit.data.eq(bit.replicate(32)),
                     unit.ahead.ready.eq(any_value(m, 1, "looks")), unit.commands.ready.eq(any_value(m, 1, "executes"))]
        m.d.sync += word.eq(word + write)
        push, seen, done = Signal(), Signal(), Signal()
        m.d.comb += [push.eq(write & (word == 3) & (unit.free != 0)), seen.eq(unit.ahead.valid & unit.ahead.ready),
                     done.eq(unit.commands.valid & unit.commands.ready)]
        unseen, waiting = Signal(range(self.depth + 2)), Signal(range(self.depth + 2))     # of those that were pushed
        was_done = Signal()
        m.d.sync += [unseen.eq(unseen + push - seen), waiting.eq(waiting + push - done), was_done.eq(done)]
        m.d.comb += [
            Assert(unit.free + waiting + was_done == self.depth),          # a place is free the cycle after it was left
            Assert(unit.overflow == (write & (word == 3) & (unit.free == 0))),
            Assert(unit.busy == (unit.free != self.depth)),
            Assert(~unit.ahead.valid | (unseen != 0)),
            Assert(~unit.commands.valid | (waiting > unseen)),             # nothing is executed that was not looked at
        ]
        self.follow(m, push, seen, done, bit, word, unseen, waiting)
        for name, reader, some in (("ahead", unit.ahead, unseen != 0), ("commands", unit.commands, waiting != unseen)):
            assert_held(m, _AsBits(reader), name)
            waited = Signal(range(64), name=f"{name}_waited")
            m.d.sync += waited.eq(Mux(some & ~reader.valid, waited + 1, 0))
            # reads of four words, those of the other side first
            m.d.comb += Assert(waited < 6 * (self.depth + 2))
        return m

    def follow(self, m, push, seen, done, bit, word, unseen, waiting):
        unit, write = self.unit, self.unit.write
        chosen, recorded = any_value(m, 1, "chosen"), Signal()      # since its first word nothing else was followed
        followed_ahead, before_ahead = Signal(), Signal.like(unseen)
        followed, before = Signal(), Signal.like(waiting)
        bits, free = Signal(4), Signal()
        m.d.comb += free.eq(~followed & ~followed_ahead)
        with m.If(write & free):
            m.d.sync += bits.bit_select(word, 1).eq(bit)
        with m.If(write & (word == 0) | ~free):
            m.d.sync += recorded.eq(free)
        with m.If(push & chosen & recorded & free):
            m.d.sync += [followed_ahead.eq(1), followed.eq(1), before_ahead.eq(unseen - seen),
                         before.eq(waiting - done)]
        with m.If(followed_ahead & seen):
            m.d.sync += [before_ahead.eq(before_ahead - 1), followed_ahead.eq(before_ahead != 0)]
        with m.If(followed & done):
            m.d.sync += [before.eq(before - 1), followed.eq(before != 0)]
        whole = Cat(*(bits[i].replicate(32) for i in range(4)))
        m.d.comb += [
            Assert(~followed_ahead | (before_ahead < unseen)), Assert(~followed | (before < waiting)),
            Assert(~(followed & (before == 0) & unit.commands.valid) | (unit.commands.payload == whole)),
        ]
        for field in (f for f in COMMAND if f.name in ("opcode", "kv", "base", "beats")):
            wanted = bits[field.word].replicate(field.size)
            m.d.comb += Assert(~(followed_ahead & (before_ahead == 0) & unit.ahead.valid) |
                               (unit.ahead.payload[field.name] == wanted))


class _AsBits:
    """A stream whose payload is a plain value."""
    def __init__(self, source):
        self.valid, self.ready, self.payload = source.valid, source.ready, Cat(source.payload)
