"""What firmware sees of the core: errors stay until they are cleared, an abort waits for stores, all work is busy."""
import pytest

from accel.control.status import Status
from accel.matrix.lanes import LANES
from llama2_spec.maxima import MAX_VOCAB_SIZE
from llama2_spec.numerics import MAX_HEAD_DIM, MAX_SEQ_LEN
from llama2_spec.registers import MAX_CANDIDATES, VERSION
from tests.accel.streams import simulate

MAXIMA = {"max_dim": 1001, "max_hidden_dim": 1002, "max_kv_dim": 1003, "max_heads": 17}
UNITS  = 5


def status():
    return Status(columns=3, units=UNITS, maxima=MAXIMA, candidate_sets=2)


async def pulse(ctx, signal, value=1):
    ctx.set(signal, value)
    await ctx.tick()
    ctx.set(signal, 0)


def errors(ctx, dut):
    return {name for name in dut.errors.signature.members if ctx.get(getattr(dut.csr.errors, name))}


def test_an_error_stays_until_it_is_cleared():
    """Each alone, for one cycle; one that comes with the clear is not lost."""
    dut = status()

    async def drive(ctx):
        names = list(dut.errors.signature.members)
        assert len(names) == 6 and errors(ctx, dut) == set()
        for name in names:
            await pulse(ctx, getattr(dut.errors, name))
            await ctx.tick()
            for _ in range(5):
                assert errors(ctx, dut) == {name}
                await ctx.tick()
            await pulse(ctx, dut.csr.control.clear_errors if name != names[0] else dut.reset)
            assert errors(ctx, dut) == set()
        for name in names:
            await pulse(ctx, getattr(dut.errors, name))
        await ctx.tick()
        assert errors(ctx, dut) == set(names)
        await pulse(ctx, dut.errors.bad_command)
        await pulse(ctx, dut.csr.control.clear_errors)
        assert errors(ctx, dut) == {"bad_command"}
    simulate(dut, drive)


def test_an_abort_acts_once_no_row_is_on_its_way():
    dut = status()

    async def drive(ctx):
        for name in ("storing", "store_next", "store_start", None):
            if name:
                ctx.set(getattr(dut, name), 1)
            assert not ctx.get(dut.aborting) and not ctx.get(dut.csr.status.aborting)
            await pulse(ctx, dut.csr.control.abort)
            for _ in range(4 * bool(name)):
                assert not ctx.get(dut.aborting) and ctx.get(dut.csr.status.aborting)
                await ctx.tick()
            if name:
                ctx.set(getattr(dut, name), 0)
            assert ctx.get(dut.aborting) and ctx.get(dut.csr.status.aborting)
            await pulse(ctx, dut.abort)
            assert not ctx.get(dut.aborting) and not ctx.get(dut.csr.status.aborting)
    simulate(dut, drive)


def test_an_abort_shows_until_the_dropped_reads_are_back():
    dut = status()

    async def drive(ctx):
        ctx.set(dut.embed_busy, 1)
        assert not ctx.get(dut.csr.status.aborting)         # at work, not aborting
        ctx.set(dut.embed_busy, 0)
        ctx.set(dut.read_aborting, 1)
        assert ctx.get(dut.csr.status.aborting) and not ctx.get(dut.aborting)
        ctx.set(dut.read_aborting, 0)
        assert not ctx.get(dut.csr.status.aborting)
    simulate(dut, drive)


def test_busy_follows_each_of_what_it_is_made_of():
    dut = status()

    async def drive(ctx):
        parts = (dut.execution.executing, dut.reader_busy, dut.store_start, dut.storing, dut.queue.busy)
        units = [(dut.units, 1 << i) for i in range(UNITS)]
        for part, value in [*((part, 1) for part in parts), *units]:
            await ctx.tick().repeat(3)
            assert not ctx.get(dut.csr.status.busy) and ctx.get(dut.idle)
            ctx.set(part, value)
            await ctx.tick().repeat(3)
            assert ctx.get(dut.csr.status.busy) and ctx.get(dut.idle) == (part is not dut.units)
            ctx.set(part, 0)
    simulate(dut, drive)


def test_counts_begin_at_a_reset():
    dut = status()

    async def drive(ctx):
        csr = dut.csr
        before = ctx.get(csr.cycles.value)
        await ctx.tick().repeat(7)
        assert ctx.get(csr.cycles.value) == before + 7 and ctx.get(csr.stores.value) == 0
        ctx.set(dut.beat_stored, 1)
        await ctx.tick().repeat(3)
        ctx.set(dut.beat_stored, 0)
        await ctx.tick().repeat(2)
        assert ctx.get(csr.stores.value) == 3 and ctx.get(csr.cycles.value) == before + 12
        await pulse(ctx, dut.reset)
        assert ctx.get(csr.stores.value) == ctx.get(csr.cycles.value) == 0
        await ctx.tick()
        assert ctx.get(csr.cycles.value) == 1
    simulate(dut, drive)


def test_the_interrupt_is_a_result_that_firmware_wants_to_hear_of():
    dut = status()

    async def drive(ctx):
        for waits in (0, 1):
            for wanted in (0, 1):
                ctx.set(dut.result_valid, waits)
                ctx.set(dut.csr.control.irq_enable, wanted)
                ctx.set(dut.logit_valid, 1 - waits)
                assert ctx.get(dut.irq) == (waits and wanted)
                assert (ctx.get(dut.csr.status.result_valid), ctx.get(dut.csr.status.logit_valid)) == (waits, 1 - waits)
    simulate(dut, drive)


@pytest.mark.parametrize("inputs, counted", [
    ({}, {}), ({"starved": 1}, {"starved": 1}), ({"stalled": 1}, {"stalled": 1}),
    ({"beat_valid": 1}, {}), ({"beat_ready": 1, "both": 1}, {}), ({"beat_valid": 1, "beat_ready": 1}, {"beat": 1}),
    ({"beat_valid": 1, "beat_ready": 1, "both": 1}, {"beat": 2}),
    ({"phase": 5, "executing": 1}, {"phase": 5, "cycle": 1}), ({"fenced": 1}, {"fenced": 1}),
    ({"waiting_beat": 1}, {"starved": 1}), ({"phase": 8}, {"phase": 8})])
def test_what_a_cycle_counts_for(inputs, counted):
    dut = status()

    async def drive(ctx):
        for name, value in inputs.items():
            ctx.set(getattr(dut.execution if name in dut.execution.signature.members else dut, name), value)
        await ctx.tick()
        found = {name: ctx.get(getattr(dut.activity, name)) for name in dut.activity.signature.members}
        assert {name: value for name, value in found.items() if value} == counted
    simulate(dut, drive)


def test_registers_that_are_constants():
    dut = status()

    async def drive(ctx):
        csr = dut.csr
        ctx.set(dut.queue.free, 77)
        ctx.set(dut.crc, 0x89abcdef)
        assert (ctx.get(csr.status.queue_free), ctx.get(csr.crc.value)) == (77, 0x89abcdef)
        assert {name: ctx.get(getattr(csr, name).value) for name in MAXIMA} == MAXIMA
        assert [ctx.get(csr.max_head_dim.value), ctx.get(csr.max_vocab_size.value), ctx.get(csr.max_seq_len.value)] == [
            MAX_HEAD_DIM, MAX_VOCAB_SIZE, MAX_SEQ_LEN]
        geometry = {name: ctx.get(getattr(csr.geometry, name)) for name in csr.geometry.signature.members}
        assert geometry == {"version": VERSION, "columns": 3, "lanes": LANES, "candidates": MAX_CANDIDATES,
                            "candidate_sets": 2}
    simulate(dut, drive)
