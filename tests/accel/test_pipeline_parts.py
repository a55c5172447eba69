"""What a pipeline's values pass: memories, multipliers, registers that wait, and the ports of other units."""
import pytest
from amaranth.hdl import Module, Signal, signed
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from accel.lib.pipeline import Pipeline, StageError
from tests.accel.streams import simulate


class Doubles(wiring.Component):
    """Replaces word ``at`` of a memory by twice itself plus one, and shows what it was."""
    def __init__(self, *, domain):
        self.domain = domain
        super().__init__({"at": In(3), "step": In(1), "old": Out(16), "latency": Out(4)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.words = words = memory.Memory(shape=16, depth=8, init=range(8))
        pipe = Pipeline(m)
        at = pipe.carry("at", pipe.register("at", pipe.enter(self.at)))
        old = pipe.read(words.read_port(domain=self.domain), at.at(1))
        step = pipe.carry("step", pipe.enter(self.step), valid=True)
        new = pipe.register("new", (old << 1) + 1, 16)
        pipe.write(words.write_port(), at.beside(new), new, step.beside(new))
        m.d.comb += [self.old.eq(old.plain), self.latency.eq(old.stage)]
        return m


@pytest.mark.parametrize("domain, latency", [("sync", 2), ("comb", 1)])
def test_reads_and_writes_memories(domain, latency):
    dut, model = Doubles(domain=domain), list(range(8))

    async def body(ctx):
        assert ctx.get(dut.latency) == latency
        for n in range(24):
            at = n * 5 % 8
            ctx.set(dut.at, at)
            ctx.set(dut.step, n % 3 != 0)
            await ctx.tick()
            ctx.set(dut.step, 0)
            for _ in range(latency - 1):
                await ctx.tick()
            assert ctx.get(dut.old) == model[at]
            if n % 3:
                model[at] = (2 * model[at] + 1) % (1 << 16)
            await ctx.tick().repeat(2)
    simulate(dut, body)


def test_what_meets_at_a_port_is_of_one_stage():
    m = Module()
    pipe = Pipeline(m)
    m.submodules.words = words = memory.Memory(shape=16, depth=8, init=[])
    now, port = pipe.enter(Signal(3, name="now")), words.write_port()
    later = pipe.later("later", now)
    for mix in (lambda: pipe.write(port, now, now, later[0]), lambda: pipe.product("p", now.as_signed(), later),
                lambda: pipe.drive((Signal(3), now), (Signal(3), later)),
                lambda: pipe.register("kept", now, when=later[0]), lambda: pipe.into(Signal(3), now, when=later[0])):
        with pytest.raises(StageError, match=r"stages \[0, 1\]"):
            mix()
    assert pipe.drive((Signal(3), later), (Signal(3), 1)) == pipe.named("shown", later).stage == 1
    assert len(pipe.named("wide", later, 7)) == 7 and len(later) == 3


def test_what_is_carried_says_what_its_registers_are():
    pipe = Pipeline(Module())
    now = pipe.enter(Signal(3, name="now"))
    valid, free = pipe.carry("valid", now, valid=True), pipe.carry("free", now, shift_register=True)
    last, both = pipe.later("last", now, 2), pipe.carry("both", now, valid=True, shift_register=True)
    assert [each.name for each in valid.until(last)] == ["now", "valid_1_0", "valid_2_0"]
    assert not valid.beside(last).plain.reset_less and not both.beside(last).plain.reset_less
    assert free.beside(last).plain.reset_less and last.plain.reset_less
    assert last.plain.attrs == {"shreg_extract": "no"} and not free.beside(last).plain.attrs


def test_no_register_is_made_under_a_condition():
    m = Module()
    pipe = Pipeline(m)
    now = pipe.enter(Signal(3, name="now"))
    carried = pipe.carry("carried", now)
    early = carried.at(1)
    with m.If(now.plain[0]):
        assert carried.at(1) is early                   # which is there already
        for make in (lambda: carried.at(2), lambda: pipe.register("kept", now), lambda: pipe.into(Signal(3), now)):
            with pytest.raises(StageError, match="under a condition"):
                make()
    assert carried.at(2).stage == 2


class Parts(wiring.Component):
    """``a * b`` with the last ``a`` that came with ``b >= 0`` beside it, and whether one has come."""
    def __init__(self):
        super().__init__({"a": In(signed(30)), "b": In(signed(16)), "product": Out(signed(46)), "last": Out(signed(30)),
                          "valid": Out(1, init=0)})

    def elaborate(self, platform):
        m = Module()
        pipe = Pipeline(m)
        a, b = pipe.enter(self.a), pipe.enter(self.b)
        product = pipe.product("product", a, b)
        kept = pipe.register("kept", a, when=~b[-1])
        pipe.drive((self.product, product), (self.last, pipe.later("last", kept, product.stage - kept.stage)),
                   (self.valid, pipe.later("valid", ~b[-1], 2, valid=True)))
        assert product.stage == 2
        return m


def test_products_and_registers_that_wait():
    dut = Parts()

    async def body(ctx):
        sent, kept, last = [], [], 0
        for n in range(40):
            a, b = (n * 77777777 % (1 << 30)) - (1 << 29), (n * 12347 % (1 << 16)) - (1 << 15)
            ctx.set(dut.a, a)
            ctx.set(dut.b, b)
            last = a if b >= 0 else last
            sent.append((a, b))
            kept.append(last)
            await ctx.tick()
            if n >= 1:
                a, b = sent[n - 1]
                assert (ctx.get(dut.product), ctx.get(dut.last), ctx.get(dut.valid)) == (a * b, kept[n - 1], b >= 0)
    simulate(dut, body)
