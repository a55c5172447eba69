"""A register in a stream."""
from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class Stage(wiring.Component):
    """One register for payload and valid, a cycle of latency; ready passes through. ``busy`` while it holds something."""

    def __init__(self, shape):
        super().__init__({"input": In(stream.Signature(shape)), "output": Out(stream.Signature(shape)), "busy": Out(1)})

    def elaborate(self, platform):
        m = Module()
        held = Signal()
        m.d.comb += [self.input.ready.eq(~held | self.output.ready), self.output.valid.eq(held), self.busy.eq(held)]
        with m.If(self.input.ready):
            m.d.sync += [held.eq(self.input.valid), self.output.payload.eq(self.input.payload)]
        return m
