"""What a person does in a trial: an operation raises Wrong where its outcome is not what it would be without faults."""
import io
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from llama2_host.chat.chat import Chat
from llama2_host.connection import put
from llama2_host.device.device import DeviceGeneration
from llama2_host.device.link import LinkError
from llama2_host.generation import Options, Outcome, Sampling, TokenEvent
from llama2_host.progress import Progress
from llama2_spec.image import row_layout
from llama2_spec.protocol import GenerateFlag, ModelState, Reason, StoreState
from tests.faults.world import FLASH_OFFSET

if TYPE_CHECKING:
    from tests.faults.slots import Likeliest

LINES = ("Hello there", "and then what", "the end", "once more")
ANSWER = 24             #: tokens of a chat's answer
LONG = 200              #: tokens: more than TOKEN_RING
RETRIES = 6             #: how often a person types a line that got no answer
LOGITS = GenerateFlag.DUMP_LOGITS | GenerateFlag.ALL_LOGITS


class Wrong(Exception):
    """Something was lost, invented or changed, and nobody said so."""


class Told(Exception):
    """The operation ends here: a part of it failed with a line that was judged already."""


@dataclass(eq=False)
class Talk:
    """A generation that was begun, and what of it has come."""
    slot: int
    whole: list[int]            #: ids that it goes on from, those in the cache first
    options: Options
    generation: DeviceGeneration
    length: int                 #: positions of the slot
    events: list[TokenEvent] = field(default_factory=list)
    aborted: bool = False       #: somebody asked for its end
    likeliest: "Likeliest | None" = None        #: what its logits say, where they are handed over

    @property
    def outcome(self) -> Outcome:
        assert self.generation.outcome is not None
        return self.generation.outcome

    @property
    def ids(self) -> list[int]:
        """The ids whose rows the cache holds after it."""
        return (self.whole + [event.token for event in self.events])[:self.outcome.position]


class Operations:
    """Mixed into :class:`tests.faults.trial.Trial`, which has the connection and the verdicts."""

    NAMES: tuple[str, ...] = ("hello", "upload", "generate", "generate", "generate", "long_generation", "abort",
                              "abort", "logits", "statistics", "read", "store", "chat", "chat")

    # The model --------------------------------------------------------------------------------

    def ready(self) -> None:
        """The device has the model that was asked for last, or any, with its whole context."""
        self.image = self.image or self.rng.choice(list(self.images))
        model = self.images[self.image]
        if not self.device.holds(header_crc=model.header_crc, payload_crc=model.payload_crc):
            self.texts = {}
            self.put(model)
        if self.device.info.seq_len != model.config.seq_len:
            self.texts = {}
            self.device.divide(1)
        self.look_at_memory()

    def put(self, model) -> None:
        """Make it the device's."""
        with self.loading():
            put(self.device, model)

    @contextmanager
    def loading(self):
        """While a model is put in place, which a line as bad as some scenarios' would let nobody do."""
        try:
            if self.scenario.loaded:
                self.world.cable.spared.add("loading")
            yield
        finally:
            self.world.cable.spared.discard("loading")

    def look_at_memory(self) -> None:
        """What a device takes for its model is one that it was given, bit for bit."""
        info, data = self.device.info, bytes(self.images[self.image].data)
        if info.model_state != ModelState.READY:
            raise Wrong(f"the device has no model after an upload: {ModelState(info.model_state).name}")
        if self.world.memory(len(data)) != data and not self.restarted():
            raise Wrong("the device took an image that differs from the one it was sent")

    def restarted(self) -> bool:
        return self._met()[1] > self.connected[1]

    def upload(self) -> None:
        self.image = self.rng.choice(list(self.images))
        self.texts = {}
        for attempt in range(RETRIES):
            try:
                with self.loading():
                    self.device.load(bytes(self.images[self.image].data))
                break
            except LinkError:
                if attempt == RETRIES - 1:
                    raise
                self.recover()
        self.look_at_memory()

    # Generations ------------------------------------------------------------------------------

    def sampling(self) -> Sampling:
        kind = self.rng.randrange(4)
        if kind < 2:
            return Sampling(temperature=0)
        if kind == 2:
            return Sampling(temperature=0, speculate=self.rng.choice((1, 3, 7)))
        return Sampling(temperature=self.rng.choice((0.5, 1.0)), top_p=self.rng.choice((0, 0.9)),
                        top_k=self.rng.choice((0, 5)), repetition_penalty=self.rng.choice((1.0, 1.2)),
                        seed=self.rng.getrandbits(60) + 1)

    def begin(self, slot: int = 0, counts=(1, 5, 20, 60), stops=(1, 2), sampling: Sampling | None = None,
              **more) -> Talk:
        """A generation that goes on from some of what the slot holds."""
        config, length = self.images[self.image].config, self.device.info.seq_len
        new = [self.rng.randrange(3, config.vocab_size) for _ in range(self.rng.choice((1, 3, 10, 40)))]
        held = self.texts.pop(slot, [])
        keep = self.rng.randrange(len(held) + 1) if self.rng.random() < 0.6 else 0
        if keep + len(new) >= length - 2:
            keep = 0
        options = Options(keep, self.rng.choice(counts), sampling or self.sampling(), stops)
        return Talk(slot, held[:keep] + new, options, self.device.generate(new, options, slot=slot, **more), length)

    def compare(self, talk: Talk, *, part: bool) -> None:
        """Tokens and positions, against a device without faults that has nothing else to do."""
        whole, options, outcome = talk.whole, talk.options, talk.outcome
        tokens = [event.token for event in talk.events]
        expected, end = self.oracle.tokens(self.image, self.scenario.columns, whole, replace(options, position=0),
                                           talk.length)
        self.result.tokens += len(tokens)
        if tokens != (expected[:len(tokens)] if part else expected):
            raise Wrong(f"tokens {tokens[:8]}... ({len(tokens)}), not {expected[:8]}... ({len(expected)}) in slot "
                        f"{talk.slot}: {options}")
        if [event.position for event in talk.events] != list(range(len(whole), len(whole) + len(tokens))):
            raise Wrong(f"positions {[event.position for event in talk.events][:8]} behind {len(whole)}")
        if not part and (outcome.reason, outcome.position) != (end.reason, end.position):
            raise Wrong(f"it ended with {outcome}, not {end}")

    def keep_rows(self, talk: Talk) -> None:
        """What the slot holds after a generation is its text; the core has nothing more to do."""
        info, config = self.device.info, self.images[self.image].config
        step = row_layout(config)[1]
        first = info.kv_base + talk.slot * config.n_layers * info.seq_len * step
        count = min(talk.outcome.position, info.seq_len)
        rows = [self.world.row(first + position * step) for position in range(count)]
        if self.restarted():
            return
        if rows != talk.ids:
            raise Wrong(f"the rows of slot {talk.slot} differ from its text: {rows[:8]}...")
        self.texts[talk.slot] = rows

    def generate(self, **more) -> None:
        self.ready()
        talk = self.begin(**more)
        talk.events += talk.generation
        self.compare(talk, part=False)
        self.keep_rows(talk)

    def long_generation(self) -> None:
        """Longer than the ring of tokens that the device can repeat."""
        self.generate(counts=(LONG,), stops=())

    def abort(self) -> None:
        self.ready()
        talk = self.begin()
        count = self.rng.randrange(12)
        for event in talk.generation:
            talk.events.append(event)
            if len(talk.events) > count:
                break
        if talk.generation.outcome is None:
            talk.events += talk.generation.abort()
        self.compare(talk, part=talk.outcome.reason == Reason.ABORT)
        self.keep_rows(talk)

    def logits(self) -> None:
        """Every logit, or an error that says that some were lost."""
        self.ready()
        config = self.images[self.image].config
        ids, seen = [self.rng.randrange(3, config.vocab_size) for _ in range(3)], []
        self.texts.pop(0, None)
        generation = self.device.generate(ids, Options(0, 3, Sampling(temperature=0), ()), flags=LOGITS,
                                          on_logits=lambda position, first, values: seen.extend(
                                              (position, first + i) for i in range(len(values))))
        list(generation)
        if seen != [(position, i) for position in range(len(ids) + 2) for i in range(config.vocab_size)]:
            raise Wrong(f"{len(seen)} logits, not {(len(ids) + 2) * config.vocab_size}, and no error")

    # The rest ---------------------------------------------------------------------------------

    def hello(self) -> None:
        info = self.device.hello()
        if (info.clock_hz, info.columns) != (100_000_000, self.scenario.columns):
            raise Wrong(f"HELLO says {info}")

    def statistics(self) -> None:
        counters = self.device.stats().counters
        if counters != tuple(100 * phase + counter for phase in range(9) for counter in range(5)):
            raise Wrong(f"STATS says {counters}")

    def read(self) -> None:
        self.ready()
        data = bytes(self.images[self.image].data)
        at, size = self.rng.randrange(len(data) // 4 - 1024) * 4, 3000
        if self.device.read(at, size) != data[at:at + size] and not self.restarted():
            raise Wrong("READ differs from what DRAM holds")

    def store(self) -> None:
        """Into the flash: an error, or the image is there. What a failure leaves is judged by the next start."""
        self.ready()
        data = bytes(self.images[self.image].data)
        if self.device.store().state != StoreState.DONE or self.flash(len(data)) != data:
            raise Wrong("the flash does not hold the image")

    def flash(self, size: int) -> bytes:
        return self.world.flash()[FLASH_OFFSET:FLASH_OFFSET + size]

    def chat(self) -> None:
        """Every line gets its answer, however often the board is gone meanwhile; the text is as without faults."""
        self.ready()
        lines = LINES[:self.rng.randrange(1, len(LINES) + 1)]
        sampling = Sampling(temperature=self.rng.choice((0, 1.0)), seed=7)
        shown, image = io.StringIO(), self.image
        chat = self._chat(self.backend(), sampling, self.again, shown)
        for line in lines:
            self.say_line(chat, line)
        self.texts = {}
        self.judge_chat(chat, lines, sampling, image)

    def say_line(self, chat: Chat, line: str) -> None:
        """As often as it takes; the line damages nothing any more from half of the tries on."""
        for attempt in range(RETRIES):
            if attempt == RETRIES // 2:
                self._settle()
                self.world.cable.spared.add("a patient person")
            turns = chat.turns
            self.act()
            chat.handle(line)
            if chat.turns > turns:
                break
        else:
            raise Wrong(f"the chat does not go on at {line!r}: {self.notes.getvalue()[-500:]}")
        self.world.cable.spared.discard("a patient person")

    def judge_chat(self, chat: Chat, lines, sampling: Sampling, image) -> None:
        """Its text is that of a chat on a device without faults."""
        with self.oracle.device(image, self.scenario.columns) as device:
            right = self._chat(self.oracle.backend(image, device), sampling, None, io.StringIO())
            for line in lines:
                right.handle(line)
        self.result.tokens += len(right.conversation.history)
        if chat.conversation.history != right.conversation.history:
            raise Wrong(f"the chat's text differs: {self.notes.getvalue()[-500:]}")

    def _chat(self, backend, sampling, reconnect, shown) -> Chat:
        progress = self.progress if reconnect else Progress.silent
        return Chat(backend, sampling=sampling, max_new=ANSWER, reconnect=reconnect, progress=progress, output=shown)

    def again(self):
        """A chat's way back: a new connection with the model in place."""
        self.device = self.connect()
        self.put(self.images[self.image])
        return self.backend()

    def everything(self) -> None:
        """On a whole line everything works, and a trap is told by who connects after it."""
        for restart in ("button", "power", "trap"):
            self.world.restart(restart)
            self.recover()
            told = self.notes.getvalue().count("the board restarted")
            if restart == "trap" and told == 0:
                raise Wrong("a trap that nobody is told of")
            self._judge_notes(restart)
        for operation in (self.hello, self.upload, self.generate, self.statistics, self.read, self.store, self.logits,
                          self.chat, self.several, self.chats_together):
            operation()
