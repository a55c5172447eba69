"""Keeps the books of a chat: the ids that the model has seen, those in its K/V cache, and so the ids that a turn must
send."""
import time

from llama2_host.backend import Backend
from llama2_host.errors import HostError
from llama2_host.generation import Generation, Options, Sampling, TokenEvent
from llama2_host.chat.template import Template
from llama2_host.tokenizer.base import Decoder


class Conversation:
    """Turns with one backend. ``history`` are all ids so far; the first ``cached`` of them are in the K/V cache."""

    def __init__(self, backend: Backend, template: Template, *, system: str | None = None):
        self.backend, self.system = backend, system
        self.template = template.resolved(backend.tokenizer)
        self.template.check(system)         # raises now and not in the first turn
        self.cached = 0
        self.forgotten = 0                  #: times the context was full and the conversation began anew
        self.reset()
        self._keep()

    def reset(self) -> None:
        """Forget everything; rewinding the cache costs nothing."""
        self.history: list[int] = []
        self.cached = 0
        self.messages: list[dict[str, str]] = []    #: for Jinja; the last answer joins them with the next turn
        self._said: list[str | int] = []            #: for patterns: texts before the last answer, and stop ids between
                                                    #: them
        self._answer: list[int] = []

    def _keep(self) -> None:
        self._before = list(self.history), list(self.messages), list(self._said), list(self._answer)

    def _restore(self) -> None:
        history, messages, said, answer = self._before
        self.history, self.messages, self._said, self._answer = list(history), list(messages), list(said), list(answer)

    def state(self) -> dict:
        """Everything that is needed to go on with it, as JSON values."""
        return {"model": self._model(), "template": self.template.name, "system": self.system, "history": self.history,
                "messages": self.messages, "said": self._said, "answer": self._answer}

    def restore(self, state: dict) -> None:
        """Go on with a :meth:`state`; the next turn sends it all. Raises one line if it is another model's."""
        model, template = state["model"], str(state["template"])
        if model != self._model():
            raise HostError(f"this conversation was held with {str(model['name'])[:80]}, and this is "
                            f"{self._model()['name'][:80]}: load that model, or begin anew")
        if template != self.template.name:
            raise HostError(f"this conversation was held with the template {template[:40]}: add --template "
                            f"{template[:40]}")
        history, said = [int(id) for id in state["history"]], [part if isinstance(part, str) else int(part)
                                                               for part in state["said"]]
        if not all(0 <= id < self.backend.config.vocab_size for id in history):
            raise ValueError("ids outside the vocabulary")
        messages = [{"role": str(one["role"]), "content": str(one["content"])} for one in state["messages"]]
        answer = [int(id) for id in state["answer"]]
        system = None if state["system"] is None else str(state["system"])
        self.history, self.messages, self.system, self.cached = history, messages, system, 0
        self._said, self._answer = said, answer
        self._keep()

    def _model(self) -> dict:
        """Identity of the model on which the meaning of the ids depends: its weights, and its header without the
        context."""
        image = self.backend.model.image
        return {"name": image.provenance or "unknown", "vocab_size": image.config.vocab_size,
                "layers": image.config.n_layers, "dim": image.config.dim}

    def lost_cache(self) -> None:
        """Undo the last turn, in which the device was reset or replaced; the next turn sends the whole conversation."""
        self._restore()
        self.cached = 0

    def undo_turn(self) -> None:
        """Take the last turn back; the cache's rows before it are still good."""
        self._restore()
        self.cached = min(self.cached, max(len(self.history) - 1, 0))

    def turn(self, text: str, *, max_new: int, sampling: Sampling) -> "Turn":
        """Send what is new and iterate over the answer's tokens."""
        seq_len = self.backend.config.seq_len
        self._keep()
        cached = self.cached
        try:
            ids = self._encode(text)
            if forgotten := len(ids) >= seq_len and bool(self.history):
                self.reset()
                ids = self._encode(text)
            if len(ids) >= seq_len:
                raise HostError(f"this turn has {len(ids)} tokens, the context {seq_len} positions: type less")
        except HostError:
            self._restore()
            self.cached = cached
            raise
        self.forgotten += forgotten
        # The cache may hold the whole history, or differ from it if a template rewrites an answer.
        self.cached = min(self.cached, _common(ids, self.history), len(ids) - 1)
        self.history, self._answer = ids, []
        count = min(max_new, seq_len - len(ids) + 1)
        options = Options(self.cached, count, sampling, self.template.stops)
        generation = self.backend.generate(ids[self.cached:], options)
        return Turn(self, generation, sent=len(ids) - self.cached)

    def _encode(self, text: str) -> list[int]:
        """The ids of the whole conversation with a new turn: the turn is the tail of one text, not the beginning of
        another."""
        tokenizer, first = self.backend.tokenizer, not self.history
        if self.template.jinja:
            ids = tokenizer.encode_chat(self._rendered(text))
        elif self.template.bos_every_turn:          # each turn is a text of its own, as in llama2.c
            ids = self.history + tokenizer.encode(self.template.render(text, self.system if first else None))
        else:
            ids = self._encode_said(text)
        # The model needs a token to go on from even if nothing was said and no text begins with BOS.
        return ids or [next(id for id in (tokenizer.bos_id, tokenizer.eos_id, 0) if id is not None)]

    def _rendered(self, text: str) -> str:
        if not self.messages and self.system:
            self.messages = [{"role": "system", "content": self.system}]
        if self.messages and self.messages[-1]["role"] == "user":
            self.messages = [*self.messages, {"role": "assistant", "content": self._answer_text()}]
        self.messages = [*self.messages, {"role": "user", "content": text}]
        return self.template.render_messages(self.messages)

    def _encode_said(self, text: str) -> list[int]:
        """Ids of all turns of a pattern, which are encoded as one text between stop tokens without a text."""
        tokenizer = self.backend.tokenizer
        if not self._said:
            self._said = [self.template.render(text, self.system)]
        else:
            self._tell(self._answer_text())
            if self._answer and self._answer[-1] in self.template.stops:
                end = next((text for text, id in tokenizer.specials.items() if id == self._answer[-1]), None)
                self._tell(end) if end is not None else self._said.extend((self._answer[-1], ""))
            self._tell(self.template.follow(str(self._said[-1]), self.template.render(text)))
        ids: list[int] = []
        for number, part in enumerate(self._said):
            ids += [part] if isinstance(part, int) else tokenizer.encode(part, bos=not number)
        return ids

    def _tell(self, text: str) -> None:
        self._said[-1] = str(self._said[-1]) + text         # the last is always a text

    def _answer_text(self) -> str:
        decoder = Decoder(self.backend.tokenizer, after_bos=False)
        return "".join([decoder.feed(id) for id in self._answer if id not in self.template.stops]) + decoder.finish()


def _common(a: list[int], b: list[int]) -> int:
    """Length of the common beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


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
        """Stop the answer; its tokens so far stay in the history."""
        for event in self.generation.abort():
            self._book(event)
        self._close()

    def _book(self, event: TokenEvent) -> None:
        self.events.append(event)
        self.conversation.history.append(event.token)
        self.conversation._answer.append(event.token)
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


