"""Shows that every llama2.c format gives the same named tensors, and that a bad file gives one clear line."""

import dataclasses
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from bench import reference_data
from llama2_host.checkpoint import CheckpointError, load
from llama2_host.checkpoint.layout import LIMITS, shapes
from llama2_host.checkpoint.lazy import RawFile
from llama2_host.checkpoint.write import pack_v0, pack_v1, pack_v2, write_v0
from llama2_host.errors import HostError
from llama2_host.tokenizer import load as load_tokenizer
from llama2_spec.reference import Reference
from tests.host.generated import SMALL, random_tensors
from tests.host.tiny import TOKENIZER

UNTIED = dataclasses.replace(SMALL, tied=False)
PACKERS = {"v0": pack_v0, "v1": pack_v1, "v2": lambda config, tensors: pack_v2(config, tensors, 4),
           "v2 straddling": lambda config, tensors: pack_v2(config, tensors, 8)}       # rows of w2 have 12 columns
formats = pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS.keys())
fuzz = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def read(tmp_path):
    """Load a checkpoint from bytes."""
    def read(data):
        path = tmp_path / "model.bin"
        path.write_bytes(data)
        try:
            return load(path)
        finally:
            path.unlink()                  # the tensors keep their mapping of the old file
    return read


def refusal(read, data) -> str:
    """The one line that refuses ``data``."""
    with pytest.raises(CheckpointError) as refused:
        for tensor in read(data).tensors.values():
            np.asarray(tensor)
    message = str(refused.value)
    assert "\n" not in message and "model.bin: " in message
    return message


@pytest.mark.parametrize("config", [SMALL, UNTIED], ids=["tied", "untied"])
@pytest.mark.parametrize("version", ["v0", "v1"])
def test_float_formats_give_every_tensor(read, config, version):
    tensors = random_tensors(config)
    checkpoint = read(PACKERS[version](config, tensors))
    assert checkpoint.config == config and checkpoint.source == f"llama2.c {version}" and checkpoint.groups is None
    assert checkpoint.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert checkpoint.tensors[name].dtype == np.float32
        np.testing.assert_array_equal(checkpoint.tensors[name], tensor, err_msg=name)
    assert checkpoint.n_parameters == sum(tensor.size for tensor in tensors.values())


@pytest.mark.parametrize("config", [SMALL, UNTIED], ids=["tied", "untied"])
@pytest.mark.parametrize("group_size", [2, 4, 8, 16])
def test_v2_gives_native_groups_and_their_values(read, config, group_size):
    tensors = random_tensors(config)
    checkpoint = read(pack_v2(config, tensors, group_size))
    assert checkpoint.config == config and checkpoint.source == "llama2.c v2"
    assert checkpoint.tensors.keys() == tensors.keys()
    assert checkpoint.groups.keys() == {name for name, tensor in tensors.items() if tensor.ndim == 2}
    for name, (codes, scales, size, _) in checkpoint.groups.items():
        assert codes.dtype == np.int8 and codes.shape == tensors[name].shape and size == group_size
        assert scales.dtype == np.float32 and scales.flags.aligned and len(scales) * size == codes.size
        values = (codes.ravel() * np.repeat(scales, size)).reshape(codes.shape)
        np.testing.assert_array_equal(checkpoint.tensors[name], values)
        error = np.abs(values - tensors[name]).reshape(-1, size)
        assert (error <= scales[:, None] * 0.5001).all(), name
    np.testing.assert_array_equal(checkpoint.tensors["final_norm"], tensors["final_norm"])


def test_v2_groups_may_span_rows(read):
    # 12 columns of w2 in groups of 8: the second group is the end of row 0 and the start of row 1.
    tensors = random_tensors(SMALL)
    tensors["layers.0.w2"] = np.zeros_like(tensors["layers.0.w2"])
    tensors["layers.0.w2"][0, 8:] = 1.0
    tensors["layers.0.w2"][1, :4] = 127.0
    w2 = read(pack_v2(SMALL, tensors, 8)).tensors["layers.0.w2"]
    np.testing.assert_array_equal(w2, tensors["layers.0.w2"])


def test_v2_rounds_half_to_even(read):
    tensors = random_tensors(SMALL)
    tensors["layers.1.wq"][0, :4] = [127.0, 0.5, 1.5, -2.5]
    codes, scales, *_ = read(pack_v2(SMALL, tensors, 4)).groups["layers.1.wq"]
    assert codes[0, :4].tolist() == [127, 0, 2, -2] and scales[0] == 1.0


def test_formats_compute_the_same_logits(read):
    tokens, tensors = [1, 5, 9, 200], random_tensors(SMALL)
    v0, v1 = (read(pack(SMALL, tensors)) for pack in (pack_v0, pack_v1))
    v2 = read(pack_v2(SMALL, tensors, 4))
    expected = Reference(SMALL, tensors).logits(tokens)
    for checkpoint in (v0, v1):
        np.testing.assert_array_equal(Reference(checkpoint.config, checkpoint.tensors).logits(tokens), expected)
    error = Reference(v2.config, v2.tensors).logits(tokens) - expected
    assert 0 < np.sqrt(np.mean(error ** 2)) < 0.05 * np.std(expected)


def test_a_file_written_anew_leaves_loaded_tensors_alone(tmp_path):
    first, second = (random_tensors(SMALL, seed) for seed in (1, 2))
    write_v0(tmp_path / "model.bin", SMALL, first)
    loaded = load(tmp_path / "model.bin")
    write_v0(tmp_path / "model.bin", SMALL, second)
    np.testing.assert_array_equal(loaded.tensors["embedding"], first["embedding"])
    np.testing.assert_array_equal(load(tmp_path / "model.bin").tensors["embedding"], second["embedding"])
    assert [path.name for path in tmp_path.iterdir()] == ["model.bin"]


@formats
def test_rows_are_read_when_they_are_asked_for(read, pack):
    """Any slice of rows is that of the whole tensor, also where groups begin and end within rows."""
    for tensor in read(pack(SMALL, random_tensors(SMALL))).tensors.values():
        whole = np.asarray(tensor)
        for rows in (slice(0, 1), slice(3, 8), slice(5, 5), slice(len(whole) - 1, None)):
            np.testing.assert_array_equal(tensor[rows], whole[rows])


@pytest.mark.parametrize("start", range(SMALL.dim))
def test_slices_of_groups_that_straddle_rows(read, start):
    """Wherever a slice begins and ends, within a group or between two: codes times scales of the flattened tensor."""
    checkpoint = read(pack_v2(SMALL, random_tensors(SMALL), 8))
    codes, scales, *_ = checkpoint.groups["layers.1.w2"]
    expected = (codes.ravel() * np.repeat(scales, 8)).reshape(SMALL.dim, SMALL.hidden_dim)
    for stop in range(start, SMALL.dim + 1):
        np.testing.assert_array_equal(checkpoint.tensors["layers.1.w2"][start:stop], expected[start:stop])


@formats
def test_floats_stay_in_the_file(read, pack, monkeypatch):
    """Loading reads no tensor, and a slice reads its own rows only: what is never asked for costs no memory."""
    pieces, original = [], RawFile.read

    def watched(self, offset, count):
        pieces.append(count)
        return original(self, offset, count)
    monkeypatch.setattr(RawFile, "read", watched)
    checkpoint = read(pack(SMALL, random_tensors(SMALL)))
    assert not pieces
    checkpoint.tensors["layers.0.ffn_norm"][3:5]
    assert pieces == [2 * 4]
    if checkpoint.groups is None:
        checkpoint.tensors["layers.1.w2"][3:8]
        assert pieces == [2 * 4, 5 * SMALL.hidden_dim * 4]


@pytest.mark.reference
def test_reads_stories260k_with_either_tokenizer():
    for name in ("tok512.bin", "tok512.model"):
        checkpoint = load(reference_data.path("models", "stories260K.bin"))
        assert checkpoint.n_parameters == 260032
        assert load_tokenizer(reference_data.path("models", name), checkpoint.config.vocab_size).vocab_size == 512
    c = checkpoint.config
    assert (c.dim, c.hidden_dim, c.n_layers, c.n_heads, c.n_kv_heads, c.seq_len) == (64, 172, 5, 8, 4, 512)
    assert pack_v0(c, checkpoint.tensors)[:-4 * 4096 - 256] == \
        reference_data.path("models", "stories260K.bin").read_bytes()[:-4 * 4096 - 256]      # all but the RoPE tables


# What is refused ------------------------------------------------------------------------------

@formats
@pytest.mark.parametrize("kept", [1, 27, 28, 100, 255, 256, 300, -1])
def test_refuses_a_truncated_file(read, pack, kept):
    assert "truncated" in refusal(read, pack(SMALL, random_tensors(SMALL))[:kept])


@formats
def test_refuses_trailing_data(read, pack):
    assert "3 bytes after the end" in refusal(read, pack(SMALL, random_tensors(SMALL)) + b"abc")


@formats
@pytest.mark.parametrize("field", range(7))
@pytest.mark.parametrize("value", [0, -1 << 31, (1 << 31) - 1])
def test_refuses_an_impossible_header(read, pack, field, value):
    data = bytearray(pack(SMALL, random_tensors(SMALL)))
    start = 0 if pack is pack_v0 else 8
    struct.pack_into("<i", data, start + 4 * field, value)
    assert f"impossible header: {list(LIMITS)[field]}" in refusal(read, bytes(data))


@pytest.mark.parametrize("field, value, message", [
    (3, 3, "does not split into 3 heads"), (3, 16, "heads of even size"), (4, 3, "cannot share 3")])
@formats
def test_refuses_heads_that_do_not_divide(read, pack, field, value, message):
    data = bytearray(pack(SMALL, random_tensors(SMALL)))
    struct.pack_into("<i", data, 4 * field + (0 if pack is pack_v0 else 8), value)
    assert message in refusal(read, bytes(data))


def test_refuses_a_header_far_larger_than_the_file_without_allocating(read):
    header = struct.pack("<7i", 65536, 262144, 1024, 1024, 1024, 1 << 20, 1 << 20)
    assert "truncated" in refusal(read, header + bytes(100))


@pytest.mark.parametrize("version", [0, 3, -1])
def test_refuses_an_unknown_version(read, version):
    data = bytearray(pack_v1(SMALL, random_tensors(SMALL)))
    struct.pack_into("<i", data, 4, version)
    assert f"version {version}, expected 0, 1 or 2" in refusal(read, bytes(data))


def test_refuses_a_flag_that_is_neither(read):
    data = bytearray(pack_v1(SMALL, random_tensors(SMALL)))
    data[36] = 2
    assert "flag is 2" in refusal(read, bytes(data))


@pytest.mark.parametrize("group_size", [0, -4, 5, 1 << 30])
def test_refuses_a_group_size_that_does_not_divide(read, group_size):
    data = bytearray(pack_v2(SMALL, random_tensors(SMALL), 4))
    struct.pack_into("<i", data, 37, group_size)
    assert f"group size {group_size} does not divide" in refusal(read, bytes(data))


@pytest.mark.parametrize("head, kind", [
    (b"GGUF\3\0\0\0", "GGUF"), (b"tjgg", "GGML"), (struct.pack("<Q", 80) + b'{"a"', "safetensors"),
    (b"PK\3\4", "PyTorch"), (b"\x80\2}q", "pickle"), (b'{\n "model_type"', "JSON"), (b"LLaMA", "llama2.ts"),
    (b"version https://git-lfs", "LFS"),
    (b"<!DOCTYPE html>", "web page"), (b"\x1f\x8b\x08", "gzip"), (b"\n\x0e\n\x05<unk>", "sentencepiece")])
def test_names_a_foreign_file(read, head, kind):
    assert kind in refusal(read, head + bytes(200))


@pytest.mark.parametrize("head, kind", [
    (b"\1\5\0\0\0llama" + bytes(90), "a llama2.ts container"),
    (b"version https://git-lfs.github.com/spec/v1\n" + bytes(90), "a Git LFS pointer"),
    (b"IQ== 0\nIg== 1\nIw== 2\n" * 9, "a LLaMA-3 tokenizer")])
def test_names_what_else_people_try(read, head, kind):
    assert f"this is {kind}, expected a checkpoint" in refusal(read, head)


def test_names_a_tokenizer_that_is_given_as_a_model(read):
    packed = TOKENIZER.pack_pieces()
    assert f"this is a llama2.c tokenizer of {TOKENIZER.vocab_size} entries" in refusal(read, packed)
    assert "--tokenizer" in refusal(read, packed) and "tokenizer of" not in refusal(read, packed[:-1])


@pytest.mark.parametrize("bytes_per_weight, embedding_bytes", [(1 / 4, 1 / 4), (1 / 5, 4), (1 / 4, 4)])
def test_names_a_file_of_ternary_weights(read, bytes_per_weight, embedding_bytes):
    whole = pack_v1(SMALL, random_tensors(SMALL))
    table = SMALL.vocab_size * SMALL.dim
    others = sum(int(np.prod(shape)) for shape in shapes(SMALL).values() if len(shape) == 2) - table
    norms = len(whole) - 256 - 4 * (table + others)
    size = 256 + norms + int(others * bytes_per_weight) + int(table * embedding_bytes)
    assert ("bits a weight behind a llama2.c v1 header, expected float32: a file of ternary weights" in refusal(
        read, whole[:size]))
    assert "truncated llama2.c v1" in refusal(read, whole[:len(whole) // 2])


@formats
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_refuses_weights_that_are_no_numbers(read, pack, value):
    tensors = random_tensors(SMALL)
    tensors["layers.1.ffn_norm"][3] = value
    assert "tensor layers.1.ffn_norm holds" in refusal(read, pack(SMALL, tensors))


def test_refuses_a_path_that_is_no_file(tmp_path):
    for path, message in [(tmp_path / "absent.bin", "no such file"), (tmp_path, "no safetensors in this folder")]:
        with pytest.raises(CheckpointError, match=message):
            load(path)
    (tmp_path / "empty.bin").touch()
    with pytest.raises(CheckpointError, match="empty file"):
        load(tmp_path / "empty.bin")


def test_a_refusal_ends_a_command():
    assert issubclass(CheckpointError, HostError) and issubclass(CheckpointError, ValueError)


# Whatever the bytes, the one error --------------------------------------------------------------

@formats
@fuzz
@given(data=st.data())
def test_fuzz_truncation_and_damage(read, pack, data):
    valid = bytearray(pack(SMALL, random_tensors(SMALL)))
    for _ in range(data.draw(st.integers(0, 4))):
        valid[data.draw(st.integers(0, 63))] = data.draw(st.integers(0, 255))
    only_checkpoint_error(read, bytes(valid[:data.draw(st.integers(0, len(valid)))]))
    only_checkpoint_error(read, bytes(valid))


@formats
@fuzz
@given(fields=st.lists(st.one_of(st.integers(-4, 64), st.integers(-1 << 31, (1 << 31) - 1)), min_size=8, max_size=8),
       body=st.binary(max_size=400))
def test_fuzz_headers(read, pack, fields, body):
    magic = b"" if pack is pack_v0 else pack(SMALL, random_tensors(SMALL))[:8]
    only_checkpoint_error(read, magic + struct.pack("<8i", *fields) + body)


@fuzz
@given(st.binary(max_size=600))
def test_fuzz_any_bytes(read, data):
    only_checkpoint_error(read, data)


def only_checkpoint_error(read, data):
    try:
        checkpoint = read(data)
        for tensor in checkpoint.tensors.values():
            assert np.isfinite(np.asarray(tensor)).all()
    except CheckpointError as error:
        assert "\n" not in str(error)
    else:
        assert {name: tensor.shape for name, tensor in checkpoint.tensors.items()} == shapes(checkpoint.config)
