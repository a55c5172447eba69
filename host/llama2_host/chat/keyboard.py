"""The keyboard of a chat: editing, a history that stays, several lines in one turn, and keys that do not mix into an
answer."""
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from llama2_host.progress import Progress
from llama2_host.terminal import is_terminal

VARIABLE = "LLAMA2_HOST_HISTORY"
MAX_HISTORY_BYTES = 4 << 20
#: Flags of a terminal, by their place in what termios.tcgetattr returns: of its input, and local ones.
FLAGS = {"ICRNL": 0, "ECHO": 3, "ICANON": 3}


def history_file() -> Path | None:
    """The file that remembers lines; None if LLAMA2_HOST_HISTORY is empty."""
    if VARIABLE in os.environ:
        return Path(os.environ[VARIABLE]) if os.environ[VARIABLE] else None
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(base) / "llama2-host" / "history"


def reader(commands: Sequence[str], progress: Progress = Progress.silent) -> Callable[[str], str]:
    """Returns a function that reads a turn from a person: Enter sends, Alt-Enter begins a line, and pasted lines are
    one turn."""
    try:
        from prompt_toolkit import PromptSession
    except ImportError:
        progress.detail("prompt_toolkit is missing: lines are read without a history")
        return input
    session: PromptSession = PromptSession(history=_history(progress), multiline=True, key_bindings=_keys(),
                                           completer=_completer(commands),
                                           complete_while_typing=False, prompt_continuation="  ",
                                           enable_history_search=True)
    return lambda prompt: session.prompt(prompt)


def _history(progress: Progress):
    """A history in the file, or in memory if there can be no file; it forgets turns that begin with a space."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory
    path = history_file()
    if path is None:
        return InMemoryHistory()

    class Kept(FileHistory):
        def store_string(self, string: str) -> None:
            if not string.startswith(" "):
                with contextlib.suppress(OSError):
                    super().store_string(string)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.exists() and path.stat().st_size > MAX_HISTORY_BYTES:
            path.replace(path.with_suffix(".old"))
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    except OSError as error:
        progress.note(f"lines are not remembered: {path}: {error.strerror or error}")
        return InMemoryHistory()
    return Kept(str(path))


def _keys():
    """Key bindings: Enter sends a text of any number of lines; Alt-Enter and Ctrl-J begin a new line."""
    from prompt_toolkit.key_binding import KeyBindings
    keys = KeyBindings()

    @keys.add("enter")
    def send(event) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    @keys.add("c-j")
    def begin_line(event) -> None:
        event.current_buffer.insert_text("\n")
    return keys


def _completer(commands: Sequence[str]):
    """Commands at the beginning of a turn, and files behind /save and /load."""
    from prompt_toolkit.completion import Completer, Completion, PathCompleter
    from prompt_toolkit.document import Document

    class Commands(Completer):
        def get_completions(self, document, event):
            text = document.text_before_cursor
            command, space, name = text.partition(" ")
            if space and command in ("/save", "/load"):
                yield from PathCompleter(expanduser=True).get_completions(Document(name), event)
            elif not space and text.startswith("/"):
                for one in commands:
                    if one.startswith(text):
                        yield Completion(one, start_position=-len(text))
    return Commands()


@contextlib.contextmanager
def reading(commands: Sequence[str], progress: Progress = Progress.silent) -> Iterator[Callable[[str], str]]:
    """Yields :func:`reader`'s function. Until the end Enter arrives as it was typed, whatever reads the terminal: one
    that comes between an answer and the next prompt still sends."""
    read = reader(commands, progress)
    with contextlib.nullcontext() if read is input else _terminal_without("ICRNL"):
        yield read


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """While an answer is written, keys are not shown: they wait for the next turn. Ctrl-C works as ever."""
    with _terminal_without("ICRNL", "ECHO", "ICANON"):
        yield


@contextlib.contextmanager
def _terminal_without(*flags: str) -> Iterator[None]:
    """The terminal, if there is one, without these of termios's :data:`FLAGS`."""
    try:
        import termios
        if not (is_terminal(sys.stdin) and is_terminal(sys.stdout)):
            raise OSError
        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
    except (ImportError, OSError, ValueError, AttributeError):     # no terminal, or a system without them
        yield
        return
    changed = [*before]
    for flag in flags:
        changed[FLAGS[flag]] &= ~getattr(termios, flag)
    termios.tcsetattr(descriptor, termios.TCSANOW, changed)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, before)
