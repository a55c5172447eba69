"""Moves frames to and from a device: requests with time-outs and re-sending, events, and resynchronisation after
garbage."""
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

from llama2_spec.frame import DELIMITER, MAX_ENCODED, Frame
from llama2_spec.protocol import EVENTS as EVENT_KINDS
from llama2_spec.protocol import REQUESTS, VERSION, Device, Error, Opcode, Status

from llama2_host.errors import HostError
from llama2_host.device.refusals import explain
from llama2_host.device.transport import Transport

TIMEOUT_S = 2.0     #: for a first answer; doubles with every try up to LONGEST times that
LONGEST = 4
TRIES = 7           #: 2 + 4 + 8 + ... s: a device that is silent for half a minute is not lost
PACE = 4            #: times the longest answer of late: so long a device may take that was slow before
SLOWEST_S = 120.0   #: however slow it was
EVENTS = 4096       #: that wait to be read; a lost token is asked for again
HELLO_BEGINS = bytes([DELIMITER, 2, Opcode.HELLO])       #: its reply, whatever of it is damaged behind
PRINTABLE = 0.9     #: share of characters that makes it text
HEARD_BYTES = 512   #: of what is no frame, for a diagnosis
FLOOD_BYTES = 16 << 20      #: without the answer among them; what events wait in a socket is less


class LinkError(HostError):
    """The device does not answer."""


class RestartedError(LinkError):
    """The device began anew: what it held of this session is gone."""

    def __init__(self, name: str, detail: str = ""):
        super().__init__(
            f"{name} was restarted{f' ({detail})' if detail else ''}: what it held of this session is lost")


class EchoError(HostError):
    """No device at all: what is sent comes back."""


class VersionError(HostError):
    """Client and firmware speak different protocols."""

    def __init__(self, theirs: str):
        super().__init__(f"the device speaks protocol {theirs}, this client {VERSION}: build client and firmware from "
                         "the same sources")


class DeviceError(HostError):
    """The device refused a request; ``status`` and ``error`` are its words."""

    def __init__(self, opcode: Opcode, status: int, error: Error):
        super().__init__(explain(opcode, status, error))
        self.opcode, self.status, self.error = opcode, status, error


class Link:
    """Frames over ``transport``. One request is open at a time, but for LOAD's window; events queue up in
    ``events``. Threads may share a link: one of those that wait reads, for all of them."""

    def __init__(self, transport: Transport, *, trace: TextIO | None = None):
        self.transport = transport
        self.trace = trace
        self.events: deque[Frame] = deque(maxlen=EVENTS)
        self.damaged = 0            #: frames received damaged
        self.resent = 0             #: requests sent again
        self.first_baud = 0         #: rate to return to, once the line runs at another
        self.heard = bytearray()    #: the first bytes that were no frame, until one came
        self.tried: list[int] = []  #: rates of a serial line that were tried
        self.frames = 0             #: good frames received
        self.pace_s = 0.0           #: what the slowest answer of late took
        self.lock = threading.RLock()       #: one request, and the sequence number that it had
        self.listening: set[int] = set()    #: generations whose events are kept
        self._replies: deque[Frame] = deque(maxlen=EVENTS)
        self._heard = threading.Condition()
        self._reading = False       # a thread is
        self._bytes = bytearray()
        self._received = 0          # bytes
        self._start_s = time.monotonic()
        # A random start: the device must not take our first requests for repetitions of a former client's. 16 bits,
        # until the device has shown by its answer that it speaks a protocol that has 32.
        self.sequence = int.from_bytes(os.urandom(2), "little") >> 1     #: of the last request

    # Requests ---------------------------------------------------------------------------------

    def request(self, opcode: Opcode, payload=None, *, timeout_s: float = TIMEOUT_S, tries: int = TRIES):
        """Send a request and return its reply's payload; :class:`DeviceError` if refused, :class:`LinkError` if
        unanswered."""
        with self.lock:
            sequence = self.next_sequence()
            if opcode == Opcode.GENERATE:
                self.listening.add(sequence)    # its events may come with its reply
            return self._ask(opcode, sequence, payload, timeout_s, tries)

    def _ask(self, opcode: Opcode, sequence: int, payload, timeout_s: float, tries: int):
        self._replies.clear()
        received = self._received
        for attempt in range(tries):
            self.resent += attempt > 0
            self.send(opcode, sequence, payload)
            sent_s = time.monotonic()       # of the last try: an answer to an earlier one shows at least this
            deadline = time.monotonic() + self.patience(timeout_s * min(2 ** attempt, LONGEST))
            while (reply := self.reply(deadline - time.monotonic())) is not None:
                if (reply.opcode, reply.sequence) == (opcode, sequence):
                    self.answered(time.monotonic() - sent_s)
                    return self.unpack_reply(reply, payload)
                if self._received - received > FLOOD_BYTES:
                    raise LinkError(f"{self.transport.name} sends without end and does not answer {opcode.name}: reset "
                                    "the board")
            if attempt and self.foreign:
                break               # another try will not make a device of it
        raise LinkError(self.diagnosis() or f"{self.transport.name} does not answer {opcode.name}: wrong port or baud "
                                            "rate? "
                        "is the board powered and its bitstream loaded?")

    @property
    def foreign(self) -> bool:
        """Something talks there, and nothing that it said even begins as a frame would."""
        return bool(self.heard) and not self.frames and HELLO_BEGINS not in bytes([DELIMITER]) + self.heard

    def diagnosis(self) -> str:
        """What a port is that has sent no frame yet; nothing if it was silent."""
        if not self.foreign:
            return ""
        heard, name = bytes(self.heard), self.transport.name
        text = heard.decode("ascii", "replace").replace("\0", "")
        if sum(char.isprintable() and char.isascii() or char in "\r\n\t\x1b"
               for char in text) >= PRINTABLE * len(text) and len(text) >= 4:
            first = next((line.strip() for line in text.splitlines() if line.strip()), "")
            return (f"{name} prints text, \"{first[:60]}\": another program answers (LiteX's BIOS, a boot log?), "
                    "not this firmware: is the bitstream this project's?")
        tried = ", ".join(str(rate) for rate in self.tried) or "no"
        return (f"{name} sends bytes that are no frames ({heard[:8].hex(' ')} ...): noise, or a rate that is none of "
                f"those tried ({tried} baud)" if self.transport.has_rate else
                f"{name} sends bytes that are no frames ({heard[:8].hex(' ')} ...): something else listens there")

    def answered(self, seconds: float) -> None:
        """An answer took so long; the slowest counts, and is forgotten gradually."""
        self.pace_s = max(seconds, self.pace_s * 0.9)

    def patience(self, seconds: float) -> float:
        """``seconds``, or longer for a device whose answers take long: a simulated one on a busy machine."""
        return max(seconds, min(PACE * self.pace_s, SLOWEST_S))

    def next_sequence(self) -> int:
        self.sequence = (self.sequence + 1) & 0xffffffff or 1
        return self.sequence

    def widen(self) -> None:
        """Go on with numbers of 32 bits, from a random one."""
        self.sequence = int.from_bytes(os.urandom(4), "little")

    def send(self, opcode: Opcode, sequence: int, payload=None) -> None:
        """Write one request."""
        frame = Frame(int(opcode), sequence, payload.pack() if payload is not None else b"")
        self._show(">", frame)
        # The leading delimiter ends whatever half a frame an interrupted client or a glitch left in the device.
        self.transport.write(bytes([DELIMITER]) + frame.encode())

    def unpack_reply(self, frame: Frame, request=None):
        """The payload of a reply, as its structure; bytes for READ, None where there is none."""
        opcode = Opcode(frame.opcode)
        if opcode == Opcode.HELLO:
            self._judge_hello(frame, request)
        try:
            if frame.status != Status.OK:
                raise DeviceError(opcode, frame.status, Error.unpack(frame.payload))
            kind = REQUESTS[opcode][1] if opcode != Opcode.READ else None
            return kind.unpack(frame.payload) if kind else frame.payload
        except ValueError as error:
            raise LinkError(f"reply to {opcode.name} is not what this client's protocol says ({error}): "
                            "build client and firmware from the same sources") from error

    def _judge_hello(self, frame: Frame, request) -> None:
        """What answers may be another version's firmware, or no device at all."""
        if request is not None and frame.payload == request.pack():
            raise EchoError(f"{self.transport.name} echoes what is sent: it is a loopback, or RX and TX are joined")
        word = int.from_bytes(frame.payload[:4], "little")
        if frame.status == Status.BAD_VERSION and len(frame.payload) >= 12:
            raise VersionError(str(int.from_bytes(frame.payload[8:12], "little")))
        if frame.status == Status.BAD_LENGTH:
            raise VersionError("2 or older")
        if (frame.status == Status.OK and len(frame.payload) >= 4 and word != VERSION
            and len(frame.payload) != Device.FORMAT.size):
            raise VersionError(str(word))

    # Receiving --------------------------------------------------------------------------------

    def set_baud(self, baud: int) -> bool:
        """As the transport's; half a frame that came at the rate before is no beginning of one at this."""
        able = self.transport.set_baud(baud)
        self._bytes.clear()
        return able

    def reply(self, timeout_s: float) -> Frame | None:
        """The next reply, or None after ``timeout_s``; events that arrive meanwhile are queued."""
        return self._wait(lambda: self._replies.popleft() if self._replies else None, timeout_s)

    def event(self, timeout_s: float, sequence: int | None = None) -> Frame | None:
        """The next event, or the next one of a generation, or None after ``timeout_s``."""
        return self._wait(lambda: self._event(sequence), timeout_s)

    def _event(self, sequence: int | None) -> Frame | None:
        found = next((frame for frame in self.events if sequence in (None, frame.sequence)), None)
        if found is not None:
            self.events.remove(found)
        return found

    def forget(self, sequence: int) -> None:
        """Nobody wants this generation's events any more."""
        with self._heard:
            self.listening.discard(sequence)
            for frame in [frame for frame in self.events if frame.sequence == sequence]:
                self.events.remove(frame)

    def _wait(self, take: Callable[[], Frame | None], timeout_s: float) -> Frame | None:
        deadline, received = time.monotonic() + timeout_s, self._received
        with self._heard:
            while (frame := take()) is None:
                if self._received - received > FLOOD_BYTES:
                    raise LinkError(f"{self.transport.name} sends without end, and nothing that is waited for: reset "
                                    "the board")
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    return None
                if self._reading:
                    self._heard.wait(left_s)
                else:
                    self._receive(self._read(left_s))
            return frame

    def _read(self, timeout_s: float) -> bytes:
        """Bytes, while the other threads go on waiting for what this one hears."""
        self._reading = True
        self._heard.release()
        try:
            return self.transport.read(timeout_s)
        finally:
            self._heard.acquire()
            self._reading = False
            self._heard.notify_all()

    def _receive(self, data: bytes) -> None:
        self._received += len(data)
        if not self.frames:
            self.heard += data[:HEARD_BYTES - len(self.heard)]
        self._bytes += data
        *encoded_frames, rest = self._bytes.split(bytes([DELIMITER]))
        # Longer than any frame: garbage without a delimiter, for example at a wrong baud rate.
        self._bytes = rest[-MAX_ENCODED:]
        for encoded in filter(None, encoded_frames):
            try:
                frame = Frame.decode(bytes(encoded))
                Opcode(frame.opcode)
            except ValueError as error:     # FrameError, or an opcode of another protocol
                self.damaged += 1
                self._say("<", f"{len(encoded)} bytes: {error}")
                continue
            self._show("<", frame)
            self.frames += 1
            if frame.opcode not in EVENT_KINDS:
                self._replies.append(frame)
            elif frame.sequence in self.listening:      # else: left over from an earlier generation
                self.events.append(frame)

    # Trace ------------------------------------------------------------------------------------

    def _show(self, direction: str, frame: Frame) -> None:
        if self.trace is not None:
            request, reply = REQUESTS.get(frame.opcode, (None, EVENT_KINDS.get(frame.opcode)))
            kind = request if direction == ">" else Error if frame.status else reply
            status = f" {_name(Status, frame.status)}" if frame.status else ""
            self._say(direction, f"{_name(Opcode, frame.opcode)} #{frame.sequence}{status} {describe(frame, kind)}")

    def _say(self, direction: str, text: str) -> None:
        if self.trace is not None:
            print(f"{time.monotonic() - self._start_s:10.4f} {direction} {text}", file=self.trace, flush=True)

    def close(self) -> None:
        self.transport.close()


def describe(frame: Frame, kind=None) -> str:
    """A frame's payload for people: its fields, where ``kind`` is its structure; else its length."""
    try:
        payload = kind.unpack(frame.payload) if kind is not None else None
    except ValueError:
        payload = None
    if payload is None:
        return f"{len(frame.payload)} bytes"
    return " ".join(f"{name}={_short(getattr(payload, name))}" for name in kind.__dataclass_fields__)


def _short(value) -> str:
    text = f"<{len(value)} bytes>" if isinstance(value, bytes) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _name(kind, value: int) -> str:
    try:
        return kind(value).name
    except ValueError:
        return f"{value:#x}"


def trace_to_stderr(enabled: bool) -> TextIO | None:
    return sys.stderr if enabled else None
