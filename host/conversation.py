"""The bookkeeping of a chat: what the model has seen, what its K/V cache holds, and so which tokens a turn must send."""
import time

from host.backend import Backend
from host.errors import HostError
from host.generation import Generation, Options, Sampling, TokenEvent
from host.template import Template

BOS = 1


class Conversation:
    """Turns with one backend. ``history`` are all ids so far; the first ``cached`` of them are in the K/V cache."""

    def __init__(self, backend: Backend, template: Template, *, system: str | None = None):
        self.backend, self.template, self.system = backend, template, system
        if system:
            template.render("", system)     # complains now, not in the first turn
        self.history: list[int] = []
        self.cached = 0
        self._before: list[int] = []        #: history before the last turn
        self.forgotten = 0                  #: times the context was full and the conversation began anew

    def reset(self) -> None:
        """Forget everything; rewinding the cache costs nothing."""
        self.history, self.cached = [], 0

    def lost_cache(self) -> None:
        """The device was reset or replaced in the last turn: undo it; the next one sends the whole conversation."""
        self.history, self.cached = self._before, 0

    def undo_turn(self) -> None:
        """Take the last turn back; the cache's rows before it are still good."""
        self.history = self._before
        self.cached = min(self.cached, max(len(self.history) - 1, 0))

    def turn(self, text: str, *, max_new: int, sampling: Sampling) -> "Turn":
        """Send what is new and iterate over the answer's tokens."""
        seq_len = self.backend.config.seq_len
        self._before = self.history
        new = self._encode(text)
        if len(self.history) + len(new) >= seq_len and self.history:
            self.reset()
            self.forgotten += 1
            new = self._encode(text)
        if len(new) >= seq_len:
            raise HostError(f"this turn has {len(new)} tokens, the context {seq_len} positions: type less")
        self.history = ids = self.history + new
        count = min(max_new, seq_len - len(ids) + 1)
        options = Options(self.cached, count, sampling, self.template.stops)
        # The cache may hold the whole history; at least one token is fed, the new ones.
        generation = self.backend.generate(ids[self.cached:], options)
        return Turn(self, generation, sent=len(ids) - self.cached)

    def _encode(self, text: str) -> list[int]:
        first = not self.history
        rendered = self.template.render(text, self.system if first else None)
        return self.backend.tokenizer.encode(rendered, bos=first or self.template.bos_every_turn)


class Turn:
    """One answer: an iterator of token events that keeps the conversation's books. ``sent`` counts ids sent for it."""

    def __init__(self, conversation: Conversation, generation: Generation, *, sent: int):
        self.conversation, self.generation, self.sent = conversation, generation, sent
        self.events: list[TokenEvent] = []
        self._start_s = time.monotonic()
        self.wall_s = 0.0

    def __iter__(self) -> "Turn":
        return self

    def __next__(self) -> TokenEvent:
        try:
            event = next(self.generation)
        except StopIteration:
            self._close()
            raise
        self._book(event)
        return event

    def abort(self) -> None:
        """Stop the answer; what was generated stays in the history."""
        for event in self.generation.abort():
            self._book(event)
        self._close()

    def _book(self, event: TokenEvent) -> None:
        self.events.append(event)
        self.conversation.history.append(event.token)
        # The token was computed from the row at the position before it, which is therefore in the cache.
        self.conversation.cached = event.position

    def _close(self) -> None:
        self.wall_s = time.monotonic() - self._start_s
        conversation, outcome = self.conversation, self.generation.outcome
        if outcome is not None:
            # A device may have run ahead of the tokens it sent; never claim more than the history's own rows.
            conversation.cached = min(outcome.position, max(len(conversation.history) - 1, 0))
        ended = bool(self.events) and self.events[-1].token in conversation.template.stops
        if ended and conversation.template.restarts:
            conversation.reset()


