"""A unit's ``latency`` is what it takes from the row that completes a result to that result's place in the queue behind
the pipe."""
import pytest

from accel.interfaces import Row, RowSum
from accel.lib.stream import Queue, Skid
from accel.rows.residual import Residual
from accel.rows.rope import Rope
from accel.rows.scale import RowScale
from accel.rows.swiglu import SwiGlu
from llama2_spec.registers import Dest
from tests.accel.streams import simulate


@pytest.mark.parametrize("dut, source, sink, layout, dest, rows, behind", [
    pytest.param(RowScale(columns=1), "sums", "rows", RowSum(1), Dest.Q, 1, Queue.latency + Skid.latency, id="scale"),
    pytest.param(SwiGlu(columns=1), "rows", "values", Row(1), Dest.SWIGLU, 2, Queue.latency, id="swiglu"),
    pytest.param(Rope(columns=1), "rows", "values", Row(1), Dest.K, 2, Queue.latency, id="rope"),
    pytest.param(Residual(columns=1, max_dim=64), "rows", "values", Row(1), Dest.RESIDUAL, 1, Queue.latency,
                 id="residual"),
])
def test_latency(dut, source, sink, layout, dest, rows, behind):
    source, sink = getattr(dut, source), getattr(dut, sink)

    async def drive(ctx):
        if hasattr(dut, "model"):
            ctx.set(dut.model.head_dim if isinstance(dut, Rope) else dut.model.dim, 16)
        for i in range(rows):
            ctx.set(source.payload, {"value": 1000, "row": i, "odd": i & 1, "dest": dest})
            ctx.set(source.valid, 1)
            await ctx.tick().until(source.ready)
        ctx.set(source.valid, 0)
        cycles = 1                                  # the edge that took the last row
        while not ctx.get(sink.valid):
            await ctx.tick()
            cycles += 1
        assert cycles == dut.latency + behind
    simulate(dut, drive, deadline=100)
