"""A generation that runs on the device, beside what golden says of it."""
from llama2_spec.protocol import GenerateFlag, Reason


class Wrong(Exception):
    """Something is not what golden, or the protocol, says."""


class Running:
    """Begun when it is made. ``abort``: after how many tokens it is aborted, or None."""

    def __init__(self, device, slot: int, ids, options, flags, expected, abort):
        self.slot, self.ids, self.options, self.flags = slot, ids, options, flags
        self.expected, self.abort = expected, abort
        self.events: list = []
        self.logits: dict[int, list[int]] = {}
        self.generation = device.generate(ids, options, slot=slot, flags=flags,
                                          on_logits=self._hear if flags & GenerateFlag.DUMP_LOGITS else None)

    def __str__(self) -> str:
        sampling = ", ".join(f"{name} {value}" for name, value in vars(self.options.sampling).items())
        return (f"slot {self.slot}: {len(self.ids)} ids at {self.options.position}, up to {self.options.max_new}, "
                f"stops {self.options.stops}, {self.flags!r}, {sampling}"
                + (f", aborted after {self.abort}" if self.abort else ""))

    def _hear(self, position, first, values) -> None:
        heard = self.logits.setdefault(position, [])
        if first != len(heard):
            raise Wrong(f"{self}: logits from {first} of position {position} after {len(heard)}")
        heard += map(int, values)

    @property
    def reason(self) -> Reason:
        """Why it ended; ABORT while it runs."""
        outcome = self.generation.outcome
        return outcome.reason if outcome is not None else Reason.ABORT

    def take(self) -> bool:
        """The next event; false if there is no more."""
        event = next(self.generation, None)
        if event is not None:
            self.events.append(event)
        return event is not None

    def drain(self) -> None:
        while self.take():
            pass

    def advance(self) -> bool:
        """A token further, or aborted; returns whether it is over."""
        if self.abort is not None and len(self.events) >= self.abort:
            self.events += self.generation.abort()
            return True
        return not self.take()

    def judge(self, *, part: bool) -> None:
        """Everything that came is golden's; not ``part``: and it is all."""
        expected, count = self.expected, len(self.events)
        tokens = [event.token for event in self.events]
        if tokens != (expected.tokens[:count] if part else expected.tokens):
            at = next((i for i, pair in enumerate(zip(tokens, expected.tokens)) if pair[0] != pair[1]), count)
            raise Wrong(f"{self}: token {at} of {count} is {tokens[at:at + 3]}, not {expected.tokens[at:at + 3]}")
        if [event.position for event in self.events] != [*range(expected.first, expected.first + count)]:
            raise Wrong(f"{self}: positions {[event.position for event in self.events][:5]} from {expected.first} on")
        self._judge_logits(part)
        if self.generation.outcome is not None:
            self._judge_outcome(part)

    def _judge_logits(self, part: bool) -> None:
        dumped = bool(self.flags & GenerateFlag.DUMP_LOGITS)
        for position, values in self.logits.items():
            if values != self.expected.logits.get(position, [])[:len(values)]:
                raise Wrong(f"{self}: logits at position {position} differ")
        if dumped and not part and self.logits != self.expected.logits:
            raise Wrong(f"{self}: logits of {sorted(self.logits)}, not of {sorted(self.expected.logits)}")

    def _judge_outcome(self, part: bool) -> None:
        outcome, expected = self.generation.outcome, self.expected
        if outcome.position != expected.position(len(self.events), outcome.reason):
            raise Wrong(f"{self}: {outcome}, not at {expected.position(len(self.events), outcome.reason)}")
        if part and outcome.reason == Reason.ABORT:
            return
        if (outcome.reason, outcome.draws, outcome.dropped) != (expected.reason, expected.draws, expected.dropped):
            raise Wrong(f"{self}: {outcome}, not {expected.reason.name}, {expected.draws} draws, {expected.dropped}")
