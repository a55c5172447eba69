"""The serial line goes to the fastest rate that works, and comes back from every one that does not."""
import pytest

import llama2_host.device.rate
from llama2_host.device.device import Device
from llama2_host.errors import HostError
from llama2_host.device.link import Link
from llama2_host.progress import Progress
from llama2_host.device.transport import DEFAULT_BAUD, Transport
from llama2_spec.protocol import MAX_BAUD, MAX_CONFIRM, Baud, Hello, Line, Opcode, Status, Subject
from tests.firmware import library
from tests.firmware.images import small_image
from tests.firmware.line import LinePort, transport

MS = 100_000    # cycles of the fake core


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch):
    for name, value in (("CONFIRM_S", 0.1), ("PROBE_S", 0.03), ("RESTORE_S", 0.03)):
        monkeypatch.setattr(llama2_host.device.rate, name, value)
    monkeypatch.setattr(llama2_host.device.rate._find, "__defaults__", (0.3,))
    monkeypatch.setattr(Link.request, "__kwdefaults__", {"timeout_s": 0.15, "tries": 4})


@pytest.fixture
def board(firmware):
    return library.Device(firmware)


class Notes(Progress):
    def __init__(self):
        super().__init__()
        self.lines = []

    def note(self, text):
        self.lines.append(text)


# The firmware alone -------------------------------------------------------------------------------

def answers(board, rate):
    """Does the firmware understand a host at this rate?"""
    board.library.fake_rate(rate)
    board.feed(b"\0" + library.Frame(Opcode.HELLO, 900, Hello().pack()).encode())
    board.poll(4)
    buffer = library.ctypes.create_string_buffer(8192)
    count = board.library.fake_drain(buffer, 8192)
    try:
        return [library.Frame.decode(part).sequence for part in buffer.raw[:count].split(b"\0") if part] == [900]
    except ValueError:
        return False


def switch(board, rate, confirm_ms=5):
    line = board.ask(Opcode.BAUD, Baud(rate, confirm_ms))
    board.poll(2)
    board.library.fake_rate(rate)
    return line


def test_asking_changes_nothing(board):
    assert board.ask(Opcode.BAUD, Baud(0, 0)) == Line(115200, 115200, MAX_BAUD)
    assert answers(board, 115200)


def test_reply_comes_at_the_old_rate_and_the_next_at_the_new(board):
    assert switch(board, 1_000_000) == Line(1_000_000, 115200, MAX_BAUD)
    assert answers(board, 1_000_000)
    assert not answers(board, 115200)


def test_returns_unless_confirmed(board):
    switch(board, 1_000_000)
    assert answers(board, 1_000_000)            # a HELLO alone does not show that its reply arrived
    board.library.fake_wait(4 * MS)
    assert answers(board, 1_000_000)
    board.library.fake_wait(2 * MS)
    board.poll()
    assert answers(board, 115200)


def test_confirmed_rate_stays(board):
    switch(board, 1_000_000)
    board.ask(Opcode.BAUD, Baud(1_000_000, 0))
    board.library.fake_wait(4000 * MS)
    board.poll()
    assert answers(board, 1_000_000)


def test_first_rate_needs_no_confirmation(board):
    switch(board, 1_000_000)
    board.ask(Opcode.BAUD, Baud(1_000_000, 0))
    switch(board, 115200, 0)
    board.library.fake_wait(4000 * MS)
    board.poll()
    assert answers(board, 115200)


@pytest.mark.parametrize("baud, subject", [(Baud(MAX_BAUD + 1, 5), Subject.BAUD), (Baud(300, 5), Subject.BAUD),
                                           (Baud(1_000_000, MAX_CONFIRM + 1), Subject.CONFIRM)])
def test_rate_out_of_range_is_refused(board, baud, subject):
    assert library.error(board.request(Opcode.BAUD, baud))[:2] == (Status.BAD_VALUE, subject)
    assert answers(board, 115200)


def test_no_switch_while_the_reply_is_under_way(board):
    board.library.fake_transmitter(3)
    board.send(Opcode.BAUD, Baud(1_000_000, 5))
    replies = []
    for _ in range(100):
        board.poll()
        replies += board.frames()               # drained at the old rate: garbled if it had switched early
    assert [reply.opcode for reply in replies] == [Opcode.BAUD]


# The client ---------------------------------------------------------------------------------------

def opened(port, **options):
    """What Device.open does with a port that is there."""
    return Device(Link(transport(port)), hello_timeout_s=0.2)


def test_client_takes_the_fastest_rate_and_leaves_the_first(board):
    port = LinePort(board)
    device = opened(port)
    assert device.hurry() == MAX_BAUD == port.baudrate
    device.load(small_image())
    assert device.info.image_bytes == len(small_image())
    device.close()
    assert port.baudrate == DEFAULT_BAUD and answers(board, DEFAULT_BAUD)


@pytest.mark.parametrize("options, expected", [
    (dict(carries=lambda rate: rate <= 1_000_000), 1_000_000),
    (dict(carries=lambda rate: rate <= 115200), 115200),
    (dict(able=(115200, 460800, 921600)), 921600)])
def test_client_settles_for_what_cable_and_port_can_do(board, options, expected):
    port, notes = LinePort(board, **options), Notes()
    device = opened(port)
    assert device.hurry(progress=notes) == expected == port.baudrate
    assert device.hello().version
    assert bool(notes.lines) == ("carries" in options)
    for line in notes.lines:
        assert "does not work at" in line


def test_client_obeys_its_limit(board):
    assert opened(LinePort(board)).hurry(most=1_000_000) == 1_000_000


def test_second_client_finds_the_rate_that_the_first_left(board):
    opened(LinePort(board)).hurry()             # and dies
    port = LinePort(board)
    device = opened(port)
    assert port.baudrate == MAX_BAUD and device.hurry() == MAX_BAUD
    device.close()
    assert answers(board, DEFAULT_BAUD)


@pytest.mark.parametrize("lost", range(1, 9))
def test_any_lost_request_leaves_both_at_one_rate(board, lost):
    port = LinePort(board)
    device = opened(port)
    count = 0

    def lose(data):
        nonlocal count
        count += 1
        return b"" if count == lost else data
    port.lose = lose
    assert device.hurry() == port.baudrate >= 1_000_000
    assert device.stats().cycles
    device.close()


def test_lost_confirmation_is_noticed(board):
    """The device goes back, or stays: the client finds it either way."""
    port = LinePort(board)
    device = opened(port)
    drain, swallowed = port.read, []

    def read(size):                             # every reply at the fast rate but HELLO's is lost
        data = drain(size)
        if port.baudrate > DEFAULT_BAUD and len(data) and len(swallowed) < 2 and port.hello_seen:
            swallowed.append(data)
            return b""
        port.hello_seen = port.baudrate > DEFAULT_BAUD
        return data
    port.hello_seen = False
    port.read = read
    assert device.hurry() == port.baudrate
    assert device.stats().cycles


def test_silent_device_is_one_error(board):
    port = LinePort(board, carries=lambda rate: False)
    with pytest.raises(HostError, match="does not answer HELLO: wrong port or baud rate"):
        opened(port)
    assert port.baudrate == DEFAULT_BAUD


def test_unplugged_cable_is_one_error(board):
    port = LinePort(board)
    device = opened(port)
    device.hurry()
    port.cut = True
    with pytest.raises(HostError, match="went away .*: is the cable plugged in"):
        device.stats()
    device.close()


def test_a_socket_has_no_rate():
    assert not Transport(None, "socket://127.0.0.1:1").has_rate
    assert Transport(None, "/dev/ttyUSB1").has_rate
