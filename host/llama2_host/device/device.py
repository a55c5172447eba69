"""A decoder on the other end of a link: one method per opcode of spec/llama2_spec/protocol.py."""
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from numbers import Integral
from typing import TextIO, TypeVar

from llama2_spec import protocol
from llama2_spec.frame import MAX_PAYLOAD
from llama2_spec.protocol import ModelState, Opcode, Status

from llama2_host.device import rate
from llama2_host.device import store as flash
from llama2_host.errors import HostError
from llama2_host.generation import OptionError, Options, OptionTypeError
from llama2_host.device.link import DeviceError, Link, LinkError, RestartedError, VersionError
from llama2_host.device.device_generation import DeviceGeneration, Logits
from llama2_host.progress import Progress, quantity
from llama2_host.device.refusals import explain
from llama2_host.device.restart import explain_restart
from llama2_host.device.transport import DEFAULT_BAUD, Transport
from llama2_host.device.upload import upload

BOOT_TRIES = 3              #: HELLO: 1 + 2 + 4 s; a board that has just been loaded trains its DRAM first
SILENCE_S = 5.0             #: without an event for this long, ask whether the device still runs
BOOT_ASK_S = 0.2            #: between looks at a device that still checks its model, or copies it from flash
BOOT_LOOKS = 10             #: at a device whose clock stands still
BOOT_DEVICE_S = 1800.0      #: by the device's clock: the slowest flash is read in a minute
BOOT_QUIET_S = 1.0          #: before the first line that says so
BOOT_NOTE_S = 10.0          #: between these lines

CHECK_LOOKS = 50_000        #: nearly three hours: a verilated core checks 7 MB per second, on a busy machine fewer
Reply = TypeVar("Reply")
BUSY_S = 30.0               #: an aborted generation of a large model may need this long in simulation


class Device:
    """A session with a device. ``info`` is its reply to HELLO. Generations in several slots may be taken in turns, or
    by threads of their own; all else is one thread's."""

    def __init__(self, link: Link, *, hello_timeout_s: float = 1.0, hello_tries: int = BOOT_TRIES,
                 progress: Progress = Progress.silent):
        self.link = link
        self.slots = 1                              #: that :meth:`divide` has made, or found
        self.rows: dict[int, int] = {}              # by slot: positions that it was known to hold last
        # of the last upload of this session, what was resumed not counted
        self.uploaded_bytes_per_s: float | None = None
        self._current: dict[int, DeviceGeneration] = {}     # by slot
        info = rate.find(link, hello_timeout_s) if link.transport.has_rate else None
        self.info = self._greeted(info) if info else self.hello(timeout_s=hello_timeout_s, tries=hello_tries)
        # Who greets it first after a reset tells; later clients would tell of the same one again.
        if rate.first_since_reset(self.info) and (line := explain_restart(self.info.restart)):
            progress.note(f"{link.transport.name}: {line}")
        self._await_boot(progress)

    @classmethod
    def open(cls, url: str, *, baud: int = DEFAULT_BAUD, trace: TextIO | None = None, wait_s: float = 0.0,
             hello_timeout_s: float = 1.0, hello_tries: int = BOOT_TRIES,
             progress: Progress = Progress.silent) -> "Device":
        """Open a port and greet what is there, at ``baud`` or at the rate that an earlier client left; returns once the
        device has looked at its memory and flash."""
        transport = Transport.open(url, baud=baud, wait_s=wait_s)
        try:
            return cls(Link(transport, trace=trace), hello_timeout_s=hello_timeout_s, hello_tries=hello_tries,
                       progress=progress)
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
        self._supersede(abort=False)        # HELLO does
        self.info = self._greeted(self.link.request(Opcode.HELLO, rate.greeting(), timeout_s=timeout_s, tries=tries))
        return self.info

    def _greeted(self, info: protocol.Device) -> protocol.Device:
        if info.version != protocol.VERSION:
            raise VersionError(str(info.version))
        if info.clock_hz == 0:
            raise LinkError(f"{self.link.transport.name}: the device says that its clock has 0 Hz: is this the "
                            "project's firmware?")
        if self.link.sequence >> 16 == 0:
            self.link.widen()
        self.rows[0] = info.kv_positions
        return replace(info, name=_printable(info.name), firmware=_printable(info.firmware))

    def _await_boot(self, progress: Progress) -> None:
        # A device that has nothing to check or copy is through with it at once: no word about that.
        noted_s = time.monotonic() + BOOT_QUIET_S - BOOT_NOTE_S
        first = last = self.info.uptime
        still = 0
        while self.info.model_state == ModelState.BOOTING:
            still = still + 1 if self.info.uptime == last else 0
            last = self.info.uptime
            if still > BOOT_LOOKS or last - first > BOOT_DEVICE_S * self.info.clock_hz:
                raise HostError("the device never ends checking its model: power-cycle the board, and load the model "
                                "again")
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
            raise HostError(f"the model image has {quantity(len(image))}, the device {quantity(self.info.dram_bytes)} "
                            "of DRAM: convert with --format q4 or use a smaller model")
        self._supersede()
        self.slots, self.rows = 1, {}       # a new model's cache is one slot
        start_s = time.monotonic()
        # What an earlier client's generations still have under way ends first.
        sent = self._when_free(lambda: upload(self.link, image, progress))
        self.uploaded_bytes_per_s = sent / max(time.monotonic() - start_s, 1e-9) if sent else None
        verified = self._await_check(Opcode.LOAD_END, None, None)
        self.hello()
        return verified

    def verify(self) -> protocol.Verified:
        """Have the core compute the CRCs of the model in DRAM anew; :class:`DeviceError` if they differ, and the device
        then has no model any more."""
        return self._await_check(Opcode.VERIFY, protocol.Verify(1), protocol.Verify(0))

    def _await_check(self, opcode: Opcode, first, then) -> protocol.Verified:
        """Begin a check and ask until it is over."""
        verified, asked = self._accepted(self._request_when_free(opcode, first)), 0
        while verified.running:
            time.sleep(BOOT_ASK_S if asked else 0.0)
            asked += 1
            if asked > CHECK_LOOKS:
                raise LinkError(f"the device never ends the check that {opcode.name} began: power-cycle the board")
            verified = self._accepted(self._ask(opcode, then))
        return verified

    def _ask(self, opcode: Opcode, payload=None):
        """A request of this session; :class:`RestartedError` if the device began anew since HELLO."""
        try:
            return self.link.request(opcode, payload)
        except DeviceError as error:
            if error.error.boot != self.info.boot:
                raise RestartedError(self.link.transport.name, str(error)) from error
            raise

    def _accepted(self, reply):
        if reply.boot != self.info.boot:
            raise RestartedError(self.link.transport.name)
        return reply

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

    def divide(self, count: int = 0, length: int = 0) -> protocol.Slotted:
        """Divide the K/V cache into ``count`` slots of ``length`` positions (0: the model's context); they are empty
        then, unless that is how it was. 0 slots only asks."""
        _check_whole("slots", count)
        _check_whole("length", length)
        self.require_model()
        if count:
            self._supersede()
        try:
            slotted = self._accepted(self._request_when_free(Opcode.SLOTS, protocol.Slots(count, length)))
        except DeviceError as error:
            if error.status == Status.BAD_OPCODE and count in (0, 1) and length in (0, self.info.seq_len):
                return protocol.Slotted(1, self.info.seq_len, self.info.boot, 0)    # firmware that has no other
            raise
        if count and (slotted.count, slotted.length) != (self.slots, self.info.seq_len):
            self.rows = {}
        self.slots, self.info = slotted.count, replace(self.info, seq_len=slotted.length)
        return slotted

    def generate(self, ids: Sequence[int], options: Options = Options(), *, slot: int = 0, flags: int = 0,
                 on_logits: Logits | None = None) -> "DeviceGeneration":
        """Feed ``ids`` from ``options.position`` on and generate, in a slot; an iterator of token events."""
        options.check(ids, flags)
        _check_whole("slot", slot)
        if slot >= self.slots:
            raise OptionError(f"slot is from 0 to {self.slots - 1}, not {slot}: divide the cache into more")
        flags |= slot << protocol.SLOT_SHIFT
        position = options.position
        while len(ids) > protocol.MAX_PROMPT:      # fill the cache piecewise
            piece, ids = ids[:protocol.MAX_PROMPT], ids[protocol.MAX_PROMPT:]
            for _ in self._generate(piece, Options(position, 0, options.sampling, options.stops), flags, on_logits):
                pass
            position += len(piece)
        return self._generate(ids, Options(position, options.max_new, options.sampling, options.stops), flags,
                              on_logits)

    def _generate(self, ids: Sequence[int], options: Options, flags: int,
                  on_logits: Logits | None) -> "DeviceGeneration":
        slot = flags >> protocol.SLOT_SHIFT
        self._supersede(slot)
        request = protocol.Generate(
            flags=flags, position=options.position, max_new=options.max_new, stop_count=len(options.stops),
            stops=tuple(options.stops), ids=tuple(ids), **options.sampling.fixed())
        accepted, sequence = self._begin(request)
        if accepted.position != options.position + len(ids):
            raise LinkError(f"the device accepts {len(ids)} tokens at position {options.position} and goes on at "
                            f"{accepted.position}: build client and firmware from the same sources")
        self._current[slot] = DeviceGeneration(self, request, on_logits, sequence=sequence, silence_s=SILENCE_S)
        return self._current[slot]

    def _begin(self, request: protocol.Generate) -> tuple[protocol.Accepted, int]:
        """Its acceptance, and its sequence number."""
        try:
            return self._when_free(lambda: self._numbered(request))
        except DeviceError as error:
            # It had these rows, or a model, when we heard of it last: who took them away?
            held = self.rows.get(request.flags >> protocol.SLOT_SHIFT, 0)
            lost = (error.status == Status.BAD_POSITION and request.position <= held
                    or error.status == Status.NO_MODEL and self.info.model_state == ModelState.READY)
            if lost:
                raise RestartedError(self.link.transport.name, str(error)) from error
            raise

    def _numbered(self, request: protocol.Generate) -> tuple[protocol.Accepted, int]:
        with self.link.lock:                # nobody else's request comes between
            try:
                return self._accepted(self._ask(Opcode.GENERATE, request)), self.link.sequence
            except BaseException:
                self.link.forget(self.link.sequence)
                raise

    def _request_when_free(self, opcode: Opcode, payload):
        return self._when_free(lambda: self._ask(opcode, payload))

    def _when_free(self, ask: Callable[[], Reply]) -> Reply:
        """An aborted generation ends at its next token only; until then the device says BUSY."""
        deadline = time.monotonic() + self.link.patience(BUSY_S)
        while True:
            try:
                return ask()
            except DeviceError as error:
                if error.status != Status.BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(0.05)

    def _supersede(self, slot: int | None = None, *, abort: bool = True) -> None:
        """A generation that was not taken to its end is over, that of a slot or all: whoever goes on with it is
        told."""
        for number in [number for number in list(self._current) if slot in (None, number)]:
            current = self._current.pop(number)
            if current.outcome is not None:
                continue
            current.superseded = True
            self.link.forget(current.sequence)
            if abort and not current.ended:
                current.end()

    def abort(self) -> None:
        """End all generations that run; their DONE events follow."""
        self.link.request(Opcode.ABORT)

    def board(self) -> protocol.Board:
        """What is around the core: DRAM and its byte lanes, flash."""
        return self._ask(Opcode.BOARD)

    def lane(self, lane: int, bitslip: int, mask: int) -> protocol.Eye:
        """Wrong bits of a DRAM byte lane at every delay, of those of ``mask`` in each word; what DRAM holds stays."""
        return self._ask(Opcode.LANE, protocol.Lane(lane, bitslip, mask))

    def test_memory(self, offset: int, step: int, count: int) -> protocol.Tested:
        """Write and read ``count`` places of DRAM, ``step`` bytes apart; what they hold stays."""
        return self._ask(Opcode.MEMORY, protocol.Memory(offset, step, count))

    def stream(self, offset: int, length: int) -> protocol.Streamed:
        """Have the core read these bytes of DRAM as fast as it can."""
        return self._ask(Opcode.STREAM, protocol.Stream(offset, length))

    def stats(self) -> protocol.Stats:
        return self._ask(Opcode.STATS)

    def reset(self, flags: int = protocol.ResetFlag.COUNTERS | protocol.ResetFlag.ERRORS) -> None:
        """Set counters and error flags to zero."""
        self._ask(Opcode.RESET, protocol.Reset(int(flags)))

    def read(self, offset: int, length: int, *, progress: Progress = Progress.silent, label: str = "reading") -> bytes:
        """Bytes of DRAM; ``offset`` and ``length`` are multiples of 4."""
        for name, value in (("offset", offset), ("length", length)):
            _check_whole(name, value, multiple=4)
        data = bytearray()
        with progress.bar(label, length) as bar:
            while len(data) < length:
                size = min(MAX_PAYLOAD, length - len(data))
                piece = self._ask(Opcode.READ, protocol.Read(offset + len(data), size))
                if len(piece) != size:
                    raise LinkError(f"the device answers READ of {size} bytes with {len(piece)}: "
                                    "build client and firmware from the same sources")
                data += piece
                bar.update(len(data))
        return bytes(data)


def _check_whole(name: str, value: int, multiple: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise OptionTypeError(f"{name} is a whole number, not {value!r}")
    if not 0 <= value < 1 << 32 or value % multiple:
        what = f"a multiple of {multiple} " if multiple != 1 else ""
        raise OptionError(f"{name} is {what}from 0 to {(1 << 32) - 1}, not {value}")


def _printable(text: str) -> str:
    """A name as a terminal may have it: what a device says could else move its cursor."""
    return "".join(char if char.isprintable() else "?" for char in text)
