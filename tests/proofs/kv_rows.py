"""The owner of the K/V rows writes each row of a run to DRAM exactly once, where the run says, and hands out what was
written to it."""
from amaranth.hdl import Assert, Assume, Cat, Const, Elaboratable, Module, Mux, Signal
from amaranth.hdl._ast import AnyConst

from llama2_spec.registers import Dest
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
        with m.If(cycle != SETTLE):
            m.d.sync += cycle.eq(cycle + 1)
        settled, wrote = cycle == SETTLE, Signal()
        self.first, self.last = any_value(m, range(columns), "first"), any_value(m, range(columns), "last")
        self.base = any_value(m, unit.addr_width, "base")
        self.header_beats, self.k_beats, v_beats = Signal(4), Signal(6), Signal(6)
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


class StoreProof(Elaboratable):
    """Runs of any columns at any time before a DRAM that takes commands and fetches data when it likes: each command's
    address is the next of its run, its data is there when it is fetched, ``stored`` comes once a run and only when all
    of it is gone, and as long as the DRAM goes on so does the run."""
    def __init__(self, unit, *, slots):
        self.unit, self.slots = unit, slots

    def elaborate(self, platform):
        m = Module()
        m.submodules.unit = unit = self.unit
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
            oldest[name] = line[0]
        return count, type("Oldest", (), oldest)


def _assert_command_held(m, port):
    """A command that was not taken stays."""
    address, waits = Signal(len(port.cmd_addr)), Signal()
    m.d.sync += [address.eq(port.cmd_addr), waits.eq(port.cmd_valid & ~port.cmd_ready)]
    m.d.comb += Assert(~waits | (port.cmd_valid & (port.cmd_addr == address)))


class NewestProof(Elaboratable):
    """Attention gets the rows that it asks for, each beat once, and each element is what was written last to its place,
    in every format: the rows of the positions being decoded pass DRAM by. What goes to DRAM is checked in the same way.

    One element, or one exponent, of any column is followed; ``lane`` says which of a beat's: the bytes do not meet.
    """
    def __init__(self, unit, *, slots, lane, exponents=False):
        self.unit, self.slots, self.lane, self.exponents = unit, slots, lane, exponents

    def elaborate(self, platform):
        m = Module()
        m.submodules.unit = unit = self.unit
        user, columns, port = Rows(m, unit, self.slots), unit.columns, unit.port
        m.d.comb += unit.beats.ready.eq(any_value(m, 1, "attends"))
        reading, first, last = Signal(), Signal(range(max(columns, 2))), Signal(range(max(columns, 2)))
        rows, given = Signal(range(columns + 2)), Signal()
        m.d.comb += [given.eq(unit.beats.valid & unit.beats.ready), rows.eq(last - first + 1)]
        walk = Run(m, "given", rows, user.row_beats, columns, 1)
        walk.step(given, user.newest)
        with m.If(user.newest):
            m.d.sync += [reading.eq(1), first.eq(user.first), last.eq(user.last)]
        m.d.comb += [Assert(~unit.beats.valid | (reading & ~walk.done)), Assert(~reading | walk.done | unit.busy)]
        assert_held(m, _Bits(unit.beats, 16 * self.lane, 16), "beats")
        self._ends(m, user, reading, walk, port)
        self._follow(m, user, walk, first)
        return m

    def _ends(self, m, user, reading, walk, port):
        """What was asked for comes, and then the unit is idle. No run is asked for here."""
        unit, idle, busy = self.unit, Signal(3), Signal(3)
        m.d.comb += [Assume(~user.start), port.cmd_ready.eq(any_value(m, 1, "takes")),
                     port.wdata_ready.eq(any_value(m, 1, "fetches"))]
        m.d.sync += [idle.eq(Mux(reading & ~walk.done & ~unit.beats.valid, idle + 1, 0)),
                     busy.eq(Mux(unit.busy & (~reading | walk.done), busy + 1, 0))]
        m.d.comb += [Assert(idle < 4), Assert(busy < 2), Assert(~port.wdata_valid), Assert(~port.cmd_valid)]

    def _follow(self, m, user, walk, first):
        """What was last written to one place, and where that place lies by docs/image.md."""
        unit, e, lane = self.unit, user.elements, self.lane
        of_v, column = any_constant(m, 1, "followed_v"), any_constant(m, range(max(unit.columns, 2)), "followed_column")
        known, low, high, at = Signal(), Signal(8), Signal(8), Signal(7)
        narrow = Mux(of_v, user.narrow[0], user.narrow[1])
        if self.exponents:
            number = any_constant(m, 4, "followed_beat")
            byte = e.head + Mux(e.dest == Dest.V, user.heads, 0)
            here = e.exponent_write & (byte == Cat(Const(lane, 4), number))
            m.d.comb += at.eq(number)
            values = [(low, e.exponent)]
        else:
            eight = any_constant(m, 10, "followed_eight")       # of elements
            here = e.write & (e.index == Cat(Const(lane, 3), eight)) & ((e.dest == Dest.V) == of_v)
            m.d.comb += at.eq(user.header_beats + Mux(of_v, user.k_beats, 0) + Mux(narrow, eight >> 1, eight))
            clamped = Mux(e.mantissa.as_signed() == 128, 127, e.mantissa)
            values = [(low, Mux(narrow, clamped, e.mantissa)[:8]), (high, e.mantissa[8:])]
        with m.If(here & (e.column == column)):
            m.d.sync += [known.eq(1), *(kept.eq(value) for kept, value in values)]
        out = unit.beats.payload
        seen = known & unit.beats.valid & (walk.beat == at) & (first + walk.row == column)
        if self.exponents:
            m.d.comb += Assert(~seen | (out[8 * lane:8 * lane + 8] == low))
        else:
            bytes_ = [out[16 * lane:16 * lane + 8], out[16 * lane + 8:16 * lane + 16]]
            m.d.comb += [Assert(~(seen & ~narrow) | (Cat(*bytes_) == Cat(low, high))),
                         Assert(~(seen & narrow) | (Mux(eight[0], bytes_[1], bytes_[0]) == low))]


class _Bits:
    """Some bits of a stream's payload."""
    def __init__(self, source, at, bits):
        self.valid, self.ready, self.payload = source.valid, source.ready, source.payload[at:at + bits]
