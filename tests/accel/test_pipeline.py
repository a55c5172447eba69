"""Staged values combine within a stage and nowhere else; what is carried beside a path arrives with it."""
import pytest
from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from accel.lib.pipeline import Pipeline, StageError
from tests.accel.streams import simulate

PAIR = data.StructLayout({"a": 8, "b": 8})


class Sum(wiring.Component):
    """``a * 2 + b`` by way of three registers, with ``tag`` beside it."""
    def __init__(self):
        super().__init__({"i": In(PAIR), "tag": In(4), "o": Out(10), "tag_out": Out(4)})

    def elaborate(self, platform):
        m = Module()
        pipe = Pipeline(m)
        pair, tag = pipe.enter(self.i), pipe.carry("tag", pipe.enter(self.tag))
        doubled = pipe.register("doubled", pair.a << 1)
        total = pipe.register("total", doubled + pipe.carry("b", pair.b).beside(doubled))
        late = pipe.register("late", pipe.combine(Mux, total == 0, 0, total))
        m.d.comb += [self.o.eq(late.plain), self.tag_out.eq(tag.beside(late).plain)]
        assert late.stage == 3 and tag.beside(late) is tag.beside(late)
        return m


def test_arrives_together():
    dut = Sum()

    async def body(ctx):
        for n in range(40):
            ctx.set(dut.i, {"a": 5 * n % 256, "b": 7 * n % 256})
            ctx.set(dut.tag, n % 16)
            if n >= 3:
                assert ctx.get(dut.o) == 2 * (5 * (n - 3) % 256) + 7 * (n - 3) % 256
                assert ctx.get(dut.tag_out) == (n - 3) % 16
            await ctx.tick()
    simulate(dut, body)


def test_stages_do_not_mix():
    pipe = Pipeline(Module())
    a, b = pipe.enter(Signal(4, name="a")), pipe.register("b", pipe.enter(Signal(4)))
    for mix in (lambda: a + b, lambda: b & a, lambda: a == b, lambda: pipe.combine(Mux, a, b, 0), lambda: a.eq(b)):
        with pytest.raises(StageError, match=r"stages \[0, 1\]"):
            mix()
    with pytest.raises(StageError, match="b is known at stage 1, and needed at stage 0"):
        pipe.carry("b", b).beside(a)
    with pytest.raises(StageError, match="two pipelines"):
        a + Pipeline(Module()).enter(Signal(4))
    assert (a + 1).stage == (a + Signal(4)).stage == (~a[1:]).stage == 0
