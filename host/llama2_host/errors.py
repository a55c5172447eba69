"""The root of every error that ends a command with one line, and the exit status after Ctrl-C."""

INTERRUPTED = 130   #: as shells expect


class HostError(Exception):
    """Says in one line what happened, what was expected and what to try; control characters in names cannot break the
    line."""

    def __str__(self) -> str:
        return "".join(char if char.isprintable() else "?" for char in super().__str__())


class Terminated(BaseException):
    """The process was told to end by a signal; what is open is closed on the way out, as with KeyboardInterrupt."""

    def __init__(self, signal: int):
        super().__init__(signal)
        self.signal = signal
