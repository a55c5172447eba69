"""Shows what the converter sees of weights far above the rest or far below everything: right, or refused in one
line."""
import io

import numpy as np
import pytest

from llama2_host.checkpoint.write import write_v0
from llama2_host.errors import HostError
from llama2_host.evaluation import golden_logits
from llama2_host.image.model import Model
from llama2_host.progress import Progress
from llama2_spec import packing
from llama2_spec.golden import Golden
from llama2_spec.model import ModelConfig
from llama2_spec.packing import Native, carried_over, quantise
from llama2_spec.reference import Reference
from tests.host.generated import random_tensors

CONFIG = ModelConfig(dim=64, hidden_dim=176, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=16, vocab_size=64,
                     seq_len=32)
UNTIED = ModelConfig(**{**vars(CONFIG), "tied": False})
IDS = [1, 5, 9, 3, 22, 30, 7]


@pytest.fixture
def convert(tmp_path, monkeypatch):
    """Convert random weights of which one tensor was changed: golden's logits, float32's, and what was said."""
    monkeypatch.setenv("LLAMA2_HOST_CACHE", str(tmp_path / "cache"))

    def convert(name, where, factor, config=CONFIG, **options):
        tensors = random_tensors(config)
        tensors[name][where] = tensors[name][where] * np.float32(factor)
        write_v0(tmp_path / "model.bin", config, tensors)
        said = io.StringIO()
        model = Model.load(tmp_path / "model.bin", progress=Progress(said), **options)
        return golden_logits(Golden(model.image), IDS), Reference(config, tensors).logits(IDS), said.getvalue()
    return convert


def relative(found, exact):
    return np.abs(found - exact).max() / np.abs(exact).max()


@pytest.mark.parametrize("name, row, factor", [("layers.0.wv", 3, 1e3), ("embedding", 60, 3e3), ("layers.1.w1", 5, 3e3),
                                               ("layers.0.wq", 5, 1e-5)])
def test_a_row_far_from_the_rest_leaves_the_rest_alone(convert, name, row, factor):
    """10^3 and more times the others: with 12-bit scales alone, these kept one code, then none."""
    found, exact, said = convert(name, row, factor)
    assert relative(found, exact) < 0.06 and "lost" not in said


def test_scales_below_the_first_step_keep_codes():
    """A row 10^4 times the others leaves them a step of 1, of which they use fewer codes, instead of nothing."""
    weights = np.random.default_rng(1).standard_normal((16, 64)).astype(np.float32)
    weights[0] *= 1e4
    for format, limit in (("q8", 0.02), ("q4", 0.35)):
        q = quantise(weights, format=format)
        assert np.linalg.norm(q.real()[1:] - weights[1:]) < limit * np.linalg.norm(weights[1:])
        assert np.abs(q.real() - weights).max(axis=1)[1:].max() <= max(q.mantissas[1:].max(), 1) * 2.0 ** q.exponent


def test_codes_of_a_file_below_the_first_step_are_rounded_anew():
    codes = np.random.default_rng(2).integers(-127, 128, (8, 64)).astype(np.int8)
    scales = np.full((8, 2), 1e-2)
    scales[0] *= 1e4
    q = carried_over(codes, scales, 32)
    exact = codes * np.repeat(scales, 32, axis=1)
    assert np.abs(q.real() - exact)[1:].max() <= 2.0 ** q.exponent and (q.codes[0] == codes[0]).all()
    same = carried_over(*Native(codes, np.full((8, 2), 1e-2), 32)[:3])
    assert (same.codes == codes).all()


@pytest.mark.parametrize("name, where, factor, message", [
    ("layers.0.wv", 3, 1e7, "wv of layer 0 in q8: 31 of 32 rows are gone, the largest weight is"),
    ("layers.1.w2", (3, 7), 1e7, "w2 of layer 1 in q8: 63 of 64 rows are gone"),
    ("embedding", 60, 1e7, "classifier in q8: 63 of 64 rows are gone"),
    ("layers.0.wq", ..., 1e-40, "wq of layer 0 in q8: 64 of 64 rows are gone, its largest weight of"),
    ("embedding", ..., 1e-34, "the embedding's weights are at most"),
    ("final_norm", ..., 1e-38, "the logits are at most")])
def test_where_rows_are_gone_it_is_refused_unless_allowed(convert, name, where, factor, message):
    with pytest.raises(HostError, match=message) as refused:
        convert(name, where, factor)
    assert ("\n" not in str(refused.value) and "model.bin: " in str(refused.value)
            and "--allow-loss" in str(refused.value))
    _, _, said = convert(name, where, factor, allow_loss=True)
    assert said.count("lost in quantising: ") == 1 and message in said


def test_one_weight_that_hides_its_row_is_told(convert):
    found, exact, said = convert("layers.0.w2", (3, 7), 1e3)
    line, = [line for line in said.splitlines() if "lost" in line]
    assert line.startswith(
        "lost in quantising: w2 of layer 0 in q8: 1 of 64 rows keep little but their largest weights")


@pytest.mark.parametrize("name, where, factor", [
    ("layers.0.wq", ..., 1e-34), ("layers.1.w2", ..., 1e-34), ("layers.0.attention_norm", ..., 1e-38),
    ("layers.1.ffn_norm", ..., 1e-38),
    ("embedding", 60, 1e-24), ("layers.0.w1", 9, 1e-39), ("layers.0.w3", 9, 0.0)])
@pytest.mark.parametrize("format", ["q8", "q4"])
def test_tiny_weights_are_right(convert, name, where, factor, format):
    """Tensors whose products are nothing, tokens that were never trained, neurons that died: nothing is said of
    them."""
    usual = relative(*convert("layers.0.wq", ..., 1.0, format=format)[:2])
    found, exact, said = convert(name, where, factor, format=format)
    assert relative(found, exact) < 3 * usual and "lost" not in said


def test_calibration_sees_what_it_loses(convert, tmp_path):
    from tests.host.tiny import TOKENIZER
    config = ModelConfig(**{**vars(CONFIG), "vocab_size": TOKENIZER.vocab_size})
    (tmp_path / "text.txt").write_text("abc abd abe <|endoftext|> the moon, the lake")
    (tmp_path / "tokenizer.bin").write_bytes(TOKENIZER.pack_pieces())
    options = dict(config=config, format="q4", calibrate=tmp_path / "text.txt", tokenizer=tmp_path / "tokenizer.bin")
    assert "lost" not in convert("layers.0.wv", 3, 1.0, **options)[2]
    with pytest.raises(HostError, match="wv of layer 0 in q4: 31 of 32 rows are gone"):
        convert("layers.0.wv", 3, 1e7, **options)


@pytest.mark.parametrize("epsilon", [0.02, 0.9, 1.0])
def test_an_epsilon_that_the_core_cannot_add_is_refused(tmp_path, epsilon, monkeypatch):
    from tests.host.checkpoints import write_huggingface
    monkeypatch.setenv("LLAMA2_HOST_CACHE", str(tmp_path / "cache"))
    folder = write_huggingface(tmp_path / "hf", ModelConfig(**{**vars(CONFIG), "norm_epsilon": epsilon}),
                               random_tensors(CONFIG))
    with pytest.raises(HostError, match=f"an RMSNorm epsilon of {epsilon:g} with dim 64: .* must be below 0.016"):
        _ = Model.load(folder).data
    ModelConfig(**{**vars(CONFIG), "norm_epsilon": 0.0155})
    assert packing.MIN_EXPONENT == -128


def test_exponents_at_their_least_survive_the_image(convert):
    found, _, _ = convert("layers.0.attention_norm", ..., 1e-38, config=UNTIED)
    assert np.isfinite(found).all() and np.abs(found).max() > 0.1
