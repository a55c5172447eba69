"""An interactive chat over a backend: reads lines, streams answers, survives Ctrl-C and a restart of the device."""
import re
import sys
from collections.abc import Callable
from typing import TextIO

from llama2_host.backend import Backend
from llama2_host.chat import keyboard, saved
from llama2_host.chat.conversation import Conversation, Turn
from llama2_host.errors import HostError
from llama2_host.generation import Sampling, told
from llama2_host.device.link import LinkError
from llama2_host.progress import Progress
from llama2_host.statistics import measure
from llama2_host.terminal import filter_for
from llama2_host.tokenizer.base import Decoder
from llama2_host.device.transport import TransportError
from llama2_spec.protocol import Reason

HELP = ("/reset forgets the conversation, /save FILE and /load FILE keep it and bring it back, /stats shows the last "
        "answer's figures, /quit (/exit, /bye, Ctrl-D) leaves, /help says this; // at the beginning stands for one /")
COMMANDS = ("/reset", "/save", "/load", "/stats", "/quit", "/exit", "/bye", "/help")
LEAVE = ("/quit", "/exit", "/bye")
PROMPT = "> "


class Chat:
    """``reconnect`` gives a fresh backend after the connection was lost, or raises."""

    def __init__(self, backend: Backend, *, sampling: Sampling, max_new: int, system: str | None = None,
                 reconnect: Callable[[], Backend] | None = None, progress: Progress = Progress.silent,
                 output: TextIO | None = None, raw: bool = False):
        self.conversation = Conversation(backend, backend.model.template, system=system)
        self.sampling, self.max_new, self.reconnect = sampling, max_new, reconnect
        self.progress, self.output, self.raw = progress, output or sys.stdout, raw
        self.last: Turn | None = None
        self.lost: HostError | None = None      #: why the device is gone, until it is back
        self.turns = 0

    def run(self, read_line: Callable[[str], str] = input) -> None:
        """Until /quit or the end of the input."""
        self.progress.note(HELP)
        while True:
            try:
                line = read_line(PROMPT).rstrip("\r\n")
            except EOFError:
                self.output.write("\n")
                return
            except KeyboardInterrupt:
                self.progress.note("\n(/quit or Ctrl-D leaves)")
                continue
            if line.rstrip() in LEAVE:
                return
            if line.strip():
                self.handle(line)

    def handle(self, line: str) -> None:
        """Handle one line of input: a command or a turn. A path is no command, and neither is a sentence that begins
        with one."""
        command = line.rstrip()
        if command == "/reset":
            self.conversation.reset()
            self.progress.note("(a new conversation)")
        elif command == "/stats":
            self.progress.note(self.figures())
        elif match := re.fullmatch(r"/(save|load)(?:\s+(\S.*))?", command):
            self.keep(match[1], match[2])
        elif command == "/help":
            self.progress.note(HELP)
        elif re.fullmatch(r"/\w*", command):
            self.progress.note(f"no command {command} (write /{command} to say it): {HELP}")
        else:
            self.turn(line[1:] if line.startswith("//") else line)

    def keep(self, what: str, name: str | None) -> None:
        """Run /save or /load; the conversation stays as it is if they fail."""
        if name is None:
            self.progress.warn(f"(/{what} needs a file's name: /{what} story.json)")
            return
        try:
            if what == "save":
                saved.save(self.conversation, name)
                self.progress.note(f"(the conversation is in {name}: /load {name}, or --load, goes on with it)")
            else:
                saved.load(self.conversation, name)
                self.progress.note(f"(the conversation of {name} goes on: {len(self.conversation.history)} tokens, "
                                   "which the next turn sends)")
        except HostError as error:
            self.progress.warn(f"({error})")

    def turn(self, line: str) -> None:
        """Answer a line; start once more from the beginning if the connection is lost on the way."""
        try:
            if self.lost is not None:           # lost since an earlier line: is the device back?
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
            self.progress.warn(f"({error}; the conversation is kept: the next line tries again)")
        except HostError as error:          # for example a line longer than the context: the chat goes on
            self.progress.warn(f"({error})")

    def answer(self, text: str) -> None:
        """Stream the model's answer. Ctrl-C ends the answer, not the chat."""
        with keyboard.silent():
            self._answer(text)

    def _answer(self, text: str) -> None:
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
        shown = filter_for(self.output, self.raw)
        try:
            for event in turn:
                if event.token not in self.conversation.template.stops:
                    self._write(shown(decoder.feed(event.token)))
            self._write(shown(decoder.finish()))
        except KeyboardInterrupt:
            turn.abort()
            self.progress.note("\n(stopped)")
        finally:
            self._write("\n")
        self.turns += 1
        self.progress.note(self.figures())
        self._tell_end(turn)

    def _tell_end(self, turn: Turn) -> None:
        """Say why an answer ended, unless the model ended it."""
        outcome = told(turn.generation.outcome, turn.events, self.conversation.backend.config.seq_len)
        reason = outcome.reason if outcome else None
        if reason == Reason.CONTEXT:
            self.progress.note(f"(the context is full: all {self.conversation.backend.config.seq_len} positions are "
                               "used, the next turn begins a new conversation)")
        elif reason == Reason.LENGTH and len(turn.events) >= self.max_new:
            self.progress.note(f"(the answer ended because --steps {self.max_new} was reached)")

    def figures(self) -> str:
        """The last answer's statistics."""
        if self.last is None:
            return "no answer yet"
        backend = self.conversation.backend
        statistics = measure(self.last.events, prompt_tokens=self.last.sent, wall_s=self.last.wall_s,
                             clock_hz=backend.clock_hz, useful_beats=backend.useful_beats,
                             outcome=self.last.generation.outcome)
        # The last token of an answer that filled the context has no position any more.
        return (f"[{statistics.line()}; {self.last.sent} new tokens sent, "
                f"{min(len(self.conversation.history), backend.config.seq_len)} of {backend.config.seq_len} positions "
                "used]")

    def recover(self, error: HostError) -> None:
        """Connect again after the device went away; the next turn sends the conversation from its beginning."""
        self.progress.warn(f"({error})")
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
