"""The core that only streams: every beat of a segment arrives, and its cycles are counted."""
import pytest
from amaranth.sim import Simulator

from bench.stream_core import StreamCore
from llama2_spec.registers import Window

LATENCY = 14


@pytest.mark.parametrize("base, beats, reader", [(0, 1, {}), (100, 90, {}), (5, 140, {"row_bits": 23})])
def test_counts_the_cycles_until_the_last_beat(base, beats, reader):
    dut, asked = StreamCore(**reader), []

    async def write(ctx, address, data):
        ctx.set(dut.bus.adr, address//4)
        ctx.set(dut.bus.dat_w, data)
        for signal in (dut.bus.cyc, dut.bus.stb, dut.bus.we):
            ctx.set(signal, 1)
        await ctx.tick().until(dut.bus.ack)
        ctx.set(dut.bus.cyc, 0)
        await ctx.tick()

    def memory(port):
        async def answer(ctx):
            pending = [0]*LATENCY
            ctx.set(port.cmd_ready, 1)
            while True:
                _, _, valid, address = await ctx.tick().sample(port.cmd_valid, port.cmd_addr)
                if valid:
                    asked.append(address)
                pending.append(valid)
                ctx.set(port.rdata_valid, pending.pop(0))
        return answer

    async def drive(ctx):
        ctx.set(dut.csr.control.irq_enable, 1)
        for i, word in enumerate((base, beats, 0, 0)):
            await write(ctx, Window.COMMAND + 4*i, word)
        await ctx.tick().until(dut.irq)
        cycles = ctx.get(dut.csr.crc.value)
        assert sorted(asked) == list(range(base, base + beats))
        assert beats + LATENCY <= cycles <= beats + LATENCY + 40
        await write(ctx, Window.RESULT, 0)
        assert not ctx.get(dut.irq)

    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(drive)
    for port in (dut.read0, dut.read1):
        simulator.add_testbench(memory(port), background=True)
    simulator.run_until(1e-8*(20*beats + 5000))
    assert asked
