"""Groups of wide values to 16-bit mantissas with a shared exponent. Computes :func:`llama2_spec.numerics.quantise`."""
from types import SimpleNamespace

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, fifo, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.interfaces import ModelConstants, Quantised, Wide
from accel.lib.numeric import UNCHECKED, bit_length, coarse_shift, fine_shift
from accel.lib.pipeline import Pipeline
from llama2_spec.numerics import WIDE
from llama2_spec.registers import Dest

GROUP = 128         #: the longest group: a head
READ = 1            #: cycles until the store answers


class Quantiser(wiring.Component):
    """Computes :func:`llama2_spec.numerics.quantise`. Takes one value per cycle; while one group of a column is written
    out, its next fills the other half. ``values.ready`` falls while both halves of the column are full; what is written
    cannot be stalled.

    Members
    -------
    values : In(stream of Wide)
        Groups of different columns may be interleaved.
    model : In(ModelConstants)
        Constants of the model, see the interface.
    abort : In(1)
        Drop all groups.
    busy : Out(1)
        Work is in flight; a fence waits for its end.
    quantised : Out(Quantised)
        One element per cycle, after its group's exponent.
    """
    latency = None      #: varies
    budget_lut = 402

    def __init__(self, *, columns):
        self.columns = columns
        super().__init__({
            "model": In(ModelConstants()), "abort": In(1), "busy": Out(1),
            "values": In(stream.Signature(Wide(columns))), "quantised": Out(Quantised(columns)),
        })

    def elaborate(self, platform):
        m = Module()
        s = SimpleNamespace()               # signals that several steps share
        self._memories(m, s)
        self._fill(m, s)
        self._exponent(m, s)
        self._count(m, s)
        self._drain(m, s)
        self._release(m, s)
        self._round(m, s)
        self._abort(m, s)
        return m

    def _memories(self, m, s):
        """Values that wait, groups that are complete."""
        s.C = self.columns
        s.values, s.v = self.values, self.values.payload
        m.submodules.store = store = memory.Memory(shape=WIDE, depth=2 * s.C * GROUP, init=[], attrs=UNCHECKED)
        s.w, s.r = store.write_port(), store.read_port()
        s.group = data.StructLayout({"column": range(max(s.C, 2)), "half": 1, "first": 13, "last": 7, "exponent": 6,
                                     "dest": 3})
        m.submodules.groups = s.groups = fifo.SyncFIFO(width=s.group.size, depth=2 * s.C)

    def _fill(self, m, s):
        """Values into the half of their column that is filled."""
        # Fill
        s.half = [Signal(name=f"half{c}") for c in range(s.C)]
        s.full = [Signal(2, name=f"full{c}") for c in range(s.C)]
        s.count = [Signal(8, name=f"count{c}") for c in range(s.C)]
        s.opens = [Signal(name=f"open{c}", init=1) for c in range(s.C)]      # the half that is filled is not full
        s.magnitude = [Signal(WIDE - 1, name=f"magnitude{c}") for c in range(s.C)]
        s.c = s.v.column
        s.mine_half, s.mine_count = Array(s.half)[s.c], Array(s.count)[s.c]
        s.seen = Signal(WIDE - 1)
        s.take = Signal()
        m.d.comb += [
            s.values.ready.eq(Array(s.opens)[s.c]),
            s.take.eq(s.values.ready & s.values.valid),
            s.seen.eq(Array(s.magnitude)[s.c] | (s.v.value ^ s.v.value[-1].replicate(WIDE))[:WIDE - 1]),
            s.w.addr.eq(Cat(s.mine_count[:7], s.mine_half, s.c)), s.w.data.eq(s.v.value), s.w.en.eq(s.take),
        ]

    def _exponent(self, m, s):
        """The exponent of a group that is complete."""
        # A group that is complete: its exponent, three cycles later; the bits of each eight, then of all
        entry = Signal(s.group)
        s.closing = Signal()
        largest = Signal(WIDE - 1, reset_less=True)
        m.d.sync += [s.closing.eq(s.take & s.v.end), largest.eq(s.seen), entry.column.eq(s.c),
                     entry.half.eq(s.mine_half),
                     entry.first.eq(s.v.index - s.mine_count), entry.last.eq(s.mine_count), entry.dest.eq(s.v.dest)]
        pipe = Pipeline(m)                  # from these registers on
        eights = [pipe.later(f"eight{i}", pipe.enter(bit_length(m, largest[i:i + 8], name=f"bits{i}")))
                  for i in range(7, WIDE - 1, 8)]
        between = pipe.later("between", eights[0])
        above = Signal(6)
        m.d.sync += above.eq(0)
        for i, eight in enumerate(each.plain for each in eights[1:]):
            with m.If(eight != 0):
                m.d.sync += above.eq(8 * i + eight)
        closing = pipe.later("closing", pipe.enter(s.closing & ~self.abort), valid=True)
        closed = pipe.later("closed", closing & ~self.abort, valid=True)
        # Bits beyond 15, or beyond the 7 of narrow K or V
        narrow = pipe.carry("narrow_entry", pipe.enter(
            Mux(entry.dest == Dest.K, self.model.narrow[1], (entry.dest == Dest.V) & self.model.narrow[0])))
        exponent = pipe.combine(lambda above, between, narrow: Mux(above != 0, Cat(above[:3], above[3:] + narrow),
                                                                   Mux(narrow, between, 0)),
                                pipe.enter(above, eights[0].stage + 1), between, narrow.beside(between))
        pipe.drive((s.groups.w_en, closed & ~self.abort),
                   (s.groups.w_data, pipe.carry("complete", pipe.enter(entry)).beside(between)),
                   (data.View(s.group, s.groups.w_data).exponent, exponent))
        s.on_its_way = s.closing | closing.plain | closed.plain

    def _count(self, m, s):
        """Which half is filled, how far."""
        for i in range(s.C):
            with m.If(s.take & (s.c == i)):
                m.d.sync += [s.count[i].eq(Mux(s.v.end, 0, s.count[i] + 1)), s.magnitude[i].eq(Mux(s.v.end, 0, s.seen))]
                with m.If(s.v.end):
                    m.d.sync += [s.half[i].eq(~s.half[i]), s.full[i].bit_select(s.half[i], 1).eq(1)]

    def _drain(self, m, s):
        """Groups leave, one after the other."""
        # Drain
        s.head = Signal(s.group)
        s.at = Signal(7)
        s.exponent = s.head.exponent
        s.issue = Signal()
        s.release = Signal()
        m.d.comb += s.r.addr.eq(Cat(s.at, s.head.half, s.head.column))
        with m.FSM() as s.fsm:
            with m.State("IDLE"):
                m.d.comb += s.groups.r_en.eq(1)
                m.d.sync += [s.head.as_value().eq(s.groups.r_data), s.at.eq(0)]
                with m.If(s.groups.r_rdy & ~self.abort):
                    m.next = "WRITE-EXPONENT"
            with m.State("WRITE-EXPONENT"):
                # Element 0 is read meanwhile; the pipeline is still empty of this group's elements.
                m.d.comb += s.issue.eq(1)
                m.d.sync += s.at.eq(s.at + 1)
                with m.If(s.at == s.head.last):
                    m.d.comb += s.release.eq(1)
                    m.next = "DRAIN"
                with m.Else():
                    m.next = "READ"
            with m.State("READ"):
                m.d.comb += s.issue.eq(1)
                m.d.sync += s.at.eq(s.at + 1)
                with m.If(s.at == s.head.last):
                    m.d.comb += s.release.eq(1)
                    m.next = "DRAIN"
            with m.State("DRAIN"):
                m.next = "DRAIN-2"
            with m.State("DRAIN-2"):
                m.next = "DRAIN-3"
            with m.State("DRAIN-3"):
                m.next = "DRAIN-4"
            with m.State("DRAIN-4"):
                m.next = "IDLE"     # the last element leaves in the next cycle, with this head

    def _release(self, m, s):
        """A half that was written out is free."""
        for i in range(s.C):
            emptied = (s.release & (s.head.column == i)).replicate(2) & (1 << s.head.half)
            still = s.full[i] & ~emptied
            with m.If(s.release & (s.head.column == i)):
                m.d.sync += s.full[i].bit_select(s.head.half, 1).eq(0)
            closes = s.take & s.v.end & (s.c == i)
            m.d.sync += s.opens[i].eq(~Mux(s.half[i] ^ closes, still[1], still[0]))

    def _round(self, m, s):
        """Mantissas."""
        pipe, exponent = Pipeline(m), s.exponent        # the exponent stays until the group's last element has left
        value = pipe.register("value", pipe.enter(s.r.data, READ), signed(WIDE))
        coarse = pipe.register("coarse", pipe.combine(lambda x: coarse_shift(m, x, exponent, 16), value),
                               signed(16 + 18))
        fine = pipe.register("fine", coarse >> exponent[:4], signed(16 + 18))
        narrow, _ = pipe.combine(lambda x: fine_shift(m, x, Const(0, 4), 16), fine)
        mantissa = pipe.register("mantissa", narrow, signed(16), reset_less=False)
        index = pipe.carry("index", pipe.register("index", pipe.enter(s.head.first + s.at), 13, reset_less=False))
        m.d.comb += [
            self.quantised.mantissa.eq(mantissa.plain),
            self.quantised.write.eq(pipe.carry("valid", pipe.enter(s.issue), valid=True).beside(mantissa).plain),
        ]
        index5 = index.beside(mantissa).plain
        writing_exponent = s.fsm.ongoing("WRITE-EXPONENT")
        m.d.comb += [
            self.quantised.exponent_write.eq(writing_exponent),
            self.quantised.column.eq(s.head.column), self.quantised.dest.eq(s.head.dest),
            self.quantised.exponent.eq(s.exponent),
            self.quantised.index.eq(Mux(writing_exponent, s.head.first, index5)),
            self.busy.eq(s.on_its_way | s.groups.r_rdy | ~s.fsm.ongoing("IDLE")
                         | Cat(*s.count).any() | self.quantised.write),
        ]

    def _abort(self, m, s):
        """Nothing is left of a group."""
        with m.If(self.abort):
            m.d.comb += s.groups.r_en.eq(1)
            for i in range(s.C):
                m.d.sync += [s.count[i].eq(0), s.magnitude[i].eq(0), s.half[i].eq(0), s.full[i].eq(0), s.opens[i].eq(1)]
