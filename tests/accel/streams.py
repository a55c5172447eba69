"""Stream helpers for testbenches: sources that starve, sinks that stall, a watchdog."""
import random

from amaranth.sim import Simulator

from tests.waves import recorded


def simulate(dut, *testbenches, deadline=100_000, background=()):
    """Run testbenches to their end; TimeoutError after ``deadline`` cycles."""
    sim = Simulator(dut)
    sim.add_clock(1e-6, if_exists=True)
    for testbench in testbenches:
        sim.add_testbench(testbench)
    for testbench in background:
        sim.add_testbench(testbench, background=True)

    async def watchdog(ctx):
        await ctx.delay(deadline * 1e-6)
        raise TimeoutError(f"no end after {deadline} cycles")
    sim.add_testbench(watchdog, background=True)
    with recorded(sim, dut):
        sim.run()


async def send(ctx, port, payloads, *, stall=0.0, seed=0):
    """Offer packed payloads; ``stall`` is the chance of an idle cycle before each."""
    rng = random.Random(seed)
    payload = port.payload.as_value() if hasattr(port.payload, "as_value") else port.payload
    for value in payloads:
        while rng.random() < stall:
            await ctx.tick()
        ctx.set(payload, value)
        ctx.set(port.valid, 1)
        await ctx.tick().until(port.ready)
        ctx.set(port.valid, 0)


async def receive(ctx, port, count, *, stall=0.0, seed=1):
    """Take ``count`` packed payloads; ``stall`` is the chance of a cycle without ready before each."""
    rng = random.Random(seed)
    payload = port.payload.as_value() if hasattr(port.payload, "as_value") else port.payload
    payloads = []
    for _ in range(count):
        while rng.random() < stall:
            await ctx.tick()
        ctx.set(port.ready, 1)
        value, = await ctx.tick().sample(payload).until(port.valid)
        ctx.set(port.ready, 0)
        payloads.append(value)
    return payloads


def busy_while_holding(busy, enter, leave, *, entered=1, left=1):
    """A process that fails where a unit holds something and is not ``busy``: then a fence would not wait for it.

    In a cycle with ``enter`` it gets ``entered`` more, in one with ``leave`` there are ``left`` less.
    """
    async def watch(ctx):
        held = 0
        while True:
            _, _, claims, comes, goes = await ctx.tick().sample(busy, enter, leave)
            assert claims or held == 0, f"not busy, and holds {held}"
            held += comes * entered - goes * left
    return watch
