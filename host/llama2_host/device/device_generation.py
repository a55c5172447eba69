"""The tokens of one GENERATE as a device sends them: in order, without gaps, and none that was not asked for."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from llama2_spec import protocol
from llama2_spec.protocol import GenerateFlag, Opcode, Reason, Status

from llama2_host.errors import HostError
from llama2_host.generation import SUPERSEDED, Outcome, TokenEvent
from llama2_host.device.link import TRIES, DeviceError, LinkError, RestartedError

if TYPE_CHECKING:
    from llama2_host.device.device import Device

ACKNOWLEDGE = protocol.TOKEN_RING // 4      #: tokens; two acknowledgements in a row may be lost
MOST = 126                  #: tokens in a frame

Logits = Callable[[int, int, Sequence[int]], None]


class DeviceGeneration:
    """An iterator of token events. What was lost on the wire is asked for again; lost logits are an error."""

    def __init__(self, device: Device, request: protocol.Generate, on_logits: Logits | None = None, *,
                 sequence: int, silence_s: float):
        self.device, self.link, self.on_logits = device, device.link, on_logits
        self.sequence = sequence
        self.slot = request.flags >> protocol.SLOT_SHIFT
        self.silence_s = silence_s              #: without an event for this long, ask whether the device still runs
        self.first = request.position + len(request.ids)
        self.max_new = request.max_new
        self.outcome: Outcome | None = None
        self.superseded = False                 #: another generation, or session, began
        self._fruitless = 0                     # RESENDs in a row that brought nothing
        self._most = MOST                       # tokens that the next RESEND asks for
        self._next = 0                          # index of the token that comes next
        self._acknowledged = 0
        self._ready: list[TokenEvent] = []
        self._done: protocol.Done | None = None
        self._every = bool(request.flags & GenerateFlag.ALL_LOGITS)
        self._dumping = bool(request.flags & GenerateFlag.DUMP_LOGITS) and on_logits is not None
        # position and id of the logit that comes next
        self._logits = (request.position if self._every else self.first - 1), 0

    def __iter__(self) -> DeviceGeneration:
        return self

    def __next__(self) -> TokenEvent:
        if self.superseded:
            raise HostError(SUPERSEDED)
        while not self._ready:
            if self._done is not None and self._next >= self._done.count:
                self._finish(self._done)
                raise StopIteration
            if self._done is not None:              # it said how many there are, and some are missing
                self._ask_again()
                continue
            frame = self.link.event(self.link.patience(self.silence_s), self.sequence)
            if frame is None:
                self._ask_again()
            else:
                self._take(frame.opcode, frame.payload)
        return self._ready.pop(0)

    @property
    def ended(self) -> bool:
        """The device is done with it, whether or not its tokens were taken."""
        return self._done is not None

    def abort(self) -> list[TokenEvent]:
        """End the generation at the next token; the events that were under way."""
        if self.superseded:
            return []
        if self.outcome is None and self._done is None:
            self.end()
        return list(self)

    def end(self) -> None:
        """Ask the device to end it; firmware that has one slot only may know no other way."""
        self.link.request(Opcode.ABORT, protocol.Abort(self.sequence) if self.device.slots > 1 else None)

    def _take(self, opcode: int, payload: bytes) -> None:
        try:
            event = protocol.EVENTS[opcode].unpack(payload)
        except ValueError as error:
            raise LinkError(f"event {opcode:#x} is not what this client's protocol says ({error})") from error
        if isinstance(event, protocol.Tokens):
            self._take_tokens(event)
        elif isinstance(event, protocol.Done):
            self._take_done(event)
        elif isinstance(event, protocol.Logits) and self.on_logits is not None and self._dumping:
            self._take_logits(event, self.on_logits)

    def _take_done(self, done: protocol.Done) -> None:
        if done.count > self.max_new or done.count < self._next or done.reason not in set(Reason):
            raise self._lie(f"ends with {done.count} tokens of at most {self.max_new} for reason {done.reason}")
        self._done = done

    def _take_tokens(self, event: protocol.Tokens) -> None:
        if event.index > self._next:            # an earlier event was lost
            self._ask_again()
            return
        count, vocabulary = len(event.entries) // 2, self.device.info.vocab_size
        if len(event.entries) % 2 or event.index + count > self.max_new or event.position != self.first + event.index:
            raise self._lie(
                f"sends {len(event.entries)} words from token {event.index} at position {event.position} on")
        for index in range(self._next, event.index + count):
            token, cycles = event.entries[2 * (index - event.index):][:2]
            if vocabulary and token >= vocabulary:
                raise self._lie(f"sends token {token} of a vocabulary of {vocabulary}")
            self._ready.append(TokenEvent(index, event.position + index - event.index, token, cycles))
        self._next = max(self._next, event.index + count)
        if event.running and self._next - self._acknowledged >= ACKNOWLEDGE:
            self._acknowledge()

    def _take_logits(self, event: protocol.Logits, tell: Logits) -> None:
        if (event.position, event.first) != self._logits or not event.logits:
            raise LinkError(f"logits from id {self._logits[1]} of position {self._logits[0]} on were lost on the line: "
                            "run it again (at a slower rate, --baud, if it happens again)")
        end = event.first + len(event.logits)
        if end > self.device.info.vocab_size or event.position >= self.first + self.max_new:
            raise self._lie(f"sends logits of ids to {end - 1} of position {event.position}")
        tell(event.position, event.first, event.logits)
        self._logits = (event.position, end) if end < self.device.info.vocab_size else (event.position + 1, 0)

    def _acknowledge(self) -> None:
        """Let the device overwrite what has come; the reply tells nothing new, so nobody waits for it."""
        self._acknowledged = self._next
        with self.link.lock:
            self.link.send(Opcode.RESEND, self.link.next_sequence(), protocol.Resend(self._next, self.sequence, 1))

    def _ask_again(self) -> None:
        """RESEND from the first token missing; also how a silent device is told from a dead one."""
        event = self._resent()
        if event.count < self._next or event.index > self._next:
            raise RestartedError(self.link.transport.name, f"token {self._next} of the generation is lost, it has "
                                                           f"{event.count}")
        if event.index != self._next:
            raise self._lie(f"answers RESEND from token {self._next} on with token {event.index}")
        self._acknowledged = max(self._acknowledged, self._next)
        before = self._next
        self._take_tokens(event)
        if self._next > before:
            self._most = min(2 * self._most, MOST)
        # An ended generation answers with the missing tokens or with DONE; a device that was reset has neither.
        waits = event.running and self._done is None
        self._fruitless = 0 if waits or self._next > before else self._fruitless + 1
        if self._fruitless >= TRIES:
            raise RestartedError(self.link.transport.name, f"it no longer knows this generation after {self._next} "
                                                           "tokens")

    def _resent(self) -> protocol.Tokens:
        """Its reply; on a line that lets no long frame pass, of fewer tokens."""
        while True:
            try:
                resend = protocol.Resend(self._next, self.sequence, self._most)
                return self.link.request(Opcode.RESEND, resend, tries=2 if self._most > 1 else TRIES - 1)
            except DeviceError as error:
                if error.error.boot != self.device.info.boot or error.status in (Status.BAD_VALUE, Status.FORGOTTEN):
                    raise RestartedError(self.link.transport.name, f"it does not know token {self._next} of this "
                                                                   "generation") from error
                raise
            except LinkError:
                if self._most == 1:
                    raise
                self._most = max(self._most // 8, 1)

    def _lie(self, what: str) -> LinkError:
        return LinkError(f"the device {what}, which it was not asked for: build client and firmware from the same "
                         "sources")

    def _logits_end(self, done: protocol.Done) -> int:
        """The position behind the last one whose logits the device has sent; an aborted one may have sent more."""
        whole_prompt = self._every and not done.count and done.reason != Reason.ABORT
        return self.first - 1 + done.count + whole_prompt

    def _finish(self, done: protocol.Done) -> None:
        position, id = self._logits
        self.device.rows[self.slot] = done.position
        self.link.forget(self.sequence)
        if self._dumping and (id or position < self._logits_end(done)):
            raise LinkError(f"the last logits from id {id} of position {position} on were lost on the line: run it "
                            "again")
        self.outcome = Outcome(
            Reason(done.reason), done.position, done.errors, done.draws,
            done.dropped / 2 ** 32 / done.draws if done.draws else 0.0, done.start_cycles, done.end_cycles,
            done.passes, done.guessed)
