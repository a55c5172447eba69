"""The newest K/V rows lie as llama2_spec.image.row_elements says, in every format, and 8-bit mantissas that are too
large are clamped; each is written to DRAM once, where its run says."""
import random

import numpy as np
import pytest

from accel.dram.kv_rows import KvRows
from llama2_spec.image import row_elements
from llama2_spec.model import KvFormat
from llama2_spec.registers import Dest
from tests.accel.streams import receive, simulate


def random_row(rng, kv, heads, head_dim, column):
    """Writes to a column's row, as the quantiser makes them, and the row's beats."""
    exponents = rng.integers(0, 42, (2, heads))
    elements, writes, dim = [], [], heads * head_dim
    for part, (dest, bits) in enumerate(((Dest.K, kv.k_bits), (Dest.V, kv.v_bits))):
        top = 1 << bits - 1
        values = rng.integers(-top, top, dim)
        values[:3] = -top, top - 1, 0
        raw = values.copy()
        if bits == 8:
            raw[rng.integers(3, dim)] = 128             # the quantiser rounded it up
        elements.append(row_elements(np.where(raw == 128, 127, values) if bits == 8 else values, bits))
        writes += [dict(write=1, dest=dest, column=column, index=i, mantissa=int(raw[i])) for i in range(dim)]
        writes += [dict(exponent_write=1, dest=dest, column=column, head=h, exponent=int(exponents[part, h]))
                   for h in range(heads)]
    header = exponents.astype(np.uint8).tobytes()
    row = header.ljust(-(-len(header) // 16) * 16, b"\0") + b"".join(elements)
    return writes, [int.from_bytes(row[i:i + 16], "little") for i in range(0, len(row), 16)]


async def fill(ctx, dut, rng, kv, heads, head_dim):
    """Fill every column's row; returns their beats."""
    for port, value in ((dut.model.n_kv_heads, heads), (dut.slots, heads * head_dim // 8), (dut.model.narrow, kv)):
        ctx.set(port, value)
    await ctx.tick().repeat(3)
    rows = [random_row(rng, kv, heads, head_dim, column) for column in range(dut.columns)]
    writes = [write for row_writes, _ in rows for write in row_writes]
    for number in rng.permutation(len(writes)):
        for name in ("write", "exponent_write"):
            ctx.set(getattr(dut.elements, name), writes[number].get(name, 0))
        for name, value in writes[number].items():
            ctx.set(getattr(dut.elements, name), value)
        await ctx.tick()
    ctx.set(dut.elements.write, 0)
    ctx.set(dut.elements.exponent_write, 0)
    await ctx.tick().repeat(2)
    return [beats for _, beats in rows]


async def read_newest(ctx, dut, rows, first, last):
    """Let it hand out the rows of columns ``first`` to ``last``."""
    ctx.set(dut.newest.first, first)
    ctx.set(dut.newest.last, last)
    ctx.set(dut.newest.start, 1)
    await ctx.tick()
    ctx.set(dut.newest.start, 0)
    expected = sum(rows[first:last + 1], [])
    assert await receive(ctx, dut.beats, len(expected), stall=0.3) == expected
    await ctx.tick().repeat(4)
    assert not ctx.get(dut.busy)


@pytest.mark.parametrize("kv", KvFormat, ids=str)
@pytest.mark.parametrize("heads, head_dim", [(3, 8), (2, 16), (9, 8)])
def test_rows_lie_as_in_dram(kv, heads, head_dim):
    rng = np.random.default_rng(heads)
    dut = KvRows(columns=2, max_kv_dim=128, max_heads=16)

    async def body(ctx):
        rows = await fill(ctx, dut, rng, kv, heads, head_dim)
        for first, last in ((0, 0), (0, 1), (1, 1)):
            await read_newest(ctx, dut, rows, first, last)
    simulate(dut, body)


def memory_of(dut, written, stall, seed=0):
    """A DRAM that takes commands and data when it likes; ``written`` are (address, beat) pairs in order."""
    async def serve(ctx):
        rng, pending, port = random.Random(seed), [], dut.port
        while True:
            command, beat = rng.random() >= stall, bool(pending) and rng.random() >= stall
            ctx.set(port.cmd_ready, command)
            ctx.set(port.wdata_ready, beat)
            _, _, asked, address, there, data = await ctx.tick().sample(port.cmd_valid, port.cmd_addr,
                                                                       port.wdata_valid, port.wdata_data)
            if beat:
                assert there, "a beat was not there when it was fetched"
                written.append((pending.pop(0), data))
            if asked and command:
                pending.append(address)
    return serve


def random_runs(rng, columns):
    """(first, last, base) of runs that share the columns out."""
    runs, first = [], 0
    while first < columns:
        last = rng.randrange(first, columns)
        runs.append((first, last, rng.randrange(1 << 20)))
        first = last + 1
    return runs


@pytest.mark.parametrize("columns, stall", [(1, 0.4), (2, 0.0), (4, 0.4), (4, 0.9)])
@pytest.mark.parametrize("kv", [KvFormat.K16V16, KvFormat.K8V8], ids=str)
def test_each_row_of_a_run_is_written_once(columns, stall, kv):
    """All runs of a step are asked for as soon as there is room; attention has its rows before and after."""
    heads, head_dim, rng = 3, 8, np.random.default_rng(columns)
    dut, written = KvRows(columns=columns, max_kv_dim=128, max_heads=16), []
    counted = {"stored": 0, "asked": 0}

    async def count(ctx):
        async for *_, stored, busy in ctx.tick().sample(dut.store.stored, dut.busy):
            counted["stored"] += stored
            assert not busy or counted["asked"] == counted["stored"], "a fence would wait for the store"

    async def body(ctx):
        chosen = random.Random(columns)
        for _ in range(4):
            rows, expected = await fill(ctx, dut, rng, kv, heads, head_dim), []
            await read_newest(ctx, dut, rows, columns - 1, columns - 1)
            for first, last, base in random_runs(chosen, columns):
                for name, value in (("first", first), ("last", last), ("base", base)):
                    ctx.set(getattr(dut.store, name), value)
                while not ctx.get(dut.store.room):
                    await ctx.tick()
                ctx.set(dut.store.start, 1)
                counted["asked"] += 1
                await ctx.tick()
                ctx.set(dut.store.start, 0)
                assert ctx.get(dut.store.storing)
                expected += enumerate(sum(rows[first:last + 1], []), base)
            await ctx.tick().until(~dut.store.storing)
            assert written == expected and counted["stored"] == counted["asked"]
            written.clear()
            await read_newest(ctx, dut, rows, 0, columns - 1)
    simulate(dut, body, background=(memory_of(dut, written, stall), count))
