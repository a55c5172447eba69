"""Removes everything from a text that would steer a terminal: a model, a file's name or a device may hold any
characters.

Ref: ECMA-48, Control Functions for Coded Character Sets (control characters, escape and control sequences, control
strings); Unicode Standard Annex #9 (characters that turn the direction of what follows).
"""
from typing import TextIO

ESCAPE = "\x1b"
CSI, STRING, ESCAPED = "control sequence", "control string", "escape sequence"
#: what a control string ends with, beside ESC \\ and BEL
STRING_TERMINATOR = "\x9c"
BEL = "\x07"
#: behind ESC: these begin a control string (DCS, SOS, OSC, PM, APC); in C1, with 0x40 more
STRINGS = "PX]^_"
STRINGS_C1 = {chr(ord(char) + 0x40) for char in STRINGS}
CSI_C1 = "\x9b"
#: a control string that is longer, or meets a new line, was none: what follows is text again
LONGEST_STRING = 4096
#: embeddings, overrides and isolates of writing direction
TURNING = {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}


class Filter:
    """Removes control characters but new lines and tabs, escape sequences, control strings, and overrides of direction.

    A stream: sequences may be split over any number of pieces. Nothing is held back, what is kept is returned at once.
    """

    def __init__(self):
        self._within = ""       # the kind of sequence that is being removed
        self._ending = False    # ESC was met in a control string: it ends if a backslash follows
        self._length = 0

    def feed(self, text: str) -> str:
        """The part of the next piece that may be shown."""
        return "".join([char for char in text if self._shown(char)])

    def _shown(self, char: str) -> bool:
        if self._within == STRING:
            return self._in_string(char)
        if self._within == CSI:
            # Parameters and intermediates, then one final character; anything else was none of the sequence.
            if " " <= char <= "?":
                return False
            self._within = ""
            if "@" <= char <= "~":
                return False
        elif self._within == ESCAPED:
            if " " <= char <= "/":
                return False
            self._within = ""
            if char == "[":
                self._within = CSI
                return False
            if char in STRINGS:
                self._begin_string()
                return False
            if "0" <= char <= "~":
                return False
        return self._plain(char)

    def _plain(self, char: str) -> bool:
        if char == ESCAPE:
            self._within = ESCAPED
        elif char == CSI_C1:
            self._within = CSI
        elif char in STRINGS_C1:
            self._begin_string()
        else:
            control = char < " " and char not in "\n\t" or "\x7f" <= char <= "\x9f"
            return not control and char not in TURNING
        return False

    def _begin_string(self) -> None:
        self._within, self._ending, self._length = STRING, False, 0

    def _in_string(self, char: str) -> bool:
        self._length += 1
        if self._ending:
            self._within = "" if char == "\\" else ESCAPED
            return False if char == "\\" else self._shown(char)
        if char == ESCAPE:
            self._ending = True
        elif char in (BEL, STRING_TERMINATOR):
            self._within = ""
        elif char == "\n" or self._length > LONGEST_STRING:
            self._within = ""
            return self._plain(char)
        return False


def plain(text: str) -> str:
    """A whole text without control characters."""
    return Filter().feed(text)


def line(text: str) -> str:
    """A name or a message, without control characters, as a part of one line."""
    return plain(text).replace("\n", " ").replace("\t", " ")


def filter_for(stream: TextIO, raw: bool = False):
    """A function that makes pieces of text fit to be written there: unchanged into a file or pipe, or if ``raw``."""
    return Filter().feed if is_terminal(stream) and not raw else lambda text: text


def is_terminal(stream: TextIO | None) -> bool:
    """Returns whether a stream is an open terminal."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False
