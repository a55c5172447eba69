"""The largest logits of a pass, for the sampler: eight groups of eight, of each of which it is known where its smallest
lies.

Computes the candidates of :meth:`llama2_spec.golden.Logits.kept`.
"""
from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from accel.lib.numeric import UNCHECKED

KEY = 50            # a candidate's rank: {logit, ~token}, so that of equal logits the later token goes first
GROUP = 8

#: A logit and its token.
CANDIDATE = data.StructLayout({"token": 18, "logit": signed(32)})


def ordered(value):
    """A signed value as an unsigned one of the same order: its comparison is a carry chain and nothing behind it."""
    return Cat(value[:-1], ~value[-1])


class Candidates(wiring.Component):
    """Computes the candidates of :meth:`llama2_spec.golden.Logits.kept`. Takes one logit in two cycles, and about 20
    cycles for one that takes the smallest one's place; the offer is held until ``take``.

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
    busy : Out(1)
        A place for the last one is still being made.
    kept : Out(7)
        How many there are.
    index, candidate : In(6), Out(CANDIDATE)
        The ``index``-th, two cycles later, in no particular order; not while ``busy``.
    """
    latency = None      #: varies

    def __init__(self):
        super().__init__({
            "clear": In(1), "keep": In(1), "there": In(1), "offer": In(CANDIDATE), "ready": Out(1), "take": In(1),
            "busy": Out(1), "kept": Out(7), "index": In(6), "candidate": Out(CANDIDATE),
        })

    def elaborate(self, platform):
        m = Module()
        key, full = Cat(~self.offer.token, ordered(self.offer.logit)), self.kept == GROUP ** 2
        m.submodules.store = store = memory.Memory(shape=KEY, depth=GROUP ** 2, init=[], attrs=UNCHECKED)
        w, r = store.write_port(), store.read_port()
        m.submodules.smallest = smallest = memory.Memory(shape=3, depth=GROUP, init=[])
        slot_in, slot_out = smallest.write_port(), smallest.read_port(domain="comb")
        entry = Signal(KEY, reset_less=True)
        m.d.sync += entry.eq(r.data)
        # Smallest so far of what is scanned: a group, or (``of_groups``) the smallest of all groups
        low, low_at = Signal(KEY, reset_less=True), Signal(3, reset_less=True)
        group, at, every, of_groups = Signal(3), Signal(4), Signal(), Signal()
        scanning, smaller, larger, compared = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            self.candidate.token.eq(~entry[:18]), self.candidate.logit.eq(ordered(entry[18:]).as_signed()),
            w.data.eq(key), smaller.eq(entry < low),
            slot_in.addr.eq(group), slot_in.data.eq(low_at), slot_out.addr.eq(Mux(scanning, at, low_at)),
            r.addr.eq(Mux(scanning, Mux(of_groups, Cat(slot_out.data, at[:3]), Cat(at[:3], group)), self.index)),
        ]
        m.d.sync += larger.eq(key > low)        # of a logit that waits for a cycle, while nothing is inserted
        with m.FSM() as fsm:
            m.d.comb += [self.busy.eq(~fsm.ongoing("READY")), self.ready.eq(fsm.ongoing("READY") & compared)]
            m.d.sync += compared.eq(~self.keep | self.there & fsm.ongoing("READY") & ~self.take)
            with m.State("READY"):
                m.d.comb += w.addr.eq(Mux(full, Cat(slot_out.data, low_at), self.kept))
                m.d.sync += [at.eq(0), every.eq(~full), of_groups.eq(0), group.eq(Mux(full, low_at, 0))]
                with m.If(self.take & self.keep):
                    with m.If(~full):
                        m.d.comb += w.en.eq(1)
                        m.d.sync += self.kept.eq(self.kept + 1)
                        with m.If(self.kept == GROUP ** 2 - 1):
                            m.d.sync += scanning.eq(1)
                            m.next = "SCAN"
                    with m.Elif(larger):
                        m.d.comb += w.en.eq(1)
                        m.d.sync += scanning.eq(1)
                        m.next = "SCAN"
            with m.State("SCAN"):
                # Entry at - 2 is there while entry at is asked for
                m.d.sync += at.eq(at + 1)
                with m.If((at[1:] != 0) & ((at == 2) | smaller)):
                    m.d.sync += [low.eq(entry), low_at.eq(at - 2)]
                with m.If(at == GROUP + 1):
                    m.d.sync += scanning.eq(0)
                    m.next = "GROUP"
                    with m.If(of_groups):
                        m.next = "READY"
            with m.State("GROUP"):
                m.d.comb += slot_in.en.eq(1)
                m.d.sync += [at.eq(0), group.eq(group + 1), scanning.eq(1)]
                m.next = "SCAN"
                with m.If(~every | (group == GROUP - 1)):
                    m.d.sync += of_groups.eq(1)
        with m.If(self.clear):
            m.d.sync += self.kept.eq(0)
        return m
