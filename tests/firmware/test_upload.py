"""An upload that breaks off goes on where it stopped, over a line that loses bytes, and is checked by the core's
CRC."""
import random

import pytest

import llama2_host.device.rate
import llama2_host.device.upload
from llama2_host.device.device import Device
from llama2_host.errors import HostError
from llama2_host.device.link import DeviceError, Link
from llama2_host.progress import Progress
from llama2_spec.protocol import LOAD_CHUNK, MAX_BAUD, ModelState, Opcode
from tests.firmware import library
from tests.firmware.images import small_image
from tests.firmware.line import LinePort, transport

IMAGE = small_image()
PIECES = -(-len(IMAGE) // LOAD_CHUNK)


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch):
    monkeypatch.setattr(llama2_host.device.rate, "PROBE_S", 0.03)
    monkeypatch.setattr(llama2_host.device.rate, "CONFIRM_S", 0.3)
    monkeypatch.setattr(llama2_host.device.upload, "TIMEOUT_S", 0.05)
    monkeypatch.setattr(Link.request, "__kwdefaults__", {"timeout_s": 0.15, "tries": 4})


@pytest.fixture
def board(firmware):
    return library.Device(firmware)


class Client:
    """A client of its own on the board: a port, a session at the fast rate, and what it sent."""

    def __init__(self, board, break_after=None):
        self.port = LinePort(board)
        self.device = Device(Link(transport(self.port)), hello_timeout_s=0.2)
        assert self.device.hurry() == MAX_BAUD
        self.sent = []
        send = self.device.link.send

        def counted(opcode, sequence, payload=None):
            self.sent.append(opcode)
            self.port.cut = self.sent.count(Opcode.LOAD) == break_after
            send(opcode, sequence, payload)
        self.device.link.send = counted

    def load(self, image=IMAGE, progress=Progress.silent):
        self.device.load(image, progress=progress)
        return self.sent.count(Opcode.LOAD)


def broken(board, image=IMAGE):
    """Pieces that arrive before the cable is unplugged."""
    client = Client(board, break_after=PIECES // 2)
    with pytest.raises(HostError,
                       match=r"^/dev/ttyTEST went away \(Input/output error\): is the cable plugged in") as error:
        client.load(image)
    assert "\n" not in str(error.value)
    return PIECES // 2 - 1


def test_goes_on_where_it_stopped(board):
    before = broken(board)
    client = Client(board)
    assert client.device.info.model_state == ModelState.LOADING
    assert client.load() == PIECES - before
    assert client.device.info.model_state == ModelState.READY
    assert client.device.read(0, len(IMAGE) & ~3) == IMAGE[:len(IMAGE) & ~3]


@pytest.mark.parametrize("other", [small_image(format="q4"), IMAGE[:-1] + bytes([IMAGE[-1] ^ 1])],
                         ids=["shorter", "one bit"])
def test_another_image_starts_anew(board, other):
    broken(board)
    client = Client(board)
    try:
        pieces = client.load(other)
    except DeviceError as error:        # the bit is not what the image's CRC says
        assert "its tensors have CRC" in str(error)
        pieces = client.sent.count(Opcode.LOAD)
    assert pieces == -(-len(other) // LOAD_CHUNK)
    assert client.device.read(0, len(other) & ~3) == other[:len(other) & ~3]


def test_reset_in_between_starts_anew(built, board, tmp_path):
    broken(board)
    client = Client(library.Device(library.load(built, tmp_path / "again.so")))
    assert client.load() == PIECES


def test_memory_that_changed_during_the_break_is_refused(board):
    broken(board)
    library.ctypes.memset(library.ctypes.addressof(board.library.fake_dram().contents) + 5000, 0xa5, 1)
    with pytest.raises(DeviceError, match="the image on the device is damaged: its .* load it again"):
        Client(board).load()


@pytest.mark.parametrize("seed", range(4))
def test_dropped_bytes_only_cost_time(board, seed):
    rng = random.Random(seed)
    client = Client(board)

    def lose(data):
        at = rng.randrange(len(data))
        return data[:at] + data[at + rng.randrange(1, 9):] if rng.random() < 0.2 else data
    client.port.lose = lose
    assert client.load() > PIECES       # something was lost, and sent again
    client.port.lose = lambda data: data
    assert client.device.hello().model_state == ModelState.READY


def test_line_that_loses_every_piece_is_one_error(board):
    client = Client(board)
    client.port.lose = lambda data: data[:-20] if len(data) > 500 else data
    with pytest.raises(HostError, match="stopped answering at 0 of .* bytes: load again, it goes on from there"):
        client.load()
