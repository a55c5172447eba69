"""The logit unit's argmax, candidates and mass equal golden."""
import numpy as np
import pytest
from amaranth.hdl import Module, ResetInserter, Signal
from amaranth.lib import wiring

from accel.attention.softmax import EXP2_LATENCY
from accel.logits.unit import LogitUnit
from accel.lib.table import InterpolatedTable
from llama2_spec.golden import Logits
from llama2_spec.numerics import exp2_weight, logit_scale, logit_to_log2
from llama2_spec.tables import EXP2
from tests.accel.streams import simulate


class Bench(wiring.Component):
    """The unit with its table, and an abort that resets it as the core's does."""

    def __init__(self, multiplier_bits, columns=1):
        self.dut, self.abort = LogitUnit(multiplier_bits=multiplier_bits, columns=columns,
                                         candidate_sets=columns), Signal()
        super().__init__({})

    def elaborate(self, platform):
        m, dut = Module(), self.dut
        m.submodules.dut = ResetInserter(self.abort)(dut)
        m.submodules.table = table = InterpolatedTable(EXP2, latency=EXP2_LATENCY)
        m.d.comb += [table.index.eq(dut.exp2.index), table.t.eq(dut.exp2.t), dut.exp2.value.eq(table.value)]
        return m


def set_scale(ctx, dut, which, scale):
    ctx.set(dut.scales.mantissas[which], scale & 0xffff)
    ctx.set(dut.scales.exponents[which], (scale >> 16) - (scale >> 16 & 0x80) * 2)


async def send_logits(ctx, dut, logits, active):
    """The logits (columns, vocab) of the active columns, in the order of the matrix engine's row pairs."""
    vocab = logits.shape[1]
    for even in range(0, vocab, 2):
        for column in active:
            for row in range(even, min(even + 2, vocab)):
                ctx.set(dut.logits.payload.value, int(logits[column, row]))
                ctx.set(dut.logits.payload.column, column)
                ctx.set(dut.logits.payload.row, row)
                ctx.set(dut.logits.payload.last, row == vocab - 1)
                ctx.set(dut.logits.valid, 1)
                await ctx.tick().until(dut.logits.ready)
                ctx.set(dut.logits.valid, 0)


async def at_place(ctx, dut, place):
    ctx.set(dut.candidate.index, place)
    await ctx.tick().repeat(2)
    return ctx.get(dut.candidate.token), ctx.get(dut.candidate.logit)


async def popped(ctx, dut):
    """Token, logit and weight of the largest candidate, which is popped."""
    weight, place = ctx.get(dut.candidate.weight), ctx.get(dut.candidate.place)
    token, logit = await at_place(ctx, dut, place)
    ctx.set(dut.candidate.pop, 1)
    await ctx.tick()
    ctx.set(dut.candidate.pop, 0)
    assert ctx.get(dut.candidate.busy)
    waited = 1
    while ctx.get(dut.candidate.busy):
        await ctx.tick()
        waited += 1
    assert waited <= 13 + 1
    return token, logit, weight


@pytest.mark.parametrize("source_stall, result_stall, multiplier_bits", [(0.0, 0, 18), (0.7, 50, 25)])
@pytest.mark.parametrize("vocab, temperature", [(16, 1.0), (64, 0.3), (65, 5.0), (700, 1.0)])
def test_equals_golden(vocab, temperature, source_stall, result_stall, multiplier_bits):
    rng = np.random.default_rng(vocab)
    bench = Bench(multiplier_bits)
    dut = bench.dut
    scale = logit_scale(int(temperature * 65536))
    passes = [rng.normal(size=vocab) * 2 ** 20, np.arange(vocab) * 3000 - 2 ** 21, rng.integers(0, 4, vocab),
              np.where(rng.random(vocab) < .5, -1 << 31, (1 << 31) - 1),
              np.arange(vocab) * (1 << 31) // vocab - (1 << 30),      # each raises the reference
              np.arange(5) - 3]                                       # fewer than the places that were filled before

    async def drive(ctx):
        set_scale(ctx, dut, 0, scale)
        for n, values in enumerate(passes):
            values = np.asarray(values).astype(np.int64)
            keep = n != 1 or vocab < 100
            ctx.set(dut.job.keep, keep)
            ctx.set(dut.job.start, 1)
            await ctx.tick()
            ctx.set(dut.job.start, 0)
            for i, v in enumerate(values):
                while rng.random() < source_stall:
                    await ctx.tick()
                ctx.set(dut.logits.payload.value, int(v))
                ctx.set(dut.logits.payload.row, i)
                ctx.set(dut.logits.payload.last, i == len(values) - 1)
                ctx.set(dut.logits.valid, 1)
                await ctx.tick().until(dut.logits.ready)
                ctx.set(dut.logits.valid, 0)
            while not ctx.get(dut.result.valid):
                await ctx.tick()
            await ctx.tick().repeat(result_stall + 1)
            result = ctx.get(dut.result.payload)
            expected = Logits(values, int(values.argmax()))
            assert (result.token, result.logit) == (expected.argmax, values[expected.argmax])
            if keep:
                candidates, mass, maximum = expected.kept(scale)
                assert (result.mass, result.maximum, result.kept) == (mass, maximum, len(candidates))
                weights = exp2_weight(logit_to_log2([logit for _, logit in candidates], scale), maximum).tolist()
                assert result.total == sum(weights)
                got = [await at_place(ctx, dut, i) for i in range(len(candidates))]
                assert sorted(got) == sorted(candidates)
                # All of them in order, or some: what is left is forgotten with the next pass.
                for candidate, weight in zip(candidates[:None if n != 2 else 5], weights):
                    assert await popped(ctx, dut) == (*candidate, weight)
                assert n == 2 or ctx.get(dut.candidate.weight) == 0
                assert [await at_place(ctx, dut, i) for i in range(len(candidates))] == got
            ctx.set(dut.result.ready, 1)
            await ctx.tick()
            ctx.set(dut.result.ready, 0)
            assert not ctx.get(dut.busy)
    simulate(bench, drive)


@pytest.mark.parametrize("result_stall", [0, 9])
@pytest.mark.parametrize("columns, first, last", [(2, 0, 1), (4, 0, 2), (4, 0, 3), (4, 2, 2), (8, 0, 6)])
def test_every_column_has_its_argmax(columns, first, last, result_stall):
    """Rows in pairs as the matrix engine yields them, an odd vocabulary; ties go to the lowest id, negative logits
    too."""
    rng = np.random.default_rng(columns + last)
    dut = LogitUnit(columns=columns)
    active = range(first, last + 1)
    vocab = 77

    async def drive(ctx):
        ctx.set(dut.job.first, first)
        ctx.set(dut.job.last, last)
        for n in range(4):
            low, high = ((-1 << 31, 1 << 31), (-5, 0), (0, 2), (-1 << 31, 2 - (1 << 31)))[n]
            logits = rng.integers(low, high, (columns, vocab))
            ctx.set(dut.job.start, 1)
            await ctx.tick()
            ctx.set(dut.job.start, 0)
            await send_logits(ctx, dut, logits, active)
            for column in active:
                while not ctx.get(dut.result.valid):
                    await ctx.tick()
                for _ in range(result_stall):
                    await ctx.tick()
                result = ctx.get(dut.result.payload)
                assert (result.token, result.logit) == (int(logits[column].argmax()), int(logits[column].max()))
                ctx.set(dut.result.ready, 1)
                await ctx.tick()
                ctx.set(dut.result.ready, 0)
            assert not ctx.get(dut.busy)
    simulate(dut, drive)


@pytest.mark.parametrize("columns, first, last, multiplier_bits", [(2, 0, 1, 25), (4, 0, 2, 18), (4, 3, 3, 25)])
def test_every_column_has_its_candidates(columns, first, last, multiplier_bits):
    """Each with its own temperature, ties among them; a pass of one column uses that column's set."""
    rng = np.random.default_rng(last)
    bench = Bench(multiplier_bits, columns)
    dut, active, vocab = bench.dut, range(first, last + 1), 91
    scales = [logit_scale(int(temperature * 65536)) for temperature in (1, .3, 5, 1.7)]

    async def drive(ctx):
        for column in range(columns):
            set_scale(ctx, dut, column, scales[column])
        ctx.set(dut.job.first, first)
        ctx.set(dut.job.last, last)
        ctx.set(dut.job.keep, 1)
        for spread in (2 ** 20, 3):
            logits = np.rint(rng.normal(size=(columns, vocab)) * spread).astype(np.int64)
            ctx.set(dut.job.start, 1)
            await ctx.tick()
            ctx.set(dut.job.start, 0)
            await send_logits(ctx, dut, logits, active)
            expected = [Logits(values, int(values.argmax())) for values in logits]
            kept = [one.kept(scale) for one, scale in zip(expected, scales)]
            weights = [exp2_weight(logit_to_log2([logit for _, logit in candidates], scale), maximum).tolist()
                       for (candidates, _, maximum), scale in zip(kept, scales)]
            for column in active:
                while not ctx.get(dut.result.valid):
                    await ctx.tick()
                result, (candidates, mass, maximum) = ctx.get(dut.result.payload), kept[column]
                assert (result.column, result.token, result.mass, result.maximum, result.kept, result.total) == (
                    column, expected[column].argmax, mass, maximum, len(candidates), sum(weights[column]))
                ctx.set(dut.result.ready, 1)
                await ctx.tick()
                ctx.set(dut.result.ready, 0)
            for column in reversed(active):
                ctx.set(dut.candidate.which, column)
                await ctx.tick().repeat(2)
                wanted = [(*candidate, weight) for candidate, weight in zip(kept[column][0], weights[column])]
                assert [await popped(ctx, dut) for _ in range(8)] == wanted[:8]
    simulate(bench, drive)


async def check_pass(ctx, dut, logits, scales):
    """A pass of all columns whose results, and whose sets' largest, are golden's."""
    ctx.set(dut.job.start, 1)
    await ctx.tick()
    ctx.set(dut.job.start, 0)
    ctx.set(dut.candidate.pop, 0)
    await send_logits(ctx, dut, logits, range(len(logits)))
    largest = []
    for values, scale in zip(logits, scales):
        candidates, mass, maximum = Logits(values, int(values.argmax())).kept(scale)
        largest.append(candidates[0])
        ctx.set(dut.result.ready, 1)
        result, = await ctx.tick().sample(dut.result.payload).until(dut.result.valid)
        ctx.set(dut.result.ready, 0)
        weights = exp2_weight(logit_to_log2([logit for _, logit in candidates], scale), maximum).tolist()
        assert (result.token, result.mass, result.maximum, result.kept, result.total) == (
            values.argmax(), mass, maximum, len(candidates), sum(weights))
    for column, candidate in enumerate(largest):
        ctx.set(dut.candidate.which, column)
        await ctx.tick().repeat(2)
        assert (await popped(ctx, dut))[:2] == candidate


def test_nothing_is_left_of_a_pass():
    """Neither of one that an abort ended, among its logits or while a set is ranked, nor of a candidate that is popped
    as the next pass starts."""
    rng, columns = np.random.default_rng(5), 2
    bench, scales = Bench(25, columns), [logit_scale(1 << 16), logit_scale(1 << 15)]
    dut = bench.dut

    def drawn(vocab):
        return np.rint(rng.normal(size=(columns, vocab)) * 2 ** 20).astype(np.int64)

    async def drive(ctx):
        for column in range(columns):
            set_scale(ctx, dut, column, scales[column])
        for name, value in (("last", columns - 1), ("keep", 1)):
            ctx.set(getattr(dut.job, name), value)
        for vocab, later in ((3, 0), (70, 0), (70, 60), (70, 130), (70, 200)):
            ctx.set(dut.job.start, 1)
            await ctx.tick()
            ctx.set(dut.job.start, 0)
            await send_logits(ctx, dut, drawn(vocab), range(columns))
            await ctx.tick().repeat(1 + later)
            assert ctx.get(dut.busy)
            ctx.set(bench.abort, 1)
            await ctx.tick()
            ctx.set(bench.abort, 0)
            await ctx.tick()
            assert not ctx.get(dut.busy) and not ctx.get(dut.result.valid)
            await check_pass(ctx, dut, drawn(20), scales)
            ctx.set(dut.candidate.pop, 1)       # in the cycle of the next start
            await check_pass(ctx, dut, drawn(80), scales)
    simulate(bench, drive)
