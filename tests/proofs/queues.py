"""Queues that refuse nothing, each behind what its user promises: reserved places, or a stop in time."""
from amaranth.hdl import Assert, Assume, Elaboratable, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from accel.lib.numeric import delay
from tests.proofs.streams import any_value, assert_held


class Credited(wiring.Component):
    """A pipeline of ``cycles`` registers that never stops, before a queue of ``depth`` places that ``credits``
    counts."""
    def __init__(self, queue, credits, *, depth, cycles, width):
        self.queue, self.credits, self.depth, self.cycles = queue(width, depth=depth), credits, depth, cycles
        super().__init__({"input": In(stream.Signature(width)), "output": Out(stream.Signature(width)), "busy": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = self.queue
        wiring.connect(m, queue.output, wiring.flipped(self.output))
        take = self.input.valid & self.input.ready
        room, some = self.credits(m, self.depth, take, self.output.valid & self.output.ready)
        on_the_way = [delay(m, take, i, f"take{i}", valid=True) for i in range(1, self.cycles + 1)]
        m.d.comb += [self.input.ready.eq(some), queue.write.eq(on_the_way[-1]),
                     queue.data.eq(delay(m, self.input.payload, self.cycles, "payload")),
                     self.busy.eq(room != self.depth),
                     Assert(room + sum(on_the_way) + queue.level == self.depth), Assert(some == (room != 0))]
        return m


class WaitingProof(Elaboratable):
    """A queue whose user writes at most ``late`` entries after there was no more room: it holds them all, in order.

    The entries are followed by one that is chosen at will: it leaves after exactly those that were before it,
    unchanged.
    """
    def __init__(self, unit, *, places, late):
        self.unit, self.places, self.late = unit, places, late

    def elaborate(self, platform):
        m = Module()
        m.submodules.unit = unit = self.unit
        width, places = len(unit.data), self.places
        write, data = any_value(m, 1, "writes"), any_value(m, width, "entry")
        m.d.comb += [unit.write.eq(write), unit.data.eq(data), unit.output.ready.eq(any_value(m, 1, "takes"))]
        after = Signal(range(self.late + 2))                # entries since there was room
        m.d.sync += after.eq(Mux(unit.room, 0, after + write))
        m.d.comb += Assume(unit.room | ~write | (after != self.late))
        given, held = Signal(), Signal(range(places + 2))
        m.d.comb += given.eq(unit.output.valid & unit.output.ready)
        m.d.sync += held.eq(held + write - given)
        chosen, followed, before, value = any_value(m, 1, "chosen"), Signal(), Signal(range(places + 2)), Signal(width)
        begin = write & chosen & ~followed
        with m.If(begin):
            m.d.sync += [followed.eq(1), value.eq(data), before.eq(held - given)]
        with m.Elif(followed & given):
            m.d.sync += [before.eq(before - 1), followed.eq(before != 0)]
        m.d.comb += [
            Assert(held <= places), Assert(~unit.output.valid | (held != 0)), Assert(~followed | (before < held)),
            Assert(~(followed & (before == 0) & unit.output.valid) | (unit.output.payload == value)),
        ]
        assert_held(m, unit.output, "output")
        waited = Signal(range(4))
        m.d.sync += waited.eq(Mux((held != 0) & ~unit.output.valid, waited + 1, 0))
        m.d.comb += Assert(waited < 3)                      # what it holds comes out two cycles later at most
        return m
