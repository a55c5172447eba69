"""The shipped client and the real firmware when the device restarts, goes silent, or loses what it sends."""
import io

import pytest

import llama2_host.device.device
import llama2_host.device.link
from llama2_host.device.device import Device
from llama2_host.errors import HostError
from llama2_host.generation import Options, Sampling
from llama2_host.device.link import DeviceError, Link, LinkError, RestartedError
from llama2_spec import protocol
from llama2_spec.protocol import MAX_BAUD, TOKEN_RING, GenerateFlag, Opcode
from tests.firmware import library
from tests.firmware.images import VOCAB, small_image
from tests.firmware.line import LinePort, transport
from tests.firmware.test_generate import greedy

IMAGE = small_image()
GREEDY = Sampling(temperature=0)


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch):
    monkeypatch.setattr(llama2_host.device.device, "SILENCE_S", 0.05)
    monkeypatch.setattr(llama2_host.device.rate, "PROBE_S", 0.03)
    monkeypatch.setattr(llama2_host.device.rate, "CONFIRM_S", 0.3)
    monkeypatch.setattr(Link.request, "__kwdefaults__", {"timeout_s": 0.05, "tries": 5})


class Board:
    """Firmware that can be reset behind a port that stays open."""

    def __init__(self, built, folder):
        self.built, self.folder, self.resets = built, folder, 0
        self.device = self._fresh(IMAGE)
        self.port = LinePort(self.device)

    def _fresh(self, image):
        self.resets += 1
        device = library.Device(library.load(self.built, self.folder / f"firmware{self.resets}.so"), image, columns=2,
                                boot=False)
        device.poll(200)                # it checks its memory; nobody has greeted it yet
        return device

    def reset(self, image=IMAGE):
        """As by its button: DRAM holds ``image``, the rate is the first one."""
        self.device = self.port.device = self._fresh(image)
        self.device.library.fake_rate(self.port.baudrate)


@pytest.fixture
def board(built, tmp_path):
    return Board(built, tmp_path)


def client(board):
    return Device(Link(transport(board.port)), hello_timeout_s=0.2)


def take(generation, count):
    return [next(generation).token for _ in range(count)]


@pytest.mark.parametrize("image", [IMAGE, b""], ids=["memory kept", "memory lost"])
def test_restart_between_turns_is_told(board, image):
    device = client(board)
    tokens = [event.token for event in device.generate([1, 5], Options(0, 10, GREEDY, ()))]
    board.reset(image)
    with pytest.raises(RestartedError, match="was restarted") as error:
        device.generate(tokens[-1:], Options(11, 5, GREEDY, ()))
    assert "\n" not in str(error.value)


def test_restart_is_told_even_where_the_request_would_pass(board):
    device = client(board)
    list(device.generate([1, 5], Options(0, 3, GREEDY, ())))
    board.reset()
    with pytest.raises(RestartedError):
        device.generate([1, 5], Options(0, 3, GREEDY, ()))


def test_restart_during_an_answer_is_told(board):
    device = client(board)
    generation = device.generate([1, 5], Options(0, 300, GREEDY, ()))
    take(generation, 5)
    board.reset()
    with pytest.raises(RestartedError):
        list(generation)


def test_restart_at_a_negotiated_rate_is_found_by_the_next_client(board):
    """The device is back at its first rate: it cannot be heard, and whoever connects anew finds it."""
    device = client(board)
    assert device.hurry() == MAX_BAUD
    generation = device.generate([1, 5], Options(0, 300, GREEDY, ()))
    take(generation, 5)
    board.reset()
    with pytest.raises(LinkError, match="does not answer RESEND"):
        list(generation)
    board.port = LinePort(board.device)
    assert ([event.token for event in client(board).generate([1, 5], Options(0, 5, GREEDY, ()))] ==
            greedy(board.device, 5, 1, 5))


def test_refusal_after_a_restart_says_so(board):
    device = client(board)
    board.reset(b"")
    with pytest.raises(RestartedError, match="was restarted .*not a model image"):
        device.verify()


def test_another_client_that_took_the_cache_is_no_riddle(board):
    device = client(board)
    tokens = [event.token for event in device.generate([1, 5], Options(0, 10, GREEDY, ()))]
    client(board).load(small_image(format="q4"))
    with pytest.raises(RestartedError):
        device.generate(tokens[-1:], Options(11, 5, GREEDY, ()))
    with pytest.raises(DeviceError, match="past what the K/V cache holds"):
        client(board).generate([1], Options(30, 5, GREEDY, ()))


def test_dead_device_ends_the_request_only(board):
    device = client(board)
    board.port.lose = lambda data: b""
    with pytest.raises(LinkError, match="does not answer GENERATE"):
        device.generate([1, 5], Options(0, 3, GREEDY, ()))
    board.port.lose = lambda data: data
    assert ([event.token for event in device.generate([1, 5], Options(0, 3, GREEDY, ()))] ==
            greedy(board.device, 5, 1, 3))


def test_silence_shorter_than_the_patience_costs_nothing(board):
    device, writes = client(board), []
    generation = device.generate([1, 5], Options(0, 200, GREEDY, ()))
    first = take(generation, 20)
    board.port.lose = lambda data: writes.append(1) or (b"" if len(writes) < 4 else data)
    assert first + [event.token for event in generation] == greedy(board.device, 5, 1, 200)


def test_patience_is_more_than_half_a_minute_and_asks_often():
    """What the tests above have shortened."""
    waits = [llama2_host.device.link.TIMEOUT_S * min(2 ** attempt, llama2_host.device.link.LONGEST)
             for attempt in range(llama2_host.device.link.TRIES)]
    asked_s = [sum(waits[:attempt]) for attempt in range(len(waits))]
    assert any(at > 30 for at in asked_s) and sum(waits) > 40 and max(waits) <= 8


def test_generation_longer_than_the_ring_survives_lost_events(board):
    """More than a ring of tokens is lost, with the acknowledgements: the device has waited."""
    device = client(board)
    drain, lost = board.port._drain, []

    def lossy():
        drain()
        if 3 < len(lost) < 200:
            board.port._buffer.clear()
        lost.append(1)
    generation = device.generate([1, 5], Options(0, 400, GREEDY, ()))
    board.port._drain = lossy
    assert [event.token for event in generation] == greedy(board.device, 5, 1, 400) and 400 > TOKEN_RING


def test_replies_shrink_on_a_line_that_lets_no_long_frame_pass(board):
    device = client(board)
    generation = device.generate([1, 5], Options(0, 100, GREEDY, ()))
    board.port._drain()
    board.port._buffer.clear()                  # every event so far
    drain = board.port._drain

    def short_only():
        before = len(board.port._buffer)
        drain()
        if len(board.port._buffer) - before > 200:
            del board.port._buffer[before:]
    board.port._drain = short_only
    assert [event.token for event in generation] == greedy(board.device, 5, 1, 100)


def test_lost_logits_are_an_error(board):
    device, seen = client(board), []
    flags = GenerateFlag.DUMP_LOGITS | GenerateFlag.ALL_LOGITS
    options = Options(0, 2, GREEDY, ())
    list(device.generate([1, 5, 9], options, flags=flags, on_logits=lambda *row: seen.append(row)))
    assert [(position, first, len(values)) for position, first, values in seen] == [(p, 0, VOCAB) for p in range(4)]
    receive, lost = device.link._receive, []

    def lose_one(data):
        receive(data)
        for frame in list(device.link.events):
            if frame.opcode == Opcode.LOGITS and not lost:
                device.link.events.remove(frame)
                lost.append(frame)
    device.link._receive = lose_one
    with pytest.raises(LinkError, match="logits .* were lost on the line"):
        list(device.generate([1, 5, 9], options, flags=flags, on_logits=lambda *row: None))


@pytest.mark.parametrize("flags", [GenerateFlag.DUMP_LOGITS, GenerateFlag.DUMP_LOGITS | GenerateFlag.ALL_LOGITS])
@pytest.mark.parametrize("new", [0, 1, 3])
def test_whole_positions_that_lost_their_logits_at_the_end_are_an_error(board, flags, new):
    device, seen = client(board), []
    list(device.generate([1, 5, 9], Options(0, new, GREEDY, ()), flags=flags, on_logits=lambda *row: seen.append(row)))
    every = bool(flags & GenerateFlag.ALL_LOGITS)
    assert [position for position, _, _ in seen] == list(range(0 if every else 2, 2 + new + (every and not new)))
    if not seen:
        return
    receive, last = device.link._receive, seen[-1][0]

    def lose_last(data):
        receive(data)
        for frame in list(device.link.events):
            if frame.opcode == Opcode.LOGITS and protocol.Logits.unpack(frame.payload).position == last:
                device.link.events.remove(frame)
    device.link._receive = lose_last
    with pytest.raises(LinkError, match=f"last logits from id 0 of position {last} on were lost"):
        list(device.generate([1, 5, 9], Options(0, new, GREEDY, ()), flags=flags, on_logits=lambda *row: None))


def test_answers_of_65536_requests_ago_are_not_new(board):
    device = client(board)
    first = [event.token for event in device.generate([1, 5, 9], Options(0, 6, GREEDY, ()))]
    device.link.sequence += 65535
    other = [event.token for event in device.generate([1, 7, 3], Options(0, 6, GREEDY, ()))]
    assert other == greedy(board.device, 3, 2, 6) != first


def test_newer_generation_ends_the_older_one_truly(board):
    device = client(board)
    older = device.generate([1, 5], Options(0, 300, GREEDY, ()))
    take(older, 3)
    newer = device.generate([1, 9], Options(0, 20, GREEDY, ()))
    assert take(newer, 5) == greedy(board.device, 9, 1, 5)
    with pytest.raises(HostError, match="ended by a newer one"):
        next(older)
    assert [event.token for event in newer] == greedy(board.device, 9, 1, 20)[5:]


def test_uptime_counts_wraps_between_greetings(board):
    device = client(board)
    board.device.poll(600)
    for _ in range(5):
        board.device.library.fake_wait(1 << 31)
        board.device.poll(600)
    assert device.hello().uptime > 5 << 31


def test_verify_finds_a_flipped_bit(board):
    device = client(board)
    assert device.verify().crc == device.info.payload_crc
    board.device.library.fake_dram()[len(IMAGE) - 500] ^= 8
    with pytest.raises(DeviceError, match="damaged: its tensors have CRC"):
        device.verify()
    assert not device.hello().model_state == llama2_host.device.device.ModelState.READY


def test_other_versions_are_told(board):
    device = client(board)
    with pytest.raises(HostError, match="speaks protocol 3, this client"):
        device.link.request(Opcode.HELLO, llama2_host.device.rate.Hello(2, 1))


def test_chat_goes_on_after_a_restart(board, monkeypatch):
    from llama2_host.chat.chat import Chat
    from llama2_host.connection import DeviceBackend
    from llama2_host.image.model import Model
    from llama2_host.progress import Progress
    from tests.host.tiny import TOKENIZER
    model = Model(IMAGE)
    model.tokenizer_file = TOKENIZER
    notes = io.StringIO()
    notes.isatty = lambda: False
    backend = DeviceBackend(client(board), model)
    monkeypatch.setattr(backend, "close", lambda: None)
    chat = Chat(backend, sampling=GREEDY, max_new=8, reconnect=lambda: DeviceBackend(client(board), model),
                progress=Progress(notes), output=io.StringIO())
    chat.handle("AB")
    for _ in range(2):
        board.reset()
        turns = chat.turns
        chat.handle("CD")
        assert chat.turns == turns + 1, notes.getvalue()
    assert notes.getvalue().count("was restarted") == 2
