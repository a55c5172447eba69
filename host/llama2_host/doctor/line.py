"""Measures how many frames a line damages, at each rate that device and port can do."""
import time
from dataclasses import asdict, dataclass

from llama2_host.device import rate
from llama2_host.device.link import DeviceError, Link, LinkError
from llama2_host.device.transport import DEFAULT_BAUD
from llama2_spec import protocol
from llama2_spec.protocol import LOAD_CHUNK, Baud, Load, Opcode, Read

READ_BYTES = 1024
NOWHERE = 0xffff_fffc       #: an offset at which no upload stands: LOAD there is refused and has no effect
ROUNDS = 16                 #: of a long frame in each direction


@dataclass(frozen=True)
class Rate:
    """One rate of the line. ``baud`` 0 is a socket."""
    baud: int
    works: bool
    frames: int = 0             #: long ones, sent and received
    damaged_here: int = 0
    damaged_there: int = 0
    resent: int = 0
    bytes_per_s: float = 0.0

    @property
    def damaged(self) -> int:
        return self.damaged_here + self.damaged_there

    def text(self) -> str:
        name = f"{self.baud} baud" if self.baud else "socket"
        if not self.works:
            return f"{name}: does not work"
        return (f"{name}: {self.damaged + self.resent} of {self.frames} frames lost or damaged, "
                f"{self.bytes_per_s / 1e3:,.0f} kB/s both ways")

    def to_json(self) -> dict:
        return asdict(self)


def measure(link: Link, baud: int, rounds: int = ROUNDS) -> Rate:
    """Send and fetch ``rounds`` long frames at the present rate."""
    there = link.request(Opcode.HELLO, rate.greeting()).link_damaged
    here, resent, start_s = link.damaged, link.resent, time.monotonic()
    piece = bytes(range(256)) * 4
    for _ in range(rounds):
        try:
            link.request(Opcode.LOAD, Load(NOWHERE, piece[:LOAD_CHUNK]))
        except DeviceError:
            pass                            # as it must: what counts is that the frame arrived
        link.request(Opcode.READ, Read(0, READ_BYTES))
    seconds = time.monotonic() - start_s
    there = link.request(Opcode.HELLO, rate.greeting()).link_damaged - there
    return Rate(baud, True, 2 * rounds, link.damaged - here, there, link.resent - resent,
                rounds * (LOAD_CHUNK + READ_BYTES) / seconds)


def survey(link: Link, first: int = DEFAULT_BAUD, rounds: int = ROUNDS) -> list[Rate]:
    """All rates from the device's first to its fastest; the line is then at its first rate again."""
    if not link.transport.has_rate:
        return [measure(link, 0, rounds)]
    line = link.request(Opcode.BAUD, Baud(0, 0))
    found = [measure(link, link.transport.baud, rounds)]
    for baud in reversed([one for one in rate.RATES if link.transport.baud < one <= line.maximum]):
        found.append(_at(link, baud, line, rounds))
    return found


def _at(link: Link, baud: int, line: protocol.Line, rounds: int) -> Rate:
    start = link.transport.baud
    if not rate.switch_to(link, baud):
        return Rate(baud, False)
    link.first_baud = line.first
    try:
        return measure(link, baud, rounds)
    except LinkError:
        return Rate(baud, False)
    finally:
        rate.restore(link)
        if link.transport.baud != start:    # its answer was lost: look for it
            rate.find(link, rate.CONFIRM_S)
