"""The link against a device that loses, damages, repeats and delays frames."""
import io
import time

import pytest

from llama2_host.device.link import DeviceError, Link, LinkError, _short
from llama2_host.device.refusals import explain
from llama2_host.device.transport import Transport, TransportError
from llama2_spec import protocol
from llama2_spec.frame import Frame
from llama2_spec.protocol import Opcode
from tests.host.fake_device import FakeDevice


@pytest.fixture
def connect():
    opened = []

    def open_link(device, **options):
        link = Link(Transport.open(device.url), **options)
        opened.append(link)
        return link
    yield open_link
    for link in opened:
        link.close()


def once(number, change):
    """Damage the frame of this number only."""
    return lambda n, frame, encoded: change(encoded) if n == number else encoded


def flip(encoded):
    middle = len(encoded) // 2
    return encoded[:middle] + bytes([encoded[middle] ^ 0x04 or 0x08]) + encoded[middle + 1:]


FAULTS = {
    "lost": lambda encoded: b"",
    "dropped byte": lambda encoded: encoded[:5] + encoded[6:],
    "flipped bit": flip,
    "twice": lambda encoded: encoded + encoded,
    "garbage before": lambda encoded: b"\x07garbage\0" + encoded,
    "unfinished garbage before": lambda encoded: b"\x55" * 3000 + b"\0" + encoded,
    "delimiter lost": lambda encoded: encoded[:-1],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_reply_survives(fault, connect):
    with FakeDevice(fault_out=once(1, FAULTS[fault])) as device:
        link = connect(device)
        assert link.request(Opcode.HELLO, protocol.Hello(), timeout_s=0.1).clock_hz == 100_000_000
        assert link.request(Opcode.STATS, timeout_s=0.1).counters == tuple(range(45))
        assert device.effects == [Opcode.HELLO, Opcode.STATS]


@pytest.mark.parametrize("fault", ["lost", "dropped byte", "flipped bit"])
def test_request_survives(fault, connect):
    with FakeDevice(fault_in=once(1, FAULTS[fault])) as device:
        link = connect(device)
        link.request(Opcode.HELLO, protocol.Hello(), timeout_s=0.1)
        assert link.resent == 1
        assert device.effects == [Opcode.HELLO]


def test_repeats_with_the_same_sequence_number(connect):
    with FakeDevice(fault_out=once(1, FAULTS["lost"])) as device:
        connect(device).request(Opcode.RESET, protocol.Reset(3), timeout_s=0.1)
        assert len(device.requests) == 2 and len({frame.sequence for frame in device.requests}) == 1
        assert device.effects == [Opcode.RESET]


def test_late_reply_is_not_taken_for_the_next(connect):
    def delay(number, frame, encoded):
        if number == 1:
            time.sleep(0.3)
        return encoded
    with FakeDevice(fault_out=delay) as device:
        link = connect(device)
        link.request(Opcode.STATS, timeout_s=0.1)
        assert link.request(Opcode.READ, protocol.Read(0, 0), timeout_s=0.5) == b""
        assert link.request(Opcode.STATS, timeout_s=0.5).counters[1] == 1


def test_says_when_nobody_answers(connect):
    with FakeDevice(fault_out=lambda *_: b"") as device:
        with pytest.raises(LinkError, match="does not answer STATS: wrong port or baud rate"):
            connect(device).request(Opcode.STATS, timeout_s=0.02)


def test_refusal_names_status_and_numbers(connect):
    with FakeDevice() as device:
        with pytest.raises(DeviceError, match="up to byte 64 of DRAM, which has 0 bytes") as refusal:
            connect(device).request(Opcode.READ, protocol.Read(0, 64))
        assert refusal.value.status == protocol.Status.OUT_OF_RANGE


def test_foreign_reply_is_one_line(connect):
    with FakeDevice() as device:
        device.on_stats = lambda frame: (0, b"\1\2\3")
        with pytest.raises(LinkError, match="not what this client's protocol says"):
            connect(device).request(Opcode.STATS)


def test_peer_that_leaves_is_reported(connect):
    with FakeDevice() as device:
        device.cut_after = 1
        link = connect(device)
        link.request(Opcode.HELLO, protocol.Hello())
        with pytest.raises(TransportError, match="went away"):
            link.request(Opcode.STATS, timeout_s=0.2)


def test_trace_names_opcodes(connect):
    trace = io.StringIO()
    with FakeDevice(fault_out=once(2, flip)) as device:
        link = connect(device, trace=trace)
        link.request(Opcode.HELLO, protocol.Hello())
        link.request(Opcode.STATS, timeout_s=0.1)
    text = trace.getvalue()
    assert "> HELLO #" in text and "< HELLO #" in text and "damaged" in text
    assert "HELLO #" in text and f"version={protocol.VERSION}" in text and "clock_hz=100000000" in text
    assert all(line.split()[1] in "<>" for line in text.splitlines())


def test_trace_is_short():
    """Of a field, 60 characters; of bytes, their number."""
    assert _short("x" * 60) == "x" * 60 and _short("x" * 61) == "x" * 57 + "..."
    assert _short(bytes(99)) == "<99 bytes>"


def test_buffer_of_endless_garbage_stays_small(connect):
    with FakeDevice() as device:
        link = connect(device)
        for _ in range(100):
            link._receive(b"\x55" * 1000)
        assert len(link._bytes) < 3000
        link.listening.add(1)
        link._receive(b"\0" + Frame(Opcode.DONE, 1, protocol.Done(count=7).pack()).encode())
        assert protocol.Done.unpack(link.event(0.1).payload).count == 7


@pytest.mark.parametrize("url, message", [
    ("socket://127.0.0.1:1", "nothing listens on"),
    ("socket://127.0.0.1", "is not a port"),
    ("/dev/no-such-port", "does not exist"),
    ("nonsense://x", "cannot open nonsense://x"),
])
def test_port_that_cannot_be_opened(url, message):
    with pytest.raises(TransportError, match=message) as error:
        Transport.open(url)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("status", [status for status in protocol.Status if status])
def test_every_refusal_is_explained_in_one_line(status):
    text = explain(Opcode.GENERATE, status, protocol.Error(protocol.Subject.HEAD_DIM, 5000, 70))
    assert "{" not in text and "\n" not in text and "unknown to this client" not in text


def test_refusal_from_a_newer_device_is_explained():
    assert "status 200" in explain(Opcode.STATS, 200, protocol.Error(99, 1, 2))
    assert "field 99 = 1" in explain(Opcode.GENERATE, protocol.Status.BAD_VALUE, protocol.Error(99, 1, 2))
