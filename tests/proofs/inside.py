"""Looks inside a unit: its own signals, for assertions that help a search to prove the others."""
import sys
from types import SimpleNamespace

from amaranth.hdl import Module


def opened(unit, elaborate=None) -> tuple[Module, SimpleNamespace]:
    """The unit's module, and what the steps of its ``elaborate`` called their local variables, by step.

    ``inside._dram.commands`` is the variable ``commands`` of the method ``_dram``. The module replaces the unit as a
    submodule: a unit is elaborated once, by ``elaborate`` if its class has another for those who add it.
    """
    found = {}

    def watch(frame, event, arg):
        if event == "return" and frame.f_locals.get("self") is unit:
            found[frame.f_code.co_name] = SimpleNamespace(**frame.f_locals)
    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        module = (elaborate or type(unit).elaborate)(unit, None)
    finally:
        sys.setprofile(before)
    return module, SimpleNamespace(**found)
