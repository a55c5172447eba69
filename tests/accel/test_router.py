"""What the quantiser writes comes to its place two cycles later, with its head; an abort drops what is on its way."""
import pytest

from accel.rows.router import Router
from llama2_spec.registers import Dest
from tests.accel.streams import simulate

PLACES = {Dest.Q: "query", Dest.K: "rows", Dest.V: "rows", Dest.RESIDUAL: "activations", Dest.SWIGLU: "activations",
          Dest.EMBEDDING: "activations", Dest.OUTPUT: "activations"}


async def offer(ctx, dut, **fields):
    for name in dut.quantised.signature.members:
        ctx.set(getattr(dut.quantised, name), fields.get(name, 0))
    await ctx.tick()


@pytest.mark.parametrize("dest, place", PLACES.items(), ids=lambda value: getattr(value, "name", value))
def test_goes_to_its_place_alone(dest, place):
    dut = Router(columns=2)

    async def drive(ctx):
        await offer(ctx, dut, write=1, dest=dest, column=1, index=37, mantissa=-5)
        await offer(ctx, dut)
        for name in ("rows", "query", "activations"):
            port = getattr(dut, name)
            assert ctx.get(port.write) == (name == place) and not ctx.get(port.exponent_write)
        port = getattr(dut, place)
        assert [ctx.get(getattr(port, name)) for name in ("dest", "column", "index", "mantissa")] == [dest, 1, 37, -5]
        assert ctx.get(dut.in_flight)
        await offer(ctx, dut)
        assert not ctx.get(port.write) and not ctx.get(dut.in_flight)
    simulate(dut, drive)


def test_counts_heads():
    """Groups of two columns take turns; each head's exponent comes for both columns before the next head's."""
    dut, heads = Router(columns=2), []

    async def drive(ctx):
        for index in (0, 0, 8, 8, 16, 16, 0, 8):
            await offer(ctx, dut, exponent_write=1, dest=Dest.K, index=index)
            await offer(ctx, dut)
            assert ctx.get(dut.rows.exponent_write)
            heads.append(ctx.get(dut.rows.head))
    simulate(dut, drive)
    assert heads == [0, 0, 1, 1, 2, 2, 0, 1]


@pytest.mark.parametrize("after", [0, 1])
def test_an_abort_drops(after):
    dut = Router(columns=1)

    async def drive(ctx):
        if not after:
            ctx.set(dut.abort, 1)
        await offer(ctx, dut, write=1, dest=Dest.Q)
        ctx.set(dut.abort, 1)
        for _ in range(3):
            await offer(ctx, dut)
            assert not ctx.get(dut.query.write)
            ctx.set(dut.abort, 0)
        assert not ctx.get(dut.in_flight)
    simulate(dut, drive)
