"""A component with the signature of accel.core.Core that holds its reader alone, to try DRAM settings in short
builds."""
from amaranth import *

from accel.dram.reader import SegmentReader
from llama2_spec.registers import Window
from tests.soc.stub_core import StubCore


class StreamCore(StubCore):
    """Reads a segment as fast as it comes; the register ``crc`` then holds the cycles from the command to the last
    beat.

    Command words: first beat, beats, (unused), any: starts. Parameters are those of
    :class:`accel.dram.reader.SegmentReader`.
    """
    def __init__(self, **reader):
        self.reader = reader
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.reader = reader = SegmentReader(**self.reader)
        csr, segments, beats = self.csr, reader.segments, reader.beats
        for port, own in ((self.read0, reader.read0), (self.read1, reader.read1)):
            m.d.comb += [port.cmd_valid.eq(own.cmd_valid), own.cmd_ready.eq(port.cmd_ready),
                         port.cmd_addr.eq(own.cmd_addr),
                         own.rdata_valid.eq(port.rdata_valid), own.rdata_data.eq(port.rdata_data)]

        left, taken, result, start = Signal(28), Signal(32), Signal(), Signal()
        bus, word = self.bus, Signal(10)
        write = Signal()
        m.d.sync += bus.ack.eq(bus.cyc & bus.stb & ~bus.ack)
        m.d.comb += [bus.dat_r.eq(taken), write.eq(bus.ack & bus.cyc & bus.stb & bus.we), word.eq(bus.adr)]
        with m.If(write):
            with m.Switch(word):
                with m.Case(Window.COMMAND//4):
                    m.d.sync += segments.payload.base.eq(bus.dat_w)
                with m.Case(Window.COMMAND//4 + 1):
                    m.d.sync += segments.payload.beats.eq(bus.dat_w)
                with m.Case(Window.COMMAND//4 + 3):
                    m.d.comb += start.eq(1)
                with m.Case(Window.RESULT//4):
                    m.d.sync += result.eq(0)

        m.d.comb += [
            segments.valid.eq(start), beats.ready.eq(1),
            self.irq.eq(result & csr.control.irq_enable), csr.status.result_valid.eq(result), csr.crc.value.eq(taken),
            csr.status.busy.eq(left != 0),
        ]
        m.d.sync += csr.cycles.value.eq(csr.cycles.value + 1)
        with m.If(start):
            m.d.sync += [left.eq(segments.payload.beats), taken.eq(0)]
        with m.Elif(left != 0):
            m.d.sync += taken.eq(taken + 1)
            with m.If(beats.valid):
                m.d.sync += left.eq(left - 1)
                with m.If(left == 1):
                    m.d.sync += result.eq(1)
        return m
