"""Shows that q4 is rounded for its products, that mixed spends its budget, and that the same inputs give the same
image."""
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llama2_host import checkpoint, corpus
from llama2_host.errors import HostError
from llama2_host.evaluation import Score, dequantised, log_softmax
from llama2_host.quantisation import Recipe, gptq, plan
from llama2_host.quantisation.budget import Budget
from llama2_host.quantisation.sensitivity import costs
from llama2_host.tokenizer.base import Tokenizer
from llama2_host.tokenizer import load as load_tokenizer
from llama2_spec import packing
from llama2_spec.image import Format, Image, Kind, build, payload_bytes
from llama2_spec.model import ModelConfig
from llama2_spec.packing import Native
from llama2_spec.reference import Reference
from llama2_spec.traffic import TARGETS, tokens_per_second

MODELS = Path(__file__).parents[2] / "models"
STORY = ("Once upon a time, there was a little bird named Pip. Pip wanted to fly to the moon. His mom said, \"It is "
         "too far, "
         "Pip.\" But Pip tried and tried. One night he flew over the tall tree and saw a lake. In the lake there was "
         "the moon! Pip was so happy. He touched the water and the moon danced. Then he went home to sleep.")
OTHER = ("Lily had a red ball. She played with it in the park every day. One day the ball rolled under a big car and "
         "she was "
         "sad. A kind man helped her and got the ball. Lily smiled and said, \"Thank you!\" They played all day.")


@pytest.fixture(scope="module")
def source():
    return checkpoint.load(MODELS / "stories.bin")


@pytest.fixture(scope="module")
def tokenizer(source):
    return load_tokenizer(MODELS / "stories.tokenizer.bin", source.config.vocab_size)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "calibration.txt"
    path.write_text(f"{STORY}<|endoftext|>{OTHER}")
    return path


def made(source, tokenizer, recipe) -> Image:
    formats = plan(recipe, source, tokenizer)
    return Image.parse(build(source.config, source.tensors, groups=source.groups, plan=formats))


def formats_of(image) -> dict:
    return {(e.kind, e.layer): (e.format.name.lower(), e.group) for e in image.entries if e.kind != Kind.GAIN}


@pytest.mark.parametrize("rows, columns, group", [(24, 96, 32), (7, 172, 32), (16, 80, 64)])
def test_products_change_less_than_by_rounding_to_nearest(rows, columns, group):
    rng = np.random.default_rng(rows)
    weights = rng.normal(size=(rows, columns))
    inputs = rng.normal(size=(400, columns)) @ rng.normal(size=(columns, columns)) * rng.exponential(size=columns)
    found = gptq.quantise(weights, inputs.T @ inputs, group=group, damping=0.01)
    nearest = packing.quantise(weights, format="q4", group=group)
    error = [np.square(inputs @ (weights - q.real()).T).sum() for q in (found, nearest)]
    assert error[0] < 0.5 * error[1]
    assert found.codes.min() >= 0 and found.codes.max() <= 15 and found.zeros.min() >= 0 and found.zeros.max() <= 15
    assert found.mantissas.min() >= 1 and found.mantissas.max() < 1 << 12
    back = packing.unpack(packing.pack(found), rows=rows, columns=columns, format="q4", group=group,
                          exponent=found.exponent)
    assert (back.real() == found.real()).all()


def test_feeding_errors_forward_helps_and_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(6)
    weights, inputs = rng.normal(size=(12, 60)), rng.normal(size=(300, 60)) @ rng.normal(size=(60, 60))
    hessian = gptq.damped(inputs.T @ inputs, 0.01)
    steps, zeros = np.full((12, 60), 0.4), np.full((12, 60), 8.0)
    codes = {}
    for block in (1, 7, 64):
        monkeypatch.setattr(gptq, "BLOCK", block)
        codes[block] = gptq._feed_forward(weights.T, hessian, steps.T, zeros.T).T
    assert (codes[1] == codes[64]).all() and (codes[7] == codes[64]).all()
    nearest = np.clip(np.round(weights / steps) + zeros, 0, 15)
    error = [np.square(inputs @ (weights - (q - zeros) * steps).T).sum() for q in (codes[64], nearest)]
    assert error[0] < 0.6 * error[1]


def test_a_sweep_never_makes_a_row_worse():
    rng = np.random.default_rng(2)
    weights, inputs = rng.normal(size=(9, 64)), rng.normal(size=(80, 64)) @ rng.normal(size=(64, 64))
    hessian = inputs.T @ inputs
    steps, zeros, codes = np.full((9, 64), 0.3), np.full((9, 64), 7.0), rng.integers(0, 16, (9, 64)).astype(float)
    error = [np.einsum("ri,ij,rj->r", *(lambda e: (e, hessian, e))(weights - (codes - zeros) * steps))]
    for _ in range(4):
        gptq._sweep(weights.T, hessian, steps.T, zeros.T, codes.T)      # codes change in place
        error.append(np.einsum("ri,ij,rj->r", *(lambda e: (e, hessian, e))(weights - (codes - zeros) * steps)))
        assert (error[-1] <= error[-2] * (1 + 1e-9)).all()
    assert (error[1] < 0.9 * error[0]).all()


def test_inputs_that_are_always_zero_and_rows_of_zeros():
    inputs = np.zeros((50, 64))
    inputs[:, :20] = np.random.default_rng(4).normal(size=(50, 20))
    weights = np.random.default_rng(5).normal(size=(8, 64))
    weights[3] = 0
    q = gptq.quantise(weights, inputs.T @ inputs, group=32, damping=0.01)
    assert (q.real()[3] == 0).all()
    assert np.isfinite(q.real()).all() and np.abs(q.real() - weights)[:, 20:].max() < 0.5
    assert (gptq.quantise(weights * 0, np.zeros((64, 64)), group=32, damping=0.01).real() == 0).all()


def test_calibration_halves_what_q4_costs(source, tokenizer, text):
    """On a text that it was not calibrated on, against rounding to nearest; the embedding is q8 in both."""
    config = replace(source.config, seq_len=256)
    ids = tokenizer.encode("The cat was hungry. She saw a fish in the pond and jumped. The water was cold, so she ran "
                           "home to her mom.")
    exact = log_softmax(Reference(config, source.tensors).logits(ids))
    kl = {}
    for name, recipe in (("nearest", Recipe("q4")), ("calibrated", Recipe("q4", calibrate=text))):
        image = made(source, tokenizer, recipe)
        assert set(formats_of(image).values()) == {("q4", 32), ("q8", 64)}
        assert formats_of(image)[Kind.CLASSIFIER, 0] == ("q8", 64)
        score = Score()
        score.add(ids, log_softmax(Reference(config, dequantised(image)).logits(ids)), exact)
        kl[name] = score.kl
    assert kl["calibrated"] < 0.75 * kl["nearest"]


def test_the_same_inputs_give_the_same_image(source, tokenizer, text):
    recipe = Recipe("mixed", calibrate=text, budget="5.5bits")
    assert made(source, tokenizer, recipe).data == made(source, tokenizer, recipe).data


@pytest.mark.parametrize("budget", ["5.5bits", "300kB", "2350tok/s"])
def test_mixed_keeps_its_budget_and_uses_it(source, tokenizer, text, budget):
    image = made(source, tokenizer, Recipe("mixed", calibrate=text, budget=budget))
    limit = Budget.parse(budget).stream_bytes(source.config)
    length = image.header["payload_bytes"]
    assert length <= limit
    formats = formats_of(image)
    assert {"q4", "q8"} == {format for (kind, _), (format, _) in formats.items() if kind != Kind.CLASSIFIER}
    if budget.endswith("tok/s"):
        position = source.config.seq_len // 2
        assert tokens_per_second(source.config, image.entries, position, TARGETS["arty"]) >= float(budget[:-5])
    # What is still in q4 would not have fitted any more.
    for place, (format, _) in formats.items():
        if format == "q4":
            assert payload_bytes(source.config, "q4", plan=formats | {place: ("q8", 64)}) > limit


def test_sensitivity_ranks_a_matrix_of_outliers_first(source, tokenizer):
    """A matrix whose groups have one huge weight each loses the others in 4 bits."""
    tensors = dict(source.tensors)
    wo = np.array(tensors["layers.2.wo"])
    wo[:, ::32] *= 40
    tensors["layers.2.wo"] = wo
    formats = {place: ("q4", 32) for place in formats_of(made(source, tokenizer, Recipe()))
               if place[0] != Kind.CLASSIFIER}
    formats[Kind.WQ, 0] = "q8", 64
    found = costs(source.config, tensors, [tokenizer.encode(STORY)], formats)
    assert found.keys() == formats.keys() - {(Kind.WQ, 0)}
    assert max(found, key=found.get) == (Kind.WO, 2)


def test_codes_of_the_file_go_before_calibration(source, tokenizer, text):
    rng = np.random.default_rng(7)
    native = Native(rng.integers(-8, 8, source.tensors["layers.1.wo"].shape).astype(np.int8),
                    rng.uniform(0.001, 0.002, (96, 3)), 32, "q4")
    held = replace(source, groups={"layers.1.wo": native})
    image = made(held, tokenizer, Recipe("q4", calibrate=text))
    wo = image.tensor(next(e for e in image.entries if (e.kind, e.layer) == (Kind.WO, 1)))
    assert (wo.codes - 8 == native.codes).all() and (wo.zeros == 8).all()


def test_embedding_in_q4_if_asked(source, tokenizer):
    assert formats_of(made(source, tokenizer, Recipe("q4", embedding="q4")))[Kind.CLASSIFIER, 0] == ("q4", 32)
    assert {e.format for e in made(source, tokenizer, Recipe()).entries} == {Format.Q8}


@pytest.mark.parametrize("recipe", [Recipe(), Recipe("q4"), Recipe("q4", embedding="q4"), Recipe("q8", 32),
                                    Recipe("q4", 64)])
def test_expected_bytes_are_those_of_the_image(source, tokenizer, recipe):
    assert recipe.expected_bytes(source.config) == made(source, tokenizer, recipe).header["payload_bytes"]


@pytest.mark.parametrize("recipe, complaint", [
    (Recipe("mixed"), "mixed needs --calibrate FILE"),
    (Recipe("q4", budget="4MB"), "--budget is for --format mixed, not q4"),
    (Recipe("q8", calibrate=Path("text")), "--calibrate is for --format q4 and mixed"),
    (Recipe("mixed", calibrate=Path("text"), budget="lots"), "--budget lots: expected an amount like 4MB"),
    (Recipe("mixed", calibrate=Path("text"), budget="0bits"), "--budget 0bits: expected an amount"),
    (Recipe("q4", calibrate=Path("/nowhere/text")), "cannot read /nowhere/text: No such file"),
])
def test_what_cannot_be_meant_is_refused(source, tokenizer, recipe, complaint):
    with pytest.raises(HostError, match=complaint):
        plan(recipe, source, tokenizer)


def test_a_budget_below_q4_is_refused_with_the_arithmetic(source, tokenizer, text):
    with pytest.raises(HostError, match=r"97.7 KiB of weights, all matrices in q4 with the embedding in q8 take .* "
                                        r"KiB: allow "
                                        "more, or add --embedding q4"):
        plan(Recipe("mixed", calibrate=text, budget="100kB"), source, tokenizer)


def test_the_default_budget_of_mixed_never_refuses():
    """A model of 15 million weights has most of them in its embedding, which stays q8: more than 6 bits a weight in
    all."""
    shape = dict(dim=288, hidden_dim=768, n_layers=6, n_heads=6, n_kv_heads=6, head_dim=48, vocab_size=32000,
                 seq_len=256)
    for tied in (True, False):
        config, recipe = ModelConfig(tied=tied, **shape), Recipe("mixed", calibrate=Path("text"))
        least = payload_bytes(config, "q4", plan=recipe.formats(config))
        assert (Budget.parse("6bits").stream_bytes(config) < least < recipe.limit_bytes(config) ==
                recipe.expected_bytes(config))
        assert recipe.limit_bytes(config) < Recipe().expected_bytes(config)
        assert replace(recipe, budget="6bits").limit_bytes(config) < least


def test_calibration_holds_one_layer_at_a_time(source, tokenizer, text):
    """Of the arrays that were read for it, those of earlier layers are given back."""
    held, most = [], 0

    class Watched:
        """A tensor in its file that knows how many arrays like it are alive."""

        def __init__(self, rows):
            self.rows, self.shape, self.ndim = rows, rows.shape, rows.ndim

        def __len__(self):
            return len(self.rows)

        def __getitem__(self, part):
            return self.rows[part]

        def __array__(self, dtype=None, copy=None):
            nonlocal most
            out = np.array(self.rows)
            held.append(weakref.ref(out))
            most = max(most, sum(array() is not None for array in held))
            return out
    tensors = {name: Watched(rows) for name, rows in source.tensors.items()}
    made(replace(source, tensors=tensors), tokenizer, Recipe("q4", calibrate=text))
    # nine tensors twice, and a matrix at work; of four layers with seven matrices
    assert 0 < most <= 22 < len(held)


def test_calibration_needs_a_tokenizer(source, text):
    with pytest.raises(HostError, match="--calibrate needs the model's tokenizer"):
        plan(Recipe("q4", calibrate=text), source, None)


def test_long_texts_go_on_in_further_sequences(tokenizer, tmp_path):
    path = tmp_path / "long.txt"
    path.write_text(f"{STORY}<|endoftext|>\n<|endoftext|>{OTHER}\n")
    pieces = corpus.sequences(path, tokenizer, 50)
    ids = [tokenizer.encode(text) for text in (STORY, OTHER)]
    assert all(piece[0] == tokenizer.bos_id and 1 < len(piece) <= 50 for piece in pieces)
    assert [id for piece in pieces for id in piece[1:]] == [id for text in ids for id in text[1:]]
    # A vocabulary that adds no BOS: no token that the text does not have, each but the first predicted once.
    plain = Tokenizer(tokenizer.pieces, tokenizer.scores, **tokenizer.options() | {"adds_bos": False})
    pieces, ids = corpus.sequences(path, plain, 50), [plain.encode(text) for text in (STORY, OTHER)]
    assert all(piece[0] != tokenizer.bos_id and 1 < len(piece) <= 50 for piece in pieces) and len(pieces) > 2
    assert [id for piece in pieces for id in piece[1:]] == [id for text in ids for id in text[1:]]
    assert all(any(text[at:at + len(piece)] == piece for text in ids for at in range(len(text))) for piece in pieces)
    with pytest.raises(HostError, match="a context of 1 position predicts nothing"):
        corpus.sequences(path, tokenizer, 1)
    path.write_bytes(b"a\xff")
    with pytest.raises(HostError, match="not UTF-8 at byte 1"):
        corpus.sequences(path, tokenizer, 50)
    path.write_text(" <|endoftext|> ")
    with pytest.raises(HostError, match="no text of two tokens"):
        corpus.sequences(path, tokenizer, 50)
