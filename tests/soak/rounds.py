"""The rounds of a session: what a client may do next, and how it is judged."""
import time

from llama2_host.device.link import DeviceError
from llama2_host.generation import OptionError
from llama2_spec.protocol import GenerateFlag, Reason, Status
from tests.soak import models, refusals, requests
from tests.soak.generation import Running, Wrong

FREE_S = 120.0      #: of patience with a device that is busy with what was ended


class Rounds:
    """Mixed into :class:`tests.soak.session.Session`, which has the device, the slots' oracles and the counts."""

    def together(self) -> None:
        """Generations in some slots at the same time, each with a fate of its own; events are taken as chance has
        it."""
        running = self._begin_some()
        while running:
            number = self.rng.choice(sorted(running))
            if self.rng.random() < .03:
                self._bad_command(self.rng.randrange(len(self.slots)), running)
            if running[number].advance():
                self._compare(running.pop(number))
                if self.rng.random() < .2:      # another begins while the others go on
                    running[number] = self._begin(number)

    def abort_all(self) -> None:
        """ABORT of all generations at a moment by chance."""
        running = self._begin_some()
        for _ in range(self.rng.randrange(12)):
            number = self.rng.choice(sorted(running))
            if running[number].generation.outcome is None:
                running[number].take()
        self.device.abort()
        self.counts["aborts of all"] += 1
        for one in running.values():
            one.drain()
            self._compare(one)

    def supersede(self) -> None:
        """A newer generation in a slot ends the older one, and no other's."""
        running = self._begin_some()
        number = self.rng.choice(sorted(running))
        for _ in range(self.rng.randrange(6)):
            running[number].take()
        older = running[number]
        older.judge(part=True)
        at_least = older.expected.position(len(older.events), Reason.ABORT)
        if older.generation.outcome is None:
            self._count(older)
            self.slots[number].ended(at_least, exact=False)
            self.counts["superseded"] += 1
        else:
            self._compare(older)
        running[number] = self._begin(number)
        for one in running.values():
            one.drain()
            self._compare(one)

    def leave(self) -> None:
        """The client goes in the middle of everything; a new session finds the model, the slots and their rows."""
        running = self._begin_some() if self.rng.random() < .7 else {}
        for number, one in running.items():
            for _ in range(self.rng.randrange(4)):
                one.take()
            one.judge(part=True)
            self._count(one)
            at_least = one.expected.position(len(one.events), one.reason)
            self.slots[number].ended(at_least, exact=one.generation.outcome is not None)
        self.device.close()
        self._connect()
        self.counts["reconnects"] += 1
        self._holds_the_model()
        slotted = self.device.divide()
        if (slotted.count, slotted.length) != (len(self.slots), self.slots[0].length):
            raise Wrong(f"a new session finds {slotted}")
        first = self.slots[0]
        if first.exact and self.device.info.kv_positions != first.known:
            raise Wrong(f"a new session finds {self.device.info.kv_positions} positions, not {first.known}")

    def bad_commands(self) -> None:
        """Some of them, while nothing runs."""
        for _ in range(self.rng.randrange(1, 8)):
            self._bad_command(self.rng.randrange(len(self.slots)), {})

    def bad_calls(self) -> None:
        """What the client refuses without a word to the device."""
        for _ in range(4):
            name, call = refusals.bad_call(self.rng, self.device, len(self.slots))
            sequence = self.device.link.sequence
            try:
                call()
            except OptionError as error:
                self._one_line(name, str(error))
                if self.device.link.sequence != sequence:
                    raise Wrong(f"{name} was refused after something was sent") from None
                self.counts["calls refused"] += 1
            else:
                raise Wrong(f"{name} was not refused")

    def rows(self) -> None:
        """Some K/V rows of each slot, as they lie in memory."""
        for number, slot in enumerate(self.slots):
            for _ in range(min(3, slot.rows)):
                layer, position = self.rng.randrange(self.config.n_layers), self.rng.randrange(slot.rows)
                at = models.row_offset(self.image, slot.length, number, layer, position)
                data = self._when_free(lambda at=at: self.device.read(at, models.row_bytes(self.image)))
                if not models.same_row(self.config, data, slot.golden.kv_row(layer, position)):
                    raise Wrong(f"K/V row {position} of layer {layer}, slot {number}, differs")
                self.counts["rows"] += 1

    def redivide(self) -> None:
        """The cache is divided anew; only where that changes something the slots are empty."""
        count, length = self._division()
        self._divide(count, length)
        if (count, length) != (len(self.slots), self.slots[0].length):
            self._empty(count, length)
        self.counts["divisions"] += 1

    def another_model(self) -> None:
        """Seldom: another model takes the place of the one before."""
        if self.rng.random() < .7:
            return
        self._choose_model()
        self._upload()
        self._empty(1, self.config.seq_len)

    # Parts of rounds --------------------------------------------------------------------------

    def _begin_some(self) -> dict[int, Running]:
        chosen = self.rng.sample(range(len(self.slots)), self.rng.randint(1, len(self.slots)))
        return {number: self._begin(number) for number in chosen}

    def _begin(self, number: int) -> Running:
        ids, options, flags = requests.request(self.rng, self.slots[number], self.config.vocab_size, dumps=.4)
        expected = self.slots[number].expect(ids, options, flags)
        self._allow()
        abort = self.rng.randrange(1, 20) if self.rng.random() < .2 else None
        running = Running(self.device, number, ids, options, flags, expected, abort)
        self.counts["generations"] += 1
        for name in ("speculate", "DUMP_LOGITS", "ALL_LOGITS", "PRELOADED"):
            told_of = options.sampling.speculate if name == "speculate" else flags & GenerateFlag[name]
            self.counts[f"generations {name}"] += bool(told_of)
        self.say(running)
        return running

    def _count(self, one: Running) -> None:
        self.counts["tokens"] += len(one.events)
        self.counts["logits"] += sum(map(len, one.logits.values()))
        self.counts["prompt tokens"] += len(one.ids)

    def _compare(self, one: Running) -> None:
        """A generation that has ended, as golden has it."""
        one.judge(part=one.reason == Reason.ABORT)
        if one.generation.outcome.errors & ~self.allowed:
            raise Wrong(f"{one}: errors {one.generation.outcome.errors:#x}, golden has {self.allowed:#x}")
        self._count(one)
        self.counts[f"ended {one.reason.name}"] += 1
        self.slots[one.slot].ended(one.expected.position(len(one.events), one.reason))

    def _bad_command(self, number: int, running: dict[int, Running]) -> None:
        """It is refused; ``running`` are the generations by slot."""
        bad = refusals.bad_command(self.rng, number, self.slots[number], self.config, len(self.slots),
                                   idle=number not in running)
        send = lambda: self.device.link.request(bad.opcode, bad.payload)
        try:
            send() if running else self._when_free(send)
        except DeviceError as error:
            self._one_line(bad.name, str(error))
            if running and bad.busy and error.status == Status.BUSY:
                return
            seen = error.status, error.error.subject, error.error.value
            if seen != (bad.status, bad.subject, bad.value) or bad.limit not in (None, error.error.limit):
                raise Wrong(f"{bad} is refused with {Status(error.status).name} {error.error}") from None
            self.counts["commands refused"] += 1
        else:
            raise Wrong(f"{bad.name} is not refused: {bad.payload}")

    @staticmethod
    def _one_line(name: str, text: str) -> None:
        if "\n" in text or not text.strip() or "{" in text or "Traceback" in text:
            raise Wrong(f"{name} is refused with {text!r}")

    def _when_free(self, ask):
        """Its answer, once what was ended is over."""
        deadline = time.monotonic() + FREE_S
        while True:
            try:
                return ask()
            except DeviceError as error:
                if error.status != Status.BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(.05)

    #: Some are likelier than others.
    ROUNDS = (*(together,) * 6, abort_all, abort_all, supersede, leave, leave, bad_commands, bad_calls, rows, rows,
              redivide, another_model)
