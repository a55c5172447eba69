"""Registers and queues in a stream."""
from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out


class _Registers(wiring.Component):
    """What the registers of a stream have in common.

    Members
    -------
    input, output : In(stream of shape), Out(stream of shape)
        Words in and, one cycle later at the earliest, out.
    busy : Out(1)
        A word is held.
    """
    latency = 1         #: from input to output

    def __init__(self, shape):
        self.shape = shape
        super().__init__({"input": In(stream.Signature(shape)), "output": Out(stream.Signature(shape)), "busy": Out(1)})


class Stage(_Registers):
    """One register for payload and valid, a cycle of latency; ready passes through. ``busy`` while it holds
    something."""

    def elaborate(self, platform):
        m = Module()
        held = Signal()
        payload = Signal(self.shape, reset_less=True)
        m.d.comb += [self.input.ready.eq(~held | self.output.ready), self.output.valid.eq(held),
                     self.output.payload.eq(payload), self.busy.eq(held)]
        with m.If(self.input.ready):
            m.d.sync += [held.eq(self.input.valid), payload.eq(self.input.payload)]
        return m


class Skid(_Registers):
    """Two registers, a cycle of latency: nothing passes through, ready neither. ``busy`` while it holds something."""

    def elaborate(self, platform):
        m = Module()
        into, out = self.input, self.output
        # No room: both hold a word.
        held = Signal()
        room = Signal(init=1)
        payload, spare = (Signal(self.shape, name=name, reset_less=True) for name in ("payload", "spare"))
        m.d.comb += [into.ready.eq(room), out.valid.eq(held), out.payload.eq(payload), self.busy.eq(held)]
        with m.If(room):
            m.d.sync += spare.eq(into.payload)
        with m.If(~held | out.ready):
            m.d.sync += [held.eq(into.valid | ~room), room.eq(1), payload.eq(Mux(room, into.payload, spare))]
        with m.Else():
            m.d.sync += room.eq(room & ~into.valid)
        return m


class HalfRate(_Registers):
    """One register, a cycle of latency, a word every other cycle: nothing passes through, ready neither. ``busy`` while
    it holds one."""

    def elaborate(self, platform):
        m = Module()
        held = Signal()
        payload = Signal(self.shape, reset_less=True)
        m.d.comb += [self.input.ready.eq(~held), self.output.valid.eq(held), self.output.payload.eq(payload),
                     self.busy.eq(held)]
        with m.If(held):
            m.d.sync += held.eq(~self.output.ready)
        with m.Else():
            m.d.sync += [held.eq(self.input.valid), payload.eq(self.input.payload)]
        return m


class Queue(wiring.Component):
    """``depth`` (a power of two) entries in distributed memory. Refuses nothing: who writes has reserved a place, see
    :func:`accel.lib.numeric.credits`. An entry can leave a cycle after it was written; ``level`` of them are there.

    Members
    -------
    write : In(1)
        An entry comes; its writer has reserved a place.
    data : In(shape)
        Valid with ``write``.
    level : Out(range(depth + 1))
        Entries that are there.
    output : Out(stream of shape)
        The oldest entry; held until taken.
    """
    latency = 1         #: from a write to the output


    def __init__(self, shape, *, depth):
        self.shape, self.depth = shape, depth
        super().__init__({"write": In(1), "data": In(shape), "level": Out(range(depth + 1)),
                          "output": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.storage = storage = memory.Memory(shape=self.shape, depth=self.depth, init=[])
        w, r = storage.write_port(), storage.read_port(domain="comb")
        newest = Signal.like(w.addr)
        oldest = Signal.like(r.addr)
        some = Signal()
        leave = Signal()
        m.d.comb += [
            w.addr.eq(newest), w.data.eq(self.data), w.en.eq(self.write), r.addr.eq(oldest),
            leave.eq(some & self.output.ready), self.output.valid.eq(some), self.output.payload.eq(r.data),
        ]
        with m.If(self.write):
            m.d.sync += newest.eq(newest + 1)
        with m.If(leave):
            m.d.sync += oldest.eq(oldest + 1)
        with m.If(self.write ^ leave):
            m.d.sync += [self.level.eq(self.level + Mux(self.write, 1, -1)), some.eq(self.write | (self.level != 1))]
        return m
