"""Takes what the quantiser writes to its place: the newest K/V rows, attention's query, or the activations."""
from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from accel.interfaces import Quantised, column_shape
from llama2_spec.registers import Dest


class Router(wiring.Component):
    """One element per cycle, ``latency`` cycles later; never stalled.

    Two registers: in the first it is known whose an element is, the second has a write enable for each place, so that
    no gate lies between it and the memories. All places see the same fields.

    Members
    -------
    quantised : In(Quantised)
        From the quantiser.
    rows, query, activations : Out(routed)
        K and V; Q; everything else.
    abort : In(1)
        Drop what is on its way.
    in_flight : Out(8)
        A bit is set while something is on its way.
    """
    latency = 2

    def __init__(self, *, columns):
        self.columns = columns
        routed = Quantised(columns, routed=True)
        super().__init__({"quantised": In(Quantised(columns)), "rows": Out(routed), "query": Out(routed),
                          "activations": Out(routed), "abort": In(1), "in_flight": Out(8)})

    def elaborate(self, platform):
        m = Module()
        what = {"column": column_shape(self.columns), "dest": 3, "index": 13, "mantissa": signed(16), "exponent": 6}
        first = Signal(data.StructLayout({"write": 1, "exponent_write": 1, **what}))
        q = Signal(data.StructLayout({**what, "head": 7}))
        m.d.sync += [*(first[name].eq(getattr(self.quantised, name)) for name in first.shape().members),
                     *(q[name].eq(first[name]) for name in what)]
        with m.If(self.abort):
            m.d.sync += [first.write.eq(0), first.exponent_write.eq(0)]
        begins = Signal(13)                 # index of the head whose exponent came last
        with m.If(first.exponent_write):
            m.d.sync += [begins.eq(first.index), q.head.eq(Mux(first.index == 0, 0, q.head + (first.index != begins)))]
        self._places(m, first, q)
        return m

    def _places(self, m, first, q):
        to_rows, to_query = (first.dest == Dest.K) | (first.dest == Dest.V), first.dest == Dest.Q
        enables = []
        for name, mine in (("rows", to_rows), ("query", to_query), ("activations", ~to_rows & ~to_query)):
            enable, port = Signal(2, name=f"{name}_enable"), getattr(self, name)
            m.d.sync += enable.eq(Mux(mine & ~self.abort, Cat(first.write, first.exponent_write), 0))
            m.d.comb += [port.write.eq(enable[0]), port.exponent_write.eq(enable[1]),
                         *(getattr(port, field).eq(q[field]) for field in q.shape().members)]
            enables.append(enable)
        m.d.comb += self.in_flight.eq(Cat(first.write, first.exponent_write, *enables))
