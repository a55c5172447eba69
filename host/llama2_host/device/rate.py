"""Takes a serial line to the fastest rate that device, port and cable can do, and back; finds a device at another
rate."""
import os
import time
from collections import deque

from llama2_spec import protocol
from llama2_spec.protocol import MAX_BAUD, Device, Hello, Opcode

from llama2_host.device.link import DeviceError, Link, LinkError
from llama2_host.progress import Progress
from llama2_host.device.transport import TransportError

RATES = (3_000_000, 2_000_000, 1_500_000, 1_000_000, 921_600, 460_800, 230_400)     #: what USB bridges can do
CONFIRM_S = 1.0         #: the device goes back after this long without confirmation
PROBE_S = 0.2           #: for an answer at a rate that may be wrong; a HELLO and its reply take 2 ms at 1 Mbaud
PROBES = 2
RESTORE_S = 0.5


_numbers: deque[int] = deque(maxlen=64)


def greeting() -> Hello:
    """A HELLO with a new number, which becomes the device's boot id if it had none since its reset."""
    _numbers.append(int.from_bytes(os.urandom(4), "little") or 1)
    return Hello(protocol.VERSION, _numbers[-1])


def first_since_reset(info: Device) -> bool:
    """Nobody has greeted this device since its reset but this process, and not long ago."""
    return info.boot in _numbers


def fastest(link: Link, most: int = MAX_BAUD, progress: Progress = Progress.silent) -> int:
    """Switch both ends to the fastest rate up to ``most`` that works; the rate, 0 if this is no serial line.

    :class:`LinkError` only if the device is silent afterwards at the rate it answered at before.
    """
    if not link.transport.has_rate:
        return 0
    start = link.transport.baud
    try:
        line = link.request(Opcode.BAUD, protocol.Baud(0, 0))
    except DeviceError:             # a firmware without it, or one that is busy: stay
        return start
    for rate in RATES:
        if start < rate <= min(most, line.maximum) and _port_can(link, rate):
            if _switch(link, rate):
                link.first_baud = line.first
                return rate
            progress.note(f"{link.transport.name} does not work at {rate} baud: trying a slower rate")
    return start


def switch_to(link: Link, rate: int) -> bool:
    """Go to this rate, if device, port and cable can do it; False with everything as before."""
    return _port_can(link, rate) and _switch(link, rate)


def _switch(link: Link, rate: int) -> bool:
    """Try ``rate`` on both ends; True if frames then pass in both directions, False with everything as before."""
    before = link.transport.baud
    link.request(Opcode.BAUD, protocol.Baud(rate, round(1000 * CONFIRM_S)))
    switched_s = time.monotonic()
    link.set_baud(rate)
    try:
        # HELLO's reply is longer than one of BAUD: a marginal line fails here, while the device still goes back by
        # itself.
        link.request(Opcode.HELLO, greeting(), timeout_s=PROBE_S, tries=PROBES)
        link.request(Opcode.BAUD, protocol.Baud(rate, 0), timeout_s=PROBE_S, tries=PROBES)
        return True
    except LinkError:
        link.set_baud(before)
        time.sleep(max(0.0, switched_s + CONFIRM_S - time.monotonic()))
        _find(link, [before, rate])     # at rate only if nothing but the last answer was lost
        return link.transport.baud == rate


def _port_can(link: Link, rate: int) -> bool:
    before = link.transport.baud
    able = link.set_baud(rate)
    return link.set_baud(before) and able


def find(link: Link, timeout_s: float) -> Device | None:
    """Set the port to the rate that the device answers at: its own, or a fast one that a client left it with.

    Returns its answer to HELLO; None, with nothing changed, if it answers at none of them.
    """
    first = link.transport.baud
    try:
        info = _find(link, [first, *(rate for rate in RATES if rate != first)], timeout_s)
    except LinkError:
        link.set_baud(first)
        if complaint := link.diagnosis():
            raise LinkError(complaint) from None
        return None
    if link.transport.baud != first:
        link.first_baud = first
    return info


def _find(link: Link, rates: list[int], timeout_s: float = 2.0) -> Device:
    """Set the port to the first of ``rates`` that is answered at; the first of them gets ``timeout_s``, the others
    less."""
    for number, rate in enumerate(rates):
        if link.set_baud(rate):
            link.tried.append(rate)
            try:
                return link.request(Opcode.HELLO, greeting(), timeout_s=PROBE_S if number else timeout_s, tries=1)
            except LinkError:
                continue
    raise LinkError(f"{link.transport.name} does not answer at {rates[0]} baud any more: reset the board, or plug the "
                    "cable in again")


def restore(link: Link) -> None:
    """Leave device and port at the device's first rate, as far as that is possible now."""
    first, link.first_baud = link.first_baud, 0
    if first:
        try:
            link.request(Opcode.BAUD, protocol.Baud(first, 0), timeout_s=RESTORE_S, tries=1)
            link.set_baud(first)
        except (LinkError, DeviceError, TransportError):
            pass        # the next client finds it at the rate it has
