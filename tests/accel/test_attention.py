"""Attention equals llama2_spec.golden.attend: shapes, raises, lifts, extremes, starved sources, stalled sinks,
aborts."""
import numpy as np
import pytest

from accel.attention.unit import Attention
from accel.attention.softmax import EXP2_LATENCY
from accel.attention.values import DIGITS, STAGES
from llama2_spec.golden import attend
from llama2_spec.image import row_elements
from llama2_spec.model import KvFormat
from llama2_spec.tables import EXP2
from tests.accel.streams import receive, send, simulate

SCALE = (0x8255, -18)


class Case:
    """A query and rows of K/V, all drawn from a seed, unless ``fill`` gives every mantissa."""

    def __init__(self, heads, kv_heads, head_dim, rows, *, seed=0, scale=SCALE, v_exponents=(0, 8), growth=0, fill=None,
                 column=0, kv=KvFormat.K16V16):
        rng = np.random.default_rng(seed)
        self.heads, self.kv_heads, self.head_dim, self.scale, self.count = heads, kv_heads, head_dim, scale, rows
        self.column, self.kv = column, kv
        self.n_rep = heads // kv_heads

        def mantissas(*shape, bits=16):
            if fill is not None:
                return fill(rng, shape).astype(np.int64) >> 16 - bits
            return rng.integers(-1 << bits - 1, 1 << bits - 1, shape)
        self.q, self.qe = mantissas(heads, head_dim), rng.integers(0, 4, heads)
        self.rows = []
        for t in range(rows):
            ke = rng.integers(0, 3, kv_heads) + int(growth * t)
            self.rows.append((mantissas(kv_heads, head_dim, bits=kv.k_bits), ke,
                              mantissas(kv_heads, head_dim, bits=kv.v_bits), rng.integers(*v_exponents, kv_heads)))
        self.expected = [int(v) for v in attend(self.q, self.qe, self.rows, self.n_rep, scale).reshape(-1)]

    def beats(self):
        raw = b""
        for k, ke, v, ve in self.rows:
            exponents = np.concatenate([ke, ve]).astype(np.uint8).tobytes()
            raw += exponents.ljust(-(-len(exponents) // 16) * 16, b"\0")
            raw += row_elements(k.reshape(-1), self.kv.k_bits) + row_elements(v.reshape(-1), self.kv.v_bits)
        return [int.from_bytes(raw[i:i + 16], "little") for i in range(0, len(raw), 16)]

    async def load(self, ctx, dut):
        mantissa, exponent = self.scale
        for name, value in (("n_heads", self.heads), ("n_kv_heads", self.kv_heads), ("head_dim", self.head_dim),
                            ("score_mantissa", mantissa), ("score_exponent", exponent), ("narrow", self.kv)):
            ctx.set(getattr(dut.model, name), value)
        await ctx.tick().repeat(3 * dut.max_heads + 2)      # the unit reckons what the shape means
        query = dut.query
        ctx.set(query.column, self.column)
        ctx.set(query.write, 1)
        for i, value in enumerate(self.q.reshape(-1)):
            ctx.set(query.index, i)
            ctx.set(query.head, i // self.head_dim)
            ctx.set(query.mantissa, int(value))
            await ctx.tick()
        ctx.set(query.write, 0)
        ctx.set(query.exponent_write, 1)
        for h, value in enumerate(self.qe):
            ctx.set(query.head, h)
            ctx.set(query.exponent, int(value))
            await ctx.tick()
        ctx.set(query.exponent_write, 0)
        await ctx.tick().repeat(4)

    async def start(self, ctx, dut):
        ctx.set(dut.job.rows, self.count)
        ctx.set(dut.job.column, self.column)
        ctx.set(dut.job.start, 1)
        await ctx.tick()
        ctx.set(dut.job.start, 0)


def run(cases, *, stall_in=0.0, stall_out=0.0, dut=None, prepare=None):
    """Each case in turn on one unit; returns the cycles from start to done of each."""
    dut = dut or Attention(max_heads=8, max_dim=1024)
    times, now = [], [0]

    async def source(ctx):
        if prepare:
            await prepare(ctx, dut)
        for case in cases:
            await case.load(ctx, dut)
            began = now[0]
            await case.start(ctx, dut)
            await send(ctx, dut.beats, case.beats(), stall=stall_in)
            while ctx.get(dut.busy):
                await ctx.tick()
            times.append(now[0] - began)

    async def sink(ctx):
        for number, case in enumerate(cases):
            words = await receive(ctx, dut.output, len(case.expected), stall=stall_out)
            values = [(w & (1 << 48) - 1) - ((w >> 47 & 1) << 48) for w in words]
            assert values == case.expected, number
            assert [w >> 48 for w in words] == [0] * (len(words) - 1) + [1]

    async def count(ctx):
        dones = 0
        async for _, _, done, busy in ctx.tick().sample(dut.job.done, dut.busy):
            now[0] += 1
            dones += done
            assert busy or not done
            assert dones <= len(cases)
    simulate(dut, source, sink, background=[count])
    assert len(times) == len(cases)
    return times


def loaded(cases):
    """A process that loads all queries of ``cases``, which then load nothing any more."""
    async def load_all(ctx, dut):
        for case in cases:
            await case.load(ctx, dut)
            case.load = nothing

    async def nothing(ctx, dut):
        pass
    return load_all


SHAPES = [(1, 1, 8), (2, 1, 8), (4, 4, 8), (8, 4, 8), (8, 1, 16), (6, 2, 24), (8, 4, 64), (2, 2, 128), (1, 1, 16)]


def test_shapes():
    run([Case(h, kv, dim, rows, seed=i) for i, (h, kv, dim) in enumerate(SHAPES)
         for rows in (1, 3 if dim > 24 else 12)])


@pytest.mark.parametrize("kv", [KvFormat.K16V8, KvFormat.K8V8], ids=str)
def test_elements_of_eight_bits(kv):
    """Also where half a beat is left over; rows of another format before and after; starved and stalled."""
    shapes = [(1, 1, 8), (8, 4, 8), (6, 3, 8), (6, 2, 24), (2, 1, 128)]
    cases = [Case(*shape, rows, seed=i, kv=kv) for i, shape in enumerate(shapes) for rows in (1, 4)]
    ends = lambda rng, shape: rng.choice([-32768, 32767], shape)                # noqa: E731
    cases[3:3] = [Case(8, 4, 8, 3), Case(4, 2, 8, 5, kv=kv, fill=ends, v_exponents=(0, 25))]
    run(cases)
    run(cases[2:5], stall_in=0.5, stall_out=0.5)


#: Lanes and softmax pipes beside the 8 and 1 of the other tests.
SIZES = [(16, 1), (16, 2), (32, 1), (32, 2)]


def wide(lanes, pipes, **options):
    return Attention(columns=2, max_heads=16, max_dim=512, lanes=lanes, pipes=pipes, **options)


@pytest.mark.parametrize("lanes, pipes", SIZES)
def test_lanes(lanes, pipes):
    """Heads that fill words, that leave slots empty, that come in pairs; each size has other formats for them; starved
    and stalled; sums that fall by any shift."""
    shapes = [(1, 1, 8), (4, 2, 8), (6, 2, 8), (8, 1, 16), (9, 3, 32), (6, 2, 40), (2, 2, 24), (3, 3, 48)]
    cases = [Case(*shape, 2 + i % 4, seed=i, column=i & 1, kv=kv, growth=i % 3, scale=(0xffff, -18 - i),
                  v_exponents=(0, 15))
             for i, shape in enumerate(shapes) for kv in [list(KvFormat)[(i + i // 3 + lanes // 16 + pipes) % 3]]]
    run(cases[::2], dut=wide(lanes, pipes))
    run(cases[1::2], dut=wide(lanes, pipes, k_buffer=2, v_buffer=2), stall_in=0.5, stall_out=0.3)


@pytest.mark.parametrize("lanes, pipes, shape", [(16, 2, (8, 4, 8)), (32, 1, (6, 2, 24))])
def test_lanes_keep_a_query_for_each_column(lanes, pipes, shape):
    """Where a head shares a word, and where it does not fill its last."""
    cases = [Case(*shape, 3, seed=column, column=column) for column in (0, 1)]
    run([*cases, cases[0]], dut=wide(lanes, pipes), prepare=loaded(cases))


@pytest.mark.parametrize("lanes, pipes, shape, kv, beats", [
    (16, 1, (3, 1, 64), KvFormat.K16V16, 17), (16, 1, (4, 1, 64), KvFormat.K16V16, 17),
    (16, 1, (2, 2, 48), KvFormat.K8V8, 13), (16, 2, (8, 4, 8), KvFormat.K8V8, 5),
    (32, 1, (8, 1, 64), KvFormat.K16V16, 17)])
def test_follows_the_memory(lanes, pipes, shape, kv, beats):
    """A row takes as many cycles as it has beats: 4 * n_rep lanes do, twice as many with 8 bits."""
    short, long = run([Case(*shape, 6, kv=kv), Case(*shape, 16, kv=kv)], dut=wide(lanes, pipes))
    assert long - short <= 10 * beats + 2


@pytest.mark.parametrize("lanes", [16, 32])
def test_a_maximum_that_rises_costs_nothing(lanes):
    """With more than 8 lanes: rows whose scores climb take the cycles of rows whose scores do not."""
    flat, steep = (run([Case(4, 1, 64, 12, growth=growth)], dut=wide(lanes, 1))[0] for growth in (0, 1))
    assert steep == flat


def test_one_step_of_each_stage_makes_any_shift():
    """A sum has 48 bits: a larger shift leaves its sign, as 47 does."""
    for shift, code in enumerate(DIGITS):
        assert sum(steps[code >> 2 * i & 3] for i, steps in enumerate(STAGES)) == min(shift, 47)


@pytest.mark.parametrize("lanes, pipes, expected", [
    (12, 1, "8, 16 or 32 lanes, not 12"), (8, 2, "1 softmax pipe, not 2"), (32, 3, "1 or 2 softmax pipes, not 3")])
def test_refuses_other_sizes(lanes, pipes, expected):
    with pytest.raises(ValueError, match=expected):
        Attention(lanes=lanes, pipes=pipes)


def test_sixty_four_heads():
    run([Case(64, 8, 16, 3), Case(64, 64, 8, 3, seed=1)], dut=Attention())


def test_keeps_a_query_for_each_column():
    """All are written first; each is attended with its own, in any order, the last of them twice."""
    cases = [Case(6, 2, 24, 3, seed=column, column=column) for column in (2, 0, 1, 1)]
    run(cases, dut=Attention(columns=3, max_heads=6, max_dim=152), prepare=loaded(cases))


@pytest.mark.parametrize("stalls", [(0.9, 0.0), (0.0, 0.9), (0.5, 0.5)])
def test_stalls(stalls):
    run([Case(8, 4, 8, 6), Case(1, 1, 8, 20, seed=1), Case(4, 1, 16, 5, seed=2)], stall_in=stalls[0],
        stall_out=stalls[1])


def test_small_v_buffer():
    dut = Attention(max_heads=8, max_dim=128, v_buffer=2)
    run([Case(8, 4, 8, 6), Case(8, 8, 16, 6, seed=3)], dut=dut)


def test_maximum_rises_and_exponents_lift():
    """Scores that grow by orders of magnitude, V exponents of any size, scores that saturate or vanish."""
    run([Case(h, kv, 8, 12, seed=i, growth=g, scale=(0xffff, e), v_exponents=(0, 16))
         for i, (h, kv, g, e) in enumerate([(4, 2, 1, -18), (1, 1, 1, -20), (8, 4, 0.5, -24), (2, 1, 1.5, -28),
                                            (4, 4, 0, 20), (2, 2, 0, -90), (1, 1, 0, -13)])])


@pytest.mark.parametrize("seed, lanes", [(0, 8), (1, 8), (0, 16), (1, 32)])
def test_steps(seed, lanes):
    """A score of exactly the K mantissa: rises just below, at and beyond every limit of a shift, with and without
    lifts."""
    rng = np.random.default_rng(seed)
    case = Case(2, 1, 8, 1, seed=seed, scale=(0x8000, 9))
    case.q[:], case.qe[:] = 0, 0
    case.q[:, 0] = 4096
    scores = np.cumsum([-20000, 1, 2, 3, -7, 9, 16, 17, 33, -2, 47, 50, 62, 64, 64, 66, 3, 80, 130, 3, 30000])
    rows = []
    for t, score in enumerate(scores):
        k, v = np.zeros((1, 8), np.int64), rng.integers(-32768, 32768, (1, 8))
        k[0, 0] = score
        rows.append((k, np.zeros(1, np.int64), v, np.array([t // 3 if seed else 3])))
    cases = []
    for end in range(3, len(rows) + 1, 3):
        part = Case(2, 1, 8, 1, scale=case.scale)
        part.q, part.qe, part.rows, part.count = case.q, case.qe, rows[:end], end
        part.expected = [int(v) for v in attend(part.q, part.qe, part.rows, 2, case.scale).reshape(-1)]
        cases.append(part)
    run(cases, dut=Attention(max_heads=8, max_dim=64, lanes=lanes))


def test_extremes():
    """Every mantissa at either end: products, sums and averages at their limits."""
    ends = lambda rng, shape: rng.choice([-32768, -32767, 32767], shape)        # noqa: E731
    low = lambda rng, shape: np.full(shape, -32768)                             # noqa: E731
    zero = lambda rng, shape: np.zeros(shape)                                   # noqa: E731
    run([Case(4, 2, 8, 10, fill=ends), Case(2, 1, 128, 3, fill=low, scale=(0xffff, -20)), Case(2, 2, 8, 4, fill=zero),
         Case(8, 4, 8, 10, fill=ends, scale=(0xffff, -26), v_exponents=(0, 15)),
         Case(1, 1, 8, 20, fill=low, v_exponents=(14, 15))])


@pytest.mark.parametrize("after", [1, 12, 40, 75, 95])
def test_abort(after):
    """Aborted among its rows or among its elements, the unit starts afresh."""
    lost, kept = Case(8, 4, 8, 4), Case(4, 2, 16, 4, seed=1)

    async def abandon(ctx, dut):
        await lost.load(ctx, dut)
        await lost.start(ctx, dut)
        beats = lost.beats()
        for _ in range(after):
            ctx.set(dut.beats.valid, bool(beats))
            ctx.set(dut.beats.payload, beats[0] if beats else 0)
            _, _, ready = await ctx.tick().sample(dut.beats.ready)
            if ready:
                beats = beats[1:]
        ctx.set(dut.beats.valid, 0)
        ctx.set(dut.abort, 1)
        await ctx.tick()
        ctx.set(dut.abort, 0)
        assert not ctx.get(dut.output.valid) and not ctx.get(dut.beats.ready)
        await ctx.tick()
        assert not ctx.get(dut.busy) and not ctx.get(dut.output.valid) and not ctx.get(dut.beats.ready)

    # The sink waits for the second case only: the abort comes first, while nobody takes elements.
    dut = Attention(max_heads=8, max_dim=128)
    taken = []

    async def source(ctx):
        await abandon(ctx, dut)
        await kept.load(ctx, dut)
        await kept.start(ctx, dut)
        await send(ctx, dut.beats, kept.beats())

    async def sink(ctx):
        await ctx.tick().until(dut.abort)
        taken.extend(await receive(ctx, dut.output, len(kept.expected)))
    simulate(dut, source, sink)
    assert [w & (1 << 48) - 1 for w in taken] == [v & (1 << 48) - 1 for v in kept.expected]


def test_rates(capsys):
    """8 heads on 4 K/V heads of 8: a row in 9 beats; the end in few cycles more than its elements."""
    short, long = run([Case(8, 4, 8, 10), Case(8, 4, 8, 50)])
    per_row, end = (long - short) / 40, short - 10 * (long - short) / 40
    with capsys.disabled():
        print(f"\nattention 8/4 x 8: {per_row} cycles a row, {end} before the first and after the last")
    assert per_row <= 12
    assert end <= 64 + 61


def test_lends_its_exp2():
    dut = Attention(max_heads=8, max_dim=64)
    points = [(0, 0), (255, 255), (17, 200), (128, 1)]

    async def ask(ctx):
        ctx.set(dut.guest.busy, 1)
        for index, t in points:
            ctx.set(dut.guest.index, index)
            ctx.set(dut.guest.t, t)
            await ctx.tick().repeat(EXP2_LATENCY)
            assert ctx.get(dut.guest.value) == EXP2(index, t)
    simulate(dut, ask)


def test_a_row_of_eight_bits_takes_no_longer():
    """An 8-bit beat is two slots, one a cycle: the cycles are those of the 16-bit row."""
    times = [run([Case(8, 4, 8, 10, kv=kv), Case(8, 4, 8, 50, kv=kv)]) for kv in KvFormat]
    assert all(abs((long - short) - (times[0][1] - times[0][0])) <= 4 for short, long in times)
