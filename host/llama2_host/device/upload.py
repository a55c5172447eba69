"""Writes a model image to a device: several LOAD requests under way at a time, resumed where an interrupted one
stopped."""
import time
import zlib

from llama2_spec import protocol
from llama2_spec.protocol import Opcode, Status

from llama2_host.device.link import LONGEST, TIMEOUT_S, TRIES, DeviceError, Link, LinkError, RestartedError
from llama2_host.progress import Progress


def upload(link: Link, image: bytes, progress: Progress = Progress.silent, label: str = "loading model") -> int:
    """LOAD_BEGIN and every LOAD; returns how many bytes the device did not have yet. The device takes pieces in order
    only, so a lost one is repeated with all after it."""
    begun = link.request(Opcode.LOAD_BEGIN, protocol.LoadBegin(len(image), zlib.crc32(image)))
    _check_received(begun.received, len(image))
    if begun.received:
        progress.note(f"resuming the upload at {begun.received} of {len(image)} bytes")
    with progress.bar(label, len(image), start=begun.received) as bar:
        _Window(link, image, begun).run(bar.update)
    return len(image) - begun.received


def _check_received(received: int, most: int) -> None:
    if received > most or received % 4 and received != most:
        raise LinkError(f"the device says that it has {received} bytes of an upload of which {most} were sent: "
                        "build client and firmware from the same sources")


LATE = 64       #: requests that were sent again whose replies still count


class _Window:
    """Go-back-N over LOAD: ``received`` is what the device has, ``sent`` what it has been sent.

    A reply counts however late it comes: a device that is slower than the time-out gets on, and shows how slow it is.
    """

    def __init__(self, link: Link, image: bytes, begun: protocol.Loaded):
        self.link, self.image, self.boot = link, image, begun.boot
        self.received = self.sent = self.most_sent = begun.received
        self.waiting: dict[int, tuple[int, float]] = {}     # sequence number: offset, when it was sent
        self.given_up: dict[int, float] = {}                # sent again since; the time
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
            self.waiting[sequence] = self.sent, time.monotonic()
            self.sent += len(data)
            self.most_sent = max(self.most_sent, self.sent)

    def _reply(self):
        deadline = time.monotonic() + self.link.patience(TIMEOUT_S * min(2 ** self.silent, LONGEST))
        while (reply := self.link.reply(deadline - time.monotonic())) is not None:
            if reply.opcode == Opcode.LOAD and (reply.sequence in self.waiting or reply.sequence in self.given_up):
                return reply
        return None

    def _take(self, reply) -> None:
        late = reply.sequence in self.given_up
        offset, sent_s = (0, self.given_up.pop(reply.sequence)) if late else self.waiting.pop(reply.sequence)
        self.link.answered(time.monotonic() - sent_s)
        try:
            loaded = self.link.unpack_reply(reply)
            if loaded.boot != self.boot:
                raise RestartedError(self.link.transport.name, "during the upload")
            self._advance(loaded.received)
        except DeviceError as error:
            if error.error.boot != self.boot:
                raise RestartedError(self.link.transport.name, "during the upload") from error
            if error.status != Status.OUT_OF_ORDER:
                raise
            _check_received(error.error.limit, self.most_sent)
            self.silent = 0
            if not late and error.error.limit >= self.received:
                self._rewind(error.error.limit)
            return
        # Replies come in order: an older request without one was lost on its way here or there.
        if not late:
            for sequence in [number for number, (waiting, _) in self.waiting.items() if waiting < offset]:
                del self.waiting[sequence]

    def _advance(self, received: int) -> None:
        """The device has so much; where that is more than was sent again, go on from there."""
        _check_received(received, self.most_sent)
        self.silent = 0
        self.received = max(self.received, received)
        self.sent = max(self.sent, self.received)

    def _rewind(self, offset: int) -> None:
        """Send again from ``offset``; replies to what was sent before no longer count."""
        self.link.resent += len(self.waiting)
        self.given_up.update((sequence, sent_s) for sequence, (_, sent_s) in self.waiting.items())
        while len(self.given_up) > LATE:
            del self.given_up[next(iter(self.given_up))]
        self.waiting.clear()
        self.received = self.sent = offset
