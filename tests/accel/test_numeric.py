"""Roundings and tables in gateware equal llama2_spec.numerics and llama2_spec.tables."""
import numpy as np
import pytest
from amaranth.hdl import Module, Signal, signed, unsigned

from accel.lib import numeric
from accel.lib.table import InterpolatedTable
from llama2_spec import numerics, tables
from tests.accel.streams import simulate


@pytest.mark.parametrize("table", tables.TABLES, ids=lambda t: t.name)
def test_table_equals_spec(table):
    dut = InterpolatedTable(table)
    rng = np.random.default_rng(1)
    index = rng.integers(0, len(table.base), 300)
    t = rng.integers(0, 1 << table.t_bits, 300)
    t[:4] = (1 << table.t_bits) - 1
    values = []

    async def drive(ctx):
        for i in range(300 + dut.latency):
            if i < 300:
                ctx.set(dut.index, int(index[i]))
                ctx.set(dut.t, int(t[i]))
            if i >= dut.latency:
                values.append(ctx.get(dut.value))
            await ctx.tick()

    simulate(dut, drive)
    assert values == table(index, t).tolist()


def test_roundings_equal_spec():
    m = Module()
    x, shift = Signal(signed(40)), Signal(7)
    rounded = numeric.round_shift(m, x, shift)
    floored = numeric.floor_shift(m, x, shift)
    clamped, flag = numeric.saturate(m, x, 16)
    length = numeric.bit_length(m, x.as_unsigned()[:39])
    rng = np.random.default_rng(2)
    cases = [(int(rng.integers(-1 << 39, 1 << 39)) >> int(rng.integers(40)), int(rng.integers(128)))
             for _ in range(500)]
    cases += [(-(1 << 39), s) for s in (0, 1, 38, 39, 40, 41, 63, 127)] + [((1 << 39) - 1, 40), (-1, 1), (1, 1), (3, 1)]

    async def drive(ctx):
        for value, s in cases:
            ctx.set(x, value)
            ctx.set(shift, s)
            assert ctx.get(rounded) == numerics.round_shift(np.int64(value), s), (value, s)
            assert ctx.get(floored) == numerics.floor_shift(np.int64(value), s)
            assert ctx.get(clamped) == numerics.saturate(value, 16)
            assert ctx.get(flag) == (numerics.saturate(value, 16) != value)
            assert ctx.get(length) == (value & (1 << 39) - 1).bit_length()
            await ctx.delay(1e-9)

    simulate(m, drive)


@pytest.mark.parametrize("width, bits", [(66, 32), (48, 32), (48, 16), (20, 16)])
def test_shift_in_two_halves_equals_spec(width, bits):
    m = Module()
    x, shift = Signal(signed(width)), Signal(6)
    value, flag = numeric.fine_shift(m, numeric.coarse_shift(m, x, shift, bits), shift, bits)
    rng = np.random.default_rng(width + bits)
    low, high = -(1 << width - 1), (1 << width - 1) - 1
    near = [sign * ((1 << bits - 1 + s) - odd) for s in range(64) for sign in (1, -1)
            for odd in (-1, 0, 1, (1 << s) // 2, (1 << s) // 2 + 1)]
    values = [low, high, -1, 0, 1, *(v for v in near if low <= v <= high)]
    cases = [(v, s) for v in values for s in rng.integers(64, size=6)]
    cases += [(v, s) for v in values[5:] for s in [max(abs(v).bit_length() - bits, 0)]]
    cases += [(int(rng.integers(-1 << 62, 1 << 62)) * 16 >> int(rng.integers(67 - width, 67)), s)
              for s in rng.integers(64, size=500)]

    async def drive(ctx):
        for v, s in [(v, int(s)) for v, s in cases]:
            ctx.set(x, v)
            ctx.set(shift, s)
            exact = (v >> s) + (v >> s - 1 & 1 if s else 0)
            expected = min(max(exact, -(1 << bits - 1)), (1 << bits - 1) - 1)
            assert (ctx.get(value), ctx.get(flag)) == (expected, exact != expected), (v, s)
            await ctx.delay(1e-9)

    simulate(m, drive)


@pytest.mark.parametrize("width, bits", [(20, 5), (40, 6), (20, 1)])
def test_shift_by_two_bits_at_a_time_is_a_shift(width, bits):
    """Odd and even numbers of bits, each shift that they hold, further than the width."""
    m = Module()
    x, shift = Signal(signed(width)), Signal(bits)
    shifted = numeric.shift_right(m, x, shift)
    rng = np.random.default_rng(width + bits)
    values = [-(1 << width - 1), (1 << width - 1) - 1, -1, 0, 1, *map(int, rng.integers(-1 << 19, 1 << 19, 8))]

    async def drive(ctx):
        for value, by in [(value, by) for value in values for by in range(1 << bits)]:
            ctx.set(x, value)
            ctx.set(shift, by)
            assert ctx.get(shifted) == value >> by, (value, by)
            await ctx.delay(1e-9)

    simulate(m, drive)


@pytest.mark.parametrize("a, b", [(signed(18), signed(18)), (signed(35), signed(18)), (signed(35), unsigned(17)),
                                  (signed(41), signed(18)), (signed(52), unsigned(16))], ids=str)
def test_product_is_exact_two_cycles_later(a, b):
    """One a cycle, of every way to split the first factor: at the ends of both, and between."""
    m = Module()
    x, y = Signal(a), Signal(b)
    product = numeric.product_of(m, x, y, "product")
    rng = np.random.default_rng(a.width)

    def ends(shape):
        low = -(1 << shape.width - 1) if shape.signed else 0
        return [low, low + (1 << shape.width) - 1, 0, 1, *(low + int(rng.integers(1 << shape.width)) for _ in range(6))]
    cases, got = [(one, other) for one in ends(a) for other in ends(b)], []

    async def drive(ctx):
        for one, other in [*cases, (0, 0), (0, 0)]:
            ctx.set(x, one)
            ctx.set(y, other)
            await ctx.tick()
            got.append(ctx.get(product))

    simulate(m, drive)
    assert got[1:-1] == [one*other for one, other in cases]
