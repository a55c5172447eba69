"""Fixtures of the server's tests: a tiny model made up here, and servers around it."""
from dataclasses import replace

import pytest
from openai import OpenAI

from llama2_host.checkpoint.write import pack_v0
from llama2_host.integer import GoldenBackend
from llama2_host.image.model import Model
from tests.host import tiny
from tests.host.generated import random_tensors
from tests.server.running import Running
from tests.waiting import PATIENCE_S

CONFIG = replace(tiny.CONFIG, seq_len=256)


@pytest.fixture(scope="session")
def image(tmp_path_factory):
    """The file of a model image with a tokenizer of single bytes."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.bin").write_bytes(pack_v0(CONFIG, random_tensors(CONFIG)))
    (folder / "tokenizer.bin").write_bytes(tiny.TOKENIZER.pack())
    patch = pytest.MonkeyPatch()
    patch.setenv("LLAMA2_HOST_CACHE", str(folder / "cache"))
    (folder / "tiny.llm").write_bytes(Model.load(folder / "tiny.bin").data)
    patch.undo()
    return folder / "tiny.llm"


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    """Conversions are cached in the test's own directory."""
    monkeypatch.setenv("LLAMA2_HOST_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def server(image):
    """A server on the integer model."""
    with Running(lambda: GoldenBackend(Model.load(image))) as running:
        yield running


@pytest.fixture
def openai(server):
    with OpenAI(base_url=server.url + "/v1", api_key="none", timeout=PATIENCE_S, max_retries=0) as client:
        yield client
