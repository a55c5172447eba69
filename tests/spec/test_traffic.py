"""The beats behind the roofline, reckoned by hand for stories260K's shape."""
from types import SimpleNamespace

import pytest

from spec.image import Format
from spec.model import ModelConfig
from spec.traffic import kv_beats, useful_beats

CONFIG = ModelConfig(dim=64, hidden_dim=172, n_layers=5, n_heads=8, n_kv_heads=4, head_dim=8, vocab_size=512, seq_len=512)


def test_a_cache_row_has_its_exponents_in_front():
    assert kv_beats(CONFIG, 1) == 5 * (1 + 4 + 4)
    assert kv_beats(CONFIG) == 512 * 45


@pytest.mark.parametrize("tied, position, expected", [
    (True, 0, 100 + 2112 + 1 * 45 + 5), (True, 63, 100 + 2112 + 64 * 45 + 5), (False, 0, 100 + 2112 + 45 + 5)])
def test_tensors_once_rows_read_and_written_and_one_embedding_row(tied, position, expected):
    config = ModelConfig(**{**CONFIG.__dict__, "tied": tied})
    table = SimpleNamespace(beats=2112, rows=512, words=4, group=64, format=Format.Q8)   # a row: 1 scale beat, 4 of codes
    entries = [SimpleNamespace(beats=100), table] + ([] if tied else [table])
    assert useful_beats(config, entries, position) == expected
