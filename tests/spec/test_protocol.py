"""Frames survive the wire or are refused, payloads are laid out for C, and the generated pages are up to date."""
import random
import subprocess

import pytest

from llama2_spec import emit_c, emit_docs, frame, protocol
from llama2_spec.frame import Frame, FrameError, cobs_decode, cobs_encode
from llama2_spec.wire import structure, wire

PAYLOADS = [cls for cls in vars(protocol).values() if hasattr(cls, "FORMAT")]


def random_bytes(rng, length, zeros):
    return bytes(0 if rng.random() < zeros else rng.randrange(1, 256) for _ in range(length))


@pytest.mark.parametrize("zeros", [0, 0.02, 0.5, 1])
def test_cobs_has_no_zero_and_returns_the_bytes(zeros):
    rng = random.Random(1)
    for length in [*range(20), 253, 254, 255, 256, 507, 508, 509, 1036]:
        data = random_bytes(rng, length, zeros)
        encoded = cobs_encode(data)
        assert 0 not in encoded
        assert cobs_decode(encoded) == data


def test_frame_returns_and_fits():
    rng = random.Random(2)
    for length in (0, 1, 253, frame.MAX_PAYLOAD):
        sent = Frame(protocol.Opcode.LOAD, 0xfffe, random_bytes(rng, length, 0), protocol.Status.OK)
        encoded = sent.encode()
        assert len(encoded) <= frame.MAX_ENCODED
        assert Frame.decode(encoded[:-1]) == sent


def test_any_damaged_byte_is_noticed():
    encoded = Frame(protocol.Opcode.HELLO, 7, protocol.Hello().pack()).encode()[:-1]
    for at in range(len(encoded)):
        for flip in (1, 0x80, encoded[at]):
            damaged = bytearray(encoded)
            damaged[at] ^= flip
            with pytest.raises(FrameError):
                Frame.decode(bytes(damaged))
        with pytest.raises(FrameError):
            Frame.decode(encoded[:at] + encoded[at + 1:])


def test_payload_too_long_is_refused():
    with pytest.raises(ValueError, match="1024"):
        Frame(protocol.Opcode.LOAD, 0, bytes(frame.MAX_PAYLOAD + 1)).encode()


@pytest.mark.parametrize("cls", PAYLOADS)
def test_payload_returns(cls):
    assert cls.unpack(cls().pack()) == cls()
    assert cls.FORMAT.size <= frame.MAX_PAYLOAD


def test_payload_values_return():
    generate = protocol.Generate(position=3, seed=1 << 63, stops=(1, 2) + (0,) * (protocol.MAX_STOPS - 2), stop_count=2,
                                 ids=(5, 6, 7))
    assert protocol.Generate.unpack(generate.pack()) == generate
    assert len(generate.pack()) == protocol.Generate.FORMAT.size + 12
    assert protocol.Device.unpack(protocol.Device(name="x" * 40).pack()).name == "x" * 32
    with pytest.raises(ValueError, match="Hello"):
        protocol.Hello.unpack(b"12345")
    with pytest.raises(ValueError, match="inside an item"):
        protocol.Tokens.unpack(protocol.Tokens().pack() + b"1")


def test_largest_payloads_fit():
    assert protocol.Generate.FORMAT.size + 4 * protocol.MAX_PROMPT <= frame.MAX_PAYLOAD
    assert protocol.Load.FORMAT.size + protocol.LOAD_CHUNK <= frame.MAX_PAYLOAD


def test_misaligned_field_is_refused():
    class Bad:
        small: int = wire("B", "")
        large: int = wire("I", "")
    with pytest.raises(ValueError, match="large"):
        structure(Bad)


def test_header_compiles_without_a_warning(tmp_path):
    (tmp_path / "llama2_spec.h").write_text(emit_c.header())
    (tmp_path / "t.c").write_text('#include "llama2_spec.h"\n')
    subprocess.run(["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-c", "t.c", "-o", "t.o"], cwd=tmp_path,
                   check=True)


@pytest.mark.parametrize("name", emit_docs.PAGES)
def test_committed_page_is_what_the_spec_says(name):
    assert (emit_docs.DOCS / name).read_text() == emit_docs.PAGES[name](), "run python -m llama2_spec.emit_docs"
