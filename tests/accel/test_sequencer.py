"""The sequencer starts no job once an abort has acted."""
import pytest
from amaranth.hdl import Module, ResetInserter, Signal
from amaranth.lib import wiring

from accel.control.sequencer import Sequencer
from llama2_spec.registers import Dest, Opcode, encode
from tests.accel.streams import simulate

#: One command for each kind of job, with none of its beats.
JOBS = {
    "attend": encode(Opcode.ATTEND, rows=1), "store": encode(Opcode.STORE), "embed": encode(Opcode.EMBED),
    "logits": encode(Opcode.MATVEC, dest=Dest.LOGITS, rows=1), "gain": encode(Opcode.GAIN), "crc": encode(Opcode.CRC),
}


class Bench(wiring.Component):
    """A sequencer as the core has it: an abort resets it and, in the same cycle, the stations that it starts."""

    def __init__(self):
        self.dut, self.abort = Sequencer(columns=2), Signal()
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = ResetInserter(self.abort)(self.dut)
        return m


@pytest.mark.parametrize("job", JOBS)
def test_an_abort_lets_no_job_start(job):
    """At whichever cycle of a command it comes: a job that started later would find its station waiting for rows that
    nobody sends, or write K/V rows to where no command said."""
    bench = Bench()
    dut, command = bench.dut, sum(word << 32 * i for i, word in enumerate(JOBS[job]))
    starts = (dut.attend.start, dut.newest.start, dut.store.start, dut.embed.start, dut.matrix.start, dut.logits.start,
              dut.gain_start, dut.crc_start)
    started = []

    async def drive(ctx):
        ctx.set(dut.idle, 1)
        ctx.set(dut.store.room, 1)
        for cycles in range(1, 12):
            ctx.set(dut.commands.payload, command)
            ctx.set(dut.commands.valid, 1)
            await ctx.tick().until(dut.commands.ready)
            ctx.set(dut.commands.valid, 0)
            for cycle in range(20):
                ctx.set(bench.abort, cycle == cycles)
                if any(ctx.get(start) for start in starts):
                    assert cycle <= cycles, f"{cycle - cycles} cycles after an abort in cycle {cycles}"
                    started.append(cycle)
                await ctx.tick()
    simulate(bench, drive)
    assert started


def test_attention_s_turn_ends_with_its_last_beat():
    """What the stream brings then is the next command's; the rows on chip come from elsewhere."""
    dut, words = Sequencer(columns=2), encode(Opcode.ATTEND, rows=3, beats=4)

    async def drive(ctx):
        ctx.set(dut.idle, 1)
        ctx.set(dut.commands.payload, sum(word << 32 * i for i, word in enumerate(words)))
        ctx.set(dut.commands.valid, 1)
        await ctx.tick().until(dut.commands.ready)
        ctx.set(dut.commands.valid, 0)
        await ctx.tick().until(dut.turns.attend)
        ctx.set(dut.turns.valid, 1)
        ctx.set(dut.turns.taken_ready, 1)
        turns = [ctx.get(dut.turns.attend)]
        for _ in range(6):
            await ctx.tick()
            turns.append(ctx.get(dut.turns.attend))
        assert sum(turns) == 4 and turns[:4] == [1] * 4
        assert ctx.get(dut.execution.executing), "until attention is done"
        ctx.set(dut.attend.done, 1)
        await ctx.tick().repeat(2)
        assert not ctx.get(dut.execution.executing)
    simulate(dut, drive)
