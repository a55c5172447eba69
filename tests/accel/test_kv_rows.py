"""The newest K/V rows lie as llama2_spec.image.row_elements says, in every format, and 8-bit mantissas that are too
large are clamped."""
import numpy as np
import pytest

from accel.dram.kv_rows import KvRows
from llama2_spec.image import row_elements
from llama2_spec.model import KvFormat
from llama2_spec.registers import Dest
from tests.accel.streams import receive, simulate


@pytest.mark.parametrize("kv", KvFormat, ids=str)
@pytest.mark.parametrize("heads, head_dim", [(3, 8), (2, 16), (9, 8)])
def test_rows_lie_as_in_dram(kv, heads, head_dim):
    rng = np.random.default_rng(heads)
    dut, dim = KvRows(columns=2, max_kv_dim=128, max_heads=16), heads * head_dim
    expected, writes = b"", []
    for column in range(2):
        exponents = rng.integers(0, 42, (2, heads))
        elements = []
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
        expected += header.ljust(-(-len(header) // 16) * 16, b"\0") + b"".join(elements)
    beats = [int.from_bytes(expected[i:i + 16], "little") for i in range(0, len(expected), 16)]

    async def body(ctx):
        for port, value in ((dut.model.n_kv_heads, heads), (dut.slots, dim // 8), (dut.model.narrow, kv)):
            ctx.set(port, value)
        await ctx.tick().repeat(3)
        for number in rng.permutation(len(writes)):
            for name in ("write", "exponent_write"):
                ctx.set(getattr(dut.elements, name), writes[number].get(name, 0))
            for name, value in writes[number].items():
                ctx.set(getattr(dut.elements, name), value)
            await ctx.tick()
        ctx.set(dut.elements.write, 0)
        ctx.set(dut.elements.exponent_write, 0)
        for rows in (1, 2):
            ctx.set(dut.newest.rows, rows)
            ctx.set(dut.newest.start, 1)
            await ctx.tick()
            ctx.set(dut.newest.start, 0)
            assert await receive(ctx, dut.beats, len(beats) * rows // 2, stall=0.3) == beats[:len(beats) * rows // 2]
            await ctx.tick().repeat(4)
            assert not ctx.get(dut.busy)
    simulate(dut, body)
