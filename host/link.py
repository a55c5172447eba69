"""Moves frames to and from a device: requests with time-outs and re-sending, events, and resynchronisation after garbage."""
import os
import sys
import time
from collections import deque
from typing import TextIO

from spec.frame import DELIMITER, MAX_ENCODED, Frame, FrameError
from spec.protocol import EVENTS, REQUESTS, Error, Opcode, Status

from host.errors import HostError
from host.refusals import explain
from host.transport import Transport

TIMEOUT_S = 2.0     #: for a first answer; doubles with every try. A verilated SoC takes about 0.3 s for a full frame.
TRIES = 4


class LinkError(HostError):
    """The device does not answer."""


class DeviceError(HostError):
    """The device refused a request; ``status`` and ``error`` are its words."""

    def __init__(self, opcode: Opcode, status: int, error: Error):
        super().__init__(explain(opcode, status, error))
        self.opcode, self.status, self.error = opcode, status, error


class Link:
    """Frames over ``transport``. One request is open at a time, but for LOAD's window; events queue up in ``events``."""

    def __init__(self, transport: Transport, *, trace: TextIO | None = None):
        self.transport = transport
        self.trace = trace
        self.events: deque[Frame] = deque()
        self.damaged = 0            #: frames received damaged
        self.resent = 0             #: requests sent again
        self.first_baud = 0         #: rate to return to, once the line runs at another
        self._replies: deque[Frame] = deque()
        self._bytes = bytearray()
        self._start_s = time.monotonic()
        # A random start: the device must not take our first requests for repetitions of a former client's.
        self.sequence = int.from_bytes(os.urandom(2), "little")     #: of the last request

    # Requests ---------------------------------------------------------------------------------

    def request(self, opcode: Opcode, payload=None, *, timeout_s: float = TIMEOUT_S, tries: int = TRIES):
        """Send a request and return its reply's payload; :class:`DeviceError` if refused, :class:`LinkError` if unanswered."""
        sequence = self.next_sequence()
        self._replies.clear()
        for attempt in range(tries):
            self.resent += attempt > 0
            self.send(opcode, sequence, payload)
            deadline = time.monotonic() + timeout_s * 2 ** attempt
            while (reply := self.reply(deadline - time.monotonic())) is not None:
                if (reply.opcode, reply.sequence) == (opcode, sequence):
                    return self.unpack_reply(reply)
        raise LinkError(f"{self.transport.name} does not answer {opcode.name}: wrong port or baud rate? "
                        "is the board powered and its bitstream loaded?")

    def next_sequence(self) -> int:
        self.sequence = (self.sequence + 1) & 0xffff
        return self.sequence

    def send(self, opcode: Opcode, sequence: int, payload=None) -> None:
        """Write one request."""
        frame = Frame(int(opcode), sequence, payload.pack() if payload is not None else b"")
        self._show(">", frame)
        # The leading delimiter ends whatever half a frame an interrupted client or a glitch left in the device.
        self.transport.write(bytes([DELIMITER]) + frame.encode())

    def unpack_reply(self, frame: Frame):
        """The payload of a reply, as its structure; bytes for READ, None where there is none."""
        opcode = Opcode(frame.opcode)
        try:
            if frame.status != Status.OK:
                raise DeviceError(opcode, frame.status, Error.unpack(frame.payload))
            kind = REQUESTS[opcode][1] if opcode != Opcode.READ else None
            return kind.unpack(frame.payload) if kind else frame.payload
        except ValueError as error:
            raise LinkError(f"reply to {opcode.name} is not what this client's protocol says ({error}): "
                            "build client and firmware from the same sources") from error

    # Receiving --------------------------------------------------------------------------------

    def reply(self, timeout_s: float) -> Frame | None:
        """The next reply, or None after ``timeout_s``; events that arrive meanwhile are queued."""
        return self._wait(self._replies, timeout_s)

    def event(self, timeout_s: float) -> Frame | None:
        """The next event, or None after ``timeout_s``."""
        return self._wait(self.events, timeout_s)

    def _wait(self, queue: deque[Frame], timeout_s: float) -> Frame | None:
        deadline = time.monotonic() + timeout_s
        while not queue:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return None
            self._receive(self.transport.read(left_s))
        return queue.popleft()

    def _receive(self, data: bytes) -> None:
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
            (self.events if frame.opcode in EVENTS else self._replies).append(frame)

    # Trace ------------------------------------------------------------------------------------

    def _show(self, direction: str, frame: Frame) -> None:
        if self.trace is not None:
            request, reply = REQUESTS.get(frame.opcode, (None, EVENTS.get(frame.opcode)))
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
