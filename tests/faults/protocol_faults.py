"""Lets pyserial open ``faults://board``: the serial line of the world whose virtual time runs."""
import errno

from tests.faults.clock import CLOCK

URL = "faults://board"


class Serial:
    """The client's end of the line, in pyserial's manner. It is dead once its cable was pulled; opening it again
    helps."""

    def __init__(self, port=None, baudrate: int = 115200, **_):
        self.port, self.timeout = port, 0.0
        self.world = CLOCK.world
        self._buffer = bytearray()
        self._baudrate = baudrate
        self._closed = False

    def open(self) -> None:
        self.world.look()
        if not self.world.plugged:
            raise OSError(errno.ENOENT, "No such file or directory")
        self.pulled = self.world.pulled
        self.world.arrived()                # what came before is nobody's
        self.world.set_rate(self._baudrate)

    @property
    def baudrate(self) -> int:
        return self._baudrate

    @baudrate.setter
    def baudrate(self, rate: int) -> None:
        self._alive()
        self._baudrate = rate
        self.world.set_rate(rate)

    def _alive(self) -> None:
        if self._closed:
            raise OSError(errno.EBADF, "Bad file descriptor")
        self.world.look()
        if self.pulled != self.world.pulled:
            raise OSError(errno.EIO, "Input/output error")

    def read(self, size: int) -> bytes:
        deadline = CLOCK.now + (self.timeout or 0.0)
        while True:
            self._alive()
            self._buffer += self.world.arrived()
            if self._buffer or CLOCK.now >= deadline:
                data = bytes(self._buffer[:size])
                del self._buffer[:size]
                return data
            self.world.step(deadline)

    def write(self, data: bytes) -> None:
        self._alive()
        self.world.send(bytes(data))

    def flush(self) -> None:
        self._alive()
        CLOCK.sleep(0.01)                   # what was written is on the line by then

    def close(self) -> None:
        self._closed = True
