"""Registers and queues in a stream lose nothing, keep the order, and are as fast as they say."""
import pytest
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from accel.lib.numeric import credits, delay
from accel.lib.stream import HalfRate, Queue, Skid, Stage
from tests.accel.streams import receive, send, simulate

WORDS = [n * 37 % 256 for n in range(200)]


class Credited(wiring.Component):
    """A pipeline of three registers that never stops before a queue of ``depth`` places."""
    def __init__(self, depth):
        self.depth = depth
        super().__init__({"input": In(stream.Signature(8)), "output": Out(stream.Signature(8)), "busy": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = Queue(8, depth=self.depth)
        wiring.connect(m, queue.output, wiring.flipped(self.output))
        take = self.input.valid & self.input.ready
        room, some = credits(m, self.depth, take, self.output.valid & self.output.ready)
        m.d.comb += [self.input.ready.eq(some), queue.write.eq(delay(m, take, 3, "take", valid=True)),
                     queue.data.eq(delay(m, self.input.payload, 3, "payload")), self.busy.eq(room != self.depth)]
        return m


@pytest.mark.parametrize("source_stall, sink_stall", [(0, 0), (.5, 0), (0, .5), (.3, .7), (.7, .3)])
@pytest.mark.parametrize("make", [lambda: Stage(8), lambda: Skid(8), lambda: HalfRate(8), lambda: Credited(2),
                                  lambda: Credited(8)])
def test_what_comes_in_goes_out(make, source_stall, sink_stall):
    dut = make()

    async def feed(ctx):
        await send(ctx, dut.input, WORDS, stall=source_stall)

    async def drain(ctx):
        assert await receive(ctx, dut.output, len(WORDS), stall=sink_stall) == WORDS
        await ctx.tick().repeat(2)
        assert not ctx.get(dut.output.valid) and not ctx.get(dut.busy)
    simulate(dut, feed, drain)


@pytest.mark.parametrize("make, cycles",
                         [(lambda: Stage(8), 1), (lambda: Skid(8), 1), (lambda: HalfRate(8), 2),
                          (lambda: Credited(8), 1)])
def test_rate(make, cycles):
    """Cycles a word, once the first is there."""
    dut, seen = make(), 0

    async def feed(ctx):
        await send(ctx, dut.input, WORDS)

    async def count(ctx):
        nonlocal seen
        ctx.set(dut.output.ready, 1)
        await ctx.tick().until(dut.output.valid)
        for _ in WORDS[1:]:
            _, _, valid = await ctx.tick().sample(dut.output.valid)
            seen += 1
            while not valid:
                _, _, valid = await ctx.tick().sample(dut.output.valid)
                seen += 1
    simulate(dut, feed, count)
    assert seen == cycles * (len(WORDS) - 1)


@pytest.mark.parametrize("make", [lambda: Skid(8), lambda: HalfRate(8)])
def test_ready_does_not_pass_through(make):
    """A word waits and another is offered: whether the sink is ready changes nothing before the next cycle."""
    dut = make()

    async def drive(ctx):
        await send(ctx, dut.input, [1])
        ctx.set(dut.input.valid, 1)
        shown = []
        for ready in (0, 1):
            ctx.set(dut.output.ready, ready)
            shown.append(ctx.get(dut.input.ready))
        assert shown[0] == shown[1]
    simulate(dut, drive)
