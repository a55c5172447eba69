"""A serial port of pyserial's manner whose other end is the firmware on this PC: rates that differ garble bytes."""
import ctypes
import time

from llama2_host.device.transport import Transport

MICROSECOND_CYCLES = 100


class LinePort:
    """``device`` is a :class:`tests.firmware.library.Device`. Its time is the PC's.

    ``able`` rates can be set, others raise ValueError. ``carries(rate)`` is False for a rate at which this cable
    garbles. ``cut`` unplugs it.
    """

    def __init__(self, device, *, baudrate=115200, able=None, carries=lambda rate: True):
        self.device, self.able, self.carries = device, able, carries
        self.rates = []                 # that were set
        self.cut = False
        self.timeout = 0.0
        self.lose = lambda data: data   # what becomes of a write
        self._buffer = bytearray()
        self._time_s = time.monotonic()
        self.baudrate = baudrate

    @property
    def baudrate(self):
        return self._baudrate

    @baudrate.setter
    def baudrate(self, rate):
        if self.able is not None and rate not in self.able:
            raise ValueError(f"Failed to set custom baud rate ({rate})")
        self._drain()
        self._baudrate = rate
        self.rates.append(rate)
        self.device.library.fake_rate(rate if self.carries(rate) else 1)

    def _alive(self):
        if self.cut:
            raise OSError(5, "Input/output error")

    def _drain(self):
        now_s = time.monotonic()
        self.device.library.fake_wait(int((now_s - self._time_s) * 1e6) * MICROSECOND_CYCLES)
        self._time_s = now_s
        self.device.poll(4)
        buffer = (ctypes.c_uint8 * 8192)()
        while count := self.device.library.fake_drain(buffer, 8192):
            self._buffer += bytes(buffer[:count])
            self.device.poll(4)

    def read(self, size):
        self._alive()
        deadline = time.monotonic() + self.timeout
        self._drain()
        while not self._buffer and time.monotonic() < deadline:
            time.sleep(0.001)
            self._drain()
        data, self._buffer = bytes(self._buffer[:size]), self._buffer[size:]
        return data

    def write(self, data):
        self._alive()
        self._drain()
        self.device.feed(bytes(self.lose(bytes(data))))

    def flush(self):
        self._alive()
        self._drain()

    def close(self):
        pass


def transport(port) -> Transport:
    return Transport(port, "/dev/ttyTEST")
