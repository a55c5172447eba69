"""Hands each scaled row to the unit that takes it."""
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from accel.interfaces import Logit, Row
from accel.rows.scale import To


class RowDispatch(wiring.Component):
    """Combinational: every unit sees the payload, the one that is meant sees ``valid``, and its ``ready`` goes back.

    Members
    -------
    rows : In(row)
        From the scaler.
    rope, swiglu, residual : Out(row)
        Rows of Q, K and V; of gate and up; to be added.
    logits : Out(stream of Logit)
        Rows of the classifier.
    """
    latency = 0

    def __init__(self, *, columns):
        row = stream.Signature(Row(columns))
        super().__init__({"rows": In(row), "rope": Out(row), "swiglu": Out(row), "residual": Out(row),
                          "logits": Out(stream.Signature(Logit(columns)))})

    def elaborate(self, platform):
        m = Module()
        rows, logit = self.rows, self.logits.payload
        with m.Switch(rows.payload.to):
            for to, sink in ((To.ROPE, self.rope), (To.SWIGLU, self.swiglu), (To.LOGITS, self.logits),
                             (To.RESIDUAL, self.residual)):
                with m.Case(to):
                    m.d.comb += [sink.valid.eq(rows.valid), rows.ready.eq(sink.ready)]
        m.d.comb += [
            *(sink.payload.eq(rows.payload) for sink in (self.rope, self.swiglu, self.residual)),
            *(logit[name].eq(rows.payload[name]) for name in ("value", "column", "row", "last")),
        ]
        return m
