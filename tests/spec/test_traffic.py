"""The beats behind the roofline, reckoned by hand for stories260K's shape."""
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from llama2_spec.image import Format
from llama2_spec.model import KvFormat, ModelConfig
from llama2_spec.traffic import TARGETS, Target, kv_beats, tokens_per_second, useful_beats

CONFIG = ModelConfig(dim=64, hidden_dim=172, n_layers=5, n_heads=8, n_kv_heads=4, head_dim=8, vocab_size=512,
                     seq_len=512)


def test_a_cache_row_has_its_exponents_in_front():
    assert kv_beats(CONFIG, 1) == 5 * (1 + 4 + 4)
    assert kv_beats(CONFIG) == 512 * 45


@pytest.mark.parametrize("kv, heads, row", [(KvFormat.K16V8, 4, 1 + 4 + 2), (KvFormat.K8V8, 4, 1 + 2 + 2),
                                            (KvFormat.K16V8, 3, 1 + 3 + 2), (KvFormat.K8V8, 3, 1 + 2 + 2)])
def test_elements_of_eight_bits_take_half_rounded_up_to_beats(kv, heads, row):
    assert kv_beats(replace(CONFIG, kv=kv, n_kv_heads=heads), 2) == 2 * 5 * row


@pytest.mark.parametrize("tied, position, expected", [
    (True, 0, 100 + 2112 + 1 * 45 + 5), (True, 63, 100 + 2112 + 64 * 45 + 5), (False, 0, 100 + 2112 + 45 + 5)])
def test_tensors_once_rows_read_and_written_and_one_embedding_row(tied, position, expected):
    config = ModelConfig(**{**CONFIG.__dict__, "tied": tied})
    # a row: 1 scale beat, 4 of codes
    table = SimpleNamespace(beats=2112, rows=512, words=4, group=64, format=Format.Q8)
    entries = [SimpleNamespace(beats=100), table] + ([] if tied else [table])
    assert useful_beats(config, entries, position) == expected


def test_foretold_speed_is_the_share_of_beats_that_was_measured():
    """No target is promised more than a run on the simulated SoC got, nor much less."""
    results = sorted((Path(__file__).parents[2] / "bench" / "results").glob("cycles-stories260K-q*.json"))
    measured = min(json.loads(path.read_text())["roofline_percent"] for path in results)
    assert 100 * TARGETS["arty"].share == pytest.approx(measured, abs=1)
    table = SimpleNamespace(beats=2112, rows=512, words=4, group=64, format=Format.Q8)
    beats = 100 + 2112 + 64 * 45 + 5
    assert tokens_per_second(CONFIG, [SimpleNamespace(beats=100), table], 63,
                             Target(50_000_000, 0.5)) == 25_000_000 / beats
