"""The embedding fetch yields (code - zero) * mantissa of any row of a packed tensor."""
import random

import numpy as np
import pytest

from accel.dram.embed_fetch import ELEMENT, EmbedFetch
from llama2_spec import packing
from tests.accel.streams import receive, simulate


def memory(dut, beats, stall):
    async def serve(ctx):
        rng, line, port = random.Random(1), [None] * 9, dut.port
        while True:
            ready = rng.random() >= stall
            ctx.set(port.cmd_ready, ready)
            data = line.pop(0)
            ctx.set(port.rdata_valid, data is not None)
            ctx.set(port.rdata_data, beats[data] if data is not None else 0)
            _, _, valid, address = await ctx.tick().sample(port.cmd_valid, port.cmd_addr)
            line.append(address - 1000 if valid and ready else None)
    return serve


@pytest.mark.parametrize("stall, sink_stall", [(0.0, 0.0), (0.8, 0.0), (0.0, 0.8)])
@pytest.mark.parametrize("format, group, length",
                         [("q8", 64, 64), ("q8", 32, 48), ("q4", 32, 80), ("q4", 64, 16), ("q8", 64, 640)])
def test_rows(format, group, length, stall, sink_stall):
    q = packing.quantise(np.random.default_rng(length).normal(size=(21, length)), format=format, group=group)
    data = packing.pack(q)
    beats = [int.from_bytes(data[i:i + 16], "little") for i in range(0, len(data), 16)]
    expected = q.centred() * np.repeat(q.mantissas.astype(np.int64), group, axis=1)[:, :q.words * 16]
    dut = EmbedFetch(max_words=40)

    async def drive(ctx):
        for row in (0, 20, 7, 13, 6):
            for name, value in (("token", row), ("base", 1000), ("words", q.words), ("q4", format == "q4"),
                                ("group64", group == 64), ("start", 1)):
                ctx.set(getattr(dut.job, name), value)
            await ctx.tick()
            ctx.set(dut.job.start, 0)
            layout = dut.elements.payload.shape()
            got = [layout.from_bits(w) for w in await receive(ctx, dut.elements, q.words * 16, stall=sink_stall)]
            assert [g.value for g in got] == expected[row].tolist()
            assert [g.last for g in got] == [0] * (len(got) - 1) + [1]
            while ctx.get(dut.busy):
                await ctx.tick()
    simulate(dut, drive, background=(memory(dut, beats, stall),))


@pytest.mark.parametrize("after", [1, 12, 25, 40, 60])
def test_abort(after):
    """A dropped row leaves nothing behind: the next comes whole."""
    q = packing.quantise(np.random.default_rng(3).normal(size=(16, 96)), format="q8", group=32)
    data = packing.pack(q)
    beats = [int.from_bytes(data[i:i + 16], "little") for i in range(0, len(data), 16)]
    expected = q.centred() * np.repeat(q.mantissas.astype(np.int64), 32, axis=1)
    dut = EmbedFetch(max_words=16)

    async def start(ctx, row):
        for name, value in (("token", row), ("base", 1000), ("words", q.words), ("start", 1)):
            ctx.set(getattr(dut.job, name), value)
        await ctx.tick()
        ctx.set(dut.job.start, 0)

    async def drive(ctx):
        await start(ctx, 9)
        ctx.set(dut.elements.ready, 1)
        await ctx.tick().repeat(after)
        ctx.set(dut.abort, 1)
        await ctx.tick()
        ctx.set(dut.abort, 0)
        ctx.set(dut.elements.ready, 0)
        for _ in range(40):
            if not ctx.get(dut.busy):
                break
            assert not ctx.get(dut.elements.valid)
            await ctx.tick()
        assert not ctx.get(dut.busy)
        await start(ctx, 14)
        got = await receive(ctx, dut.elements, q.words * 16)
        assert [ELEMENT.from_bits(g).value for g in got] == expected[14].tolist()
    simulate(dut, drive, background=(memory(dut, beats, 0.3),))
