"""Groups of wide values to 16-bit mantissas with a shared exponent. Computes :func:`llama2_spec.numerics.quantise`."""
from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, fifo, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.numeric import UNCHECKED, bit_length, coarse_shift, delay, fine_shift
from llama2_spec.numerics import WIDE
from llama2_spec.registers import Dest

GROUP = 128         #: the longest group: a head


def wide_layout(columns):
    """A value on its way to the quantiser; ``end`` closes its group, ``index`` is its place in the vector."""
    return data.StructLayout({"value": signed(WIDE), "column": range(max(columns, 2)), "index": 13, "end": 1, "dest": 3})


class Quantiser(wiring.Component):
    """Takes one value a cycle; while one group of a column is written out, its next fills the other half.

    Members
    -------
    values : In(stream)
        Groups of different columns may be interleaved.
    narrow : In
        Of V (bit 0) and of K (bit 1): an exponent for mantissas of 8 bits. One that rounds up to 2**7 is not clamped here.
    write, exponent_write : Out
        One element a cycle, after its group's exponent; ``index`` is that of the element, or of the group's first.
    """
    def __init__(self, *, columns):
        self.columns = columns
        super().__init__({
            "narrow": In(2), "abort": In(1), "busy": Out(1), "values": In(stream.Signature(wide_layout(columns))),
            "write": Out(1), "exponent_write": Out(1), "column": Out(range(max(columns, 2))), "dest": Out(3),
            "index": Out(13), "mantissa": Out(signed(16)), "exponent": Out(6),
        })

    def elaborate(self, platform):
        m = Module()
        C = self.columns
        values, v = self.values, self.values.payload
        m.submodules.store = store = memory.Memory(shape=WIDE, depth=2 * C * GROUP, init=[], attrs=UNCHECKED)
        w, r = store.write_port(), store.read_port()
        group = data.StructLayout({"column": range(max(C, 2)), "half": 1, "first": 13, "last": 7, "exponent": 6, "dest": 3})
        m.submodules.groups = groups = fifo.SyncFIFO(width=group.size, depth=2 * C)

        # Fill -----------------------------------------------------------------------------------------
        half = [Signal(name=f"half{c}") for c in range(C)]
        full = [Signal(2, name=f"full{c}") for c in range(C)]
        count = [Signal(8, name=f"count{c}") for c in range(C)]
        opens = [Signal(name=f"open{c}", init=1) for c in range(C)]      # the half that is filled is not full
        magnitude = [Signal(WIDE - 1, name=f"magnitude{c}") for c in range(C)]
        c = v.column
        mine_half, mine_count = Array(half)[c], Array(count)[c]
        seen = Signal(WIDE - 1)
        take = Signal()
        m.d.comb += [
            values.ready.eq(Array(opens)[c]),
            take.eq(values.ready & values.valid),
            seen.eq(Array(magnitude)[c] | (v.value ^ v.value[-1].replicate(WIDE))[:WIDE - 1]),
            w.addr.eq(Cat(mine_count[:7], mine_half, c)), w.data.eq(v.value), w.en.eq(take),
        ]
        # A group that is complete: its exponent, three cycles later; the bits of each eight, then of all
        entry, closing, largest = Signal(group), Signal(), Signal(WIDE - 1, reset_less=True)
        m.d.sync += [closing.eq(take & v.end), largest.eq(seen), entry.column.eq(c), entry.half.eq(mine_half),
                     entry.first.eq(v.index - mine_count), entry.last.eq(mine_count), entry.dest.eq(v.dest)]
        # Bits beyond 15, or beyond the 7 of narrow K or V
        narrow = delay(m, Mux(entry.dest == Dest.K, self.narrow[1], (entry.dest == Dest.V) & self.narrow[0]), 2, "narrow_entry")
        eights = [delay(m, bit_length(m, largest[i:i + 8], name=f"bits{i}"), 1, f"eight{i}") for i in range(7, WIDE - 1, 8)]
        above, between = Signal(6), delay(m, eights[0], 1, "between")
        m.d.sync += above.eq(0)
        for i, eight in enumerate(eights[1:]):
            with m.If(eight != 0):
                m.d.sync += above.eq(8 * i + eight)
        closing1 = delay(m, closing & ~self.abort, 1, "closing1", valid=True)
        closed, complete = delay(m, closing1 & ~self.abort, 1, "closed", valid=True), delay(m, entry, 2, "complete")
        m.d.comb += [
            groups.w_en.eq(closed & ~self.abort), groups.w_data.eq(complete),
            data.View(group, groups.w_data).exponent.eq(
                Mux(above != 0, Cat(above[:3], above[3:] + narrow), Mux(narrow, between, 0))),
        ]
        for i in range(C):
            with m.If(take & (c == i)):
                m.d.sync += [count[i].eq(Mux(v.end, 0, count[i] + 1)), magnitude[i].eq(Mux(v.end, 0, seen))]
                with m.If(v.end):
                    m.d.sync += [half[i].eq(~half[i]), full[i].bit_select(half[i], 1).eq(1)]

        # Drain ----------------------------------------------------------------------------------------
        head = Signal(group)
        at = Signal(7)
        exponent = head.exponent
        issue, release = Signal(), Signal()
        m.d.comb += r.addr.eq(Cat(at, head.half, head.column))
        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.comb += groups.r_en.eq(1)
                m.d.sync += [head.as_value().eq(groups.r_data), at.eq(0)]
                with m.If(groups.r_rdy & ~self.abort):
                    m.next = "WRITE-EXPONENT"
            with m.State("WRITE-EXPONENT"):
                # Element 0 is read meanwhile; the pipeline is still empty of this group's elements.
                m.d.comb += issue.eq(1)
                m.d.sync += at.eq(at + 1)
                with m.If(at == head.last):
                    m.d.comb += release.eq(1)
                    m.next = "DRAIN"
                with m.Else():
                    m.next = "READ"
            with m.State("READ"):
                m.d.comb += issue.eq(1)
                m.d.sync += at.eq(at + 1)
                with m.If(at == head.last):
                    m.d.comb += release.eq(1)
                    m.next = "DRAIN"
            with m.State("DRAIN"):
                m.next = "DRAIN-2"
            with m.State("DRAIN-2"):
                m.next = "DRAIN-3"
            with m.State("DRAIN-3"):
                m.next = "DRAIN-4"
            with m.State("DRAIN-4"):
                m.next = "IDLE"     # the last element leaves in the next cycle, with this head
        for i in range(C):
            emptied = (release & (head.column == i)).replicate(2) & (1 << head.half)
            still = full[i] & ~emptied
            with m.If(release & (head.column == i)):
                m.d.sync += full[i].bit_select(head.half, 1).eq(0)
            closes = take & v.end & (c == i)
            m.d.sync += opens[i].eq(~Mux(half[i] ^ closes, still[1], still[0]))
        # 1: read; 2: in a register; 3: coarsely shifted; 4: finely; 5: rounded and clamped
        value2, coarse3 = Signal(signed(WIDE), reset_less=True), Signal(signed(16 + 18), reset_less=True)
        fine4 = Signal.like(coarse3, reset_less=True)
        index = Signal(13)
        m.d.sync += [
            value2.eq(r.data), coarse3.eq(coarse_shift(m, value2, exponent, 16)), fine4.eq(coarse3 >> exponent[:4]),
            self.mantissa.eq(fine_shift(m, fine4, Const(0, 4), 16)[0]), index.eq(head.first + at),
        ]
        index5, valid5 = delay(m, index, 4, "index"), delay(m, issue, 5, "valid", valid=True)
        m.d.comb += self.write.eq(valid5)
        writing_exponent = fsm.ongoing("WRITE-EXPONENT")
        m.d.comb += [
            self.exponent_write.eq(writing_exponent),
            self.column.eq(head.column), self.dest.eq(head.dest), self.exponent.eq(exponent),
            self.index.eq(Mux(writing_exponent, head.first, index5)),
            self.busy.eq(closing | closing1 | closed | groups.r_rdy | ~fsm.ongoing("IDLE") | Cat(*count).any() | self.write),
        ]
        with m.If(self.abort):
            m.d.comb += groups.r_en.eq(1)
            for i in range(C):
                m.d.sync += [count[i].eq(0), magnitude[i].eq(0), half[i].eq(0), full[i].eq(0), opens[i].eq(1)]
        return m
