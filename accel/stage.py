"""Registers in a stream."""
from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class Stage(wiring.Component):
    """One register for payload and valid, a cycle of latency; ready passes through. ``busy`` while it holds something."""

    def __init__(self, shape):
        self.shape = shape
        super().__init__({"input": In(stream.Signature(shape)), "output": Out(stream.Signature(shape)), "busy": Out(1)})

    def elaborate(self, platform):
        m = Module()
        held, payload = Signal(), Signal(self.shape, reset_less=True)
        m.d.comb += [self.input.ready.eq(~held | self.output.ready), self.output.valid.eq(held), self.output.payload.eq(payload),
                     self.busy.eq(held)]
        with m.If(self.input.ready):
            m.d.sync += [held.eq(self.input.valid), payload.eq(self.input.payload)]
        return m


class Skid(wiring.Component):
    """Two registers, a cycle of latency: nothing passes through, ready neither. ``busy`` while it holds something."""

    def __init__(self, shape):
        self.shape = shape
        super().__init__({"input": In(stream.Signature(shape)), "output": Out(stream.Signature(shape)), "busy": Out(1)})

    def elaborate(self, platform):
        m = Module()
        into, out = self.input, self.output
        held, room = Signal(), Signal(init=1)       # no room: both hold a word
        payload, spare = (Signal(self.shape, name=name, reset_less=True) for name in ("payload", "spare"))
        m.d.comb += [into.ready.eq(room), out.valid.eq(held), out.payload.eq(payload), self.busy.eq(held)]
        with m.If(room):
            m.d.sync += spare.eq(into.payload)
        with m.If(~held | out.ready):
            m.d.sync += [held.eq(into.valid | ~room), room.eq(1), payload.eq(Mux(room, into.payload, spare))]
        with m.Else():
            m.d.sync += room.eq(room & ~into.valid)
        return m
