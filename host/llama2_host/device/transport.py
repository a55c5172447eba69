"""Moves bytes to and from a device: serial ports and ``socket://HOST:PORT``, with errors a person can act on."""
import errno
import time
from typing import Any

import serial

from llama2_host.errors import HostError

DEFAULT_BAUD = 115200
READ_CHUNK_BYTES = 65536
WRITE_TIMEOUT_S = 30.0      #: a frame takes 0.1 s at the slowest rate; a peer that takes nothing for so long is dead


class TransportError(HostError):
    """The port cannot be opened, or it went away."""


class Transport:
    """An open byte stream. ``name`` is what the user typed; every error repeats it."""

    def __init__(self, port: serial.SerialBase, name: str):
        self.port = port
        self.name = name
        self._heard = False     # has it ever sent a byte?

    @classmethod
    def open(cls, url: str, *, baud: int = DEFAULT_BAUD, wait_s: float = 0.0) -> "Transport":
        """Open ``/dev/ttyUSB1``, ``COM3`` or ``socket://127.0.0.1:2000``; try again for up to ``wait_s`` seconds."""
        deadline = time.monotonic() + wait_s
        while True:
            try:
                # Exclusive where the system knows it: two clients on one board would steal each other's frames.
                options: Any = {} if "://" in url else {"exclusive": True}
                return cls(serial.serial_for_url(url, baudrate=baud, timeout=0, write_timeout=WRITE_TIMEOUT_S,
                                                 **options), url)
            except (OSError, ValueError) as error:      # SerialException is an OSError
                if time.monotonic() >= deadline:
                    raise TransportError(_explain_open(url, error)) from error
            time.sleep(0.2)

    def read(self, timeout_s: float) -> bytes:
        """What has arrived, at once; else what arrives first within ``timeout_s``; else nothing."""
        try:
            self.port.timeout = max(0.0, timeout_s)
            first = self.port.read(1)
            if not first:
                return b""
            self._heard = True
            self.port.timeout = 0
            return first + self._rest()
        except (OSError, TypeError, AttributeError) as error:   # pyserial raises the latter two on a closed port
            raise self._gone(error) from error

    def _rest(self) -> bytes:
        try:
            return self.port.read(READ_CHUNK_BYTES)
        except serial.SerialException:
            return b""      # the peer closed after its last bytes: deliver them, the next read reports it

    def write(self, data: bytes) -> None:
        """Send all of ``data``."""
        try:
            self.port.write(data)
        except (OSError, TypeError, AttributeError) as error:
            raise self._gone(error) from error

    @property
    def has_rate(self) -> bool:
        """Is this a serial line? A socket carries bytes at no rate."""
        return not self.name.startswith("socket://")

    @property
    def baud(self) -> int:
        return self.port.baudrate

    def set_baud(self, baud: int) -> bool:
        """Change the line's rate after what was written has left; False, and no change, if this port cannot do it."""
        before = self.port.baudrate
        try:
            self.port.flush()
            self.port.baudrate = baud
            return True
        except (OSError, TypeError, AttributeError, ValueError) as error:
            try:
                self.port.baudrate = before
            except (OSError, TypeError, AttributeError, ValueError):
                raise self._gone(error) from error
            return False

    def close(self) -> None:
        try:
            self.port.close()
        except OSError:
            pass            # it is gone already

    def _gone(self, error: BaseException) -> TransportError:
        if self.name.startswith("socket://") and not self._heard:
            return TransportError(f"{self.name} closed the connection at once: the port is in use by another client "
                                  "(a simulator serves one at a time), or the simulator ends")
        return TransportError(f"{self.name} went away ({_reason(error)}): is the cable plugged in, "
                              "the board powered, the simulator still running?")


def _reason(error: BaseException) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]


def _explain_open(url: str, error: BaseException) -> str:
    text = str(error).lower()
    code = getattr(error, "errno", None)
    if url.startswith("socket://"):
        if not _names_a_port(url):
            return f"{url} is not a port: write socket://HOST:PORT, for example socket://127.0.0.1:2000"
        return (f"nothing listens on {url} ({_reason(error)}): start `python targets/sim.py --run` "
                "and use the port it prints")
    if "://" in url:
        return f"cannot open {url}: {_reason(error)}"
    if code == errno.ENOENT or "no such file" in text or "filenotfound" in text:
        return f"port {url} does not exist: {_known_ports()}"
    if code == errno.EACCES or "permission denied" in text:
        return f"no permission to open {url}: add yourself to its group (usually `dialout`) and log in again"
    if code in (errno.EBUSY, errno.EAGAIN) or "exclusively lock" in text:
        return f"port {url} is busy: another program (a terminal, another client) has it open"
    return f"cannot open {url} as a serial port: {_reason(error)}"


def _names_a_port(url: str) -> bool:
    host, _, port = url[len("socket://"):].rpartition(":")
    return bool(host) and port.isdigit() and 0 < int(port) < 65536


def _known_ports() -> str:
    from serial.tools import list_ports
    names = [port.device for port in list_ports.comports()]
    return ("this machine has " + ", ".join(names) if names else "this machine has no serial ports; is the board "
                                                                 "plugged in?")
