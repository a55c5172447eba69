"""The largest logits of a pass, for the sampler: gathered in any order while logits come, handed out in order
afterwards.

Computes the candidates of :meth:`llama2_spec.golden.Logits.kept`.

Sixty-four places are four quarters of four groups of four. It is known of each group which of its places lies furthest
at the end that counts, and of each quarter: the smallest while logits come, since that one gives way; the largest once
all have come, since that one is asked for. A place that changes is followed by ten reads: the four of its group, the
best of the quarter's other groups, the best of the other quarters. A scan of eight groups of eight takes twenty cycles
and would hold up a small vocabulary; a sorted list would be eight times the size.
"""
from functools import reduce
from operator import or_
from types import SimpleNamespace

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from accel.lib.numeric import UNCHECKED
from accel.lib.pipeline import Pipeline
from llama2_spec.registers import CANDIDATE_WEIGHT

KEY = 50            # a candidate's rank: {logit, ~token}, so that of equal logits the later token goes first
FOUR = 4
PLACES = FOUR ** 3

#: A logit and its token.
CANDIDATE = data.StructLayout({"token": 18, "logit": signed(32)})


def ordered(value):
    """A signed value as an unsigned one of the same order: its comparison is a carry chain and nothing behind it."""
    return Cat(value[:-1], ~value[-1])


class Candidates(wiring.Component):
    """Computes the candidates of :meth:`llama2_spec.golden.Logits.kept`. Takes one logit in two cycles, and 14 cycles
    for one that takes the smallest one's place; the offer is held until ``take``.

    Members
    -------
    clear : In(1)
        Forget all.
    keep : In(1)
        Gather at all; else ``ready`` at any time.
    there, offer : In(1), In(CANDIDATE)
        A logit waits, and goes on waiting until ``take``.
    ready : Out(1)
        It has been compared and may be taken.
    take : In(1)
        It is, only while ``ready`` and ``there``.
    rank : In(1)
        All have come: read each, by place, and find the largest. Only while not ``busy``; until ``clear`` nothing may
        be taken.
    weigh : Out(1)
        One for each candidate after ``rank``, by place: ``candidate.logit`` is its logit, to be weighed.
    weight_write, weight : In(1), In(CANDIDATE_WEIGHT)
        The weights, in that order.
    busy : Out(1)
        What was taken, ranked or popped is still being worked in.
    kept : Out(7)
        How many there are.
    index, candidate : In(6), Out(CANDIDATE)
        The candidate of a place, two cycles later; not while ``busy``.
    place, place_weight : Out(6), Out(CANDIDATE_WEIGHT)
        After ``rank``, while not ``busy``: the place and the weight of the largest that was not popped; the weight is 0
        when all were.
    pop : In(1)
        On to the next one, which is there 13 cycles later. Ignored while ``busy`` and before ``rank``.
    """
    latency = None      #: varies

    def __init__(self):
        super().__init__({
            "clear": In(1), "keep": In(1), "there": In(1), "offer": In(CANDIDATE), "ready": Out(1), "take": In(1),
            "rank": In(1), "weigh": Out(1), "weight_write": In(1), "weight": In(CANDIDATE_WEIGHT),
            "busy": Out(1), "kept": Out(7), "index": In(6), "candidate": Out(CANDIDATE),
            "place": Out(6), "place_weight": Out(CANDIDATE_WEIGHT), "pop": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        s = SimpleNamespace()               # signals that several steps share
        self._places(m, s)
        self._scan(m, s)
        self._presence(m, s)
        self._best(m, s)
        self._changes(m, s)
        self._weights(m, s)
        return m

    def _places(self, m, s):
        """The candidates by place."""
        s.scanning = Signal()
        s.address = Signal(6)
        s.largest = Signal()
        m.submodules.store = store = memory.Memory(shape=KEY, depth=PLACES, init=[], attrs=UNCHECKED)
        s.write, read = store.write_port(), store.read_port()
        s.key = Cat(~self.offer.token, ordered(self.offer.logit))
        s.pipe = Pipeline(m)                # from an address on
        s.read_at = s.pipe.enter(Mux(s.scanning, s.address, self.index))
        s.entry = s.pipe.register("entry", s.pipe.read(read, s.read_at))
        m.d.comb += s.write.data.eq(s.key)
        s.pipe.drive((self.candidate.token, ~s.entry[:18]),
                     (self.candidate.logit, s.pipe.combine(ordered, s.entry[18:]).as_signed()))

    def _scan(self, m, s):
        """The addresses of a scan: level 0 in a group, 1 among a quarter's groups, 2 among the quarters."""
        s.level = Signal(2)
        s.offset = Signal(2)
        s.changed = Signal(6)
        s.every = Signal()
        group, quarter = s.changed[2:4], s.changed[4:]
        # The best place of each group, and of each quarter
        m.submodules.groups = groups = memory.Memory(shape=2, depth=FOUR ** 2, init=[])
        m.submodules.quarters = quarters = memory.Memory(shape=4, depth=FOUR, init=[])
        s.group_write, group_read = groups.write_port(), groups.read_port(domain="comb")
        s.quarter_write, quarter_read = quarters.write_port(), quarters.read_port(domain="comb")
        m.d.comb += [
            group_read.addr.eq(Cat((group + s.offset)[:2], quarter)), quarter_read.addr.eq((quarter + s.offset)[:2]),
            s.address.eq(Mux(s.level[1], Cat(quarter_read.data, quarter_read.addr),
                             Mux(s.level[0], Cat(group_read.data, group_read.addr), Cat(s.offset, s.changed[2:])))),
        ]
        s.ends = s.offset == FOUR - 1
        more = s.every & Mux(s.level[0], quarter != FOUR - 1, group != FOUR - 1)
        with m.If(s.scanning):
            m.d.sync += s.offset.eq(s.offset + 1)
            with m.If(s.ends & s.level[1]):
                m.d.sync += s.scanning.eq(0)
            with m.Elif(s.ends & more):
                m.d.sync += [s.changed[2:].eq(s.changed[2:] + 1), s.level.eq(0)]
            with m.Elif(s.ends):        # the group's own best, or the quarter's, is in ``best`` already
                m.d.sync += [s.offset.eq(1), s.level.eq(s.level + 1)]

    def _presence(self, m, s):
        """Whether a place holds a candidate that was not popped; two cycles after its address, with ``entry``."""
        m.submodules.present = present = memory.Memory(shape=1, depth=PLACES, init=[], attrs=UNCHECKED)
        s.present_write, read = present.write_port(), present.read_port()
        # A scan of all places writes what it needs; it reads what it wrote in its upper levels only.
        pipe = s.pipe
        renewing = pipe.enter(s.scanning & s.every & (s.level == 0))
        filled = pipe.named("filled", pipe.enter(self.kept[6] | (s.address < self.kept[:6])))
        m.d.comb += s.present_write.addr.eq(Mux(s.scanning, s.address, self.place))
        pipe.drive((s.present_write.data, pipe.enter(s.scanning) & filled), (s.present_write.en, renewing))
        stored = pipe.read(read, s.read_at)
        s.here = pipe.later("here", pipe.combine(Mux, pipe.carry("renewed", renewing).beside(stored),
                                                 pipe.carry("filled", filled).beside(stored), stored))
        weighed = pipe.carry("weigh", renewing & filled & s.largest, valid=True)
        pipe.drive((self.weigh, weighed.beside(s.entry)))

    def _best(self, m, s):
        """The best of what the scan has read: the smallest, or (``largest``) the largest."""
        pipe, entry = s.pipe, s.entry
        s.best = Signal(KEY, reset_less=True)
        s.none = Signal()
        scanning = pipe.carry("reading", pipe.enter(s.scanning), valid=True)
        s.idle = ~reduce(or_, scanning.until(entry))
        address = pipe.carry("address", pipe.enter(s.address)).beside(entry)
        begins = pipe.carry("begins", pipe.enter((s.level == 0) & (s.offset == 0))).beside(entry)
        starts, smaller = pipe.named("starts", begins | s.none), pipe.named("smaller", entry < s.best)
        m.d.comb += self.busy.eq(~s.idle)
        with m.If(scanning.beside(entry).plain):
            m.d.sync += s.none.eq((starts & ~s.here).plain)
            with m.If((s.here & (starts | (smaller ^ s.largest))).plain):   # no two are equal
                m.d.sync += [s.best.eq(entry.plain), self.place.eq(address.plain)]
        # A level's best is known a cycle after its last entry has come. Where none was left, a place of it will do.
        place = pipe.enter(self.place, entry.stage + 1)
        level = pipe.carry("level", pipe.enter(s.level)).beside(place)
        changed = pipe.carry("changed", pipe.enter(s.changed[2:])).beside(place)
        known = pipe.carry("known", pipe.enter(s.scanning & s.ends), valid=True).beside(place)
        pipe.write(s.group_write, changed, place[:2], known & (level == 0))
        pipe.write(s.quarter_write, changed[2:], place[:4], known & level[0])

    def _changes(self, m, s):
        """What begins a scan: a logit that is kept, the pass's end, a pop."""
        larger = Signal()
        compared = Signal()
        full = self.kept[6]
        last = self.kept == PLACES - 1
        m.d.sync += [larger.eq(s.key > s.best),     # of a logit that waits for a cycle, while nothing is worked in
                     compared.eq(~self.keep | self.there & s.idle & ~self.take)]
        m.d.comb += [self.ready.eq(s.idle & compared), s.write.addr.eq(Mux(full, self.place, self.kept))]
        all_ = Signal()
        one = Signal()
        with m.If(self.take & self.keep):
            m.d.comb += [s.write.en.eq(~full | larger), one.eq(full & larger), all_.eq(last)]
            m.d.sync += self.kept.eq(self.kept + ~full)
        with m.If(self.rank):
            m.d.comb += all_.eq(1)
            m.d.sync += s.largest.eq(1)
        with m.If(self.pop & s.idle & s.largest):
            m.d.comb += [one.eq(1), s.present_write.en.eq(1)]
        with m.If(one | all_):
            m.d.sync += [s.scanning.eq(1), s.every.eq(all_), s.level.eq(0), s.offset.eq(0),
                         s.changed.eq(Mux(all_, 0, self.place))]
        with m.If(self.clear):
            m.d.sync += [self.kept.eq(0), s.largest.eq(0)]

    def _weights(self, m, s):
        """The weights by place."""
        m.submodules.weights = weights = memory.Memory(shape=CANDIDATE_WEIGHT, depth=PLACES, init=[])
        write, read = weights.write_port(), weights.read_port(domain="comb")
        m.d.comb += [write.data.eq(self.weight), write.en.eq(self.weight_write), read.addr.eq(self.place),
                     self.place_weight.eq(Mux(s.none, 0, read.data))]
        with m.If(self.rank):
            m.d.sync += write.addr.eq(0)
        with m.Elif(self.weight_write):
            m.d.sync += write.addr.eq(write.addr + 1)
