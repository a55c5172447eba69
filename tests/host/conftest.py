"""Fixtures of the client's tests."""
from types import SimpleNamespace

import pytest


@pytest.fixture(autouse=True)
def sockets_close_at_once(monkeypatch):
    """pyserial sleeps 0.3 s after closing a socket, in case someone reconnects quickly: 100 tests would take a minute."""
    monkeypatch.setattr("serial.urlhandler.protocol_socket.time", SimpleNamespace(sleep=lambda seconds: None))


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    """Conversions are cached in the test's own directory."""
    monkeypatch.setenv("LLAMA2_HOST_CACHE", str(tmp_path / "cache"))
