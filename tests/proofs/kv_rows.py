"""The owner of the K/V rows writes each row of a run to DRAM exactly once, where the run says, and hands out what was
written to it."""
from types import SimpleNamespace

from amaranth.hdl import Assert, Assume, Cat, Const, Elaboratable, Module, Mux, Signal
from amaranth.hdl._ast import AnyConst

from llama2_spec.registers import Dest
from tests.proofs.inside import opened
from tests.proofs.streams import any_value, assert_held

#: Cycles in which what the unit makes of the model's constants settles; no token comes before.
SETTLE = 4


def any_constant(m, width, name):
    """A signal that may have any value, the same in every cycle."""
    signal = Signal(width, name=name)
    m.d.comb += signal.eq(AnyConst(width))
    return signal


class Rows:
    """A model of any shape within the unit's, and a user that keeps to the unit's interface.

    Elements come while the rows are not in use; runs while there is room; attention asks while nothing is stored.
    ``start`` is a run's, ``newest`` attention's, ``row_beats`` those of a row.
    """
    def __init__(self, m, unit, slots):
        self.m, self.unit, columns = m, unit, unit.columns
        heads, eights, narrow = any_constant(m, 7, "heads"), any_constant(m, 10, "eights"), any_constant(m, 2, "narrow")
        self.heads, self.narrow, self.eights = heads, narrow, eights
        cycle, self.start, self.newest = Signal(range(SETTLE + 1)), any_value(m, 1, "store"), any_value(m, 1, "newest")
        self.cycle, self.v_beats = cycle, Signal(6)
        v_beats = self.v_beats
        with m.If(cycle != SETTLE):
            m.d.sync += cycle.eq(cycle + 1)
        settled, wrote = cycle == SETTLE, Signal()
        self.first, self.last = any_value(m, range(columns), "first"), any_value(m, range(columns), "last")
        self.base = any_value(m, unit.addr_width, "base")
        self.header_beats, self.k_beats = Signal(4), Signal(6)
        self.row_beats = Signal(7)
        m.d.comb += [
            unit.model.n_kv_heads.eq(heads), unit.slots.eq(eights), unit.model.narrow.eq(narrow),
            Assume((heads != 0) & (heads <= 8 * unit.header_stride) & (eights != 0) & (eights <= slots)),
            self.header_beats.eq(((2 * heads - 1) >> 4) + 1),
            self.k_beats.eq(Mux(narrow[1], (eights + 1) >> 1, eights)),
            v_beats.eq(Mux(narrow[0], (eights + 1) >> 1, eights)),
            self.row_beats.eq(self.header_beats + self.k_beats + v_beats),
            unit.store.start.eq(self.start), unit.newest.start.eq(self.newest),
            *(job.first.eq(self.first) for job in (unit.store, unit.newest)),
            *(job.last.eq(self.last) for job in (unit.store, unit.newest)), unit.store.base.eq(self.base),
            Assume(~(self.start | self.newest) | (settled & (self.first <= self.last) & (self.last < columns)
                                                  & ~unit.busy & ~wrote)),
            Assume(~self.start | unit.store.room), Assume(~self.newest | (~unit.store.storing & ~self.start)),
        ]
        self.elements = self._elements(settled, wrote)

    def _elements(self, settled, wrote):
        """An element or an exponent, of any head and place that the model has."""
        m, e, columns = self.m, self.unit.elements, self.unit.columns
        kind, column = any_value(m, 2, "writes"), any_value(m, range(max(columns, 2)), "column")
        dest, index = any_value(m, 1, "of_v"), any_value(m, 13, "index")
        head, mantissa, exponent = any_value(m, 7, "head"), any_value(m, 16, "mantissa"), any_value(m, 6, "exponent")
        write, exponent_write = kind == 1, kind == 2
        m.d.comb += [
            e.write.eq(write), e.exponent_write.eq(exponent_write), e.column.eq(column),
            e.dest.eq(Mux(dest, Dest.V, Dest.K)), e.index.eq(index), e.head.eq(head), e.mantissa.eq(mantissa),
            e.exponent.eq(exponent), Assume((index < self.eights * 8) & (head < self.heads) & (column < columns)),
            # 8 bits and, where the quantiser rounded it up, 2**7
            Assume(~Mux(dest, self.narrow[0], self.narrow[1]) | ((mantissa.as_signed() >= -128)
                                                                & (mantissa.as_signed() <= 128))),
            Assume(~(write | exponent_write) | (settled & ~self.unit.busy & ~self.unit.store.storing & ~self.start
                                                & ~self.newest)),
        ]
        m.d.sync += wrote.eq(write | exponent_write)
        return e


class Run:
    """Where a walk over rows stands: ``row`` of ``rows``, ``beat`` of the row, ``number`` beats in all."""
    def __init__(self, m, name, rows, row_beats, columns, number_bits):
        self.row, self.beat = Signal(range(columns + 2), name=f"{name}_row"), Signal(7, name=f"{name}_beat")
        self.number, self.m, self.row_beats = Signal(number_bits, name=f"{name}_number"), m, row_beats
        self.done = Signal(name=f"{name}_done")
        m.d.comb += self.done.eq(self.row == rows)

    def step(self, one, begin):
        """``one`` beat more; ``begin`` puts all back."""
        with self.m.If(one):
            self.m.d.sync += [self.beat.eq(self.beat + 1), self.number.eq(self.number + 1)]
            with self.m.If(self.beat == self.row_beats - 1):
                self.m.d.sync += [self.beat.eq(0), self.row.eq(self.row + 1)]
        with self.m.If(begin):
            self.m.d.sync += [self.beat.eq(0), self.row.eq(0), self.number.eq(0)]


def help_constants(m, user, inside):
    """What the unit makes of the model's constants, and that it is idle until then."""
    s, cycle = inside.elaborate.s, user.cycle
    active = s.walking | s.read | s.to_port | s.to_beats | s.storing | user.unit.store.storing
    m.d.comb += [
        Assert((cycle < 1) | ((s.first_v == user.k_beats) & (s.last_header == user.header_beats - 1))),
        Assert((cycle < 2) | (s.last_beat == user.k_beats + user.v_beats - 1)),
        Assert((cycle < 3) | (s.row_beats == user.row_beats)), Assert((cycle == SETTLE) | ~active),
    ]


def help_walk(m, user, walk, rows, any_):
    """A walk's place and its number are of the same beat; ``any_`` while there are ``rows``."""
    whole = Mux(walk.row == 0, 0, Mux(walk.row == 1, user.row_beats, user.row_beats << 1))
    m.d.comb += [
        Assert(walk.number == whole + walk.beat), Assert(walk.beat < user.row_beats),
        Assert((walk.row < rows) | ((walk.row == rows) & (walk.beat == 0)) | ~any_),
    ]


def help_walker(m, user, inside, issued, first, last, working):
    """The unit's walker stands where ``issued`` does, while it is ``working``."""
    s, w = inside.elaborate.s, inside._walk
    in_row = Mux(s.in_header, s.beat, user.header_beats + s.beat)
    top = Mux(s.in_header, s.last_header, s.last_beat)
    m.d.comb += [
        Assert(~working | (s.walking == ~issued.done)),
        *(Assert(~working | ~s.walking | each) for each in (
            s.column == first + issued.row, w.last_column == last, s.final_row == (s.column == last),
            s.final == (s.beat == top), s.beat <= top, issued.beat == in_row)),
    ]


class StoreProof(Elaboratable):
    """Runs of any columns at any time before a DRAM that takes commands and fetches data when it likes: each command's
    address is the next of its run, its data is there when it is fetched, ``stored`` comes once a run and only when all
    of it is gone, and as long as the DRAM goes on so does the run."""
    def __init__(self, unit, *, slots, helped=True):
        if unit.columns != 2:
            raise ValueError(f"What helps is written for 2 columns, not {unit.columns}")
        self.unit, self.slots, self.helped = unit, slots, helped

    def elaborate(self, platform):
        m, unit = Module(), self.unit
        m.submodules.unit, self.inside = opened(unit)
        user, port, store, columns = Rows(m, unit, self.slots), unit.port, unit.store, unit.columns
        m.d.comb += [port.cmd_ready.eq(any_value(m, 1, "takes")), port.wdata_ready.eq(any_value(m, 1, "fetches")),
                     unit.beats.ready.eq(any_value(m, 1, "attends"))]
        fire, fetch, to_fetch = port.cmd_valid & port.cmd_ready, port.wdata_ready, Signal(range(8 * columns * 2))
        m.d.sync += to_fetch.eq(to_fetch + fire - fetch)
        m.d.comb += Assume(~fetch | (to_fetch != 0))            # a cycle after its command at the earliest
        runs, run = self._runs(m, user)
        rows = Signal(range(columns + 1))
        m.d.comb += rows.eq(run.last - run.first + 1)
        asked = Run(m, "asked", rows, user.row_beats, columns, len(user.base))
        fetched = Run(m, "fetched", rows, user.row_beats, columns, len(user.base))
        asked.step(fire, store.stored)
        fetched.step(fetch, store.stored)
        m.d.comb += [
            Assert(~port.cmd_valid | ((runs != 0) & ~asked.done
                                      & (port.cmd_addr == (run.base + asked.number)[:len(user.base)]))),
            Assert(~fetch | port.wdata_valid), Assert(~port.wdata_valid | ((runs != 0) & ~fetched.done)),
            Assert(unit.beat_stored == (port.wdata_valid & fetch)),
            Assert(~store.stored | ((runs != 0) & asked.done & fetched.done)),
            Assert(store.storing == (runs != 0)), Assert(runs <= columns), Assert((runs != 0) | store.room),
            Assert(~(store.storing & unit.busy)), Assert(~(unit.beats.valid & port.wdata_valid)),
        ]
        _assert_command_held(m, port)
        idle = Signal(range(16))
        waits = (port.cmd_valid & ~port.cmd_ready) | ((to_fetch != 0) & ~fetch)
        m.d.sync += idle.eq(Mux((runs == 0) | fire | fetch | store.stored | waits, 0, idle + 1))
        m.d.comb += Assert(idle < 4 + columns)
        if self.helped:
            help_constants(m, user, self.inside)
            self._waiting(m, runs, run)
            self._walks(m, user, runs, run, rows, asked, fetched)
            self._commands(m, user, run, asked, fetched, to_fetch)
            self._patience(m, idle)
        return m

    def _runs(self, m, user):
        """Runs that were asked for and are not stored, and the oldest of them."""
        store, shape = self.unit.store, [("first", user.first), ("last", user.last), ("base", user.base)]
        places, count = self.unit.columns + 1, Signal(range(self.unit.columns + 3))
        kept = Signal.like(count)
        m.d.comb += kept.eq(count - store.stored)
        m.d.sync += count.eq(kept + user.start)
        oldest = {}
        for name, value in shape:
            line = [Signal(len(value), name=f"{name}{i}") for i in range(places + 1)]
            for i in range(places):
                m.d.sync += line[i].eq(Mux(user.start & (kept == i), value, Mux(store.stored, line[i + 1], line[i])))
            oldest[name], oldest[f"next_{name}"] = line[0], line[1]
        return count, SimpleNamespace(**oldest)

    def _patience(self, m, idle):
        """How long nothing moves at the beginning of a run."""
        s = self.inside.elaborate.s
        before = Mux(s.read, 2, Mux(s.walking, 1, 0))
        m.d.comb += Assert(Mux(s.storing, (idle == Mux(s.to_port, 3, before)) | (s.to_port & (idle == 0)), idle == 0))

    # What helps: true of the unit's own registers, and proved with the rest

    def _waiting(self, m, runs, run):
        """The run that is written, and the one that waits."""
        s, out = self.inside.elaborate.s, self.inside._runs.out
        waits = out.valid
        m.d.comb += [
            Assert(runs == s.storing + waits), Assert((runs == 0) | (run.first <= run.last)),
            Assert((runs < 2) | (run.next_first <= run.next_last)),
            *(Assert(~waits | (out.payload[name] == Mux(s.storing, getattr(run, f"next_{name}"), getattr(run, name))))
              for name in ("first", "last", "base")),
            Assert(s.storing | ~s.to_port), Assert(~s.storing | ~s.to_beats),
            Assert((runs == 0) | s.storing | ~(s.walking | s.read | s.to_beats)),
        ]

    def _walks(self, m, user, runs, run, rows, asked, fetched):
        """Beats that were asked for, read and fetched, as places in the run and as numbers."""
        s = self.inside.elaborate.s
        issued = Run(m, "issued", rows, user.row_beats, self.unit.columns, len(user.base))
        issued.step(s.storing & s.issue, self.unit.store.stored)
        for walk in (asked, fetched, issued):
            help_walk(m, user, walk, rows, runs != 0)
            m.d.comb += Assert(s.storing | ((walk.row == 0) & (walk.beat == 0)))
        help_walker(m, user, self.inside, issued, run.first, run.last, s.storing)
        m.d.comb += [
            Assert(~s.storing | (issued.number == fetched.number + s.read + s.to_port)),
            Assert(~s.storing | ~s.to_port | s.read | ~s.walking),
            Assert(~s.storing | s.to_port | ((asked.number == 0) & (fetched.number == 0)) | fetched.done),
        ]

    def _commands(self, m, user, run, asked, fetched, to_fetch):
        """What is still to be asked for."""
        s, d = self.inside.elaborate.s, self.inside._dram
        m.d.comb += [
            Assert(to_fetch + fetched.number == asked.number),
            Assert(~s.storing | (d.commanding == ~asked.done)),
            Assert(~s.storing | (d.address == (run.base + asked.number)[:len(d.address)])),
            Assert(~s.storing | ~d.commanding | (d.commands == user.row_beats - asked.beat)),
            Assert(~s.storing | ~d.commanding | (d.rows_behind == run.last - run.first - asked.row)),
        ]


def _assert_command_held(m, port):
    """A command that was not taken stays."""
    address, waits = Signal(len(port.cmd_addr)), Signal()
    m.d.sync += [address.eq(port.cmd_addr), waits.eq(port.cmd_valid & ~port.cmd_ready)]
    m.d.comb += Assert(~waits | (port.cmd_valid & (port.cmd_addr == address)))


class NewestProof(Elaboratable):
    """Attention gets the rows that it asks for, each beat once, and each element is what was written last to its place,
    in every format: the rows of the positions being decoded pass DRAM by. What goes to DRAM leaves the memories in the
    same way.

    In each of ``lanes`` of a beat one element, or one exponent, of any column and place is followed.
    """
    def __init__(self, unit, *, slots, lanes, exponents=False, helped=True):
        self.unit, self.slots, self.lanes, self.exponents, self.helped = unit, slots, lanes, exponents, helped

    def elaborate(self, platform):
        m, unit = Module(), self.unit
        m.submodules.unit, self.inside = opened(unit)
        user, columns = Rows(m, unit, self.slots), unit.columns
        m.d.comb += unit.beats.ready.eq(any_value(m, 1, "attends"))
        reading, first, last = Signal(), Signal(range(max(columns, 2))), Signal(range(max(columns, 2)))
        rows, given = Signal(range(columns + 2)), Signal()
        m.d.comb += [given.eq(unit.beats.valid & unit.beats.ready), rows.eq(last - first + 1)]
        walk = Run(m, "given", rows, user.row_beats, columns, 5)
        walk.step(given, user.newest)
        with m.If(user.newest):
            m.d.sync += [reading.eq(1), first.eq(user.first), last.eq(user.last)]
        m.d.comb += [Assert(~unit.beats.valid | (reading & ~walk.done)), Assert(~reading | walk.done | unit.busy)]
        assert_held(m, unit.beats, "beats")
        idle = self._ends(m, user, reading, walk)
        kind = Exponent if self.exponents else Element
        every = [kind(m, self, user, lane) for lane in self.lanes]
        for followed in every:
            seen = followed.known & unit.beats.valid & (walk.beat == followed.at) & (
                first + walk.row == followed.column)
            m.d.comb += Assert(~seen | followed.equals(unit.beats.payload))
        if self.helped:
            help_constants(m, user, self.inside)
            issued = self._walks(m, user, reading, first, last, rows, walk, idle)
            for followed in every:
                self._data(m, user, followed, first, last, issued, walk)
        return m

    def _ends(self, m, user, reading, walk):
        """What was asked for comes, and then the unit is idle. No run is asked for here."""
        unit, port, idle, busy = self.unit, self.unit.port, Signal(3), Signal(3)
        m.d.comb += [Assume(~user.start), port.cmd_ready.eq(any_value(m, 1, "takes")),
                     port.wdata_ready.eq(any_value(m, 1, "fetches"))]
        m.d.sync += [idle.eq(Mux(reading & ~walk.done & ~unit.beats.valid, idle + 1, 0)),
                     busy.eq(Mux(unit.busy & (~reading | walk.done), busy + 1, 0))]
        m.d.comb += [Assert(idle < 4), Assert(busy < 2), Assert(~port.wdata_valid), Assert(~port.cmd_valid)]
        return idle

    # What helps: true of the unit's own registers, and proved with the rest

    def _walks(self, m, user, reading, first, last, rows, walk, idle):
        """Beats that were read and given, as places in the rows and as numbers."""
        s = self.inside.elaborate.s
        issued = Run(m, "issued", rows, user.row_beats, self.unit.columns, 5)
        issued.step(s.issue, user.newest)
        for each in (issued, walk):
            help_walk(m, user, each, rows, Const(1))
        help_walker(m, user, self.inside, issued, first, last, reading)
        before = Mux(s.read, 1, 0)
        m.d.comb += [
            Assert(~s.storing & ~self.inside._runs.out.valid), Assert(first <= last), Assert(reading | ~s.walking),
            Assert(issued.number == walk.number + s.read + s.to_beats), Assert(reading | (issued.number == 0)),
            Assert(~s.to_beats | s.read | ~s.walking),
            Assert(~reading | s.to_beats | (walk.number == 0) | walk.done),
            Assert((idle == Mux(s.to_beats, 2, before)) | (s.to_beats & (idle == 0))),
        ]
        return issued

    def _data(self, m, user, followed, first, last, issued, walk):
        """What was written is on its way to the memory, in it, read from it, or held."""
        s, column = self.inside.elaborate.s, followed.column
        there, number = (first <= column) & (column <= last), Mux(first == column, 0, user.row_beats) + followed.at
        written, landing = Signal(), Signal()
        m.d.sync += [written.eq(followed.here), landing.eq(written)]
        m.d.comb += [
            Assert(~(written | landing) | followed.known), Assert(~followed.known | (followed.low[6:] == 0)
                                                                  if self.exponents else Const(1)),
            Assert(written == followed.entered), Assert(~written | followed.entered_value),
            Assert(landing == followed.lands), Assert(~landing | written | followed.landing_value),
            Assert(~followed.known | written | landing | followed.stored),
            Assert(~(s.walking | s.read | s.to_beats) | ~(written | landing)),
            Assert(~(followed.known & s.read & there & (issued.number == number + 1)) | followed.read),
            Assert(~(followed.known & s.to_beats & there & (walk.number == number)) | followed.equals(s.value)),
        ]


class Element:
    """One element of K or V in lane ``lane`` of its beat: what was written last to it, ``known`` once it was, and where
    it lies, by docs/image.md. ``here`` when it is written."""
    def __init__(self, m, proof, user, lane):
        unit, e, inside = proof.unit, user.elements, proof.inside
        self.lane, columns = lane, max(unit.columns, 2)
        of_v, self.column = any_constant(m, 1, "followed_v"), any_constant(m, range(columns), "followed_column")
        self.eight = any_constant(m, 10, "followed_eight")                 # of elements
        self.narrow = Mux(of_v, user.narrow[0], user.narrow[1])
        self.known, self.low, self.high, self.at = Signal(), Signal(8), Signal(8), Signal(7)
        in_row = Signal(7)
        m.d.comb += [Assume((self.eight < user.eights) & (self.column < unit.columns)),
                     in_row.eq(Mux(of_v, user.k_beats, 0) + Mux(self.narrow, self.eight >> 1, self.eight)),
                     self.at.eq(user.header_beats + in_row)]
        self.here = e.write & (e.index == Cat(Const(lane, 3), self.eight)) & ((e.dest == Dest.V) == of_v) & (
            e.column == self.column)
        clamped = Mux(e.mantissa.as_signed() == 128, 127, e.mantissa)
        with m.If(self.here):
            m.d.sync += [self.known.eq(1), self.low.eq(Mux(self.narrow, clamped, e.mantissa)),
                         self.high.eq(e.mantissa[8:])]
        self._on_the_way(m, user, inside, of_v, in_row)

    def _matches(self, low, high):
        return Mux(self.narrow, Mux(self.eight[0], high, low) == self.low, (low == self.low) & (high == self.high))

    def equals(self, beat):
        """Whether ``beat`` has the element."""
        return self._matches(beat[16 * self.lane:16 * self.lane + 8], beat[16 * self.lane + 8:16 * self.lane + 16])

    def _on_the_way(self, m, user, inside, of_v, in_row):
        """Where it is: in the first register, in the second, in the memory, in what the memory answers."""
        s, w, lane = inside.elaborate.s, inside._write, self.lane
        self.entered = w.write & (w.is_v == of_v) & (w.index == Cat(Const(lane, 3), self.eight)) & (
            w.into == self.column)
        self.entered_value = (s.low == self.low) & (self.narrow | (w.mantissa[8:] == self.high))
        place = Cat(in_row[:s.bits], self.column[:len(s.column)])
        enable = Mux(self.narrow & self.eight[0], s.w.en[2 * lane + 1], s.w.en[2 * lane])
        self.lands = enable & (s.w.addr == place)
        self.landing_value = self._matches(s.w.data[2 * lane], s.w.data[2 * lane + 1])
        peek = inside._memories.rows.read_port(domain="comb")
        m.d.comb += [peek.addr.eq(place), Assert(~w.write | ((w.index < user.eights * 8) & (w.into < 2))),
                     Assert(~w.write | (w.narrow == Mux(w.is_v, user.narrow[0], user.narrow[1])))]
        self.stored = self._matches(peek.data[2 * lane], peek.data[2 * lane + 1])
        self.read = ~inside._read.read_header & self._matches(s.r.data[2 * lane], s.r.data[2 * lane + 1])


class Exponent:
    """The exponent in byte ``lane`` of a beat of the header, as :class:`Element`."""
    def __init__(self, m, proof, user, lane):
        unit, e, inside = proof.unit, user.elements, proof.inside
        self.lane, self.column = lane, any_constant(m, range(max(unit.columns, 2)), "followed_column")
        self.at, number = Signal(7), any_constant(m, 4, "followed_beat")
        self.known, self.low = Signal(), Signal(8)
        m.d.comb += [Assume((number < user.header_beats) & (self.column < unit.columns)), self.at.eq(number)]
        byte = Signal(8)
        m.d.comb += byte.eq(e.head + Mux(e.dest == Dest.V, user.heads, 0))
        self.here = e.exponent_write & (byte == Cat(Const(lane, 4), number)) & (e.column == self.column)
        with m.If(self.here):
            m.d.sync += [self.known.eq(1), self.low.eq(e.exponent)]
        s, w = inside.elaborate.s, inside._write
        self.entered = w.exponent_write & (s.byte == Cat(Const(lane, 4), number)) & (w.into == self.column)
        self.entered_value = w.exponent == self.low
        place = Cat(number[:s.header_bits], self.column[:len(s.column)])
        self.lands = s.header_w.en[lane] & (s.header_w.addr == place)
        self.landing_value = s.header_w.data[lane] == self.low
        peek = inside._memories.headers.read_port(domain="comb")
        m.d.comb += [peek.addr.eq(place), Assert(~w.exponent_write | (w.head < user.heads))]
        self.stored = peek.data[lane] == self.low
        self.read = inside._read.read_header & (s.header_r.data[lane] == self.low)

    def equals(self, beat):
        """Whether ``beat`` has the exponent."""
        return beat[8 * self.lane:8 * self.lane + 8] == self.low

