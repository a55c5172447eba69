"""The model in this process: the normative integer decoder and sampler, token for token what a device computes."""
from collections.abc import Sequence
from typing import Any

from llama2_host.backend import Backend
from llama2_host.errors import HostError
from llama2_host.generation import SUPERSEDED, Options, Outcome, TokenEvent
from llama2_host.image.model import Model
from llama2_spec.golden import BLOCK, Golden, Logits
from llama2_spec.protocol import Generate, Reason
from llama2_spec.registers import REGISTERS
from llama2_spec.sampling import Sampler

ERRORS = next(register for register in REGISTERS if register.name == "errors").fields


class GoldenBackend(Backend):
    """Golden behind the interface of a device. It has no clock, and so no cycles."""
    name = "golden"

    def __init__(self, model: Model):
        self.model = model
        self.golden = Golden(model.image)
        self._current: GoldenGeneration | None = None
        self.history: dict[int, int] = {}       # token by position: the repetition penalty looks back across turns

    def generate(self, ids: Sequence[int], options: Options, *, on_logits=None) -> "GoldenGeneration":
        """``on_logits(position, first, logits)`` sees every classified position's logits, as a device's does."""
        options.check(ids)
        if options.position > self._rows:
            raise HostError(f"position {options.position} is past what the K/V cache holds ({self._rows} positions)")
        if options.position + len(ids) > self.config.seq_len:
            raise HostError(f"the prompt ends at position {options.position + len(ids)}, "
                            f"the context has {self.config.seq_len} positions: shorten the prompt")
        if self._current is not None and self._current.outcome is None:
            self._current.superseded = True
        self._current = GoldenGeneration(self, list(ids), options, on_logits)
        return self._current

    @property
    def _rows(self) -> int:
        # The last layer's: a step that Ctrl-C cut short has written the first layers' row only.
        return len(self.golden.cache[-1])


class GoldenGeneration:
    """Token events of one generation; each is computed when it is asked for."""

    def __init__(self, backend: GoldenBackend, ids: list[int], options: Options, on_logits=None):
        self.backend, self.golden, self.options, self.on_logits = backend, backend.golden, options, on_logits
        self.outcome: Outcome | None = None
        self.superseded = False                 #: a newer one writes the K/V cache
        fields: dict[str, Any] = options.sampling.fixed()
        self.sampler = Sampler(Generate(position=options.position, max_new=options.max_new, **fields))
        self.sampler.history = backend.history
        self._fed = ids                         # still to be fed, the last one is classified
        self._position = options.position       # of the next id to be fed
        self._count = 0

    def __iter__(self) -> "GoldenGeneration":
        return self

    def __next__(self) -> TokenEvent:
        if self.superseded:
            raise HostError(SUPERSEDED)
        if self.outcome is not None:
            raise StopIteration
        if self._position >= self.backend.config.seq_len:
            self._end(Reason.CONTEXT)
        elif self._count == self.options.max_new and self._count:
            self._end(Reason.LENGTH)
        if self.outcome is not None:
            raise StopIteration
        logits = self._feed()
        if self.options.max_new == 0:
            self._end(Reason.LENGTH)
            raise StopIteration
        assert logits is not None               # at least one id is fed, and a token is wanted
        token = self._choose(logits)
        event = TokenEvent(self._count, self._position, token, 0)
        self._fed, self._count = [token], self._count + 1
        if token in self.options.stops:
            self._end(Reason.STOP)
        return event

    def abort(self) -> list[TokenEvent]:
        if self.outcome is None and not self.superseded:
            self._end(Reason.ABORT)
        return []

    def _feed(self) -> Logits | None:
        """The logits of the last id, if they are wanted."""
        logits = None
        while self._fed:
            part = self._fed[:BLOCK]
            for position, token in enumerate(part, self._position):
                self.sampler.remember(position, token)
            wanted = len(part) == len(self._fed) and self.options.max_new > 0
            logits = (self.golden.prefill if wanted else self.golden.decode)(part, self._position)
            self._position += len(part)
            del self._fed[:BLOCK]
        if self.on_logits is not None and logits is not None:
            self.on_logits(self._position - 1, 0, logits.values.tolist())
        return logits

    def _choose(self, logits: Logits) -> int:
        if not self.sampler.wanted:
            return logits.argmax
        return self.sampler.choose(self._position, *logits.kept(self.sampler.scale))

    def _end(self, reason: Reason) -> None:
        draws = self.sampler.draws
        errors = sum(1 << bit for bit, field in enumerate(ERRORS) if field.name in self.golden.flags.raised)
        self.outcome = Outcome(reason, min(self._position, self.backend._rows), errors, draws,
                               self.sampler.dropped / 2 ** 32 / draws if draws else 0.0)
