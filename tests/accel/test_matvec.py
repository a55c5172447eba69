"""The matrix-vector engine equals llama2_spec.golden.Matrix, whatever the format, shape, columns and stalls."""
import random

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import memory, wiring

from accel.matrix.engine import MatVec
from llama2_spec import golden, packing
from tests.accel.streams import busy_while_holding, receive, send, simulate


def beats(data):
    return [int.from_bytes(data[i:i + 16], "little") for i in range(0, len(data), 16)]


class Bench(wiring.Component):
    """The engine with its activations in a memory that answers one cycle later, with offsets three."""

    def __init__(self, columns, vectors, multiplier_bits=25):
        self.dut = MatVec(columns=columns, max_groups=64, multiplier_bits=multiplier_bits)
        self.vectors = vectors
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        words = len(self.vectors[0].mantissas) // 16
        init, offsets = [], []
        for w in range(words):
            value = offset = 0
            for c, v in enumerate(self.vectors):
                for i in range(16):
                    value |= (int(v.mantissas[16 * w + i]) & 0xffff) << (256 * c + 16 * i)
                offset |= (int(v.largest) - int(v.exponents[w // 2])) << 6 * c
            init.append(value)
            offsets.append(offset)
        for name, shape, content, sink in (("a", 256 * dut.columns, init, dut.activations.words.as_value()),
                                           ("o", 6 * dut.columns, offsets, dut.activations.offsets.as_value())):
            m.submodules[name] = mem = memory.Memory(shape=shape, depth=words, init=content)
            port, odd = mem.read_port(), mem.read_port()
            m.d.comb += [port.addr.eq(dut.activations.address),
                         odd.addr.eq(dut.activations.address | dut.activations.odd_word)]
            answer = Signal(shape)
            m.d.comb += answer.eq(port.data)
            if dut.columns > 1:     # column 1 may be at another word
                part = slice(shape // dut.columns, 2 * shape // dut.columns)
                m.d.comb += answer[part].eq(odd.data[part])
            if name == "o":
                late = Signal(shape)
                m.d.sync += [late.eq(answer), sink.eq(late)]
            else:
                m.d.comb += sink.eq(answer)
        return m


CASES = [("q8", 64, 1, 8, 64), ("q4", 32, 1, 8, 64), ("q8", 32, 2, 13, 172), ("q4", 32, 2, 11, 172),
         ("q4", 64, 4, 10, 80),
         ("q8", 64, 4, 9, 16), ("q4", 32, 1, 40, 16), ("q8", 64, 1, 40, 16), ("q4", 32, 4, 3, 48),
         ("q8", 64, 2, 2, 64), ("q4", 32, 1, 1, 32)]


@pytest.mark.parametrize("source_stall, sink_stall, multiplier_bits", [(0.0, 0.0, 18), (0.6, 0.0, 25), (0.0, 0.95, 25)])
@pytest.mark.parametrize("format, group, columns, rows, length", CASES)
def test_equals_golden(format, group, columns, rows, length, source_stall, sink_stall, multiplier_bits):
    rng = np.random.default_rng(rows)
    q = packing.quantise(rng.normal(size=(rows, length)) * np.exp(rng.normal(size=(rows, 1))), format=format,
                         group=group)
    if format == "q8":
        q.codes[0], q.mantissas[0] = -128, 4095
    vectors = [golden.quantise_vector(rng.integers(-1 << 40, 1 << 40, length) >> rng.integers(0, 40, length).repeat(1),
                                      0)
               for _ in range(columns)]
    vectors[0].mantissas[:length] = np.where(rng.random(length) < .5, -32768, 32767)
    expected = [golden.Matrix(q).sums(v) for v in vectors]
    bench = Bench(columns, vectors, multiplier_bits)
    dut = bench.dut

    async def command(ctx):
        for _ in range(2):                              # twice in a row: nothing is left behind
            ctx.set(dut.job.q4, format == "q4")
            ctx.set(dut.job.group64, group == 64)
            ctx.set(dut.job.words, q.words)
            ctx.set(dut.job.rows, rows)
            ctx.set(dut.job.count, columns)
            await ctx.tick()
            ctx.set(dut.job.start, 1)
            await ctx.tick().until(dut.job.ready)
            ctx.set(dut.job.start, 0)
            await ctx.tick()

    async def feed(ctx):
        await send(ctx, dut.beats, beats(packing.pack(q)) * 2, stall=source_stall)

    async def check(ctx):
        words = await receive(ctx, dut.sums, 2 * rows * columns, stall=sink_stall)
        layout = dut.sums.payload.shape()
        got = [layout.from_bits(w) for w in words]
        order = [(r + odd, c) for r in range(0, rows, 2) for c in range(columns) for odd in range(2) if r + odd < rows]
        assert [(g.row, g.column) for g in got] == order * 2
        assert [g.value for g in got] == [int(expected[c][r]) for r, c in order * 2]
        assert [g.last for g in got[-columns * (1 + (rows % 2 == 0)):]].count(1) == columns
        await ctx.tick()
        await ctx.tick()
        assert not ctx.get(dut.busy)

    simulate(bench, command, feed, check, background=(holds(dut, rows * columns),))


def holds(dut, sums):
    return busy_while_holding(dut.busy, dut.job.start & dut.job.ready, dut.sums.valid & dut.sums.ready, entered=sums)


def pairs(dut, values, stall, seed=0):
    """A process that offers beats two at a time; sometimes only one is there."""
    async def serve(ctx):
        rng, at = random.Random(seed), 0
        while at < len(values):
            one = rng.random() >= stall
            two = one and at + 1 < len(values) and rng.random() >= stall
            valid = one and (two or not ctx.get(dut.beats.both))
            ctx.set(dut.beats.valid, valid)
            ctx.set(dut.beats.payload, values[at])
            ctx.set(dut.beats.second, values[at + 1] if two else 0xbad)
            _, _, ready, both = await ctx.tick().sample(dut.beats.ready, dut.beats.both)
            at += (valid and ready) * (1 + both)
        ctx.set(dut.beats.valid, 0)
    return serve


GANGS = [("q8", 64, 2, 8, 64), ("q4", 32, 2, 8, 64), ("q8", 32, 4, 13, 172), ("q4", 32, 2, 11, 172),
         ("q4", 64, 4, 10, 80), ("q8", 64, 2, 9, 16), ("q4", 32, 2, 40, 16), ("q4", 32, 2, 3, 48), ("q8", 64, 2, 1, 48)]


@pytest.mark.parametrize("source_stall, sink_stall, multiplier_bits", [(0.0, 0.0, 25), (0.6, 0.0, 18), (0.0, 0.95, 25)])
@pytest.mark.parametrize("format, group, columns, rows, length", GANGS)
def test_a_gang_of_two_equals_golden(format, group, columns, rows, length, source_stall, sink_stall, multiplier_bits):
    rng = np.random.default_rng(rows)
    q = packing.quantise(rng.normal(size=(rows, length)) * np.exp(rng.normal(size=(rows, 1))), format=format,
                         group=group)
    if format == "q8":
        q.codes[0], q.mantissas[0] = -128, 4095
    vector = golden.quantise_vector(rng.integers(-1 << 40, 1 << 40, length) >> rng.integers(0, 40, length), 0)
    vector.mantissas[:length] = np.where(rng.random(length) < .5, -32768, 32767)
    expected = [int(v) for v in golden.Matrix(q).sums(vector)]
    other = golden.quantise_vector(rng.integers(-1 << 40, 1 << 40, length), 0)
    bench = Bench(columns, [vector, vector] + [other] * (columns - 2), multiplier_bits)
    dut = bench.dut
    values = beats(packing.pack(q)) * 2

    async def command(ctx):
        for _ in range(2):
            for name, value in (("q4", format == "q4"), ("group64", group == 64), ("words", q.words), ("rows", rows),
                                ("count", 1), ("gang", 1)):
                ctx.set(getattr(dut.job, name), value)
            await ctx.tick()
            ctx.set(dut.job.start, 1)
            await ctx.tick().until(dut.job.ready)
            ctx.set(dut.job.start, 0)
            await ctx.tick()

    async def check(ctx):
        words = await receive(ctx, dut.sums, 2 * rows, stall=sink_stall)
        got = [dut.sums.payload.shape().from_bits(w) for w in words]
        assert [(g.row, g.column, g.value) for g in got] == [(r, 0, v) for r, v in enumerate(expected)] * 2
        await ctx.tick().repeat(2)
        assert not ctx.get(dut.busy)

    simulate(bench, command, pairs(dut, values, source_stall), check, background=(holds(dut, rows),))
