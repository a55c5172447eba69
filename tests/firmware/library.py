"""The firmware as a library on this PC, with the fake core: build it, and talk to it in frames."""
import ctypes
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from llama2_spec import emit_c, protocol
from llama2_spec.frame import DELIMITER, Frame
from tests.firmware.objects import compiled

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ("-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Wno-missing-field-initializers", "-Werror", "-fPIC",
         "-fsanitize=undefined", "-fno-sanitize-recover")
COUNTED = "FIRMWARE_COVERAGE"      #: of the environment: a folder where gcov counts lines and branches
DRAM_BYTES = 4 << 20    # as in fake.h
SLOT_BYTES = 16384      # more than a slot takes
ON_BOARD_ONLY = ("board.c", "llama2.c", "main.c")    # replaced by FAKES
FAKES = tuple(ROOT / "tests/firmware" / name for name in ("fake_core.c", "fake_board.c"))


class Command(ctypes.Structure):
    _fields_ = [("words", ctypes.c_uint32 * 4)]


class Candidate(ctypes.Structure):
    _fields_ = [("token", ctypes.c_uint32), ("logit", ctypes.c_int32)]


def choose(library, candidates, mass: int, maximum: int) -> int:
    """The token that the sampler chooses from a result with these (token, logit), in any order."""
    array = (Candidate * max(len(candidates), 1))(*candidates)
    library.fake_present(library.sampler_logit_scale(), maximum, ctypes.c_uint64(mass), array, len(candidates))
    return library.fake_choose()


def counting() -> list[str]:
    """Flags to be the last ones: none, unless COUNTED names a folder. Then gcov counts there, without sanitizers and
    optimisations, which have branches of their own."""
    folder = os.environ.get(COUNTED)
    if not folder:
        return []
    return ["-O0", "-fno-sanitize=all", "--coverage", "-fprofile-abs-path", "-fprofile-update=atomic",
            "-dumpdir", f"{tempfile.mkdtemp(dir=folder)}/"]


def build(folder: Path, *, flags: tuple[str, ...] = (), more: tuple[Path, ...] = ()) -> Path:
    """Compile firmware and fake core into ``folder``, with ``flags`` and ``more`` files beyond the usual ones.

    With FIRMWARE_OBJECTS, a folder, in the environment, objects are kept there for the next build.
    """
    (folder / "generated").mkdir()
    (folder / "generated/llama2_spec.h").write_text(emit_c.header())
    sources = [path for path in sorted((ROOT / "firmware").glob("*.c")) if path.name not in ON_BOARD_ONLY]
    sources += [*FAKES, *more]
    includes = [folder, ROOT / "firmware", ROOT / "tests/firmware"]
    command = ["gcc", *FLAGS, *flags, *counting()]
    if keep := os.environ.get("FIRMWARE_OBJECTS"):
        sources = [compiled(path, command=command, includes=includes, keep=Path(keep)) for path in sources]
    subprocess.run([*command, "-shared", *(f"-I{path}" for path in includes), "-o", folder / "firmware.so", *sources],
                   check=True)
    return folder / "firmware.so"


def load(built: Path, copy: Path) -> ctypes.CDLL:
    """A firmware whose memory is as at power-up: a ``copy`` of what was built, so that it is loaded anew."""
    shutil.copyfile(built, copy)
    library = ctypes.CDLL(str(copy))
    library.fake_dram.restype = ctypes.POINTER(ctypes.c_uint8)
    library.fake_flash_bytes.restype = ctypes.POINTER(ctypes.c_uint8)
    library.fake_log.restype = ctypes.POINTER(Command)
    library.fake_logit.restype = ctypes.c_int32
    for name in ("fake_model_word", "fake_rope_word", "fake_log_count", "fake_choose", "sampler_logit_scale",
                 "lookup_guess", "sampler_draws", "exp2_weight", "exp2_logit_scale", "link_damaged"):
        getattr(library, name).restype = ctypes.c_uint32
    library.sampler_dropped.restype = ctypes.c_uint64
    return library


def select_sampler(library: ctypes.CDLL) -> None:
    """Give the sampler a slot that has no history, as at a model's installation."""
    library.sampler = ctypes.create_string_buffer(SLOT_BYTES)   # the firmware keeps a pointer to it
    library.sampler_install(library.sampler, None)
    library.sampler_select(library.sampler)


class Device:
    """Firmware that was just reset: what a host sees of it, and what its core was told."""

    def __init__(self, library, image: bytes = b"", columns: int = 1, boot: bool = True, sets: int = 1):
        self.library, self.sequence, self.received = library, 0, bytearray()
        library.fake_reset(columns)
        library.fake_candidate_sets(sets)
        size = DRAM_BYTES
        ctypes.memmove(library.fake_dram(), image.ljust(size, b"\0"), size)
        library.install_init()
        if boot:
            self.boot()
        self.begin = library.fake_log_count()

    def boot(self) -> None:
        """Let it check what DRAM and flash hold."""
        while self.ask(protocol.Opcode.HELLO, protocol.Hello()).model_state == protocol.ModelState.BOOTING:
            self.poll(16)

    def poll(self, count: int = 1, execute: int = 8) -> None:
        """Let firmware and core work in turn."""
        for _ in range(count):
            self.library.device_poll()
            self.library.fake_execute(execute)

    def feed(self, data: bytes) -> None:
        """Bytes to the device, which takes them at once."""
        while data:
            data = data[self.library.fake_feed(data, len(data)):]
            self.poll()

    def frames(self) -> list[Frame]:
        """What the device sent since the last call."""
        buffer = ctypes.create_string_buffer(8192)
        while count := self.library.fake_drain(buffer, 8192):
            self.received += buffer.raw[:count]
        *whole, rest = bytes(self.received).split(bytes([DELIMITER]))
        self.received = bytearray(rest)
        return [Frame.decode(part) for part in whole if part]

    def send(self, opcode, payload=None, sequence=None) -> int:
        """Send a request; returns its sequence number."""
        if sequence is None:
            self.sequence = sequence = self.sequence + 1
        if opcode == protocol.Opcode.GENERATE:
            self.generation = sequence
        self.feed(Frame(opcode, sequence, payload.pack() if payload else b"").encode())
        return sequence

    def request(self, opcode, payload=None, sequence=None) -> Frame:
        """Send a request and give its reply, which must be the next frame."""
        sequence = self.send(opcode, payload, sequence)
        self.poll(4)
        reply = next(frame for frame in self.frames() if frame.sequence == sequence and frame.opcode == opcode)
        return reply

    def ask(self, opcode, payload=None):
        """Like :meth:`request`, for the unpacked payload of a reply that must be OK."""
        reply = self.request(opcode, payload)
        assert reply.status == protocol.Status.OK, error(reply)
        kind = protocol.REQUESTS[opcode][1]
        return kind.unpack(reply.payload) if kind else reply.payload

    def generate(self, **options):
        """Run a generation to its end; returns (tokens, Done)."""
        self.send(protocol.Opcode.GENERATE, protocol.Generate(**options))
        return self.finish()

    def finish(self, polls: int = 20000):
        """Collect tokens and the end of the generation that runs."""
        tokens, self.logits, acknowledged = [], [], 0
        for _ in range(polls):
            self.poll()
            for frame in self.frames():
                assert frame.status == protocol.Status.OK, error(frame)
                if frame.opcode in protocol.EVENTS and frame.sequence != self.generation:
                    continue            # an earlier one's DONE, which an acknowledgement asked for again
                if frame.opcode == protocol.Opcode.TOKENS:
                    event = protocol.Tokens.unpack(frame.payload)
                    assert event.index == len(tokens)
                    tokens += event.entries[::2]
                    if event.running and len(tokens) - acknowledged >= protocol.TOKEN_RING // 4:
                        acknowledged = len(tokens)
                        self.send(protocol.Opcode.RESEND, protocol.Resend(acknowledged, most=1))
                elif frame.opcode == protocol.Opcode.LOGITS:
                    self.logits.append(protocol.Logits.unpack(frame.payload))
                elif frame.opcode == protocol.Opcode.DONE:
                    return tokens, protocol.Done.unpack(frame.payload)
        raise AssertionError("generation did not end")

    def commands(self) -> list[tuple[int, ...]]:
        """Commands pushed since reset, without the image check's."""
        log = self.library.fake_log()
        return [tuple(log[i].words) for i in range(self.begin, self.library.fake_log_count())]


def error(frame: Frame) -> tuple:
    """Status and numbers of a reply that refuses."""
    if frame.status == protocol.Status.OK:
        return (protocol.Status.OK,)
    numbers = protocol.Error.unpack(frame.payload)
    return protocol.Status(frame.status), protocol.Subject(numbers.subject), numbers.value, numbers.limit
