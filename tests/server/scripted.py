"""A backend that says what a test wants, when the test wants it."""
import threading
from collections.abc import Callable, Sequence

from llama2_host.backend import Backend
from llama2_host.generation import Options, Outcome, TokenEvent
from llama2_host.device.link import LinkError
from llama2_host.image.model import Model
from llama2_spec.protocol import Reason


class Scripted(Backend):
    """Tokens are ``script(position)``. ``gate``, if given, is acquired once per token: a test lets them through."""
    name = "golden"

    def __init__(self, model: Model, script: Callable[[int], int], gate: threading.Semaphore | None = None):
        self.model, self.script, self.gate = model, script, gate
        self.requests: list[tuple[int, list[int]]] = []
        self.made = self.aborts = 0
        self.dead = False
        self.running = False
        self.rows = 0

    def generate(self, ids: Sequence[int], options: Options, **_) -> "Generation":
        assert not self.running, "a second generation while one runs"
        assert options.position <= self.rows, "a gap in the K/V cache"
        if self.dead:
            raise LinkError("the scripted board does not answer")
        self.requests.append((options.position, list(ids)))
        self.rows = options.position + len(ids)
        self.running = True
        return Generation(self, options, self.rows)


class Generation:
    def __init__(self, backend: Scripted, options: Options, first: int):
        self.backend, self.options, self.first = backend, options, first
        self.outcome: Outcome | None = None
        self.count = 0

    def __iter__(self):
        return self

    def __next__(self) -> TokenEvent:
        backend, position = self.backend, self.first + self.count
        if self.outcome is not None or self.count == self.options.max_new or position > backend.config.seq_len:
            self._end(Reason.CONTEXT if position > backend.config.seq_len else Reason.LENGTH)
            raise StopIteration
        if backend.gate is not None:
            assert backend.gate.acquire(timeout=60), "the test lets no more tokens through"
        if backend.dead:
            backend.running = False
            raise LinkError("the scripted board does not answer")
        token = backend.script(position)
        backend.made += 1
        self.count += 1
        backend.rows = position
        if token in self.options.stops:
            self._end(Reason.STOP)
        return TokenEvent(self.count - 1, position, token, 0)

    def abort(self) -> list[TokenEvent]:
        self.backend.aborts += 1
        self._end(Reason.ABORT)
        return []

    def _end(self, reason: Reason) -> None:
        self.backend.running = False
        if self.outcome is None:
            self.outcome = Outcome(reason, self.first + max(self.count - 1, 0))
