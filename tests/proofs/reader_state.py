"""An abort leaves the reader's registers as a reset does, and what is asked for has a place in the buffer."""
from amaranth.hdl import Assert, Assume, Elaboratable, Module, Signal

from tests.proofs.doors import drive
from tests.proofs.inside import opened
from tests.proofs.streams import any_value


class ReaderStateProof(Elaboratable):
    """Claims of the reader's own registers, with inputs that are all at will; so the claim of its beats, which is
    searched from a reset, holds after an abort as well, as far as these registers go.

    A memory answers only what it was asked for; nothing else is assumed.
    """
    def __init__(self, unit):
        self.unit = unit

    def elaborate(self, platform):
        m, unit = Module(), self.unit
        m.submodules.unit, inside = opened(unit)
        drive(m, unit, {f"read{i}__rdata_valid" for i in range(2)})
        for i, native in enumerate((unit.read0, unit.read1)):
            waiting, answers = Signal(range(unit.depth + 2), name=f"waiting{i}"), any_value(m, 1, f"answers{i}")
            m.d.sync += waiting.eq(waiting + (native.cmd_valid & native.cmd_ready) - native.rdata_valid)
            m.d.comb += [native.rdata_valid.eq(answers & (waiting != 0)), Assert(waiting <= unit.depth)]
        m.d.comb += Assume(~(unit.read0.rdata_valid & unit.read1.rdata_valid))
        self._set_back(m, inside)
        self._asks(m, inside)
        beats = inside._beats
        m.d.comb += Assert(~(beats.valid0 & beats.valid1) | unit.beats.valid)    # what both halves have is offered
        return m

    def _set_back(self, m, inside):
        """In the first cycle after an abort and what it drained."""
        s, was, over = inside._blocks.s, Signal(), Signal()
        m.d.sync += was.eq(s.drop)
        m.d.comb += over.eq(was & ~s.drop)
        leave, halves = inside._leave, [s.some, s.into, s.first, s.taken_turn, *s.more, *s.one, *s.few, *s.ages]
        # of the two halves of the buffer, which one loop makes, the second
        m.d.comb += [
            *(Assert(~over | (each == each.init)) for each in (*halves, leave.get, leave.room, leave.some_room,
                                                               leave.waiting, s.arrived[0], s.arrived[1])),
            Assert(leave.some_room == (leave.room != 0)),
        ]

    def _asks(self, m, inside):
        """The younger waits until the older is almost requested; a beat that is asked for has a place in the buffer, as
        of the cycle before, which had at most as many taken."""
        s, requests = inside._blocks.s, inside._requests
        younger, taken_turn = Signal(), Signal.like(s.taken_turn)
        m.d.sync += [younger.eq((s.ages[1] - s.ages[0])[4]), taken_turn.eq(s.taken_turn)]
        m.d.comb += [
            Assert(~self.unit.read0.cmd_valid | s.few[1] | ~younger),
            Assert(~self.unit.read1.cmd_valid | s.few[0] | younger),
            Assert(~self.unit.read1.cmd_valid | ((requests.turn - taken_turn)[:len(taken_turn)] < self.unit.buffer)),
        ]
