"""Positions behind a cache that golden filled decode on the verilated SoC, as bench.long_context shows it for
thousands."""
import pytest

from bench import long_context
from llama2_spec.model import KvFormat

pytestmark = pytest.mark.soc


def test_behind_rows_of_golden(monkeypatch, tmp_path):
    """The last 8 of 320 positions; a result that differs anywhere is called so."""
    monkeypatch.setattr(long_context.shapes, "CACHE", tmp_path)
    row = long_context.measure(KvFormat.K8V8, positions=320)
    assert long_context.good(row), row
    assert row["positions"] == [312, 320] and row["logits"] == 8*512 and row["rows"] == 5*8
    for wrong in ({"tokens_equal": False}, {"logits_equal": False}, {"rows_differ": [(0, 312)]}, {"errors": 1},
                  {"dram_violations": 1}):
        assert not long_context.good(row | wrong)
