"""The largest logits of a pass, for the sampler: gathered in any order while logits come, handed out in order
afterwards.

Computes the candidates of :meth:`llama2_spec.golden.Logits.kept`.

Sixty-four places are four quarters of four groups of four. It is known of each group which of its places lies furthest
at the end that counts, and of each quarter: the smallest while logits come, since that one gives way; the largest once
all have come, since that one is asked for. A place that changes is followed by ten reads: the four of its group, the
best of the quarter's other groups, the best of the other quarters. A scan of eight groups of eight takes twenty cycles
and would hold up a small vocabulary; a sorted list would be eight times the size.
"""
from types import SimpleNamespace

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from accel.lib.numeric import UNCHECKED, delay
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
        s.entry = Signal(KEY, reset_less=True)
        s.read_at = Mux(s.scanning, s.address, self.index)
        m.d.comb += [
            s.write.data.eq(s.key), read.addr.eq(s.read_at),
            self.candidate.token.eq(~s.entry[:18]), self.candidate.logit.eq(ordered(s.entry[18:]).as_signed()),
        ]
        m.d.sync += s.entry.eq(read.data)

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
        renewing = s.scanning & s.every & (s.level == 0)
        filled = Signal()
        m.d.comb += [
            filled.eq(self.kept[6] | (s.address < self.kept[:6])), read.addr.eq(s.read_at),
            s.present_write.addr.eq(Mux(s.scanning, s.address, self.place)),
            s.present_write.data.eq(s.scanning & filled), s.present_write.en.eq(renewing),
        ]
        renewed = delay(m, renewing, 1, "renewed")
        s.here = delay(m, Mux(renewed, delay(m, filled, 1, "filled"), read.data), 1, "here")
        m.d.comb += self.weigh.eq(delay(m, renewing & filled & s.largest, 2, "weigh", valid=True))

    def _best(self, m, s):
        """The best of what the scan has read: the smallest, or (``largest``) the largest."""
        s.best = Signal(KEY, reset_less=True)
        none = Signal()
        starts = Signal()
        read1 = delay(m, s.scanning, 1, "read1", valid=True)
        read2 = delay(m, read1, 1, "read2", valid=True)
        s.idle, address = ~(s.scanning | read1 | read2), delay(m, s.address, 2, "address")
        begins = delay(m, (s.level == 0) & (s.offset == 0), 2, "begins")
        smaller = Signal()
        m.d.comb += [starts.eq(begins | none), smaller.eq(s.entry < s.best), self.busy.eq(~s.idle)]
        with m.If(read2):
            m.d.sync += none.eq(starts & ~s.here)
            with m.If(s.here & (starts | (smaller ^ s.largest))):   # no two are equal
                m.d.sync += [s.best.eq(s.entry), self.place.eq(address)]
        s.none = none
        # Three cycles after a level's last read its best is known. Where none was left, a place of it will do.
        level, changed = delay(m, s.level, 3, "level"), delay(m, s.changed[2:], 3, "changed")
        known = delay(m, s.scanning & s.ends, 3, "known", valid=True)
        m.d.comb += [
            s.group_write.addr.eq(changed), s.group_write.data.eq(self.place[:2]),
            s.group_write.en.eq(known & (level == 0)),
            s.quarter_write.addr.eq(changed[2:]), s.quarter_write.data.eq(self.place[:4]),
            s.quarter_write.en.eq(known & level[0]),
        ]

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
