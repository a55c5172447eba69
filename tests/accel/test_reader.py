"""The segment reader delivers every beat in order, at one a cycle, never past its room; aborts leave nothing behind."""
import random

import pytest

from accel.dram.reader import SegmentReader
from accel.interfaces import Beats
from tests.accel.streams import simulate


def memory(dut, *, latency=14, stall=0.0, seed=0, log=None):
    """Both ports on one DRAM, which takes one command a cycle: data is the address, ``latency`` cycles later."""
    async def serve(ctx):
        rng = random.Random(seed)
        ports = (dut.read0, dut.read1)
        line, turn = [None] * latency, 0
        while True:
            ready = rng.random() >= stall
            port, data = line.pop(0) or (None, 0xbad)
            for i, p in enumerate(ports):
                ctx.set(p.cmd_ready, 0)
                ctx.set(p.rdata_valid, port == i)
            ctx.set(dut.read0.rdata_data, data)
            if not ctx.get(ports[turn].cmd_valid):
                turn = 1 - turn
            ctx.set(ports[turn].cmd_ready, ready)
            valid, address = ctx.get(ports[turn].cmd_valid), ctx.get(ports[turn].cmd_addr)
            line.append((turn, address) if valid and ready else None)
            if valid and ready and log is not None:
                log.append(address)
            await ctx.tick()
    return serve


async def push(ctx, dut, base, beats, kv=0, stores=0):
    for name, value in (("base", base), ("beats", beats), ("kv", kv), ("stores", stores)):
        ctx.set(getattr(dut.segments.payload, name), value)
    ctx.set(dut.segments.valid, 1)
    await ctx.tick().until(dut.segments.ready)
    ctx.set(dut.segments.valid, 0)


async def take(ctx, dut, count, stall=0.0, seed=1):
    rng, got = random.Random(seed), []
    while len(got) < count:
        ctx.set(dut.beats.ready, rng.random() >= stall)
        ready = ctx.get(dut.beats.ready)
        _, _, valid, value = await ctx.tick().sample(dut.beats.valid, dut.beats.payload)
        if valid and ready:
            got.append(value)
    ctx.set(dut.beats.ready, 0)
    return got


SEGMENTS = [(0, 5), (125, 10), (1000, 300), (1300, 1), (128, 128), (384, 0), (70, 200), (0, 1)]


@pytest.mark.parametrize("stall, sink_stall, latency",
                         [(0.0, 0.0, 14), (0.7, 0.0, 14), (0.0, 0.9, 14), (0.3, 0.3, 14), (0.0, 0.0, 90)])
def test_in_order(stall, sink_stall, latency):
    """With a ``latency`` in which more could be asked for than a port keeps places for, too."""
    dut = SegmentReader(buffer=64)
    expected = [base + i for base, n in SEGMENTS for i in range(n)]

    async def drive(ctx):
        for base, n in SEGMENTS:
            await push(ctx, dut, base, n)

    async def check(ctx):
        assert await take(ctx, dut, len(expected), sink_stall) == expected
        for _ in range(3):
            await ctx.tick()
        assert not ctx.get(dut.busy)
    simulate(dut, drive, check, background=(memory(dut, stall=stall, latency=latency),))


def test_one_beat_a_cycle_across_segments():
    dut = SegmentReader()

    async def drive(ctx):
        for base in (0, 640, 1280, 5000):
            await push(ctx, dut, base, 500)
        start = len(await take(ctx, dut, 20))
        cycles = 0

        async def count():
            nonlocal cycles
            ctx.set(dut.beats.ready, 1)
            taken = 0
            while taken < 2000 - start:
                _, _, valid = await ctx.tick().sample(dut.beats.valid)
                taken, cycles = taken + valid, cycles + 1
        await count()
        assert cycles <= 1980 + 20
    simulate(dut, drive, background=(memory(dut),))


def test_waits_for_stores():
    dut, log = SegmentReader(), []

    async def drive(ctx):
        await push(ctx, dut, 10, 4)
        await push(ctx, dut, 500, 4, kv=1, stores=3)
        await push(ctx, dut, 900, 4)
        for done in range(3):
            ctx.set(dut.stores_done, done)
            await ctx.tick().repeat(60)
            assert sorted(log) == [10, 11, 12, 13]      # nothing behind the barrier was even requested
        ctx.set(dut.stores_done, 3)
        assert await take(ctx, dut, 12) == [*range(10, 14), *range(500, 504), *range(900, 904)]
    simulate(dut, drive, background=(memory(dut, log=log),))


def test_busy_while_a_segment_only_waits():
    """For stores: nothing is on its way and every beat before has left, but a fence must wait for it."""
    dut = SegmentReader()

    async def drive(ctx):
        await push(ctx, dut, 10, 4)
        await push(ctx, dut, 500, 4, kv=1, stores=1)
        assert await take(ctx, dut, 4) == [*range(10, 14)]
        for _ in range(40):
            assert ctx.get(dut.busy)
            await ctx.tick()
        ctx.set(dut.stores_done, 1)
        assert await take(ctx, dut, 4) == [*range(500, 504)]
        await ctx.tick().repeat(3)
        assert not ctx.get(dut.busy)
    simulate(dut, drive, background=(memory(dut),))


def test_busy_while_dropped_reads_are_out():
    dut = SegmentReader()

    async def drive(ctx):
        await push(ctx, dut, 0, 1000)
        await ctx.tick().repeat(30)
        ctx.set(dut.abort, 1)
        await ctx.tick()
        ctx.set(dut.abort, 0)
        await ctx.tick()
        cycles = busy = 0
        while ctx.get(dut.aborting):
            cycles, busy = cycles + 1, busy + ctx.get(dut.busy)
            await ctx.tick()
        assert cycles > 10 and busy >= cycles - 1       # aborting ends one cycle after the last beat came
        assert not ctx.get(dut.busy)
    simulate(dut, drive, background=(memory(dut),))


@pytest.mark.parametrize("after", [1, 9, 30, 80])
def test_abort(after):
    dut = SegmentReader(buffer=32)

    async def drive(ctx):
        await push(ctx, dut, 0, 1000)
        await push(ctx, dut, 3000, 100)
        await ctx.tick().repeat(after)
        ctx.set(dut.abort, 1)
        await ctx.tick()
        ctx.set(dut.abort, 0)
        await ctx.tick()
        while ctx.get(dut.aborting):
            await ctx.tick()
        assert not ctx.get(dut.busy)
        await push(ctx, dut, 7000, 50)
        assert await take(ctx, dut, 50) == list(range(7000, 7050))
    simulate(dut, drive, background=(memory(dut),))


@pytest.mark.parametrize("sink_stall", [0.0, 0.5])
def test_two_beats_at_a_time(sink_stall):
    """However one and two are mixed, the beats come in order and none is lost."""
    dut = SegmentReader(buffer=64)
    expected = [base + i for base, n in SEGMENTS for i in range(n)]

    async def drive(ctx):
        for base, n in SEGMENTS:
            await push(ctx, dut, base, n)

    async def check(ctx):
        rng, got = random.Random(7), []
        while len(got) < len(expected):
            both = rng.random() < .5
            wanted = rng.random() >= sink_stall
            ctx.set(dut.beats.both, both)
            ctx.set(dut.beats.ready, wanted)
            _, _, valid, ready, first, second = await ctx.tick().sample(dut.beats.valid, dut.beats.ready,
                                                                        dut.beats.payload, dut.beats.second)
            if valid and ready:
                got += [first, second] if both else [first]
        assert got == expected
        ctx.set(dut.beats.ready, 0)
        await ctx.tick().repeat(3)
        assert not ctx.get(dut.busy)
    simulate(dut, drive, check, background=(memory(dut),))


@pytest.mark.parametrize("words", [0, 3])
def test_beats_come_one_or_two_at_a_time(words):
    with pytest.raises(ValueError, match=f"one or two words, not {words}"):
        Beats(words)
