"""What a person does with a board that holds several conversations: generations in slots at the same time, ended,
replaced and left alone, the cache divided anew, chats beside each other."""
import io

from llama2_host.chat.chat import Chat
from llama2_host.connection import DeviceBackend
from llama2_host.device.device import Device
from llama2_host.device.link import DeviceError
from llama2_host.errors import HostError
from llama2_host.generation import SUPERSEDED, Sampling
from llama2_host.image.model import Model
from llama2_spec.protocol import TOKEN_RING, Reason, Status
from tests.faults.operations import LINES, LOGITS, LONG, Operations, Talk, Told, Wrong

ROUNDS = 3
COUNTS = (2, 3, 4, 6)               #: slots
LENGTHS = (0, 0, 0, 60, 150)        #: of a slot; 0 is the model's context
TURNS = (1, 1, 2, 5, 40)            #: tokens that are taken of a generation before another has its turn


class InSlot(DeviceBackend):
    """One slot as a chat's backend."""

    def __init__(self, device: Device, model: Model, slot: int):
        super().__init__(device, model)
        self.slot = slot

    def generate(self, ids, options, **more):
        return super().generate(ids, options, slot=self.slot, **more)


class Likeliest:
    """Takes logits as a device hands them over, and keeps each position's largest."""

    def __init__(self):
        self._best: dict[int, tuple[int, int]] = {}

    def __call__(self, position: int, first: int, values) -> None:
        for id, value in enumerate(values, first):
            self._best[position] = max(self._best.get(position, (value, -id)), (value, -id))

    def at(self, position: int) -> int | None:
        """The id with the largest logit, of equals the lowest."""
        return -self._best[position][1] if position in self._best else None


class SlotOperations(Operations):
    """Mixed into :class:`tests.faults.trial.Trial`. Of the generations that were begun, ``talks`` are not taken to
    their end yet, ``ended`` are, and ``lost`` failed: on the device they may still run."""

    NAMES = (*Operations.NAMES, "several", "several", "several", "chats_together")
    talks: list[Talk]
    ended: list[Talk]
    lost: list[Talk]

    def none_runs(self) -> None:
        self.talks, self.ended, self.lost = [], [], []

    # Several generations ----------------------------------------------------------------------

    def several(self) -> None:
        """Generations in some of the slots at a time, in random turns, a few times."""
        self.none_runs()
        self.ready()
        self.divide(self.rng.choice(COUNTS), self.rng.choice(LENGTHS))
        for _ in range(1 + self.rng.randrange(ROUNDS)):
            self.round()

    def divide(self, count: int = 0, length: int = 0) -> None:
        """Divide the cache, or ask how it is divided. Slots are empty then, unless that is how it was."""
        before = self.device.slots, self.device.info.seq_len
        slotted = self.device.divide(count, length)
        found = slotted.count, slotted.length
        right = (count, length or self.images[self.image].config.seq_len) if count else before
        if found != right and not (count == 0 and self.restarted()):
            raise Wrong(f"the cache is divided into {found}, not {right}")
        if found != before:
            self.texts, self.ended = {}, []

    def round(self) -> None:
        """Some generations, until none is left; then what each slot holds is its own text."""
        self.none_runs()
        slots = range(self.device.slots)
        for slot in self.rng.sample(slots, self.rng.randrange(1, len(slots) + 1)):
            self.talks.append(self.begin_one(slot))
        self.result.beside[f"begun {len(self.talks)} at a time"] += len(self.talks)
        while self.talks:
            self.act()
            self.turn()
        if self.lost:
            raise Told
        self.act()
        self.divide()                       # answered when the core has nothing to do any more
        for talk in self.ended:
            self.keep_rows(talk)

    def begin_one(self, slot: int) -> Talk:
        """Now and then one whose logits are all handed over, or that is longer than the device can repeat."""
        draw = self.rng.random()
        if draw < 0.1:
            likeliest = Likeliest()
            talk = self.begin(slot, counts=(3,), sampling=Sampling(temperature=0), flags=LOGITS, on_logits=likeliest)
            talk.likeliest = likeliest
            return talk
        if draw < 0.3:
            return self.begin(slot, counts=(LONG,), stops=())
        return self.begin(slot, counts=(0, 1, 5, 20, 60))

    def turn(self) -> None:
        """One of them goes on, or something else happens."""
        talk, draw = self.rng.choice(self.talks), self.rng.random()
        if draw < 0.04:
            self.ask()
        elif draw < 0.05:
            count = self.rng.choice((2, 4, self.device.slots))
            self.over(lambda: self.divide(count, self.rng.choice(LENGTHS)))
        elif draw < 0.06:
            self.over(self.device.hello)
        elif draw < 0.07:
            self.over(self.reconnect)
        elif draw < 0.10:
            self.replace(talk)
        else:
            self.take(talk, end=draw < 0.2)

    def take(self, talk: Talk, *, end: bool) -> None:
        """Some tokens of one, and perhaps its end. Its failure is judged, and leaves the others to be taken."""
        try:
            for _ in range(self.rng.choice(TURNS)):
                event = next(talk.generation, None)
                if event is None:
                    break
                talk.events.append(event)
            if end and talk.generation.outcome is None:
                talk.aborted = True
                talk.events += talk.generation.abort()
        except HostError as error:
            self._judge(f"slot {talk.slot}", error)
            self.result.beside["failed with a true line"] += 1
            self.talks.remove(talk)
            self.lost.append(talk)
            return
        if talk.generation.outcome is not None:
            self.talks.remove(talk)
            self.ended.append(talk)
            self.judge_talk(talk)

    def judge_talk(self, talk: Talk) -> None:
        """It is as it would be alone, whatever the others did."""
        part = talk.outcome.reason == Reason.ABORT
        if part and not talk.aborted:
            raise Wrong(f"the generation in slot {talk.slot} was ended, which nobody asked for")
        self.compare(talk, part=part)
        self.result.beside["ended by its owner" if part else "taken whole"] += 1
        for event in talk.events:
            if talk.likeliest is not None and talk.likeliest.at(event.position - 1) != event.token:
                raise Wrong(f"token {event.token} at {event.position} is not the likeliest of its logits")

    def replace(self, talk: Talk) -> None:
        """A newer generation in a slot ends the older one there, and no other."""
        newer = self.begin_one(talk.slot)
        self.told(talk)
        self.talks[self.talks.index(talk)] = newer
        self.result.beside["replaced by a newer one"] += 1

    def over(self, action) -> None:
        """What ends all that runs; what has ended keeps its rows, unless there are new slots."""
        talks, device, self.talks = self.talks, self.device, []
        action()
        self.result.beside["ended with all others"] += len(talks)
        for talk in talks:
            if self.device is device:       # else it was another connection's, which is closed
                self.told(talk)

    def told(self, talk: Talk) -> None:
        """Who goes on with a generation that is over is told."""
        try:
            next(talk.generation)
        except HostError as error:
            if str(error) != SUPERSEDED:
                raise
        else:
            raise Wrong(f"a generation in slot {talk.slot} goes on that another one ended")

    def ask(self) -> None:
        """The device says how the cache is divided when nothing runs; it stays BUSY while a generation waits for
        somebody who takes its tokens."""
        try:
            self.divide()
        except DeviceError as error:
            waits = any(talk.options.max_new >= TOKEN_RING for talk in self.talks + self.lost)
            if error.status != Status.BUSY or not waits:
                raise

    def reconnect(self) -> None:
        """Another connection finds the slots as they were, and their rows."""
        boot, slots = self.device.info.boot, self.device.slots
        self.device.close()
        self.device = self.connect()
        self.device.divide()
        if self.device.info.boot != boot:
            self.texts, self.ended = {}, []
        elif self.device.slots != slots:
            raise Wrong(f"another connection finds {self.device.slots} slots, not {slots}")

    # Chats beside each other ------------------------------------------------------------------

    def chats_together(self) -> None:
        """Two chats take lines in turns while a generation runs in a third slot: each has the text that it has
        alone."""
        self.none_runs()
        self.ready()
        self.divide(3)
        self.texts = {}
        model, image, shown = self.images[self.image], self.image, io.StringIO()
        samplings = Sampling(temperature=0), Sampling(temperature=1.0, seed=5)
        chats: list[Chat] = []

        def again() -> DeviceBackend:
            """A new connection for both, after a restart or a loss of the line."""
            self.device = self.connect()
            self.put(model)
            self.divide(3)
            for slot, chat in enumerate(chats):
                chat.conversation.backend, chat.conversation.cached = InSlot(self.device, model, slot), 0
            return chats[self.speaking].conversation.backend

        for slot, sampling in enumerate(samplings):
            chats.append(self._chat(InSlot(self.device, model, slot), sampling, again, shown))
        lines = LINES[:self.rng.randrange(1, len(LINES) + 1)]
        for line in lines:
            for self.speaking, chat in enumerate(chats):
                self.line_beside(chat, line)
        for chat, sampling in zip(chats, samplings):
            self.judge_chat(chat, lines, sampling, image)
        if self.lost:
            raise Told

    def line_beside(self, chat: Chat, line: str) -> None:
        """A line while a generation runs in slot 2, which is taken to its end afterwards, unless the chat had to
        connect again."""
        device = self.device
        self.act()
        try:
            self.talks = [] if self.lost else [self.begin(2, counts=(20, 60, LONG), stops=())]
        except HostError as error:
            self._judge("slot 2", error)
            raise Told from error
        self.say_line(chat, line)
        self.texts = {}
        while self.talks and self.device is device:
            self.act()
            self.take(self.talks[0], end=False)
