"""What the one quantiser takes: values from RoPE, the residual, SwiGLU or attention."""
from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from accel.interfaces import AttentionElement, Wide, column_shape
from llama2_spec.registers import Dest


class WideIntake(wiring.Component):
    """One value per cycle, no latency. A source keeps the quantiser while it has values: the choice, a register,
    changes only in cycles without one.

    Members
    -------
    rope, residual, swiglu : In(wide)
        Values with their places.
    attention : In(stream of AttentionElement)
        A column's output, from its first element on.
    start, column : In(1), In(column_shape)
        Attention begins for ``column``: its output is counted from here.
    values : Out(wide)
        To the quantiser.
    """
    latency = 0

    def __init__(self, *, columns):
        self.columns = columns
        wide = stream.Signature(Wide(columns))
        super().__init__({"rope": In(wide), "residual": In(wide), "swiglu": In(wide),
                          "attention": In(stream.Signature(AttentionElement())),
                          "start": In(1), "column": In(column_shape(columns)), "values": Out(wide)})

    def elaborate(self, platform):
        m = Module()
        output, values, sources = self.attention, self.values, (self.rope, self.residual, self.swiglu)
        column = Signal(column_shape(self.columns))
        place = Signal(13)
        with m.If(self.start):
            m.d.sync += [place.eq(0), column.eq(self.column)]
        with m.Elif(output.valid & output.ready):
            m.d.sync += place.eq(place + 1)
        # Encoded, so that a bit of the payload is one look-up table
        source = Signal(2)
        next_source = Signal(2)
        m.d.sync += next_source.eq(Mux(self.rope.valid, 0, Mux(self.residual.valid, 1, Mux(self.swiglu.valid, 2, 3))))
        with m.If(~values.valid):
            m.d.sync += source.eq(next_source)
        with m.Switch(source):
            for i, each in enumerate(sources):
                with m.Case(i):
                    m.d.comb += [values.valid.eq(each.valid), each.ready.eq(values.ready),
                                 values.payload.eq(each.payload)]
            with m.Default():
                p = values.payload
                m.d.comb += [
                    values.valid.eq(output.valid), output.ready.eq(values.ready), p.value.eq(output.payload.value),
                    p.column.eq(column),
                    p.index.eq(place), p.dest.eq(Dest.OUTPUT), p.end.eq((place[:5] == 31) | output.payload.last),
                ]
        return m
