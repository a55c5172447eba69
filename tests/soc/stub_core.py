"""A component with the signature of accel.core.Core that only adds up DRAM beats, to test the SoC around the core."""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from llama2_spec.registers import REGISTERS, Window

READ = wiring.Signature({
    "cmd_valid": Out(1), "cmd_ready": In(1), "cmd_addr": Out(24), "rdata_valid": In(1), "rdata_data": In(128)})
WRITE = wiring.Signature({
    "cmd_valid": Out(1), "cmd_ready": In(1), "cmd_addr": Out(24),
    "wdata_valid": Out(1), "wdata_ready": In(1), "wdata_data": Out(128)})
BUS = wiring.Signature({
    "cyc": Out(1), "stb": Out(1), "we": Out(1), "adr": Out(10), "dat_w": Out(32), "sel": Out(4), "dat_r": In(32),
    "ack": In(1)})
CSR = wiring.Signature({
    register.name: Out(wiring.Signature({
        field.name: (In if register.access == "rw" else Out)(field.size) for field in register.fields}))
    for register in REGISTERS})


class StubCore(wiring.Component):
    """Command words: base, beats, where the sum is written to (in beats), any: starts.

    Beats are read through all three read ports in turn; the sum of their 32-bit words appears in the register
    ``crc`` and, four times, in DRAM. Result word 0 is the sum, too; writing it ends the interrupt.
    """
    def __init__(self, *, columns=1):
        self.columns = columns
        super().__init__({
            "read0": Out(READ), "read1": Out(READ), "embed": Out(READ), "write": Out(WRITE),
            "bus": In(BUS), "csr": Out(CSR), "irq": Out(1)})

    def elaborate(self, platform):
        m = Module()

        base, beats, target, left, total = (Signal(32, name=name)
                                            for name in ("base", "beats", "target", "left", "total"))
        result = Signal()
        turn   = Signal(range(3))
        reads  = [self.read0, self.read1, self.embed]

        m.d.sync += self.bus.ack.eq(self.bus.cyc & self.bus.stb & ~self.bus.ack)
        m.d.sync += self.bus.dat_r.eq(total)
        write, word = Signal(), Signal(10)
        m.d.comb += [write.eq(self.bus.ack & self.bus.cyc & self.bus.stb & self.bus.we), word.eq(self.bus.adr)]
        with m.If(write):
            with m.Switch(word):
                for i, register in enumerate((base, beats, target)):
                    with m.Case(Window.COMMAND//4 + i):
                        m.d.sync += register.eq(self.bus.dat_w)
                with m.Case(Window.RESULT//4):
                    m.d.sync += result.eq(0)

        csr = self.csr
        m.d.sync += csr.cycles.value.eq(csr.cycles.value + 1)
        m.d.comb += [
            self.irq.eq(result & csr.control.irq_enable),
            csr.status.result_valid.eq(result),
            csr.crc.value.eq(total),
            csr.geometry.columns.eq(self.columns),
        ]

        with m.FSM() as fsm:
            m.d.comb += csr.status.busy.eq(~fsm.ongoing("IDLE"))
            with m.State("IDLE"):
                with m.If(write & (word == Window.COMMAND//4 + 3)):
                    m.d.sync += [left.eq(beats), total.eq(0), turn.eq(0)]
                    m.next = "REQUEST"
            with m.State("REQUEST"):
                with m.If(left == 0):
                    m.next = "WRITE"
                with m.Switch(turn):
                    for i, read in enumerate(reads):
                        with m.Case(i):
                            m.d.comb += [read.cmd_valid.eq(left != 0), read.cmd_addr.eq(base + beats - left)]
                            with m.If(read.cmd_valid & read.cmd_ready):
                                m.next = "DATA"
            with m.State("DATA"):
                with m.Switch(turn):
                    for i, read in enumerate(reads):
                        with m.Case(i):
                            with m.If(read.rdata_valid):
                                m.d.sync += [
                                    total.eq(total + sum(read.rdata_data.word_select(n, 32) for n in range(4))),
                                    left.eq(left - 1),
                                    turn.eq(Mux(turn == 2, 0, turn + 1)),
                                ]
                                m.next = "REQUEST"
            with m.State("WRITE"):
                m.d.comb += [self.write.cmd_valid.eq(1), self.write.cmd_addr.eq(target)]
                m.d.comb += [self.write.wdata_valid.eq(1), self.write.wdata_data.eq(total.replicate(4))]
                with m.If(self.write.cmd_ready):
                    m.next = "WRITE-DATA"
            with m.State("WRITE-DATA"):
                m.d.comb += [self.write.wdata_valid.eq(1), self.write.wdata_data.eq(total.replicate(4))]
                with m.If(self.write.wdata_ready):
                    m.d.sync += [result.eq(1), csr.stores.value.eq(csr.stores.value + 1)]
                    m.next = "IDLE"

        return m
