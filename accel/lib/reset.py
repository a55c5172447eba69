"""Carries the core's reset and its abort to the stations, by a register for each."""
from amaranth.hdl import ResetInserter, Signal


class Resets:
    """Adds stations to a module, each with a register of its own for what resets it.

    A register each keeps the path short: from the register beside a station to its flip-flops, instead of from one
    register in the middle of the die to all of them. Reset and abort share the register, so no gate stands before the
    flip-flops.

    Parameters
    ----------
    m : Module
        The core's.
    reset : Signal(1)
        Lasts ten cycles or more, so that it passes all registers of the chain.
    aborting : Signal(1)
        Everything that is not to be kept goes; may last for more than a cycle.
    """
    def __init__(self, m, reset, aborting):
        self.m, self.reset, self.aborting, self.last = m, reset, aborting, reset

    def abort_of(self, name):
        """Pulses on an abort, is high during reset."""
        abort = Signal(name=f"abort_{name}", attrs={"keep": "true"})
        self.m.d.sync += abort.eq(self.reset | self.aborting & ~abort)
        return abort

    def reset_of(self, name):
        """One after the other, lest synthesis take equal registers for one."""
        reset = Signal(name=f"reset_{name}", attrs={"keep": "true"})
        self.m.d.sync += reset.eq(self.last)
        self.last = reset
        return reset

    def drop(self, **units):
        """Add units that an abort sets back to idle."""
        for name, unit in units.items():
            self.m.submodules[name] = ResetInserter(self.abort_of(name))(unit)

    def keep(self, **units):
        """Add units that only a reset sets back; one with a member ``abort`` drops by itself what an abort is to
        drop."""
        for name, unit in units.items():
            self.m.submodules[name] = ResetInserter(self.reset_of(name))(unit)
            if "abort" in unit.signature.members:
                self.m.d.comb += unit.abort.eq(self.abort_of(name))
