"""A decoder on the other end of a link: one method per opcode of spec/protocol.py."""
import time
from collections.abc import Callable, Sequence
from typing import TextIO

from spec import protocol
from spec.frame import MAX_PAYLOAD
from spec.protocol import ModelState, Opcode, Reason, Status

from host import rate
from host import store as flash
from host.errors import HostError
from host.generation import Options, Outcome, TokenEvent
from host.link import TRIES, DeviceError, Link, LinkError
from host.progress import Progress, quantity
from host.refusals import explain
from host.transport import DEFAULT_BAUD, Transport
from host.upload import upload

BOOT_TRIES = 3              #: HELLO: 1 + 2 + 4 s; a board that has just been loaded trains its DRAM first
VERIFY_TIMEOUT_S = 60.0     #: the core checks 16 bytes per cycle; the verilated one about 7 MB per second
SILENCE_S = 5.0             #: without an event for this long, ask whether the device still runs

BOOT_ASK_S = 0.2            #: between looks at a device that still checks its model, or copies it from flash
BOOT_QUIET_S = 1.0          #: before the first line that says so
BOOT_NOTE_S = 10.0          #: between these lines

BUSY_S = 30.0               #: an aborted generation of a large model may need this long in simulation

Logits = Callable[[int, int, Sequence[int]], None]


class Device:
    """A session with a device. ``info`` is its reply to HELLO."""

    def __init__(self, link: Link, *, hello_timeout_s: float = 1.0, hello_tries: int = BOOT_TRIES,
                 progress: Progress = Progress.silent):
        self.link = link
        info = rate.find(link, hello_timeout_s) if link.transport.has_rate else None
        self.info = self._greeted(info) if info else self.hello(timeout_s=hello_timeout_s, tries=hello_tries)
        self._await_boot(progress)

    @classmethod
    def open(cls, url: str, *, baud: int = DEFAULT_BAUD, trace: TextIO | None = None, wait_s: float = 0.0,
             hello_timeout_s: float = 1.0, hello_tries: int = BOOT_TRIES, progress: Progress = Progress.silent) -> "Device":
        """Open a port and greet what is there, at ``baud`` or at the rate that an earlier client left; returns once the
        device has looked at its memory and flash."""
        transport = Transport.open(url, baud=baud, wait_s=wait_s)
        try:
            return cls(Link(transport, trace=trace), hello_timeout_s=hello_timeout_s, hello_tries=hello_tries, progress=progress)
        except BaseException:
            transport.close()
            raise

    def __enter__(self) -> "Device":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        rate.restore(self.link)
        self.link.close()

    # Requests ---------------------------------------------------------------------------------

    def hello(self, *, timeout_s: float = 1.0, tries: int = BOOT_TRIES) -> protocol.Device:
        """Begin a session and learn what the device is; a generation that still runs is aborted."""
        self.link.events.clear()
        self.info = self._greeted(self.link.request(Opcode.HELLO, protocol.Hello(protocol.VERSION), timeout_s=timeout_s,
                                                    tries=tries))
        return self.info

    @staticmethod
    def _greeted(info: protocol.Device) -> protocol.Device:
        if info.version != protocol.VERSION:
            raise HostError(f"the device speaks protocol {info.version}, this client {protocol.VERSION}: "
                            "build client and firmware from the same sources")
        return info

    def _await_boot(self, progress: Progress) -> None:
        # A device that has nothing to check or copy is through with it at once: no word about that.
        noted_s = time.monotonic() + BOOT_QUIET_S - BOOT_NOTE_S
        while self.info.model_state == ModelState.BOOTING:
            if time.monotonic() - noted_s >= BOOT_NOTE_S:
                progress.note("the device checks its model, or copies it from flash: waiting (Ctrl-C leaves it alone)")
                noted_s = time.monotonic()
            time.sleep(BOOT_ASK_S)
            self.hello()

    def holds(self, *, header_crc: int, payload_crc: int) -> bool:
        """Is the image with these CRCs the device's model already?"""
        info = self.info
        return (info.model_state == ModelState.READY
                and (info.header_crc, info.payload_crc) == (header_crc, payload_crc))

    def hurry(self, *, most: int = protocol.MAX_BAUD, progress: Progress = Progress.silent) -> int:
        """Go to the fastest rate up to ``most`` that device, port and cable can do; the rate, 0 where there is none."""
        return rate.fastest(self.link, most, progress)

    def load(self, image: bytes, *, progress: Progress = Progress.silent) -> protocol.Verified:
        """Write the image to DRAM, resuming an interrupted upload, and have the device check it."""
        if len(image) > self.info.dram_bytes:
            raise HostError(f"the model image has {quantity(len(image))}, the device {quantity(self.info.dram_bytes)} of DRAM: "
                            "convert with --format q4 or use a smaller model")
        upload(self.link, image, progress)
        verified = self.link.request(Opcode.LOAD_END, timeout_s=VERIFY_TIMEOUT_S)
        self.hello()
        return verified

    def flash(self) -> protocol.Stored:
        """The board's flash: its size, the room for a model, and how far a store is."""
        return flash.ask(self.link)

    def store(self, *, progress: Progress = Progress.silent) -> protocol.Stored:
        """Write the model to the board's flash, which it then starts with; what is there already is left alone."""
        self.require_model()
        return flash.store(self.link, self.info.image_bytes, progress)

    def require_model(self) -> None:
        """One clear error unless the device holds a usable model."""
        state = self.info.model_state
        if state == ModelState.REFUSED:
            error = protocol.Error(*self.info.model_error)
            raise DeviceError(Opcode.HELLO, self.info.model_status, error)
        if state != ModelState.READY:
            raise HostError(explain(Opcode.GENERATE, Status.NO_MODEL, protocol.Error(0, 0, 0)))

    def generate(self, ids: Sequence[int], options: Options = Options(), *, flags: int = 0,
                 on_logits: Logits | None = None) -> "DeviceGeneration":
        """Feed ``ids`` from ``options.position`` on and generate; an iterator of token events."""
        if not ids:
            raise ValueError("a generation needs at least one token id")
        position = options.position
        while len(ids) > protocol.MAX_PROMPT:      # fill the cache piecewise
            piece, ids = ids[:protocol.MAX_PROMPT], ids[protocol.MAX_PROMPT:]
            for _ in self._generate(piece, Options(position, 0, options.sampling, options.stops), flags, on_logits):
                pass
            position += len(piece)
        return self._generate(ids, Options(position, options.max_new, options.sampling, options.stops), flags, on_logits)

    def _generate(self, ids: Sequence[int], options: Options, flags: int, on_logits: Logits | None) -> "DeviceGeneration":
        self.link.events.clear()
        request = protocol.Generate(
            flags=flags, position=options.position, max_new=options.max_new, stop_count=len(options.stops),
            stops=tuple(options.stops), ids=tuple(ids), **options.sampling.fixed())
        self._request_when_free(Opcode.GENERATE, request)
        return DeviceGeneration(self.link, self.link.sequence, on_logits)

    def _request_when_free(self, opcode: Opcode, payload) -> None:
        """An aborted generation ends at its next token only; until then the device says BUSY."""
        deadline = time.monotonic() + BUSY_S
        while True:
            try:
                self.link.request(opcode, payload)
                return
            except DeviceError as error:
                if error.status != Status.BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(0.05)

    def abort(self) -> None:
        """End a running generation; its DONE event follows."""
        self.link.request(Opcode.ABORT)

    def stats(self) -> protocol.Stats:
        return self.link.request(Opcode.STATS)

    def reset(self, flags: int = protocol.ResetFlag.COUNTERS | protocol.ResetFlag.ERRORS) -> None:
        """Set counters and error flags to zero."""
        self.link.request(Opcode.RESET, protocol.Reset(int(flags)))

    def read(self, offset: int, length: int, *, progress: Progress = Progress.silent, label: str = "reading") -> bytes:
        """Bytes of DRAM; ``offset`` and ``length`` are multiples of 4."""
        data = bytearray()
        with progress.bar(label, length) as bar:
            while len(data) < length:
                size = min(MAX_PAYLOAD, length - len(data))
                data += self.link.request(Opcode.READ, protocol.Read(offset + len(data), size))
                bar.update(len(data))
        return bytes(data)


class DeviceGeneration:
    """Token events of one GENERATE, in order and without gaps: what was lost on the wire is asked for again."""

    def __init__(self, link: Link, sequence: int, on_logits: Logits | None = None):
        self.link, self.sequence, self.on_logits = link, sequence, on_logits
        self.outcome: Outcome | None = None
        self._fruitless = 0                     # RESENDs in a row that brought nothing
        self._next = 0                          # index of the token that comes next
        self._ready: list[TokenEvent] = []
        self._done: protocol.Done | None = None

    def __iter__(self) -> "DeviceGeneration":
        return self

    def __next__(self) -> TokenEvent:
        while not self._ready:
            if self._done is not None and self._next >= self._done.count:
                self._finish()
                raise StopIteration
            if self._done is not None:              # it said how many there are, and some are missing
                self._ask_again()
                continue
            frame = self.link.event(SILENCE_S)
            if frame is None:
                self._ask_again()
            elif frame.sequence == self.sequence:   # else: left over from an earlier generation
                self._take(frame.opcode, frame.payload)
        return self._ready.pop(0)

    def abort(self) -> list[TokenEvent]:
        """End the generation at the next token; the events that were under way."""
        if self.outcome is None and self._done is None:
            self.link.request(Opcode.ABORT)
        return list(self)

    def _take(self, opcode: int, payload: bytes) -> None:
        try:
            event = protocol.EVENTS[opcode].unpack(payload)
        except ValueError as error:
            raise LinkError(f"event {opcode:#x} is not what this client's protocol says ({error})") from error
        if opcode == Opcode.TOKENS:
            self._take_tokens(event)
        elif opcode == Opcode.DONE:
            self._done = event
        elif self.on_logits is not None:
            self.on_logits(event.position, event.first, event.logits)

    def _take_tokens(self, event: protocol.Tokens) -> None:
        if event.index > self._next:            # an earlier event was lost
            self._ask_again()
            return
        for index in range(self._next, event.index + len(event.entries) // 2):
            token, cycles = event.entries[2 * (index - event.index):][:2]
            self._ready.append(TokenEvent(index, event.position + index - event.index, token, cycles))
        self._next = max(self._next, event.index + len(event.entries) // 2)

    def _ask_again(self) -> None:
        """RESEND from the first token missing; also how a silent device is told from a dead one."""
        event = self.link.request(Opcode.RESEND, protocol.Resend(self._next))
        if event.count < self._next or event.index > self._next:
            raise LinkError(f"token {self._next} of the generation is lost (the device has {event.count}): was it reset?")
        self._take_tokens(event)
        # An ended generation answers with the missing tokens or with DONE; a device that was reset has neither.
        self._fruitless = 0 if event.running or event.entries else self._fruitless + 1
        if self._fruitless >= TRIES:
            raise LinkError(f"the device no longer knows this generation after {self._next} tokens: was it reset?")

    def _finish(self) -> None:
        done = self._done
        self.outcome = Outcome(
            Reason(done.reason), done.position, done.errors, done.draws,
            done.dropped / 2 ** 32 / done.draws if done.draws else 0.0, done.start_cycles, done.end_cycles,
            done.passes, done.guessed)
