"""The core's CRC-32 equals zlib's."""
import zlib

import numpy as np
import pytest

from accel.dram.crc import Crc32
from tests.accel.streams import send, simulate


@pytest.mark.parametrize("stall", [0.0, 0.8])
def test_equals_zlib(stall):
    dut = Crc32()

    async def drive(ctx):
        for n in (1, 7, 30):
            data = np.random.default_rng(n).integers(0, 256, 16 * n, np.uint8).tobytes()
            ctx.set(dut.clear, 1)
            await ctx.tick()
            ctx.set(dut.clear, 0)
            await send(ctx, dut.beats, [int.from_bytes(data[i:i + 16], "little") for i in range(0, len(data), 16)],
                       stall=stall)
            while ctx.get(dut.busy):
                await ctx.tick()
            assert ctx.get(dut.value) == zlib.crc32(data)
    simulate(dut, drive)
