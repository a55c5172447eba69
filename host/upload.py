"""Writes a model image to a device: several LOAD requests under way at a time, resumed where an interrupted one stopped."""
import time
import zlib

from spec import protocol
from spec.protocol import Opcode, Status

from host.link import TIMEOUT_S, TRIES, DeviceError, Link, LinkError
from host.progress import Progress


def upload(link: Link, image: bytes, progress: Progress = Progress.silent, label: str = "loading model") -> None:
    """LOAD_BEGIN and every LOAD. The device takes pieces in order only, so a lost one is repeated with all after it."""
    begun = link.request(Opcode.LOAD_BEGIN, protocol.LoadBegin(len(image), zlib.crc32(image)))
    if begun.received:
        progress.note(f"resuming the upload at {begun.received} of {len(image)} bytes")
    with progress.bar(label, len(image)) as bar:
        _Window(link, image, begun.received).run(bar.update)


class _Window:
    """Go-back-N over LOAD: ``received`` is what the device has, ``sent`` what it has been sent."""

    def __init__(self, link: Link, image: bytes, received: int):
        self.link, self.image = link, image
        self.received = self.sent = received
        self.waiting: dict[int, int] = {}       # sequence number: offset
        self.silent = 0                         # time-outs in a row

    def run(self, update) -> None:
        while self.received < len(self.image):
            self._fill()
            reply = self._reply()
            if reply is None:
                self.silent += 1
                if self.silent >= TRIES:
                    raise LinkError(f"{self.link.transport.name} stopped answering at {self.received} of "
                                    f"{len(self.image)} bytes: load again, it goes on from there")
                self._rewind(self.received)
            else:
                self._take(reply)
                update(self.received)

    def _fill(self) -> None:
        while len(self.waiting) < protocol.LOAD_WINDOW and self.sent < len(self.image):
            data = self.image[self.sent:self.sent + protocol.LOAD_CHUNK]
            sequence = self.link.next_sequence()
            self.link.send(Opcode.LOAD, sequence, protocol.Load(self.sent, data))
            self.waiting[sequence] = self.sent
            self.sent += len(data)

    def _reply(self):
        deadline = time.monotonic() + TIMEOUT_S * 2 ** self.silent
        while (reply := self.link.reply(deadline - time.monotonic())) is not None:
            if reply.opcode == Opcode.LOAD and reply.sequence in self.waiting:
                self.silent = 0
                return reply
        return None

    def _take(self, reply) -> None:
        offset = self.waiting.pop(reply.sequence)
        try:
            self.received = max(self.received, self.link.unpack_reply(reply).received)
        except DeviceError as error:
            if error.status != Status.OUT_OF_ORDER:
                raise
            self._rewind(error.error.limit)
            return
        # Replies come in order: an older request without one was lost on its way here or there.
        for sequence in [sequence for sequence, waiting in self.waiting.items() if waiting < offset]:
            del self.waiting[sequence]

    def _rewind(self, offset: int) -> None:
        """Send again from ``offset``; replies to what was sent before no longer count."""
        self.link.resent += len(self.waiting)
        self.waiting.clear()
        self.received = self.sent = offset
