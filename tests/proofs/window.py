"""The window loses no result and shows no half of one: what firmware reads is the oldest result, whole."""
from amaranth.hdl import Assert, Assume, Cat, Const, Elaboratable, Module, Mux, Signal

from llama2_spec.registers import Result
from llama2_spec.registers import Window as Region
from tests.proofs.streams import any_value


class Master:
    """A Wishbone master that holds an access until it is acknowledged; ``over`` in the cycle in which one ends."""
    def __init__(self, m, bus):
        self.asks, self.we = any_value(m, 1, "asks"), any_value(m, 1, "we")
        self.adr, self.word = any_value(m, 10, "adr"), any_value(m, 1, "word")
        m.d.comb += [bus.cyc.eq(self.asks), bus.stb.eq(self.asks), bus.we.eq(self.we), bus.adr.eq(self.adr),
                     bus.dat_w.eq(self.word.replicate(32))]
        now, before, waits = Cat(self.we, self.adr, self.word), Signal(12), Signal()
        self.over = Signal()
        m.d.comb += [self.over.eq(self.asks & bus.ack), Assume(~waits | (self.asks & (now == before)))]
        m.d.sync += [before.eq(now), waits.eq(self.asks & ~bus.ack)]

    def at(self, address, words=1):
        """Whether the access is to one of ``words`` (a power of two) words from ``address`` on."""
        bits = words.bit_length() - 1
        return self.adr[bits:] == address >> 2 + bits


class ResultsProof(Elaboratable):
    """Results come from a source that holds each until it is taken; firmware reads and removes them as it likes, beside
    any other access. One result, chosen at will, is followed: each read of one of its words, once it is the oldest,
    yields that word; it goes when it is removed, and not before.

    All bits of a word are moved alike, so one bit stands for a word's.
    """
    def __init__(self, unit, *, depth):
        self.unit, self.depth = unit, depth

    def elaborate(self, platform):
        m = Module()
        m.submodules.unit = unit = self.unit
        master, abort = Master(m, unit.bus), any_value(m, 1, "aborts")
        self._others(m)
        m.d.comb += unit.abort.eq(abort)
        bits, offers = self._source(m, abort)
        taken, removed = Signal(), Signal()
        kept = Signal(range(self.depth + 2))
        m.d.comb += [taken.eq(unit.results.valid & unit.results.ready),
                     removed.eq(master.over & master.we & master.at(Region.RESULT) & (kept != 0))]
        m.d.sync += kept.eq(Mux(abort, 0, kept + taken - removed))
        m.d.comb += [Assert(kept <= self.depth), Assert(unit.result_valid == (kept != 0))]
        waited = Signal(range(16))
        m.d.sync += waited.eq(Mux(offers & ~taken & (kept != self.depth) & ~abort, waited + 1, 0))
        m.d.comb += Assert(waited < len(Result))                # a result that there is room for is taken
        self._follow(m, master, bits, taken, removed, kept, abort)
        return m

    def _others(self, m):
        """Everything else that the window sees, at will."""
        unit = self.unit
        activity = unit.activity
        m.d.comb += [
            *(getattr(activity, name).eq(any_value(m, len(getattr(activity, name)), name))
              for name in ("phase", "cycle", "beat", "starved", "fenced", "stalled")),
            unit.clear.eq(any_value(m, 1, "clears")), unit.candidates.busy.eq(any_value(m, 1, "candidates_busy")),
            unit.ahead.ready.eq(any_value(m, 1, "looks")), unit.commands.ready.eq(any_value(m, 1, "executes")),
        ]

    def _source(self, m, abort):
        """Results whose words are each of one bit, repeated."""
        unit, offers, bits = self.unit, any_value(m, 1, "offers"), any_value(m, len(Result), "words")
        payload, waits, before = unit.results.payload, Signal(), Signal(len(Result))
        names = ("token", "logit", "cycles", "maximum", "mass", "mass", "kept", "total")
        values = {name: bits[i].replicate(32) for i, name in enumerate(names)}
        values |= {"mass": Cat(bits[4].replicate(32), bits[5].replicate(32)), "kept": bits[6].replicate(8),
                   "column": bits[6].replicate(3)}
        m.d.comb += [unit.results.valid.eq(offers), *(payload[name].eq(value) for name, value in values.items()),
                     Assume(~waits | (offers & (bits == before)))]
        m.d.sync += [waits.eq(offers & ~unit.results.ready & ~abort), before.eq(bits)]
        return bits, offers

    def _follow(self, m, master, bits, taken, removed, kept, abort):
        unit, chosen = self.unit, any_value(m, 1, "chosen")
        followed, before, words = Signal(), Signal.like(kept), Signal(len(Result))
        with m.If(followed & removed):
            m.d.sync += [before.eq(before - 1), followed.eq(before != 0)]
        with m.Elif(taken & chosen & ~followed):
            m.d.sync += [followed.eq(1), before.eq(kept - removed), words.eq(bits)]
        with m.If(abort):
            m.d.sync += followed.eq(0)
        # an access that began when the result was already the oldest
        oldest, asked = followed & (before == 0), Signal()
        m.d.sync += asked.eq(master.asks & oldest & ~unit.bus.ack & (asked | ~self._was_asking(m, master, unit)))
        word = words.bit_select(master.adr[:3], 1)
        expected = Mux(master.adr[:3] == Result.KEPT, Cat(word.replicate(11), Const(0, 21)), word.replicate(32))
        reads = asked & oldest & master.over & ~master.we & master.at(Region.RESULT, len(Result))
        m.d.comb += [Assert(~followed | (before < kept)), Assert(~reads | (unit.bus.dat_r == expected))]

    def _was_asking(self, m, master, unit):
        """The access goes on that was there a cycle ago."""
        goes_on = Signal()
        m.d.sync += goes_on.eq(master.asks & ~unit.bus.ack)
        return goes_on
