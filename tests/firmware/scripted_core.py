"""A core that computes nothing: commands take a fixed time and yield scripted results, to measure the firmware's own
time."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from llama2_spec.registers import COMMAND, MAX_CANDIDATES, QUEUE_DEPTH, VERSION, Dest, Opcode, Result, Window
from tests.soc.stub_core import BUS, CSR, READ, WRITE

LIMITS = dict(max_dim=1024, max_hidden_dim=4096, max_head_dim=128, max_kv_dim=1024, max_heads=32, max_vocab_size=65536,
              max_seq_len=4096)


def field(word, name):
    """A field of command word 0."""
    bits = next(bits for bits in COMMAND if bits.name == name)
    return word[bits.low:bits.low + bits.size]


class ScriptedCore(wiring.Component):
    """``crcs`` answer the CRC commands in turn; the n-th result's token is n; candidate i has logit -i/4."""

    def __init__(self, *, crcs, command_cycles, columns=1):
        self.crcs, self.command_cycles, self.columns = crcs, command_cycles, columns
        super().__init__({
            "read0": Out(READ), "read1": Out(READ), "embed": Out(READ), "write": Out(WRITE),
            "bus": In(BUS), "csr": Out(CSR), "irq": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = SyncFIFOBuffered(width=32, depth=QUEUE_DEPTH)
        csr, bus = self.csr, self.bus
        word0, timer, aborting = Signal(32), Signal(16), Signal()
        result, token, taken = Signal(), Signal(32), Signal(32)
        answer = Signal(range(len(self.crcs)))
        write = Signal()

        m.d.sync += [bus.ack.eq(bus.cyc & bus.stb & ~bus.ack), csr.cycles.value.eq(csr.cycles.value + 1)]
        m.d.comb += write.eq(bus.ack & bus.cyc & bus.stb & bus.we)
        m.d.comb += queue.w_data.eq(word0)
        with m.If(write & (bus.adr == Window.COMMAND // 4)):
            m.d.sync += word0.eq(bus.dat_w)
        with m.If(write & (bus.adr == Window.COMMAND // 4 + 3)):
            m.d.comb += queue.w_en.eq(1)
        with m.If(write & (bus.adr == Window.RESULT // 4)):
            m.d.sync += result.eq(0)

        is_logits = (field(queue.r_data, "opcode") == Opcode.MATVEC) & (field(queue.r_data, "dest") == Dest.LOGITS)
        with m.If(aborting):
            m.d.comb += queue.r_en.eq(1)
            m.d.sync += timer.eq(0)
            with m.If(~queue.r_rdy):
                m.d.sync += aborting.eq(0)
        with m.Elif(timer != 0):
            m.d.sync += timer.eq(timer - 1)
        with m.Elif(queue.r_rdy & ~(is_logits & result)):
            m.d.comb += queue.r_en.eq(1)
            m.d.sync += timer.eq(self.command_cycles)
            with m.If(is_logits):
                m.d.sync += [result.eq(1), token.eq(token + 1), taken.eq(csr.cycles.value)]
            with m.If(field(queue.r_data, "opcode") == Opcode.CRC):
                m.d.sync += [csr.crc.value.eq(Array(self.crcs)[answer]), answer.eq(answer + 1)]
        with m.If(csr.control.abort):
            m.d.sync += aborting.eq(1)

        with m.Switch(bus.adr):
            for index, value in ((Result.TOKEN, token), (Result.CYCLES, taken), (Result.MASS_LO, 1 << 18),
                                 (Result.KEPT, MAX_CANDIDATES)):
                with m.Case(Window.RESULT // 4 + index):
                    m.d.sync += bus.dat_r.eq(value)
            with m.Case("11--------"):    # candidates
                m.d.sync += bus.dat_r.eq(Mux(bus.adr[0], -(bus.adr[1:7] << 16), bus.adr[1:7]))
            with m.Default():
                m.d.sync += bus.dat_r.eq(0)
        m.d.comb += [
            self.irq.eq(result & csr.control.irq_enable),
            csr.status.busy.eq(queue.r_rdy | (timer != 0) | (queue.level != 0)),
            csr.status.result_valid.eq(result), csr.status.aborting.eq(aborting),
            csr.status.queue_free.eq(QUEUE_DEPTH - queue.level),
            csr.geometry.version.eq(VERSION), csr.geometry.columns.eq(self.columns), csr.geometry.lanes.eq(16),
            csr.geometry.candidates.eq(MAX_CANDIDATES),
            *[getattr(csr, name).value.eq(value) for name, value in LIMITS.items()],
        ]
        return m
