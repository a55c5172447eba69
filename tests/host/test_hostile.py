"""A device that lies, floods or is none: every reply that a client can be sent ends in a clean error, in bounded
memory."""
import itertools
import random
import resource
import socket
import threading

import pytest

import llama2_host.device.device
import llama2_host.device.link
from llama2_host import connect
from llama2_host.device.device import Device
from llama2_host.errors import HostError
from llama2_host.generation import Options, Sampling
from llama2_host.device.link import Link
from llama2_spec import protocol
from llama2_spec.frame import MAX_PAYLOAD, Frame
from llama2_spec.protocol import EVENTS, REQUESTS, ModelState, Opcode, Status
from tests.host.fake_device import FakeDevice

GREEDY = Sampling(temperature=0)
MEMORY_KIB = 300 << 10


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch):
    monkeypatch.setattr(llama2_host.device.device, "SILENCE_S", 0.05)
    monkeypatch.setattr(llama2_host.device.device, "BOOT_ASK_S", 0.0)
    monkeypatch.setattr(llama2_host.device.device, "BUSY_S", 0.2)
    monkeypatch.setattr(Link.request, "__kwdefaults__", {"timeout_s": 0.05, "tries": 3})


class Hostile(FakeDevice):
    """Sends ``answer(frame)``, frames or bytes, instead of what a device would, where it gives something."""

    def __init__(self, answer, **info):
        self.answer = answer
        super().__init__(vocab_size=100, **info)

    def _arrive(self, encoded):
        try:
            frame = Frame.decode(encoded)
        except ValueError:
            return
        out = self.answer(frame)
        if out is None:
            super()._arrive(encoded)
            return
        for item in out:
            self._client.sendall(item.encode() if isinstance(item, Frame) else item)


def talk(device):
    """Whatever a client does in a session."""
    with device:
        device.stats()
        device.verify()
        device.read(0, 4096)
        for ids in ([1], [1, 2, 3]):
            events = list(device.generate(ids, Options(0, 10, GREEDY, (2,))))
            assert len(events) <= 10 and all(event.token < 100 for event in events)
        device.load(bytes(5000))
        device.store()


def random_value(rng, code):
    count = int(code[:-1] or 1) if code[-1] != "s" else 1
    one = {"s": lambda: "".join(chr(rng.randrange(1, 0x250)) for _ in range(rng.randrange(9))),
           "i": lambda: rng.randrange(-9, 9)}
    bits = {"B": 8, "H": 16, "I": 32, "Q": 64}.get(code[-1], 8)
    make = one.get(code[-1], lambda: rng.choice([0, 1, 2, 5, (1 << bits) - 1, rng.getrandbits(bits)]))
    return make() if count == 1 and code[:-1] in ("", "32") else tuple(make() for _ in range(count))


def random_payload(rng, kind):
    """A structure of arbitrary numbers, or bytes that are none."""
    if kind is None or rng.random() < .2:
        return rng.randbytes(rng.randrange(MAX_PAYLOAD + 1))
    values = {name: random_value(rng, code) for name, code, _ in kind.FIELDS}
    if "version" in values:
        values["version"] = protocol.VERSION
    if kind.TAIL:
        values[kind.TAIL[0]] = b"" if kind.TAIL[1] == "s" else tuple(rng.randrange(100)
                                                                     for _ in range(rng.randrange(20)))
    return kind(**values).pack()


def random_answers(rng):
    """Now and then another answer than the truth, with events that nobody asked for."""
    def answer(frame):
        if rng.random() < .6:
            return None
        opcode = Opcode(frame.opcode)
        status = rng.choice([0, 0, 0, *map(int, Status), 77])
        out = [Frame(opcode, frame.sequence, random_payload(rng, protocol.Error if status else REQUESTS[opcode][1]),
                     status)]
        for _ in range(rng.randrange(4)):
            event = rng.choice(list(EVENTS))
            out.insert(rng.randrange(2), Frame(event, frame.sequence, random_payload(rng, EVENTS[event])))
        return out if rng.random() < .9 else [rng.randbytes(rng.randrange(300)) + b"\0", *out]
    return answer


@pytest.mark.parametrize("progress", [lambda n: (n % 7 * 1000, n), lambda n: (n, n % 7), lambda n: (4096 + n, 0),
                                      lambda n: (0, 4096 + n)])
def test_progress_that_never_ends_is_refused(progress, monkeypatch):
    """Backwards, or beyond the image's end: either could go on for ever."""
    monkeypatch.setattr("llama2_host.device.store.ASK_S", 0.0)
    counter = itertools.count(1)

    def answer(frame):
        if frame.opcode == Opcode.STORE:
            done, written = progress(next(counter))
            return [Frame(frame.opcode, frame.sequence, protocol.Stored(1, done, written, 1 << 24, 1 << 23, 0).pack())]

    with Hostile(answer, memory=bytes(4096), image_bytes=4096) as fake:
        with Device.open(fake.url) as device, pytest.raises(HostError, match="of 4096 bytes are in the flash.* load "
                                                                             "again, it goes on"):
            device.store()


@pytest.mark.parametrize("seed", range(60))
def test_random_lies_end_cleanly(seed, monkeypatch):
    monkeypatch.setattr("llama2_host.device.store.ASK_S", 0.0)
    monkeypatch.setattr("llama2_host.device.store.STUCK_S", 0.2)
    rng = random.Random(seed)
    with Hostile(random_answers(rng), memory=bytes(4096)) as fake:
        fake.flash_bytes = fake.flash_room = 1 << 20
        try:
            talk(Device.open(fake.url, hello_timeout_s=0.1))
        except HostError as error:
            assert "\n" not in str(error) and str(error).isprintable()


def replies(opcode, *frames):
    """These, for a request of ``opcode``; each is made from the request."""
    return lambda frame: [make(frame) for make in frames] if frame.opcode == opcode else None


def accepted(frame):
    request = protocol.Generate.unpack(frame.payload)
    return Frame(frame.opcode, frame.sequence, protocol.Accepted(request.position + len(request.ids)).pack())


def tokens(index, entries, position=None):
    return lambda frame: Frame(Opcode.TOKENS, frame.sequence, protocol.Tokens(
        index, 1 + index if position is None else position, index + len(entries) // 2, 1, tuple(entries)).pack())


def done(**fields):
    return lambda frame: Frame(Opcode.DONE, frame.sequence, protocol.Done(**fields).pack())


@pytest.mark.parametrize("events, message", [
    ([tokens(i, (5, i)) for i in range(2000)], "which it was not asked for"),
    ([tokens(0, (5, 1, 7))], "sends 3 words"),
    ([tokens(0, (5, 1)), done(count=1, reason=77)], "for reason 77"),
    ([done(count=0xffffffff)], "ends with 4294967295 tokens of at most 10"),
    ([tokens(0, (0xffffffff, 1)), done(count=1)], "token 4294967295 of a vocabulary of 100"),
    ([tokens(0, (5, 1), position=9)], "at position 9")])
def test_more_than_was_asked_for_is_refused(events, message):
    with Hostile(replies(Opcode.GENERATE, accepted, *events)) as fake, Device.open(fake.url) as device:
        with pytest.raises(HostError, match=message):
            list(device.generate([1], Options(0, 10, GREEDY, ())))


@pytest.mark.parametrize("new, logits", [
    (10, [protocol.Logits(0, 0, (0,) * 101)]),                              # more ids than the vocabulary has
    (10, [protocol.Logits(0, 0, (0,) * 60), protocol.Logits(0, 60, (0,) * 41)]),
    (1, [protocol.Logits(position, 0, (0,) * 100) for position in range(5)])])     # more positions than were asked for
def test_more_logits_than_were_asked_for_are_refused(new, logits):
    seen = []
    events = [lambda frame, one=one: Frame(Opcode.LOGITS, frame.sequence, one.pack()) for one in logits]
    with Hostile(replies(Opcode.GENERATE, accepted, *events)) as fake, Device.open(fake.url) as device:
        with pytest.raises(HostError, match="sends logits of ids to .* not asked for"):
            list(device.generate([1], Options(0, new, GREEDY, ()), flags=protocol.GenerateFlag.DUMP_LOGITS,
                                 on_logits=lambda *row: seen.append(row)))
    assert sum(len(values) for _, _, values in seen) <= 100 * (new + 1)


def test_tokens_of_another_place_than_asked_for_end():
    resent = lambda frame: Frame(frame.opcode, frame.sequence, protocol.Tokens(0, 1, 1, 1, (1, 1)).pack())
    answers = {Opcode.GENERATE: (accepted, tokens(5, (5, 1))), Opcode.RESEND: (resent,)}
    with Hostile(lambda frame: [make(frame) for make in answers[frame.opcode]] if frame.opcode in answers
                 else None) as fake:
        with Device.open(fake.url) as device, pytest.raises(HostError,
                                                            match="answers RESEND from token 1 on with token 0"):
            list(device.generate([1], Options(0, 10, GREEDY, ())))


def test_short_reads_end():
    with Hostile(replies(Opcode.READ,
                         lambda frame: Frame(frame.opcode, frame.sequence))) as fake, Device.open(fake.url) as device:
        with pytest.raises(HostError, match="answers READ of 8 bytes with 0"):
            device.read(0, 8)


def test_device_that_boots_for_ever_ends():
    with FakeDevice(model_state=ModelState.BOOTING) as fake, pytest.raises(HostError, match="never ends checking"):
        Device.open(fake.url)


def test_head_that_claims_gigabytes_is_not_read():
    from llama2_spec.image import HEADER, HEADER_FIELDS
    values = {name: 0 for name, _, _ in HEADER_FIELDS} | {"magic": b"LLMI", "version": 1, "payload_offset": 0xfffff000}
    head = HEADER.pack(*values.values()).ljust(4096, b"\0")
    with FakeDevice(memory=head, image_bytes=0xffffffff) as fake, pytest.raises(HostError, match="damaged"):
        connect(port=fake.url)


def test_clock_of_0_and_names_with_controls():
    with FakeDevice(clock_hz=0) as fake, pytest.raises(HostError, match="0 Hz"):
        Device.open(fake.url)
    with FakeDevice(name="\x1b]0;pwned\x07", firmware="\x1b[31mred") as fake, Device.open(fake.url) as device:
        assert device.info.name.isprintable() and device.info.firmware.isprintable()


@pytest.mark.parametrize("piece", [Frame(Opcode.TOKENS, 1, protocol.Tokens(entries=(5, 1) * 120).pack()).encode() * 50,
                                   b"\x55" * 100_000],
                         ids=["events", "garbage"])
def test_flood_instead_of_an_answer_ends(piece, monkeypatch):
    monkeypatch.setattr(llama2_host.device.link, "FLOOD_BYTES", 4 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    def answer(frame):
        return (piece for _ in range(10_000)) if frame.opcode == Opcode.STATS else None
    with Hostile(answer) as fake, Device.open(fake.url) as device:
        with pytest.raises(HostError):
            device.stats()
        device.link.close()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY_KIB


class Port:
    """A socket that answers bytes with bytes, the first ones with a greeting."""

    def __init__(self, respond, greeting=b""):
        self.server = socket.create_server(("127.0.0.1", 0))
        self.url = f"socket://127.0.0.1:{self.server.getsockname()[1]}"
        threading.Thread(target=self._serve, args=(respond, greeting), daemon=True).start()

    def _serve(self, respond, greeting):
        client, _ = self.server.accept()
        try:
            while data := client.recv(4096):
                client.sendall(greeting + respond(data))
                greeting = b""
        except OSError:
            pass


@pytest.mark.parametrize("respond, greeting, message", [
    (lambda data: data, b"", "echoes what is sent: it is a loopback"),
    (lambda data: b"litex> ", b"\r\n        LiteX BIOS, no firmware\r\n", 'prints text, "LiteX BIOS, no firmware"'),
    (lambda data: bytes((7 * byte + 131) % 256 for byte in data), b"\x80\xff\x93\xe2",
     "bytes that are no frames .80 ff 93 e2"),
    (lambda data: b"", b"\xfe\x01\x80\xff\x93\xe2\x00", "bytes that are no frames")])
def test_port_that_is_no_device_is_called_what_it_is(respond, greeting, message):
    port = Port(respond, greeting)
    with pytest.raises(HostError, match=message) as error:
        Device.open(port.url, hello_timeout_s=0.1)
    assert "\n" not in str(error.value)
    port.server.close()


def test_second_client_hears_that_the_port_is_in_use():
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=lambda: server.accept()[0].close(), daemon=True).start()
    with pytest.raises(HostError, match="in use by another client"):
        Device.open(f"socket://127.0.0.1:{server.getsockname()[1]}")
    server.close()
