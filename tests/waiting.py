"""Waiting for what must happen, however soon, and what has become of a process."""
import threading
from collections.abc import Callable
from pathlib import Path

PATIENCE_S = 60.0       #: for what must happen; how soon is not tested


def until(condition: Callable[[], bool]) -> None:
    """Wait for what must happen."""
    waited = threading.Event()
    for _ in range(int(PATIENCE_S / 0.01)):
        if condition():
            return
        waited.wait(0.01)
    raise AssertionError("it did not happen")


def state(pid: int) -> str | None:
    """The state of a process in one letter, ``T`` if it stands still, ``Z`` if it has ended and nobody has asked for
    its status; None if there is no such process. Ref: proc(5)"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):     # gone, or gone between open and read
        return None


def ended(pid: int) -> bool:
    """Whether there is no such process, or only what is left of one that has ended."""
    return state(pid) in (None, "Z")
