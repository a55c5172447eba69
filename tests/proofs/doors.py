"""The stream rule at a station's doors: what is offered stays, unchanged, until it is taken or the station is set back;
nothing is offered in the cycle after that."""
from amaranth.hdl import Assert, Assume, Elaboratable, Module, ResetInserter, Signal, Value
from amaranth.lib import stream
from amaranth.lib.wiring import Flow

from accel.interfaces import Beats
from tests.proofs.inside import opened
from tests.proofs.streams import any_value


def streams(unit, flow):
    """(name, stream) of the unit's streams that go out of it, or into it."""
    found = []
    for name, member in unit.signature.members.items():
        if member.is_signature and member.flow == flow:
            shape = member.signature if flow == Flow.Out else member.signature.flip()
            if isinstance(shape, (stream.Signature, Beats)):
                found.append((name, getattr(unit, name)))
    return found


def drive(m, unit, driven):
    """Give every input of the unit that is not in ``driven``, by name, any value in every cycle."""
    for path, member, value in unit.signature.flatten(unit):
        if member.flow == Flow.In and "__".join(map(str, path)) not in driven:
            whole = Value.cast(value)
            m.d.comb += whole.eq(any_value(m, len(whole), "any_" + "_".join(map(str, path))))


#: Faults of a door, each of which the assertions must see.
FAULTS = ("an offer that waits is withdrawn", "an offer that waits changes", "an offer stays after a reset")


class Seen:
    """What the assertions see of a stream: all of it, or with one of the :data:`FAULTS`."""
    def __init__(self, m, source, name, fault, was_back):
        waits = Signal(name=f"{name}_waited")
        m.d.sync += waits.eq(source.valid & ~source.ready)
        payload = Value.cast(source.payload)
        self.valid, self.ready = source.valid, source.ready
        self.payload = payload ^ waits if fault == FAULTS[1] else payload
        if fault == FAULTS[0]:
            self.valid = source.valid & ~waits
        elif fault == FAULTS[2]:
            self.valid = source.valid | (was_back & waits)


class DoorProof(Elaboratable):
    """Any station: whoever feeds it keeps the rule, whoever takes from it takes when it likes, all else is at will.

    Parameters
    ----------
    unit : wiring.Component
        The station.
    doors : tuple of str
        Of the streams that it offers, those that are looked at; all without it.
    resets : bool
        The core sets the station back on an abort, see :class:`accel.lib.reset.Resets`; else it has a member ``abort``
        or nothing that could be set back.
    assume : callable or None
        From the unit, a condition that its users keep: its interface says so.
    broken : str
        One of :data:`FAULTS`: what is done to each offer between the station and the assertions.
    user : callable or None
        From the module, the unit, what sets it back and what is inside of it (None if that is not to be looked at):
        adds what its users keep to, and assertions of the unit's registers that help.
    helped : bool
        Look inside, so that ``user`` can help.
    """
    def __init__(self, unit, *, doors=None, resets=True, assume=None, broken="", user=None, helped=False):
        self.unit, self.doors, self.resets, self.assume, self.broken = unit, doors, resets, assume, broken
        self.user, self.helped = user, helped

    def elaborate(self, platform):
        m = Module()
        unit, back = self.unit, any_value(m, 1, "back")
        inner, inside = opened(unit) if self.helped else (unit, None)
        m.submodules.unit = ResetInserter(back)(inner) if self.resets else inner
        has_abort = "abort" in unit.signature.members
        if has_abort:
            m.d.comb += unit.abort.eq(back)
        drive(m, unit, {"abort"} if has_abort else set())
        was_back = Signal()
        m.d.sync += was_back.eq(back)
        for name, source in streams(unit, Flow.In):     # its source is set back with it
            m.d.comb += [Assume(self._kept(m, source, back, name)), Assume(~was_back | ~source.valid)]
        if self.assume is not None:
            m.d.comb += Assume(self.assume(unit))
        if self.user is not None:
            self.user(m, unit, back, inside)
        for name, source in streams(unit, Flow.Out):
            if self.doors is None or name in self.doors:
                seen = Seen(m, source, name, self.broken, was_back)
                m.d.comb += Assert(self._kept(m, seen, back, name))
                if self.resets or has_abort:
                    m.d.comb += Assert(~was_back | ~seen.valid)
        return m

    def _kept(self, m, source, back, name):
        """Whether an offer that was not taken is still there."""
        payload = Value.cast(source.payload)
        waits, before = Signal(name=f"{name}_waits"), Signal(len(payload), name=f"{name}_before")
        m.d.sync += [waits.eq(source.valid & ~source.ready & ~back), before.eq(payload)]
        return ~waits | (source.valid & (payload == before))
