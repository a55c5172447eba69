"""A board with the real firmware, its cable, and the time in which both live."""
import _ctypes
import ctypes
import itertools
import os
import random
import tempfile
from collections import deque
from pathlib import Path

from llama2_spec.protocol import Restart
from tests.faults.cable import TO_DEVICE, TO_HOST, Cable
from tests.faults.clock import CLOCK, HANG_S, Hang
from tests.firmware import library

CLOCK_HZ = 100_000_000      # fake_board.c's
STEP_S = 5e-5
FIFO_BYTES = 512            # soc.base.UART_RX_FIFO
FLASH_BYTES, FLASH_OFFSET = 4 << 20, 2 << 20
OUT_BYTES = 65536
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
TRAPS = (2, 5, 7)           # an illegal instruction, a read and a write to nowhere


class Line(ctypes.Structure):
    """struct world of world.c."""
    _fields_ = [("step_cycles", ctypes.c_uint32), ("step_bytes", ctypes.c_uint32), ("commands", ctypes.c_uint32),
                ("fifo_bytes", ctypes.c_uint32), ("data", ctypes.c_char_p), ("in_bytes", ctypes.c_uint32),
                ("taken", ctypes.c_uint32), ("out", ctypes.c_void_p), ("room", ctypes.c_uint32),
                ("sent", ctypes.c_uint32), ("lost", ctypes.c_uint32)]


class Firmware:
    """Loads the firmware as often as it begins anew, each time from a copy of what was built once."""

    def __init__(self, sanitized: bool = True):
        self._folder = tempfile.TemporaryDirectory(prefix="llama2-faults-")
        self.built = library.build(Path(self._folder.name), flags=SANITIZERS if sanitized else (),
                                   more=(Path(__file__).parent / "world.c",))
        self._numbers = itertools.count()

    def load(self) -> ctypes.CDLL:
        copy = self.built.with_name(f"{os.getpid()}-{next(self._numbers)}.so")
        firmware = library.load(self.built, copy)
        copy.unlink()
        firmware.world_run.restype = ctypes.c_uint64
        for name in ("fake_flash_misuse", "fake_resets"):
            getattr(firmware, name).restype = ctypes.c_uint32
        return firmware


class World:
    """``step`` lets time pass; everything else happens at the present time.

    ``sets`` is how many sets of candidates the core has, ``commands`` how many it executes in a step of 50 us,
    ``memory`` what DRAM holds at first.
    """

    def __init__(self, firmware: Firmware, cable: Cable, *, columns: int = 2, sets: int = 1, commands: int = 40,
                 memory: bytes = b"", flash: bool = True, seed: int = 0):
        self.firmware, self.cable = firmware, cable
        self.columns, self.sets, self.commands, self.has_flash = columns, sets, commands, flash
        self.rng = random.Random(seed)
        self.entropy = random.Random(seed)          #: what the client takes for the system's
        self.rate = 115200
        self.plugged, self.pulled = True, 0
        self.plan: list[tuple[float, str]] = []     #: when, and what: a way to restart, or "pull", "plug"
        self.restarts: list[int] = []               #: Restart words, as HELLO must tell them
        self.lost = 0                               #: bytes that the receiver had no room for
        self.began = CLOCK.now                      #: of the operation that may not hang
        self.library: ctypes.CDLL | None = None
        self._out = ctypes.create_string_buffer(OUT_BYTES)
        self._to_device: deque[tuple[float, bytes]] = deque()
        self._to_host: deque[tuple[float, bytes]] = deque()
        self._power_up(memory.ljust(library.DRAM_BYTES, b"\0"), b"\xff" * FLASH_BYTES, Restart.POWER << 24)

    # The board --------------------------------------------------------------------------------

    def _power_up(self, memory: bytes, flash: bytes, why: int) -> None:
        if self.library is not None:
            _ctypes.dlclose(self.library._handle)
        self.library = firmware = self.firmware.load()
        firmware.fake_reset(self.columns)
        firmware.fake_candidate_sets(self.sets)
        if self.has_flash:
            firmware.fake_flash(FLASH_BYTES, FLASH_OFFSET)
            ctypes.memmove(firmware.fake_flash_bytes(), flash, FLASH_BYTES)
        ctypes.memmove(firmware.fake_dram(), memory, library.DRAM_BYTES)
        firmware.fake_transmitter(16)
        firmware.fake_rate(self.rate)
        firmware.restart_begin()
        if why >> 24 != Restart.POWER:              # what outlived the reset
            if why >> 24 != Restart.OUTSIDE:
                firmware.restart(why >> 24, why & 0xffffff)
            firmware.restart_begin()
        firmware.world_begin()
        firmware.install_init()
        self._to_device.clear()
        self._to_host.clear()

    def restart(self, way: str) -> None:
        """"power" fails and comes back, somebody pushes the "button", or the firmware meets a "trap"."""
        if way == "power" and self.has_flash:
            self.library.fake_flash_cut(self.rng.getrandbits(32))
        memory = self.rng.randbytes(library.DRAM_BYTES) if way == "power" else self.memory()
        why = {"power": Restart.POWER << 24, "button": Restart.OUTSIDE << 24,
               "trap": Restart.TRAP + self.rng.choice(TRAPS) << 24 | self.rng.randrange(0, 0x7800, 4)}[way]
        self.restarts.append(why)
        self.cable.counts[f"reset by {way}"] += 1
        self._power_up(memory, self.flash(), why)

    def memory(self, size: int = library.DRAM_BYTES) -> bytes:
        return ctypes.string_at(self.library.fake_dram(), size)

    def row(self, beat: int) -> int:
        """The word that stands for the K/V row at this beat of DRAM; -1 where there is none."""
        if not 0 <= 16 * beat < library.DRAM_BYTES:
            return -1
        return int.from_bytes(ctypes.string_at(ctypes.addressof(self.library.fake_dram().contents) + 16 * beat, 4),
                              "little")

    def flash(self) -> bytes:
        return ctypes.string_at(self.library.fake_flash_bytes(), FLASH_BYTES) if self.has_flash else b""

    def close(self) -> None:
        _ctypes.dlclose(self.library._handle)
        self.library = None

    # Time -------------------------------------------------------------------------------------

    def look(self) -> None:
        """What was planned for now, or earlier, happens."""
        while self.plan and self.plan[0][0] <= CLOCK.now:
            _, what = self.plan.pop(0)
            if what == "pull":
                self.plugged, self.pulled = False, self.pulled + 1
                self.cable.counts["disconnect"] += 1
                self._to_host.clear()
            elif what == "plug":
                self.plugged = True
            else:
                self.restart(what)

    def step(self, end: float) -> None:
        """Let time pass until ``end``, or until something has come out."""
        self.look()
        due = b""
        while self._to_device and self._to_device[0][0] <= CLOCK.now:
            due += self._to_device.popleft()[1]
        queues = [queue[0][0] for queue in (self._to_device, self._to_host) if queue]
        until = max(min([end, *queues, *(at for at, _ in self.plan)]), CLOCK.now + STEP_S)
        line = self._line(due)
        passed = self.library.world_run(ctypes.byref(line), ctypes.c_uint64(int((until - CLOCK.now) * CLOCK_HZ) + 1))
        CLOCK.now += passed / CLOCK_HZ
        self.lost += line.lost
        if line.taken < len(due):
            self._to_device.appendleft((CLOCK.now, due[line.taken:]))
        if line.sent:
            self._carry(self._to_host, TO_HOST, self._out.raw[:line.sent])
        if CLOCK.now - self.began > HANG_S:
            raise Hang(f"{CLOCK.now - self.began:.0f} s have passed")

    def _line(self, due: bytes) -> Line:
        step_s = max(STEP_S, 10 / self.rate)
        return Line(int(step_s * CLOCK_HZ), max(1, round(step_s * self.rate / 10)), self.commands, FIFO_BYTES, due,
                    len(due), 0, ctypes.addressof(self._out), OUT_BYTES, 0, 0)

    # The line ---------------------------------------------------------------------------------

    def _carry(self, queue: deque, direction: int, data: bytes) -> None:
        release = max(CLOCK.now, queue[-1][0] if queue else 0.0)
        for late_s, piece in self.cable.carry(direction, data, CLOCK.now):
            release = max(release, CLOCK.now + late_s)
            if piece and self.plugged:
                queue.append((release, piece))

    def send(self, data: bytes) -> None:
        """From the client."""
        self._carry(self._to_device, TO_DEVICE, data)

    def arrived(self) -> bytes:
        """At the client."""
        data = b""
        while self._to_host and self._to_host[0][0] <= CLOCK.now:
            data += self._to_host.popleft()[1]
        return data

    def set_rate(self, rate: int) -> None:
        """Of the client's end of the line."""
        self.rate = rate
        self.library.fake_rate(rate)
