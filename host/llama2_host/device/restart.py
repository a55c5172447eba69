"""Says in one line why a board began anew, from what its firmware recorded."""
from llama2_spec.protocol import RESTART_PLACE_BITS, TRAP_CAUSES, Restart

#: what RISC-V's numbers mean. Ref: The RISC-V Instruction Set Manual, volume II, mcause.
TRAPS = {
    0: "a jump to an odd address", 1: "instructions fetched from where nothing is", 2: "an illegal instruction",
    3: "a breakpoint", 4: "a read of an odd address", 5: "a read from where nothing is", 6: "a write to an odd address",
    7: "a write to where nothing is", 11: "a call to an operating system that is not there",
}

ITSELF = {
    Restart.WATCHDOG: "its firmware stood still",
    Restart.CORE: "the decoder core was busy and moved nothing",
    Restart.BUS: "its firmware accessed an address where nothing answers",
}


def explain_restart(word: int) -> str | None:
    """One line for HELLO's ``restart``; None where power, a bitstream or a person began it."""
    cause, place = word >> RESTART_PLACE_BITS, word & ((1 << RESTART_PLACE_BITS) - 1)
    if Restart.TRAP <= cause < Restart.TRAP + TRAP_CAUSES:
        number = cause - Restart.TRAP
        what = f"its firmware met {TRAPS.get(number, f'trap {number}')}"
    elif cause in ITSELF:
        what = ITSELF[Restart(cause)]
    elif cause in (Restart.POWER, Restart.OUTSIDE):
        return None
    else:
        what = f"for a cause that this client does not know ({cause})"
    where = f" at {place:#08x}" if place else ""
    return f"the board restarted: {what}{where}; report it with the firmware's build if it comes again"
