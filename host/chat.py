"""An interactive chat over a backend: reads lines, streams answers, survives Ctrl-C and a restart of the device."""
import sys
from collections.abc import Callable
from typing import TextIO

from host.backend import Backend
from host.conversation import Conversation, Turn
from host.errors import HostError
from host.generation import Sampling
from host.link import LinkError
from host.progress import Progress
from host.statistics import measure
from host.tokenizer import Decoder
from host.transport import TransportError

HELP = "/reset forgets the conversation, /stats shows the last answer's figures, /quit (or Ctrl-D) leaves"
PROMPT = "> "


class Chat:
    """``reconnect`` gives a fresh backend after the connection was lost, or raises."""

    def __init__(self, backend: Backend, *, sampling: Sampling, max_new: int, system: str | None = None,
                 reconnect: Callable[[], Backend] | None = None, progress: Progress = Progress.silent,
                 output: TextIO | None = None):
        self.conversation = Conversation(backend, backend.model.template, system=system)
        self.sampling, self.max_new, self.reconnect = sampling, max_new, reconnect
        self.progress, self.output = progress, output or sys.stdout
        self.last: Turn | None = None
        self.lost: HostError | None = None      #: why the device is gone, until it is back
        self.turns = 0

    def run(self, read_line: Callable[[str], str] = input) -> None:
        """Until /quit or the end of the input."""
        self.progress.note(HELP)
        while True:
            try:
                line = read_line(PROMPT).strip()
            except EOFError:
                self.output.write("\n")
                return
            except KeyboardInterrupt:
                self.progress.note("\n(/quit or Ctrl-D leaves)")
                continue
            if line == "/quit":
                return
            if line:
                self.handle(line)

    def handle(self, line: str) -> None:
        """One line of input: a command or a turn."""
        if line == "/reset":
            self.conversation.reset()
            self.progress.note("(a new conversation)")
        elif line == "/stats":
            self.progress.note(self.figures())
        elif line.startswith("/"):
            self.progress.note(f"no command {line.split()[0]}: {HELP}")
        else:
            self.turn(line)

    def turn(self, line: str) -> None:
        """An answer, once more from the beginning if the connection was lost on the way."""
        try:
            if self.lost is not None:           # since an earlier line: is it back?
                self.recover(self.lost)
            try:
                self.answer(line)
            except (TransportError, LinkError) as error:
                self.recover(error)
                self.answer(line)
        except (TransportError, LinkError) as error:
            if self.reconnect is None:
                raise
            self.lost = error
            self.conversation.lost_cache()
            self.progress.note(f"({error}; the conversation is kept: the next line tries again)")
        except HostError as error:          # for example a line longer than the context: the chat goes on
            self.progress.note(f"({error})")

    def answer(self, text: str) -> None:
        """Stream the model's answer. Ctrl-C ends the answer, not the chat."""
        forgotten = self.conversation.forgotten
        try:
            turn = self.conversation.turn(text, max_new=self.max_new, sampling=self._sampling())
        except KeyboardInterrupt:           # between request and reply: nobody knows whether it runs
            self.conversation.backend.settle()
            self.conversation.undo_turn()
            self.progress.note("\n(stopped)")
            return
        if self.conversation.forgotten > forgotten:
            self.progress.note("(the context was full: the conversation begins anew)")
        self.last = turn
        decoder = Decoder(self.conversation.backend.tokenizer, after_bos=self.conversation.template.name != "plain")
        try:
            for event in turn:
                if event.token not in self.conversation.template.stops:
                    self._write(decoder.feed(event.token))
            self._write(decoder.finish())
        except KeyboardInterrupt:
            turn.abort()
            self.progress.note("\n(stopped)")
        finally:
            self._write("\n")
        self.turns += 1
        self.progress.note(self.figures())

    def figures(self) -> str:
        """The last answer's statistics."""
        if self.last is None:
            return "no answer yet"
        backend = self.conversation.backend
        statistics = measure(self.last.events, prompt_tokens=self.last.sent, wall_s=self.last.wall_s,
                             clock_hz=backend.clock_hz, useful_beats=backend.useful_beats,
                             outcome=self.last.generation.outcome)
        return (f"[{statistics.line()}; {self.last.sent} new tokens sent, "
                f"{len(self.conversation.history)} of {backend.config.seq_len} positions used]")

    def recover(self, error: HostError) -> None:
        """The device went away: connect again; the next turn sends the conversation from its beginning."""
        self.progress.note(f"({error})")
        if self.reconnect is None:
            raise error
        self.conversation.backend.close()
        backend = self.reconnect()
        self.lost = None
        self.conversation.backend = backend
        self.conversation.lost_cache()
        self.progress.note("(connected again)")

    def _sampling(self) -> Sampling:
        return self.sampling.following(self.turns)

    def _write(self, text: str) -> None:
        self.output.write(text)
        self.output.flush()
