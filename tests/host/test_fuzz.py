"""A short run of ``python -m bench.fuzz``: damaged files of every kind end in a result or in one line."""
from types import SimpleNamespace

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from hypothesis import given, settings, strategies as st

from bench import fuzz
from llama2_host.checkpoint import gguf_file
from llama2_host.checkpoint.errors import CheckpointError


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    return {target.name: target for target in fuzz.targets(tmp_path_factory.mktemp("fuzz"))}


NAMES = ("llama2c-v0", "llama2c-v1", "llama2c-v2", "safetensors", "config.json", "index.json", "gguf-q8_0", "gguf-f16",
         "gguf-vocabulary", "gguf-template", "gguf-scored", "tokenizer.bin", "sentencepiece", "tokenizer.json",
         "tokenizer_config.json", "chat_template.jinja", "image-q8", "image-q4", "llama3-ranks", "packed-tokenizer")


def test_no_reader_is_left_out(targets):
    assert tuple(targets) == NAMES
    for target in targets.values():
        assert fuzz.attempt(target, target.valid) == "read", target.name


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 64))
def test_only_clean_errors(targets, name, seed):
    data = targets[name].inputs(fuzz.random.Random(seed))
    assert fuzz.attempt(targets[name], data) in ("read", "refused")


def test_a_tensor_without_elements_is_refused(tmp_path):
    """Found by the fuzzer: the elements of a vector are its rows, whose length was reckoned from their number."""
    tensor = SimpleNamespace(name="output_norm.weight", shape=np.array([0]), tensor_type=GGMLQuantizationType.F32,
                             data_offset=0)
    with pytest.raises(CheckpointError, match="output_norm.weight has no elements"):
        gguf_file._stored(tensor, tmp_path)


def test_a_finding_is_found(targets):
    """The harness itself: an exception of another kind, several lines, and a slow reader are findings."""
    def reader(error):
        def read(folder):
            raise error
        return read
    target = targets["llama2c-v0"]
    for error, what in ((KeyError("x"), "KeyError"), (fuzz.HostError(""), "not one line"),
                        (MemoryError(), "MemoryError")):
        broken = fuzz.Target("broken", target.folder, target.file, reader(error))
        assert fuzz.attempt(broken, target.valid).startswith(what)
