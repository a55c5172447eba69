"""The Wishbone window: commands out in order, constants, frequencies, results, counters."""
import random

from accel.control.window import Window
from accel.interfaces import Ahead
from llama2_spec.registers import QUEUE_DEPTH, RESULT_DEPTH, Counter, Model, Result
from llama2_spec.registers import Window as Region
from tests.accel.streams import receive, simulate


async def access(ctx, dut, address, value=None):
    bus = dut.bus
    for name, v in (("adr", address >> 2), ("we", value is not None), ("dat_w", value or 0), ("cyc", 1), ("stb", 1)):
        ctx.set(getattr(bus, name), v)
    data, = await ctx.tick().sample(bus.dat_r).until(bus.ack)
    ctx.set(bus.cyc, 0)
    ctx.set(bus.stb, 0)
    await ctx.tick()
    return data


async def push(ctx, dut, n):
    for i in range(4):
        await access(ctx, dut, Region.COMMAND + 4 * i, 100 * n + i)


def test_commands_in_order_and_overflow():
    dut, done = Window(), []

    async def drive(ctx):
        overflows = 0
        for n in range(QUEUE_DEPTH):
            assert ctx.get(dut.queue.free) == QUEUE_DEPTH - n
            await push(ctx, dut, n)
        assert ctx.get(dut.queue.free) == 0 and ctx.get(dut.queue.busy)
        ctx.set(dut.bus.adr, 3)
        for name in ("we", "cyc", "stb"):
            ctx.set(getattr(dut.bus, name), 1)
        while not ctx.get(dut.bus.ack):
            overflows += ctx.get(dut.queue.overflow)
            await ctx.tick()
        overflows += ctx.get(dut.queue.overflow)
        ctx.set(dut.bus.cyc, 0)
        assert overflows == 1
        for _ in range(20):
            assert not ctx.get(dut.commands.valid)      # nothing is executed whose segment was not taken
            await ctx.tick()
        done.append(True)
        got = await receive(ctx, dut.commands, QUEUE_DEPTH, stall=0.5)
        assert got == [sum((100 * n + i) << 32 * i for i in range(4)) for n in range(QUEUE_DEPTH)]
        assert not ctx.get(dut.commands.valid)
        await push(ctx, dut, 7)
        ctx.set(dut.abort, 1)
        await ctx.tick()
        ctx.set(dut.abort, 0)
        await ctx.tick()
        assert ctx.get(dut.queue.free) == QUEUE_DEPTH and not ctx.get(dut.commands.valid)

    async def ahead(ctx):
        while not done:
            await ctx.tick()
        got = [Ahead().from_bits(w) for w in await receive(ctx, dut.ahead, QUEUE_DEPTH, stall=0.3)]
        assert [(a.opcode, a.kv, a.base, a.beats) for a in got] == [
            (100 * n & 15, 0, 100 * n + 2, 100 * n + 3) for n in range(QUEUE_DEPTH)]
    simulate(dut, drive, ahead)


def test_constants_results_and_dump():
    dut = Window(candidate_sets=3)

    async def drive(ctx):
        for word in Model:
            await access(ctx, dut, Region.MODEL + 4 * word, 1000 + word)
        for name, word in (("dim", Model.DIM), ("head_dim", Model.HEAD_DIM), ("n_heads", Model.N_HEADS),
                           ("n_kv_heads", Model.N_KV_HEADS), ("epsilon", Model.EPSILON), ("narrow", Model.KV_FORMAT)):
            port = getattr(dut.model, name)
            assert ctx.get(port) == (1000 + word) % (1 << len(port)), name
        for word, mantissa, exponent in (
                (Model.SCORE_SCALE, dut.model.score_mantissa, dut.model.score_exponent),
                (Model.LOGIT_SCALE, dut.scales.mantissas[0], dut.scales.exponents[0]),
                (Model.LOGIT_SCALE + 2, dut.scales.mantissas[2], dut.scales.exponents[2])):
            await access(ctx, dut, Region.MODEL + 4 * word, 0x12f08255 + word)
            assert (ctx.get(mantissa), ctx.get(exponent)) == (0x8255 + word, -16)
        assert ctx.get(dut.scales.mantissas[0]) == 0x8255 + Model.LOGIT_SCALE
        for i in range(64):
            await access(ctx, dut, Region.ROPE + 4 * i, (i * 0x3456789) & 0xffffffff)
        for i in (0, 5, 63):
            ctx.set(dut.frequencies.index, i)
            await ctx.tick()
            assert ctx.get(dut.frequencies.value) == (i * 0x3456789) & 0xffffffff
        for n in range(3):
            payload = dict(token=n + 10, logit=-n - 1, cycles=n + 500, maximum=-n, mass=(n << 40) + 3, kept=n,
                           column=7 - n, total=n + 90)
            ctx.set(dut.results.payload, payload)
            ctx.set(dut.results.valid, 1)
            await ctx.tick().until(dut.results.ready)
        ctx.set(dut.results.valid, 0)
        for n in range(3):
            assert ctx.get(dut.result_valid)
            words = [await access(ctx, dut, Region.RESULT + 4 * w) for w in Result]
            assert words == [n + 10, 0xffffffff - n, n + 500, -n & 0xffffffff, 3, n << 8, n + (7 - n << 8), n + 90]
            await access(ctx, dut, Region.RESULT, 0)
        assert not ctx.get(dut.result_valid)
        ctx.set(dut.dump.data, 0xabcdef01)
        assert await access(ctx, dut, Region.LOGIT) == 0xabcdef01
        ctx.set(dut.candidates.token, 77)
        ctx.set(dut.candidates.logit, -5)
        assert await access(ctx, dut, Region.CANDIDATES + 8 * 9) == 77
        assert await access(ctx, dut, Region.CANDIDATES + 8 * 9 + 4) == 0xfffffffb
        assert ctx.get(dut.candidates.which) == 0
        await access(ctx, dut, Region.CANDIDATES, 2)
        assert ctx.get(dut.candidates.which) == 2
    simulate(dut, drive)


def test_next_candidate_is_read_and_popped_once():
    """Each read pops; one waits while the candidates are busy; writes, and reads beside it, pop nothing."""
    dut, popped, beside = Window(), [], []

    async def drive(ctx):
        for n in range(3):
            assert await access(ctx, dut, Region.NEXT) == (n << 16) + 1000 - n
        assert await access(ctx, dut, Region.CANDIDATES) == 0
        await access(ctx, dut, Region.NEXT, 0)
        await access(ctx, dut, Region.RESULT)
        beside.append(len(popped))

    async def candidates(ctx):
        """Five cycles for a pop, in which nothing is valid."""
        n = busy = 0
        async for _, _, pop in ctx.tick().sample(dut.candidates.pop):
            popped.extend([n] * pop)
            busy, n = (5, n + 1) if pop else (max(busy - 1, 0), n)
            ctx.set(dut.candidates.busy, busy != 0)
            ctx.set(dut.candidates.place, n if not busy else 63)
            ctx.set(dut.candidates.weight, 1000 - n if not busy else 0x7fff)

    async def run(ctx):
        ctx.set(dut.candidates.weight, 1000)
        await drive(ctx)
    simulate(dut, run, background=[candidates])
    assert popped == [0, 1, 2] and beside == [3]


def test_token_of_a_column_goes_out_once():
    dut, seen = Window(), []

    async def drive(ctx):
        for column in (0, 5, 7):
            await access(ctx, dut, Region.TOKEN + 4 * column, 0x3ff00 + column)
        await access(ctx, dut, Region.TOKEN)
        await access(ctx, dut, Region.TOKEN + 0x20, 1)

    async def watch(ctx):
        tokens = dut.tokens
        async for _, _, write, column, token in ctx.tick().sample(tokens.write, tokens.column, tokens.token):
            if write:
                seen.append((column, token))
    simulate(dut, drive, background=[watch])
    assert seen == [(column, 0x3ff00 + column) for column in (0, 5, 7)]


def test_results_wait_in_order():
    """As many as fit; the next waits, and all come in order; an abort drops them."""
    dut = Window()

    async def drive(ctx):
        for n in range(RESULT_DEPTH):
            ctx.set(dut.results.payload, dict(token=n, logit=-n, cycles=0, maximum=0, mass=n, kept=0))
            ctx.set(dut.results.valid, 1)
            await ctx.tick().until(dut.results.ready)
        ctx.set(dut.results.payload.token, 99)
        for _ in range(20):
            assert not ctx.get(dut.results.ready)
            await ctx.tick()
        assert await access(ctx, dut, Region.RESULT) == 0
        await access(ctx, dut, Region.RESULT, 0)
        await ctx.tick().until(dut.results.ready)
        ctx.set(dut.results.valid, 0)
        for n in (*range(1, RESULT_DEPTH), 99):
            assert ctx.get(dut.result_valid)
            assert await access(ctx, dut, Region.RESULT + 4 * Result.TOKEN) == n
            await access(ctx, dut, Region.RESULT, 0)
        assert not ctx.get(dut.result_valid)
        ctx.set(dut.results.valid, 1)
        await ctx.tick().until(dut.results.ready)
        await ctx.tick().repeat(3)                      # another, half stored
        ctx.set(dut.results.valid, 0)
        ctx.set(dut.abort, 1)
        await ctx.tick()
        ctx.set(dut.abort, 0)
        assert not ctx.get(dut.result_valid)
        ctx.set(dut.results.payload.token, 5)
        ctx.set(dut.results.valid, 1)
        await ctx.tick().until(dut.results.ready)
        ctx.set(dut.results.valid, 0)
        assert await access(ctx, dut, Region.RESULT) == 5
    simulate(dut, drive)


def test_counters_carry():
    """Three at once, in phases of three cycles and of hundreds; a read meanwhile is exact to the cycles it takes."""
    dut = Window()
    rng = random.Random(1)
    groups = (("cycle", "beat", "stalled"), ("cycle", "fenced"), ("cycle", "beat", "starved"))
    names = ("cycle", "beat", "starved", "fenced", "stalled")

    async def drive(ctx):
        expected = {}
        for _ in range(400):
            phase, group, length = rng.choice((0, 3, 7, 8)), rng.choice(groups), rng.choice((3, 3, 4, 31, 64, 90))
            ctx.set(dut.activity.phase, phase)
            for name in names:
                one = (2 if name == "beat" else 1) if name in group else 0
                ctx.set(getattr(dut.activity, name), one)
                expected[phase, names.index(name)] = expected.get((phase, names.index(name)), 0) + one * length
            await ctx.tick().repeat(length)
            for name in names:                          # as between two commands
                ctx.set(getattr(dut.activity, name), 0)
            await ctx.tick()
        for phase in range(9):
            for counter in Counter:
                got = await access(ctx, dut, Region.COUNTERS + 4 * (8 * phase + counter))
                assert got == expected.get((phase, int(counter)), 0), (phase, counter)
        ctx.set(dut.activity.phase, 3)
        ctx.set(dut.activity.cycle, 1)
        before = await access(ctx, dut, Region.COUNTERS + 4 * 8 * 3)
        for _ in range(100):                            # an access takes six cycles, or twelve beside a carry
            got = await access(ctx, dut, Region.COUNTERS + 4 * 8 * 3)
            assert before + 5 <= got <= before + 12
            before = got
        ctx.set(dut.clear, 1)
        await ctx.tick()
        ctx.set(dut.clear, 0)
        ctx.set(dut.activity.cycle, 0)
        for phase in range(9):
            for counter in Counter:
                assert await access(ctx, dut, Region.COUNTERS + 4 * (8 * phase + counter)) == 0
    simulate(dut, drive)


def test_a_clear_drops_what_is_being_carried():
    """All counters overflow in one cycle; a clear in any cycle around it leaves nothing of them."""
    dut = Window()
    names = ("cycle", "beat", "starved", "fenced", "stalled")

    async def drive(ctx):
        for phase, clear_at in [(phase, at) for phase in (3, 8) for at in range(60, 76)]:
            ctx.set(dut.activity.phase, phase)
            for cycle in range(78):
                for name in names:
                    ctx.set(getattr(dut.activity, name), cycle < 64)
                ctx.set(dut.clear, cycle == clear_at)
                await ctx.tick()
            for counter in Counter:
                assert await access(ctx, dut, Region.COUNTERS + 4 * (8 * phase + counter)) == 0, (clear_at, counter)
    simulate(dut, drive)


def test_counters():
    dut = Window()
    names = ("cycle", "beat", "starved", "fenced", "stalled")

    async def drive(ctx):
        expected = {}
        for n, phase in enumerate((3, 3, 0, 8, 3, 0)):
            ctx.set(dut.activity.phase, phase)
            for i, name in enumerate(names):
                ctx.set(getattr(dut.activity, name), (n + i) % 3 != 0)
                expected[phase, i] = expected.get((phase, i), 0) + ((n + i) % 3 != 0) * (n + 1)
            await ctx.tick().repeat(n + 1)
        for name in names:
            ctx.set(getattr(dut.activity, name), 0)
        for phase in range(9):
            for counter in Counter:
                got = await access(ctx, dut, Region.COUNTERS + 4 * (8 * phase + counter))
                assert got == expected.get((phase, int(counter)), 0)
        ctx.set(dut.clear, 1)
        await ctx.tick()
        ctx.set(dut.clear, 0)
        await ctx.tick().repeat(17)
        assert await access(ctx, dut, Region.COUNTERS + 4 * 8 * 3) == 0
    simulate(dut, drive)
