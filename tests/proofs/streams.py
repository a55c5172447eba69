"""What every unit with one stream in and one out must do: keep order, lose and invent nothing, hold what it offers, go
on."""
from amaranth.hdl import Assert, Elaboratable, Module, Mux, Signal
from amaranth.hdl._ast import AnySeq

#: Bits of a payload. A unit that only moves payloads treats all bits alike, so what holds for two holds for any number.
WIDTH = 2


def any_value(m, width, name):
    """A signal that may have any value in every cycle."""
    signal = Signal(width, name=name)
    m.d.comb += signal.eq(AnySeq(width))
    return signal


def always_since(m, happened, name):
    """``happened`` in the cycle before; false in the first one."""
    before = Signal(name=f"{name}_before")
    m.d.sync += before.eq(happened)
    return before


def assert_held(m, source, name):
    """An offer that was not taken is there in the next cycle, with the same payload."""
    payload = Signal(len(source.payload), name=f"{name}_offered")
    m.d.sync += payload.eq(source.payload)
    waits = always_since(m, source.valid & ~source.ready, f"{name}_waits")
    m.d.comb += Assert(~waits | (source.valid & (source.payload == payload)))


class StreamProof(Elaboratable):
    """Compares a unit with a list of what it has taken and not yet given.

    Parameters
    ----------
    unit : wiring.Component
        With ``input`` and ``output`` of a few bits each, and perhaps ``busy``.
    places : int
        Words that it may hold at most.
    wait_cycles : int
        Cycles in which it may hold a word and offer none.
    """
    def __init__(self, unit, *, places, wait_cycles=0):
        self.unit, self.places, self.wait_cycles = unit, places, wait_cycles

    def elaborate(self, platform):
        m = Module()
        m.submodules.unit = unit = self.unit
        source, sink, width = unit.input, unit.output, len(unit.input.payload)
        m.d.comb += [source.valid.eq(any_value(m, 1, "offers")), source.payload.eq(any_value(m, width, "word")),
                     sink.ready.eq(any_value(m, 1, "takes"))]
        taken, given = Signal(), Signal()
        m.d.comb += [taken.eq(source.valid & source.ready), given.eq(sink.valid & sink.ready)]
        held, kept = Signal(range(self.places + 2)), Signal(range(self.places + 2))
        words = [Signal(width, name=f"word{i}") for i in range(self.places + 1)]
        m.d.comb += kept.eq(held - given)
        for i in range(self.places):
            m.d.sync += words[i].eq(Mux(taken & (kept == i), source.payload, Mux(given, words[i + 1], words[i])))
        m.d.sync += held.eq(kept + taken)
        m.d.comb += [
            Assert(held <= self.places),                                            # it takes what it has room for
            Assert(~sink.valid | (held != 0)),                                      # nothing is invented
            Assert(~sink.valid | (sink.payload == words[0])),                       # the oldest leaves first
        ]
        if hasattr(unit, "busy"):
            m.d.comb += Assert(unit.busy | (held == 0))
        assert_held(m, sink, "output")
        waited = Signal(range(self.wait_cycles + 2))
        m.d.sync += waited.eq(Mux((held != 0) & ~sink.valid, waited + 1, 0))
        m.d.comb += Assert((held == 0) | sink.valid | (waited < self.wait_cycles))  # what it holds comes out
        m.d.comb += Assert((held != 0) | source.ready)                              # an empty one takes
        return m
