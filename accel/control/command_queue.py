"""Commands in one block RAM, word by word: read ahead of execution, and again for it."""
from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.interfaces import Ahead
from accel.lib.numeric import UNCHECKED
from llama2_spec.registers import COMMAND, QUEUE_DEPTH


class CommandQueue(wiring.Component):
    """A FIFO of ``QUEUE_DEPTH`` commands that is read twice.

    Members
    -------
    write, word, data : In(1), In(2), In(32)
        A word of the next command; word 3 pushes it.
    free, busy, overflow : Out(8), Out(1), Out(1)
        Commands that fit; one waits to be executed; one did not fit and was dropped.
    ahead : Out(stream of Ahead)
        Every command's segment, in order, as soon as it is taken.
    commands : Out(stream of 128)
        Every command in order, after it was taken at ``ahead``.
    """
    latency = None      #: varies

    def __init__(self):
        super().__init__({
            "write": In(1), "word": In(2), "data": In(32), "free": Out(8), "busy": Out(1), "overflow": Out(1),
            "ahead": Out(stream.Signature(Ahead())), "commands": Out(stream.Signature(128)),
        })

    def elaborate(self, platform):
        m = Module()
        bits = QUEUE_DEPTH.bit_length()     # a place is spare: the one that is being written word by word
        m.submodules.words = words = memory.Memory(shape=32, depth=4 << bits, init=[], attrs=UNCHECKED)
        w, r = words.write_port(), words.read_port()
        newest = Signal(bits)
        seen = Signal(bits)
        oldest = Signal(bits)
        free = Signal(range(QUEUE_DEPTH + 1), init=QUEUE_DEPTH)
        push = self.write & (self.word == 3)
        kept = Signal()
        taken = Signal()
        m.d.comb += [
            w.addr.eq(Cat(self.word, newest)), w.data.eq(self.data), w.en.eq(self.write),
            kept.eq(push & (free != 0)), self.overflow.eq(push & (free == 0)),
            self.free.eq(free), self.busy.eq(free != QUEUE_DEPTH),
            taken.eq(self.commands.valid & self.commands.ready),
        ]
        freed = Signal()                    # registered: sequencer -> count of free places
        m.d.sync += [newest.eq(newest + kept), freed.eq(taken), free.eq(free - kept + freed)]

        # Four reads in a row, for the one side or the other
        reading = Signal()
        execute = Signal()
        step = Signal(2)
        arriving = Signal()
        arriving_step = Signal(2)
        m.d.comb += r.addr.eq(Cat(step, Mux(execute, oldest, seen)))
        m.d.sync += [arriving.eq(reading), arriving_step.eq(step), step.eq(step + reading)]
        with m.If(reading):
            with m.If(step == 3):
                m.d.sync += reading.eq(0)
        with m.Elif(~arriving):
            with m.If((oldest != seen) & (~self.commands.valid | self.commands.ready)):
                m.d.sync += [reading.eq(1), execute.eq(1)]
            with m.Elif((seen != newest) & ~self.ahead.valid):
                m.d.sync += [reading.eq(1), execute.eq(0)]
        last = arriving & (arriving_step == 3)
        with m.If(self.ahead.valid & self.ahead.ready):
            m.d.sync += [self.ahead.valid.eq(0), seen.eq(seen + 1)]
        with m.If(taken):
            m.d.sync += self.commands.valid.eq(0)
        command = Signal(128, reset_less=True)
        ahead = Signal(Ahead(), reset_less=True)
        m.d.comb += [self.commands.payload.eq(command), self.ahead.payload.eq(ahead)]
        with m.If(arriving & execute):
            m.d.sync += [command.eq(Cat(command[32:], r.data)), self.commands.valid.eq(last)]
        with m.If(arriving & ~execute):
            for i in range(4):
                with m.If(arriving_step == i):
                    m.d.sync += [ahead[b.name].eq(r.data[b.low:]) for b in COMMAND
                                 if b.word == i and b.name in Ahead().members]
            m.d.sync += self.ahead.valid.eq(last)
        with m.If(last):
            m.d.sync += oldest.eq(oldest + execute)
        return m
