"""The integer decoder against float32 on the same quantised weights, and the image it reads."""
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llama2_host import checkpoint
from llama2_host.evaluation import dequantised, golden_logits, log_softmax

from llama2_host.tokenizer import load as load_tokenizer
from llama2_spec import packing
from llama2_spec.attention import Cache, attend_block
from llama2_spec.golden import Golden, Matrix, attend, quantise_vector
from llama2_spec.image import HEADER_FIELDS, Image, ImageError, build, row_elements, row_layout, weights
from llama2_spec.model import KvFormat, ModelConfig
from llama2_spec.numerics import quantise
from llama2_spec.reference import Reference
from tests.accel.decoder import random_image
from tests.host.generated import random_tensors

MODELS = Path(__file__).parents[2] / "models"
TEXT = ("Once upon a time, there was a fox who lived near a small pond. Every day the fox counted the frogs. "
        "One day there was one frog more than before, and it was green and very proud.")
CONFIG = ModelConfig(dim=48, hidden_dim=86, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=16, vocab_size=40, seq_len=32)


@pytest.mark.parametrize("format", ["q8", "q4"])
def test_kl_on_the_same_weights(format):
    """The default model on a text of ours: what the integer datapath costs, apart from quantisation."""
    source = checkpoint.load(MODELS / "stories.bin")
    tokens = load_tokenizer(MODELS / "stories.tokenizer.bin", source.config.vocab_size).encode(TEXT)
    image = Image.parse(build(source.config, source.tensors, format=format))
    golden = Golden(image)
    ours = log_softmax(golden_logits(golden, tokens))
    theirs = log_softmax(Reference(source.config, dequantised(image, source.tensors)).logits(tokens))
    assert len(tokens) > 40
    assert (np.exp(theirs) * (theirs - ours)).sum(axis=1).mean() < 1e-6
    assert not golden.flags.raised


@pytest.mark.parametrize("format, group, shape", [("q8", 64, (13, 172)), ("q4", 32, (8, 16)), ("q4", 64, (5, 80)),
                                                  ("q8", 32, (1, 48))])
def test_pack_and_unpack(format, group, shape):
    q = packing.quantise(np.random.default_rng(1).normal(size=shape), format=format, group=group)
    data = packing.pack(q)
    assert len(data) == 16 * packing.tensor_beats(q.rows, q.words, format, group)
    back = packing.unpack(data, rows=shape[0], columns=shape[1], format=format, group=group, exponent=q.exponent)
    assert (back.codes == q.codes).all() and (back.mantissas == q.mantissas).all() and (back.zeros == q.zeros).all()


def test_damage_is_refused_by_name():
    data = bytearray(random_image(CONFIG, 4).data)
    assert replace(Image.parse(bytes(data)).config, norm_epsilon=1e-5) == CONFIG
    for at, what in ((0, "LLMI"), (4, "version"), (40, "header is damaged"), (len(data) - 1, "weights are damaged")):
        bad = bytearray(data)
        bad[at] ^= 1
        with pytest.raises(ImageError, match=what):
            Image.parse(bytes(bad))
    with pytest.raises(ImageError, match="bytes"):
        Image.parse(bytes(data[:-5]))

def test_pieces_of_a_tensor_give_the_image_of_the_whole(monkeypatch):
    """However few rows are held at a time; the rows of w1 and w3 alternate across pieces, too."""
    config = replace(CONFIG, tied=False)
    tensors = random_tensors(config)
    for format in ("q8", "q4"):
        whole = build(config, tensors, format=format)
        with monkeypatch.context() as patch:
            patch.setattr("llama2_spec.image._rows_at_a_time", lambda shape: 8)
            assert build(config, tensors, format=format) == whole


def test_progress_ends_at_all_weights():
    seen = []
    build(CONFIG, random_tensors(CONFIG), report=seen.append)
    assert seen == sorted(seen) and seen[-1] == weights(CONFIG)


def test_rope_factors_divide_the_frequencies():
    plain = Image.parse(build(CONFIG, random_tensors(CONFIG))).rope
    factors = (1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0, 8.0)
    scaled = Image.parse(build(replace(CONFIG, rope_factors=factors), random_tensors(CONFIG))).rope
    np.testing.assert_allclose(scaled * np.array(factors), plain, atol=4)
    with pytest.raises(ImageError, match="2 RoPE factors, expected one per pair, 8"):
        build(replace(CONFIG, rope_factors=(1.0, 2.0)), random_tensors(CONFIG))

def case(name, rng, rows, kv_heads, head_dim):
    """K, its exponents, V and its exponents of ``rows`` positions."""
    k, v = (rng.integers(-32768, 32768, (rows, kv_heads, head_dim)) for _ in range(2))
    ke, ve = (rng.integers(0, 9, (rows, kv_heads)) for _ in range(2))
    if name == "growing":           # a new maximum almost every row
        ke += np.arange(rows)[:, None] // 4
    elif name == "extreme":
        k[:], v[:] = -32768, np.where(rng.integers(0, 2, v.shape), 32767, -32768)
        ke[:], ve[:] = rng.choice([0, 33], ke.shape), rng.choice([0, 33], ve.shape)
    elif name == "one top":         # V's exponent is lifted in the last row alone
        ve[:], ve[-1] = 0, 30
    elif name == "flat":            # like a trained model's: nothing rises after the first rows
        ke[:], ve[0] = 3, 8
    return k, ke, v, ve


@pytest.mark.parametrize("name", ["ordinary", "flat", "growing", "extreme", "one top"])
@pytest.mark.parametrize("heads, kv_heads, head_dim", [(4, 2, 16), (3, 3, 8), (8, 1, 24)])
def test_attention_of_a_block_is_attention_row_by_row(name, heads, kv_heads, head_dim, monkeypatch):
    monkeypatch.setattr("llama2_spec.attention.MAX_SCORES", 1200)          # several parts
    rng = np.random.default_rng(heads)
    rows, n, scale = 70, 30, (0x8255, -18)
    parts = case(name, rng, rows, kv_heads, head_dim)
    cache = Cache(kv_heads, head_dim)
    for at in range(0, rows, 16):
        cache.store(at, *(part[at:at + 16] for part in parts))
    q, qe = rng.integers(-32768, 32768, (n, heads, head_dim)), rng.integers(0, 5 if name == "flat" else 9, (n, heads))
    got = attend_block(q, qe, cache, rows - n, heads // kv_heads, scale)
    for i in range(n):
        expected = attend(q[i], qe[i], list(zip(*parts))[:rows - n + i + 1], heads // kv_heads, scale)
        assert (got[i] == expected).all()


@pytest.mark.parametrize("format, group", [("q8", 64), ("q4", 32)])
def test_row_sums_are_integer_sums(format, group):
    """Float64 inside, integers outside: the shift of every chunk floors as >> does, at the extremes too."""
    rng = np.random.default_rng(3)
    codes = rng.choice([-128, 127], (5, 80)) if format == "q8" else rng.choice([0, 15], (5, 80))
    tensor = packing.Quantised(format, group, codes.astype(np.int16),
                               rng.integers(0, 16, (5, -(-80 // group))).astype(np.int16)
                               * (format == "q4"), rng.choice([1, 4095], (5, -(-80 // group))).astype(np.int16), -3)
    vectors = quantise_vector(rng.choice([-1, 1], (7, 80)) * ((1 << rng.integers(0, 47, (7, 80))) - 1), 0)
    sums = Matrix(tensor).sums(vectors)
    for i in range(7):
        for row in range(5):
            expected = 0
            for c in range(3):
                columns = range(32 * c, min(32 * c + 32, 80))
                dot = sum((int(codes[row, k]) - int(tensor.zeros[row, k // group])) * int(vectors.mantissas[i, k])
                          for k in columns)
                expected += (dot * int(tensor.mantissas[row, 32 * c // group]) >>
                             int(vectors.largest[i] - vectors.exponents[i, c]))
            assert sums[i, row] == expected


@pytest.mark.parametrize("format", ["q8", "q4"])
def test_blocks_and_steps_agree(format):
    config = replace(CONFIG, seq_len=90, tied=format == "q8")
    image = random_image(config, 5, format)
    tokens = np.random.default_rng(5).integers(0, config.vocab_size, config.seq_len).tolist()
    whole, single, prompt = Golden(image), Golden(image), Golden(image)
    rows = np.stack([logits.values for logits in whole.logits(tokens)])
    assert (rows == np.stack([single.step(t, p).values for p, t in enumerate(tokens)])).all()
    assert (prompt.prefill(tokens[:70], 0).values == rows[69]).all()
    assert (prompt.prefill(tokens[40:], 40).values == rows[-1]).all()       # goes back, then on
    assert all(whole.kv_row(layer, p) == prompt.kv_row(layer, p) for layer in range(2) for p in (0, 64, 89))


@pytest.mark.parametrize("kv", KvFormat, ids=str)
def test_kv_rows_hold_what_attention_reads(kv):
    """The format is the image's; a row unpacks to the mantissas in the cache, which are those of 8 bits where it says
    so."""
    image = random_image(replace(CONFIG, kv=kv, n_kv_heads=1, n_heads=2, head_dim=24, dim=96), 5)
    assert image.config.kv == kv
    golden = Golden(image)
    golden.decode([1, 2, 3], 0)
    k, ke, v, ve = golden.cache[1][2]
    row = golden.kv_row(1, 2)
    head, beats = row_layout(image.config)
    assert len(row) == 16 * beats and list(row[:2]) == [ke[0], ve[0]]
    at = 16 * head
    for mantissas, bits in ((k, kv.k_bits), (v, kv.v_bits)):
        assert 1 << bits - 2 <= abs(mantissas).max() < 1 << bits - 1        # as many bits as there are
        for i, expected in enumerate(mantissas[0]):
            place = at + 2 * i if bits == 16 else at + i // 16 * 16 + i % 8 * 2 + i % 16 // 8
            assert int.from_bytes(row[place:place + bits // 8], "little", signed=True) == expected
        at += -(-24 * bits // 128) * 16
    assert row_elements(np.arange(-8, 16), 8)[:4] == bytes([248, 0, 249, 1])


def test_eight_bits_are_rounded_once():
    """From the wide values, not from 16-bit mantissas: 63.5 - 2**-10 is 63, though 16 bits would say 63.5, and so
    64."""
    wide = np.array([[127 << 20, (63 << 20) + (1 << 19) - (1 << 10)]])
    mantissas, exponents = quantise(wide, 8)
    assert (mantissas.tolist(), exponents.tolist()) == ([[127, 63]], [20])
    assert quantise(wide, 16)[0][0, 1] == 127 << 7
    assert quantise(np.array([(127 << 20) + (1 << 19), -1]), 8)[0].tolist() == [127, 0]      # would be 2**7


def test_unknown_kv_format_is_refused():
    data = bytearray(random_image(CONFIG, 4).data)
    at = struct.calcsize("<" + "".join(code for name, code, _ in HEADER_FIELDS if name != "kv_format"))
    struct.pack_into("<I", data, at, 2)
    offset = Image.parse(random_image(CONFIG, 4).data).header["payload_offset"]
    struct.pack_into("<I", data, 12, zlib.crc32(data[16:offset]))
    with pytest.raises(ImageError, match=r"K/V format 2, this program knows 0 \(k16v16\), 1 \(k16v8\), 3 \(k8v8\): "
                                         r"convert"):
        Image.parse(bytes(data))


def test_positions_that_are_not_there_are_refused():
    golden = Golden(random_image(CONFIG, 6))
    golden.prefill([1, 2, 3], 0)
    for token, position in ((1, 4), (1, -1), (1, CONFIG.seq_len), (CONFIG.vocab_size, 0)):
        with pytest.raises(ValueError, match="position|vocabulary"):
            golden.step(token, position)
    with pytest.raises(ValueError, match="context"):
        golden.prefill([1] * (CONFIG.seq_len + 1), 0)
