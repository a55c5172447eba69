"""Fixtures of the client's tests."""
from types import SimpleNamespace

import pytest

from llama2_host.checkpoint.write import pack_v0
from llama2_host.image.model import Model
from tests.host.fake_device import FakeDevice
from tests.host.generated import random_tensors
from tests.host.tiny import CONFIG, TOKENIZER


@pytest.fixture(autouse=True)
def sockets_close_at_once(monkeypatch):
    """pyserial sleeps 0.3 s after closing a socket, in case someone reconnects quickly: 100 tests would take a
    minute."""
    monkeypatch.setattr("serial.urlhandler.protocol_socket.time", SimpleNamespace(sleep=lambda seconds: None))


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    """Conversions are cached in the test's own directory."""
    monkeypatch.setenv("LLAMA2_HOST_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def files(tmp_path):
    """A checkpoint, its tokenizer beside it, and its image."""
    (tmp_path / "tiny.bin").write_bytes(pack_v0(CONFIG, random_tensors(CONFIG)))
    (tmp_path / "tokenizer.bin").write_bytes(TOKENIZER.pack())
    model = Model.load(tmp_path / "tiny.bin")
    (tmp_path / "tiny.llm").write_bytes(model.data)
    return tmp_path


@pytest.fixture
def holding(files):
    """A device that holds the image."""
    model = Model.load(files / "tiny.llm")
    with FakeDevice(memory=model.data, image_bytes=len(model.data), header_crc=model.header_crc, seq_len=CONFIG.seq_len,
                    payload_crc=model.payload_crc, vocab_size=CONFIG.vocab_size,
                    script=lambda position: 3 + ord("a") + position % 26) as device:
        yield device
