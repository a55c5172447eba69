"""What happens to a row after the engine: scale, RoPE, residual and norm, SwiGLU, quantise; each equal to golden."""
import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import memory, wiring

from accel.interfaces import Row, Wide
from accel.rows.quantiser import Quantiser
from accel.rows.residual import Residual
from accel.rows.rope import Rope
from accel.rows.scale import RowScale
from accel.rows.swiglu import SwiGlu
from llama2_spec import golden, numerics
from llama2_spec.registers import Dest
from llama2_spec.tables import rsqrt, silu
from tests.accel.streams import busy_while_holding, receive, send, simulate

STALLS = [(0.0, 0.0), (0.6, 0.0), (0.0, 0.9)]


def never_idle(dut, source, sink, *, left=1):
    return busy_while_holding(dut.busy, source.valid & source.ready, sink.valid & sink.ready, left=left)


def pack(layout, **fields):
    value = 0
    for name, _ in layout:
        width = layout[name].width
        value |= (int(fields.get(name, 0)) & (1 << width) - 1) << layout[name].offset
    return value


def wide(rng, n, bits=48):
    return [int(rng.integers(-1 << bits - 1, 1 << bits - 1)) >> int(rng.integers(0, bits)) for _ in range(n)]


@pytest.mark.parametrize("source_stall, sink_stall", STALLS)
def test_row_scale(source_stall, sink_stall):
    rng = np.random.default_rng(3)
    dut = RowScale(columns=2)
    factors = [32768, 65536]
    cases = [(v, int(rng.integers(64)), int(rng.integers(2)), int(rng.choice([Dest.Q, Dest.RESIDUAL, Dest.EMBEDDING])))
             for v in wide(rng, 200, 44) + [-(1 << 47), (1 << 47) - 1, -1, 0]]

    async def drive(ctx):
        for c, f in enumerate(factors):
            ctx.set(dut.norms.factors[c], f)
        await send(ctx, dut.sums, [pack(dut.sums.payload.shape(), value=v, shift=s, column=c, dest=d, row=i)
                                   for i, (v, s, c, d) in enumerate(cases)], stall=source_stall)

    async def check(ctx):
        layout = Row(2)
        got = [layout.from_bits(w) for w in await receive(ctx, dut.rows, len(cases), stall=sink_stall)]
        for g, (i, (v, s, c, d)) in zip(got, enumerate(cases)):
            f = factors[c] if d == Dest.Q else 1 << 15
            expected = max(min((v * f + (1 << s - 1 if s else 0)) >> s, (1 << 31) - 1), -(1 << 31))
            assert (g.value, g.row, g.column, g.dest) == (expected, i, c, d)
        await ctx.tick().repeat(2)
        assert not ctx.get(dut.busy)
    simulate(dut, drive, check, background=(never_idle(dut, dut.sums, dut.rows),))


@pytest.mark.parametrize("source_stall", [0.0, 0.7])
@pytest.mark.parametrize("columns, group", [(1, 32), (2, 8), (4, 128), (1, 1)])
def test_quantiser(columns, group, source_stall):
    rng = np.random.default_rng(columns * group)
    dut = Quantiser(columns=columns)
    length = group * 3 + group // 2
    vectors = np.array([[v >> int(rng.integers(30)) for v in wide(rng, length)] for _ in range(columns)], np.int64)
    vectors[0, :group] = -(1 << 47)
    vectors[0, group] = (1 << 47) - 1
    layout = Wide(columns)
    items = [pack(layout, value=vectors[c, i], column=c, index=i, end=i % group == group - 1 or i == length - 1, dest=c)
             for i in range(length) for c in range(columns)]
    mantissas, exponents = {}, {}

    async def drive(ctx):
        await send(ctx, dut.values, items, stall=source_stall)
        while ctx.get(dut.busy):
            await ctx.tick()

    async def watch(ctx):
        while True:
            _, _, e, w, c, d, i, x, mant = await ctx.tick().sample(*(getattr(dut.quantised, name) for name in (
                "exponent_write", "write", "column", "dest", "index", "exponent", "mantissa")))
            if e:
                assert (c, i) not in exponents
                exponents[c, i] = x
            if w:
                assert (c, i) not in mantissas and d == c
                mantissas[c, i] = mant
    holds = busy_while_holding(dut.busy, dut.values.valid & dut.values.ready, dut.quantised.write)
    simulate(dut, drive, background=(watch, holds))
    for c in range(columns):
        for start in range(0, length, group):
            part = vectors[c, start:start + group]
            m, e = numerics.quantise(part)
            assert exponents[c, start] == e
            assert [mantissas[c, start + i] for i in range(len(part))] == m.tolist()


@pytest.mark.parametrize("narrow", range(4))
def test_quantiser_of_eight_bits(narrow):
    """K's and V's exponents are for 8 bits where asked for, everybody else's for 16."""
    rng = np.random.default_rng(narrow)
    dut, layout, group = Quantiser(columns=1), Wide(1), 16
    values = np.array([[v >> int(rng.integers(40)) for v in wide(rng, group)] for _ in range(30)], np.int64)
    values[0, :], values[1, :], values[2, :] = 0, 127, -128
    values[3, 0], values[4, 0] = (127 << 40) | 1 << 39, (1 << 47) - 1     # round up to the next power of two
    dests = [int(rng.choice([Dest.Q, Dest.K, Dest.V, Dest.OUTPUT])) for _ in values]
    dests[3:5] = [Dest.K, Dest.V]
    expected, got = [], []
    for row, dest in zip(values, dests):
        bits = 8 if dest == Dest.K and narrow & 2 or dest == Dest.V and narrow & 1 else 16
        mantissas, exponent = numerics.quantise(row, bits)
        expected.append((int(exponent), mantissas.tolist()))

    async def drive(ctx):
        ctx.set(dut.model.narrow, narrow)
        await send(ctx, dut.values, [pack(layout, value=v, index=i, end=i == group - 1, dest=d)
                                     for row, d in zip(values, dests) for i, v in enumerate(row)])
        while ctx.get(dut.busy):
            await ctx.tick()

    async def watch(ctx):
        while True:
            _, _, e, w, x, mantissa, dest = await ctx.tick().sample(*(getattr(dut.quantised, name) for name in (
                "exponent_write", "write", "exponent", "mantissa", "dest")))
            if e:
                got.append((x, []))
            if w:
                eight = dest == Dest.K and narrow & 2 or dest == Dest.V and narrow & 1
                got[-1][1].append(min(mantissa, 127) if eight else mantissa)    # the K/V rows clamp
    simulate(dut, drive, background=(watch,))
    assert got == expected


class WithFrequencies(wiring.Component):
    def __init__(self, dut, frequencies):
        self.dut, self.frequencies = dut, frequencies
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = self.dut
        m.submodules.memory = mem = memory.Memory(shape=32, depth=64, init=[int(f) for f in self.frequencies])
        port = mem.read_port()
        m.d.comb += [port.addr.eq(self.dut.frequencies.index), self.dut.frequencies.value.eq(port.data)]
        return m


@pytest.mark.parametrize("source_stall, sink_stall", STALLS)
@pytest.mark.parametrize("columns, head_dim, heads", [(1, 8, 4), (2, 24, 2), (4, 128, 1)])
def test_rope(columns, head_dim, heads, source_stall, sink_stall):
    rng = np.random.default_rng(head_dim)
    dut = Rope(columns=columns)
    frequencies = rng.integers(0, 1 << 32, head_dim // 2)
    rows = rng.integers(-1 << 31, 1 << 31, (columns, heads * head_dim))
    rows[0, :2] = -1 << 31
    positions = [65530, 0, (1 << 17) - 1, 65530][:columns]          # of different sequences
    items, expected = [], []
    for dest in (Dest.Q, Dest.V, Dest.K):
        rotated = [golden.rotate(rows[c].reshape(heads, -1), positions[c], frequencies).reshape(-1)
                   for c in range(columns)]
        for r in range(0, rows.shape[1], 2):
            for c in range(columns):
                for odd in range(2):
                    items.append(pack(Row(columns), value=rows[c, r + odd], column=c, row=r + odd, odd=odd, dest=dest))
                    expected.append((int(rows[c, r + odd] if dest == Dest.V else rotated[c][r + odd]), c, r + odd,
                                     (r + odd) % head_dim == head_dim - 1, int(dest)))

    async def drive(ctx):
        for c in range(columns):
            ctx.set(dut.positions[c], positions[c])
        ctx.set(dut.model.head_dim, head_dim)
        await send(ctx, dut.rows, items, stall=source_stall)

    async def check(ctx):
        words = await receive(ctx, dut.values, len(items), stall=sink_stall)
        got = [Wide(columns).from_bits(w) for w in words]
        assert [(g.value, g.column, g.index, g.end, g.dest) for g in got] == expected
        await ctx.tick().repeat(2)
        assert not ctx.get(dut.busy)
    simulate(WithFrequencies(dut, frequencies), drive, check, background=(never_idle(dut, dut.rows, dut.values),))


def test_rope_takes_a_row_a_cycle():
    dut = Rope(columns=1)
    rows, cycles = 256, 0

    async def drive(ctx):
        ctx.set(dut.model.head_dim, 16)
        ctx.set(dut.values.ready, 1)
        for r in range(rows):
            ctx.set(dut.rows.payload.as_value(), pack(Row(1), value=r, row=r, odd=r & 1, dest=Dest.K))
            ctx.set(dut.rows.valid, 1)
            await ctx.tick().until(dut.rows.ready)
        ctx.set(dut.rows.valid, 0)

    async def count(ctx):
        nonlocal cycles
        taken = 0
        while taken < rows:
            _, _, valid = await ctx.tick().sample(dut.values.valid)
            taken, cycles = taken + valid, cycles + 1
    simulate(WithFrequencies(dut, [1 << 20] * 64), drive, count)
    assert cycles <= rows + 17


@pytest.mark.parametrize("source_stall, sink_stall", STALLS)
def test_swiglu(source_stall, sink_stall):
    rng = np.random.default_rng(5)
    dut = SwiGlu(columns=2)
    n = 70
    gates = np.array([[v for v in wide(rng, n, 32)] for _ in range(2)])
    ups = np.array([[v for v in wide(rng, n, 32)] for _ in range(2)])
    gates[0, :5] = [-(1 << 31), (1 << 31) - 1, 16 << 18, (16 << 18) - 1, 8 << 18]
    ups[0, :2] = [(1 << 31) - 1, -(1 << 31)]
    items, expected = [], []
    for i in range(n):
        for c in range(2):
            for odd, v in ((0, gates[c, i]), (1, ups[c, i])):
                items.append(pack(Row(2), value=v, column=c, row=2 * i + odd, odd=odd, last=odd and i == n - 1))
            h = numerics.saturate(numerics.round_shift(silu(gates[c, i:i + 1]) * ups[c, i:i + 1], 14), 48)
            expected.append((int(h[0]), c, i, i % 32 == 31 or i == n - 1))

    async def drive(ctx):
        await send(ctx, dut.rows, items, stall=source_stall)

    async def check(ctx):
        words = await receive(ctx, dut.values, len(expected), stall=sink_stall)
        got = [Wide(2).from_bits(w) for w in words]
        assert [(g.value, g.column, g.index, g.end) for g in got] == expected
        await ctx.tick()
        assert not ctx.get(dut.busy)
    simulate(dut, drive, check, background=(never_idle(dut, dut.rows, dut.values, left=2),))


@pytest.mark.parametrize("source_stall, sink_stall", STALLS)
def test_residual(source_stall, sink_stall):
    rng = np.random.default_rng(6)
    dim, columns, epsilon = 48, 2, 12345
    dut = Residual(columns=columns, max_dim=64)
    gains = rng.integers(-32768, 32768, dim)
    steps = [(Dest.EMBEDDING, rng.integers(-1 << 20, 1 << 20, (columns, dim))),
             (int(Dest.RESIDUAL), rng.integers(-1 << 31, 1 << 31, (columns, dim))),
             (Dest.EMBEDDING, np.zeros((columns, dim), np.int64)),
             (int(Dest.RESIDUAL), rng.integers(-9, 9, (columns, dim)))]
    x = np.zeros((columns, dim), np.int64)
    items, expected, norms = [], [], []
    for dest, rows in steps:
        x = numerics.saturate(rows if dest == Dest.EMBEDDING else x + rows, 32)
        items.append([pack(Row(columns), value=rows[c, i + odd], column=c, row=i + odd, odd=odd, dest=dest)
                      for i in range(0, dim, 2) for c in range(columns) for odd in range(2)])
        expected.append([(int(x[c, i + odd] * gains[i + odd]), c, i + odd, (i + odd) % 32 == 31 or i + odd == dim - 1)
                         for i in range(0, dim, 2) for c in range(columns) for odd in range(2)])
        norms.append([rsqrt(sum(int(v) ** 2 for v in x[c]) + epsilon) for c in range(columns)])
    async def drive(ctx):
        ctx.set(dut.model.dim, dim)
        ctx.set(dut.model.epsilon, epsilon)
        ctx.set(dut.gain_start, 1)
        await ctx.tick()
        ctx.set(dut.gain_start, 0)
        data = gains.astype("<i2").tobytes()
        await send(ctx, dut.gains, [int.from_bytes(data[i:i + 16], "little") for i in range(0, len(data), 16)])
        for n, part in enumerate(items):
            await send(ctx, dut.rows, part, stall=source_stall)
            await ctx.tick().until(~dut.busy)
            for c in range(columns):
                assert (ctx.get(dut.norms.factors[c]), -15 - ctx.get(dut.norms.halves[c])) == norms[n][c]

    async def check(ctx):
        for part in expected:
            words = await receive(ctx, dut.values, len(part), stall=sink_stall)
            got = [Wide(columns).from_bits(w) for w in words]
            assert [(g.value, g.column, g.index, g.end) for g in got] == part
    simulate(dut, drive, check, background=(never_idle(dut, dut.rows, dut.values),))
