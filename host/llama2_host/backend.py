"""The one interface to a running model: on a device on a port, on the simulated SoC, or as integers in this process."""
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from numbers import Integral

from llama2_host.errors import HostError
from llama2_host.generation import Generation, Options, OptionTypeError, Outcome, Sampling, TokenEvent, check_ids, told
from llama2_host.image.model import Model
from llama2_host.statistics import Statistics, measure
from llama2_host.tokenizer.base import BOS, Decoder, Tokenizer
from llama2_spec.model import ModelConfig
from llama2_spec.traffic import useful_beats

DEFAULT_STEPS = 256


class Backend(ABC):
    """A model that is ready to generate; a context manager."""
    name = ""           #: where it runs: "device", "simulator" or "golden"
    clock_hz = 0        #: of the target; 0 without one
    slots = 1           #: generations that it runs at a time
    model: Model

    @abstractmethod
    def generate(self, ids: Sequence[int], options: Options) -> Generation:
        """Feed ``ids`` from ``options.position`` on, then generate."""

    def settle(self) -> None:    # noqa: B027 - most backends have nothing to end
        """End a generation that may still run after an interrupted request."""

    def close(self) -> None:     # noqa: B027 - nor anything to give back
        """Close everything that was opened."""

    def __enter__(self) -> "Backend":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    @property
    def config(self) -> ModelConfig:
        return self.model.config

    @property
    def tokenizer(self) -> Tokenizer:
        tokenizer = self.model.tokenizer
        if tokenizer is None and self.model.tokenizer_problem:
            raise HostError(f"the model's tokenizer cannot be used: {self.model.tokenizer_problem}")
        if tokenizer is None:
            raise HostError("the model has no tokenizer: name one with --tokenizer, or use --ids for token ids")
        return tokenizer

    @property
    def start_id(self) -> int:
        """The id that stands for an empty prompt: BOS, or the id between texts if the vocabulary has no BOS."""
        tokenizer = self.model.tokenizer
        return BOS if tokenizer is None else next(id for id in (tokenizer.bos_id, tokenizer.eos_id, 0)
                                                  if id is not None)

    def useful_beats(self, position: int) -> int:
        """Beats that one token at ``position`` has to move."""
        return useful_beats(self.config, self.model.image.entries, position)

    def write(self, prompt: str | Sequence[int] = "", *, steps: int = DEFAULT_STEPS, stops: Sequence[int] | None = None,
              **sampling) -> "Writing":
        """Continue a text (or token ids) as llama2.c does: ``steps`` positions in all, prompt included.

        Iterate over the result for pieces of text as they come; keywords are those of :class:`Sampling`.
        """
        if not isinstance(prompt, str):
            check_ids("prompt", prompt)
        if isinstance(steps, bool) or not isinstance(steps, Integral):
            raise OptionTypeError(f"steps is a whole number, not {steps!r}")
        ids = (self.tokenizer.encode(prompt) if isinstance(prompt, str) and prompt else list(prompt)) or [self.start_id]
        check_prompt(ids, steps, self.config)
        count = steps - len(ids) + 1            # the context may end it before
        stops = tuple(stops if stops is not None else self.model.template.stops)
        return Writing(self, ids, Options(0, count, Sampling(**sampling), stops))


class Writing:
    """A text being generated: an iterator of pieces, the prompt first. ``statistics`` are known at any time."""

    def __init__(self, backend: Backend, prompt_ids: list[int], options: Options):
        self.backend, self.prompt_ids, self.options = backend, prompt_ids, options
        self.events: list[TokenEvent] = []
        self._start_s = time.monotonic()
        self._end_s: float | None = None
        self.generation = backend.generate(prompt_ids, options)

    def tokens(self):
        """Iterate over token events."""
        for event in self.generation:
            self.events.append(event)
            yield event
        self._end_s = time.monotonic()

    def __iter__(self):
        decoder = Decoder(self.backend.tokenizer)
        for id in self.prompt_ids:
            if text := decoder.feed(id):
                yield text
        for event in self.tokens():
            if event.token not in self.options.stops and (text := decoder.feed(event.token)):
                yield text
        if text := decoder.finish():
            yield text

    def abort(self) -> None:
        """End it now; tokens that were under way still count."""
        self.events += self.generation.abort()
        self._end_s = time.monotonic()

    @property
    def ids(self) -> list[int]:
        """Prompt and generated ids, a stop token included."""
        return self.prompt_ids + [event.token for event in self.events]

    @property
    def text(self) -> str:
        return self.backend.tokenizer.decode(id for id in self.ids if id not in self.options.stops
                                             or id == self.backend.start_id)

    @property
    def outcome(self) -> Outcome | None:
        return told(self.generation.outcome, self.events, self.backend.config.seq_len)

    @property
    def statistics(self) -> Statistics:
        return measure(self.events, prompt_tokens=len(self.prompt_ids), clock_hz=self.backend.clock_hz,
                       wall_s=(self._end_s or time.monotonic()) - self._start_s,
                       useful_beats=self.backend.useful_beats, outcome=self.outcome)


def check_prompt(ids: Sequence[int], steps: int, config: ModelConfig) -> None:
    """Refuse a prompt that leaves no room, or ids that the model does not have."""
    if len(ids) > config.seq_len:
        raise HostError(f"the prompt has {len(ids)} tokens, the model's context {config.seq_len} positions: shorten "
                        "the prompt")
    if len(ids) > steps:
        raise HostError(f"the prompt has {len(ids)} tokens (BOS included), --steps {steps} leaves no room for more: "
                        "raise --steps")
    for id in ids:
        if not 0 <= id < config.vocab_size:
            raise HostError(f"token id {id} is outside the vocabulary of {config.vocab_size}: wrong tokenizer for this "
                            "model?")
