"""A model in flash: written in the background, there after power-up, and never half there, whenever the power fails."""
import random
import struct

import pytest

import llama2_host.device.device
import llama2_host.device.store
from llama2_host.device.device import Device as Client
from llama2_host.errors import HostError
from llama2_host.device.link import DeviceError, Link
from llama2_spec.model import ModelConfig
from llama2_spec.protocol import Generate, Hello, LoadBegin, ModelState, Opcode, Status, Store, StoreState, Subject
from tests.firmware import library
from tests.firmware.images import small_image
from tests.firmware.library import Device, error
from tests.firmware.line import LinePort, transport
from tests.firmware.test_image import changed, refusal

FLASH_BYTES, OFFSET, SECTOR = 4 << 20, 2 << 20, 65536     # fake.h's
POLLS = 20_000          # more than any store here needs
CONFIG = ModelConfig(dim=64, hidden_dim=1280, n_layers=1, n_heads=8, n_kv_heads=4, head_dim=8, vocab_size=300,
                     seq_len=64)
IMAGE = small_image(CONFIG)                     # some sectors, the last one not full
OTHER = small_image(CONFIG, format="q4")
SECTORS = -(-len(IMAGE) // SECTOR)
BITSTREAM = random.Random(1).randbytes(OFFSET)

assert SECTORS >= 4 and len(IMAGE) % SECTOR


class Board:
    """A firmware with a flash that outlives it."""

    def __init__(self, built, folder):
        self.built, self.folder, self.ups = built, folder, 0
        self.content = bytearray(BITSTREAM + b"\xff" * (FLASH_BYTES - OFFSET))
        self.flash = FLASH_BYTES, OFFSET
        self.device = None

    def power_up(self, dram=b"", boot=True) -> Device:
        """The flash keeps what it holds, everything else starts anew."""
        if self.device:
            self.keep()
        self.ups += 1
        firmware = library.load(self.built, self.folder / f"{self.ups}.so")
        firmware.fake_flash(*self.flash)
        library.ctypes.memmove(firmware.fake_flash_bytes(), bytes(self.content), FLASH_BYTES)
        self.device = Device(firmware, dram, boot=boot)
        return self.device

    def keep(self):
        self.content = bytearray(library.ctypes.string_at(self.device.library.fake_flash_bytes(), FLASH_BYTES))
        assert self.content[:OFFSET] == BITSTREAM
        assert self.device.library.fake_flash_misuse() == 0

    def model(self):
        self.keep()
        return bytes(self.content[OFFSET:])


@pytest.fixture
def board(built, tmp_path):
    return Board(built, tmp_path)


def finish(device, polls=POLLS):
    """The end of a store that runs."""
    for _ in range(polls // 100):
        device.poll(100)
        stored = device.ask(Opcode.STORE, Store(0))
        if stored.state != StoreState.RUNNING:
            return stored
    raise AssertionError(stored)


def store(device):
    assert device.ask(Opcode.STORE, Store(1)).state == StoreState.RUNNING
    stored = finish(device)
    assert stored.state == StoreState.DONE
    return stored


def held(device):
    """The model's bytes, if it has one."""
    info = device.ask(Opcode.HELLO, Hello())
    return library.ctypes.string_at(device.library.fake_dram(),
                                    info.image_bytes) if info.model_state == ModelState.READY else None


def test_stored_model_is_there_after_power_up(board):
    stored = store(board.power_up(IMAGE))
    assert (stored.done, stored.written, stored.flash_bytes,
            stored.room) == (len(IMAGE), len(IMAGE), FLASH_BYTES, FLASH_BYTES - OFFSET)
    assert board.model()[:len(IMAGE)] == IMAGE
    device = board.power_up()
    assert held(device) == IMAGE
    assert device.generate(ids=(1,), max_new=3)[1].count == 3


def test_same_model_again_is_not_written_again(board):
    store(board.power_up(IMAGE))
    assert store(board.power_up()).written == 0


def test_only_what_differs_is_written(board):
    store(board.power_up(IMAGE))
    board.keep()
    board.device = None
    board.content[OFFSET + 2 * SECTOR + 77] ^= 4
    stored = store(board.power_up(IMAGE))
    assert stored.written == 2 * SECTOR             # that one, and the first, which was erased before it
    assert board.model()[:len(IMAGE)] == IMAGE


def test_another_model_takes_its_place(board):
    store(board.power_up(IMAGE))
    store(board.power_up(OTHER))
    assert held(board.power_up()) == OTHER


def test_image_in_dram_comes_first(board):
    store(board.power_up(IMAGE))
    assert held(board.power_up(OTHER)) == OTHER


# Power fails --------------------------------------------------------------------------------------

@pytest.mark.parametrize("before", [b"", OTHER], ids=["erased", "another model"])
def test_power_failure_at_any_time_leaves_no_half_model(board, before):
    """Stops a store at many places, in erasures and page writes too; what then starts is whole or nothing."""
    if before:
        store(board.power_up(before))
        board.keep()
    start, rng, states = bytes(board.content), random.Random(2), set()
    for polls in [0, 1, 2, 4, 8, 20, *(rng.randrange(20, 4000) for _ in range(6))]:
        board.device, board.content = None, bytearray(start)
        board.power_up(IMAGE).ask(Opcode.STORE, Store(1))
        board.device.poll(polls)
        device = board.power_up()
        assert held(device) in (None, before or None, IMAGE)
        states.add(held(device))
        # The next attempt makes it whole.
        store(board.power_up(IMAGE))
        assert held(board.power_up()) == IMAGE
    assert None in states


def test_interrupted_store_goes_on(board):
    device = board.power_up(IMAGE)
    device.ask(Opcode.STORE, Store(1))
    while (stored := device.ask(Opcode.STORE, Store(0))).done < len(IMAGE) // 2:
        device.poll(10)
    assert stored.state == StoreState.RUNNING
    done = stored.written
    assert 0 < store(board.power_up(IMAGE)).written <= len(IMAGE) - done
    assert held(board.power_up()) == IMAGE


def test_upload_ends_a_store(board):
    device = board.power_up(IMAGE)
    device.ask(Opcode.STORE, Store(1))
    device.poll(300)
    device.ask(Opcode.LOAD_BEGIN, LoadBegin(100, 1))
    assert device.ask(Opcode.STORE, Store(0)).state == StoreState.NONE
    board.keep()
    assert held(board.power_up()) is None


def test_reset_in_an_erasure_waits_for_the_chip(board):
    store(board.power_up(IMAGE))
    device = board.power_up()
    firmware = device.library
    sector = OFFSET + SECTOR
    for command in (b"\x06", b"\xd8" + sector.to_bytes(3, "big")):
        firmware.board_flash_select(True)
        firmware.board_flash_exchange(int.from_bytes(command.ljust(4, b"\0"), "big"), len(command))
        firmware.board_flash_select(False)
    assert firmware.flash_busy()
    device = Device(firmware)                       # the core, the line and the firmware start anew, not the chip
    assert refusal(device)[:2] == (ModelState.REFUSED, Status.BAD_PAYLOAD)
    assert firmware.fake_flash_misuse() == 0


# What the flash holds is no good ------------------------------------------------------------------

def garbage(fields):
    return lambda: changed(IMAGE, mend=False, **fields)


@pytest.mark.parametrize("content, expected", [
    (lambda: IMAGE[:SECTOR] + b"\xff" * len(IMAGE), (ModelState.REFUSED, Status.BAD_PAYLOAD)),
    (lambda: IMAGE[:-4] + b"\xff" * 4, (ModelState.REFUSED, Status.BAD_PAYLOAD)),
    (lambda: IMAGE[:600] + b"\xff" * len(IMAGE), (ModelState.REFUSED, Status.BAD_HEADER)),
    (lambda: IMAGE[:3000] + bytes([IMAGE[3000] ^ 1]) + IMAGE[3001:], (ModelState.REFUSED,)),
    (lambda: b"LLMX" + IMAGE[4:], (ModelState.NONE,)),
    (lambda: b"", (ModelState.NONE,)),
    (lambda: bytes(5000), (ModelState.NONE,)),
    (garbage({"version": 9}), (ModelState.REFUSED, Status.BAD_VERSION)),
    (garbage({"file_bytes": 0}), (ModelState.REFUSED,)),
    (garbage({"file_bytes": 0xfffffffc}), (ModelState.REFUSED, Status.INCOMPLETE, Subject.NONE, FLASH_BYTES - OFFSET,
                                           0xfffffffc)),
    (garbage({"payload_offset": 1}), (ModelState.REFUSED, Status.BAD_HEADER)),
    (garbage({"payload_offset": 0xffffffff}), (ModelState.REFUSED, Status.BAD_HEADER)),
    (garbage({"payload_offset": 4096}), (ModelState.REFUSED, Status.BAD_HEADER)),
], ids=["truncated", "last word missing", "header truncated", "bit in the weights or the header", "magic", "erased",
        "zeros", "version",
        "no bytes", "more bytes than the flash", "offset odd", "offset beyond", "offset wrong"])
def test_bad_content_is_no_model_and_no_hang(board, content, expected):
    data = content()
    board.content[OFFSET:OFFSET + len(data)] = data
    device = board.power_up()
    assert refusal(device)[:len(expected)] == expected
    assert device.request(Opcode.GENERATE, Generate(ids=(1,))).status == Status.NO_MODEL


def test_bad_header_is_not_followed_by_a_copy_of_the_weights(board):
    board.content[OFFSET:OFFSET + len(IMAGE)] = garbage({"seq_len": 3})()
    device = board.power_up()
    assert refusal(device)[:2] == (ModelState.REFUSED, Status.BAD_HEADER)
    dram = library.ctypes.string_at(device.library.fake_dram(), len(IMAGE))
    (payload_offset,) = struct.unpack_from("<I", IMAGE, 16)
    assert not any(dram[payload_offset:])


@pytest.mark.parametrize("flash, expected", [
    ((0, OFFSET), (Status.NO_FLASH, Subject.NONE, 0xffffff, 0)),
    ((FLASH_BYTES, 0), (Status.NO_FLASH, Subject.NONE, 0, 0)),
    ((OFFSET + 2 * SECTOR, OFFSET), None),
    ((OFFSET, OFFSET), (Status.FLASH_SMALL, Subject.NONE, len(IMAGE), 0)),
], ids=["no chip", "no pins", "small", "bitstream only"])
def test_no_flash_and_small_flash_are_refused(board, flash, expected):
    """A chip's size is a power of two; for "small" the offset moves instead."""
    board.flash = flash if expected else (FLASH_BYTES, FLASH_BYTES - 2 * SECTOR)
    device = board.power_up(IMAGE)
    assert (error(device.request(Opcode.STORE, Store(1))) ==
            (expected or (Status.FLASH_SMALL, Subject.NONE, len(IMAGE), 2 * SECTOR)))
    device.poll(500)
    assert library.ctypes.string_at(device.library.fake_flash_bytes(), FLASH_BYTES) == bytes(board.content)
    assert held(board.power_up()) is None


def test_store_without_a_model_is_refused(board):
    device = board.power_up()
    assert device.request(Opcode.STORE, Store(1)).status == Status.NO_MODEL


def test_chip_that_keeps_nothing_is_a_failure(board):
    device = board.power_up(IMAGE)
    device.library.fake_flash_lock()
    device.ask(Opcode.STORE, Store(1))
    stored = finish(device)
    assert (stored.state, stored.failed) == (StoreState.FAILED, (SECTORS - 1) * SECTOR)


# While it works -----------------------------------------------------------------------------------

def test_generates_while_it_stores(board):
    device = board.power_up(IMAGE)
    device.ask(Opcode.STORE, Store(1))
    tokens, done = device.generate(ids=(1,), max_new=8)
    assert device.ask(Opcode.STORE, Store(0)).state == StoreState.RUNNING and len(tokens) == done.count == 8
    assert finish(device).state == StoreState.DONE


def test_hello_is_answered_while_an_image_is_checked_or_copied(board):
    store(board.power_up(IMAGE))
    device = board.power_up(boot=False)
    answers = 0
    while device.ask(Opcode.HELLO, Hello()).model_state == ModelState.BOOTING:
        assert device.request(Opcode.LOAD_END).status != Status.OK or held(device)
        answers += 1
    assert answers > len(IMAGE) / 1024 / 16 and held(device) == IMAGE

    device = board.power_up(IMAGE, boot=False)
    device.library.fake_crc_looks(50)
    answers = 0
    while device.ask(Opcode.HELLO, Hello()).model_state == ModelState.BOOTING:
        answers += 1
    assert answers >= 5 and held(device) == IMAGE


def test_upload_ends_a_copy(board):
    store(board.power_up(IMAGE))
    device = board.power_up(boot=False)
    device.poll(5)
    device.ask(Opcode.LOAD_BEGIN, LoadBegin(100, 1))
    device.poll(500)
    assert device.ask(Opcode.HELLO, Hello()).model_state == ModelState.LOADING


# The client ---------------------------------------------------------------------------------------

@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(llama2_host.device.store, "ASK_S", 0.001)
    monkeypatch.setattr(llama2_host.device.device, "BOOT_ASK_S", 0.001)
    monkeypatch.setattr(llama2_host.device.store, "STUCK_S", 1.0)


def client(device, **options):
    return Client(Link(transport(LinePort(device))), hello_timeout_s=0.3, **options)


def test_client_stores_with_progress(board, quick):
    seen, notes = [], []

    class Bar:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update(self, done):
            seen.append(done)

    class Progress:
        def bar(self, label, total):
            assert total == len(IMAGE)
            return Bar()

        def note(self, text):
            notes.append((text, len(seen)))

    assert client(board.power_up(IMAGE)).store(progress=Progress()).written == len(IMAGE)
    [(note, at)] = notes
    assert "erased before" in note and at == 0      # before anything is
    assert seen == sorted(seen) and len(set(seen)) > SECTORS and seen[-1] == len(IMAGE)
    assert client(board.power_up()).info.image_bytes == len(IMAGE)


def test_client_waits_for_the_boot_and_says_so(board, quick, monkeypatch):
    monkeypatch.setattr(llama2_host.device.device, "BOOT_QUIET_S", 0.0)
    store(board.power_up(IMAGE))
    notes = []
    progress = type("Notes", (), {"note": lambda self, text: notes.append(text)})()
    assert client(board.power_up(boot=False), progress=progress).info.model_state == ModelState.READY
    assert len(notes) == 1 and notes[0].startswith("the device checks its model, or copies it from flash: waiting")


@pytest.mark.parametrize("flash, line", [
    ((FLASH_BYTES, 0), r"this build has no flash for a model .*: build the board with --with-spi-flash, or load "
                       r"without --flash"),
    ((FLASH_BYTES, FLASH_BYTES - 2 * SECTOR), r"the model image has \d+\.\d KiB, the board's flash room for 128.0 KiB "
     r"\(4.0 MiB less 3.9 MiB for the bitstream\): convert with --format q4"),
])
def test_client_says_what_is_in_the_way(board, quick, flash, line):
    board.flash = flash
    with pytest.raises(HostError, match=line) as caught:
        client(board.power_up(IMAGE)).store()
    assert "\n" not in str(caught.value)


def test_client_reports_a_protected_chip(board, quick):
    device = board.power_up(IMAGE)
    device.library.fake_flash_lock()
    with pytest.raises(HostError, match="does not hold what was written to it, near byte .*: is it write-protected"):
        client(device).store()


def test_client_reports_a_device_that_forgot(board, quick):
    device = board.power_up(IMAGE)
    mine = client(device)
    request = mine.link.request

    def reset_after_begin(opcode, payload=None, **options):
        reply = request(opcode, payload, **options)
        if opcode == Opcode.STORE and payload.begin:
            device.library.store_end()
        return reply
    mine.link.request = reset_after_begin
    with pytest.raises(HostError, match="the device forgot the store .*: load again, it goes on"):
        mine.store()


def test_client_refuses_to_store_nothing(board):
    with pytest.raises((HostError, DeviceError), match="the device has no model"):
        client(board.power_up()).store()
