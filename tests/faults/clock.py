"""Virtual time: stands for the time module in every module of the client."""
import os
import sys
import time
from contextlib import contextmanager

REAL = time
HANG_S = 1000.0     #: of virtual time in one operation; the client's longest patience is far below


class Hang(BaseException):
    """An operation that does not end. No Exception: the client must not catch it."""


class Clock:
    """What the client takes for :mod:`time`. Time passes while ``world`` runs, and nowhere else."""

    def __init__(self):
        self.now = 1000.0
        self.world = None

    def monotonic(self) -> float:
        return self.now

    perf_counter = time = monotonic

    def time_ns(self) -> int:
        return int(self.now * 1e9)

    def sleep(self, seconds: float) -> None:
        self.pass_until(self.now + max(seconds, 0.0))

    def pass_until(self, end: float) -> None:
        while self.world is not None and self.now < end:
            self.world.step(end)
        self.now = max(self.now, end)


CLOCK = Clock()


@contextmanager
def virtual():
    """Give CLOCK to every module of the client that was imported, and to its random numbers a world's own: a trial is
    the same each time."""
    changed = [module for name, module in sys.modules.items()
               if name.startswith("llama2_host") and getattr(module, "time", None) is REAL]
    entropy = os.urandom
    try:
        for module in changed:
            module.time = CLOCK     # type: ignore[attr-defined]
        os.urandom = lambda size: CLOCK.world.entropy.randbytes(size) if CLOCK.world else entropy(size)
        yield CLOCK
    finally:
        os.urandom = entropy
        for module in changed:
            module.time = REAL      # type: ignore[attr-defined]
