"""Deep nesting is refused before the parser recurses into it, whatever the recursion limit."""
import json
import sys

import pytest

from llama2_host import nested_json


@pytest.fixture
def no_limit():
    """Libraries raise the limit; then the C parser would overrun the stack."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1 << 30)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.parametrize("text", ["[" * 1_000_000, '{"a":' * 1_000_000, '["\\"", ' + "[" * 1_000_000,
                                  b"[" * 200 + b"]" * 200])
def test_refuses_deep_nesting(text, no_limit):
    with pytest.raises(ValueError, match="nested deeper than 100"):
        nested_json.loads(text)


@pytest.mark.parametrize("value", [[[]] * 1000, {"a": "[" * 1000, "b\\": '\\"{' * 500}, "[" * 500, [1, {"x": None}],
                                   "\ud800" + "[" * 200])
def test_parses_as_json(value):
    assert nested_json.loads(json.dumps(value)) == value
    assert nested_json.loads(json.dumps(value, ensure_ascii=False)) == value
