"""Gets the prompt from where the user put it: an argument, a file, or stdin."""
import codecs
import os
import select
import stat
import sys
from typing import BinaryIO

from llama2_host.errors import HostError
from llama2_host.progress import Progress

MAX_BYTES = 16 << 20        #: no context holds as much
NOTE_S, PATIENCE_S = 1.0, 10.0      #: without a word on a stdin that nobody named, say so, then give up
STDIN = "-"


def prompt_text(argument: str | None, file: str | None, progress: Progress = Progress.silent) -> str:
    """The text to continue: the argument, else the file's text, else the text on stdin unless that is a terminal.

    One line end behind a file's or a pipe's last line is not part of it. Raises one line for what is no text.
    """
    if argument is not None:
        return readable(argument)
    if file is not None and file != STDIN:
        return _text(_file(file), file)
    stdin = getattr(sys.stdin, "buffer", None)
    if file == STDIN:
        return _text(_read(stdin, "stdin"), "stdin") if stdin is not None else ""
    if stdin is None or not _has_input(progress):
        return ""
    return _text(_read(stdin, "stdin"), "stdin")


def readable(argument: str) -> str:
    """An argument as text: bytes that are no UTF-8 become the replacement character."""
    return (os.fsencode(argument).decode("utf-8", "replace") if any("\ud800" <= char <= "\udfff" for char in argument)
            else argument)


def _file(name: str) -> bytes:
    try:
        with open(name, "rb") as opened:
            return _read(opened, name)
    except OSError as error:
        raise HostError(f"cannot read --file {name}: {error.strerror or error}") from error


def _read(opened: BinaryIO, name: str) -> bytes:
    data = opened.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise HostError(f"the prompt from {name} is longer than {MAX_BYTES >> 20} MiB: no context holds as much")
    return data


def _text(data: bytes, name: str) -> str:
    try:
        text = data.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        raise HostError(f"the prompt from {name} is no text in UTF-8 (byte {error.start}): convert it, for example "
                        "with iconv") from None
    return text.removesuffix("\n").removesuffix("\r")


def _has_input(progress: Progress) -> bool:
    """Returns whether text comes on stdin, and not from a terminal. The wait for a silent open pipe is limited."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
        if sys.stdin.isatty() or stat.S_ISCHR(mode):
            return False
        if stat.S_ISREG(mode) or os.name != "posix":
            return True
        if select.select([sys.stdin], [], [], NOTE_S)[0]:
            return True
        progress.note("waiting for the prompt on stdin: give it with --prompt TEXT or --file FILE otherwise")
        if select.select([sys.stdin], [], [], PATIENCE_S - NOTE_S)[0]:
            return True
    except (OSError, ValueError):                   # a test's, or closed
        return False
    raise HostError(f"no prompt came on stdin within {PATIENCE_S:.0f} s: give it with --prompt TEXT (\"\" for none) or "
                    "--file FILE; --file - waits for stdin as long as it takes")
