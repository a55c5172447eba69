"""The doctor's known answer is the integer model's, and its model is the same on every machine."""
import zlib

import pytest

from llama2_host.doctor import known
from llama2_host.errors import HostError
from llama2_host.files import is_image
from llama2_host.image.model import Model
from llama2_host.integer import GoldenBackend


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "known.llm"
    path.write_bytes(known.known_image())
    assert is_image(path)
    return Model.load(path)


def test_ids_and_logits_are_golden_s(model):
    ids, _, crc = known.ask(GoldenBackend(model).generate)
    assert tuple(ids) == known.IDS and crc == known.LOGITS_CRC


def test_it_is_small_and_says_many_tokens(model):
    # two seconds at 115,200 baud would be 20 KB; at 3 Mbaud it is a sixth of one
    assert len(model.data) < 64 << 10
    assert len(known.IDS) == known.TOKENS and len(set(known.IDS)) > 8
    assert len(known.PROMPT) + known.TOKENS <= known.CONFIG.seq_len


def test_another_machine_s_arithmetic_is_noticed(monkeypatch):
    monkeypatch.setattr(known, "IMAGE_CRC", zlib.crc32(b""))
    with pytest.raises(HostError, match="known answer's model"):
        known.known_image()
