"""Shows that perplexity and compare say what golden and float32 say, on the command line and for programs."""
import json
from dataclasses import replace

import numpy as np
import pytest
from gguf import GGUFValueType

from llama2_host.checkpoint import load
from llama2_host.evaluation import Score, dequantised, log_softmax
from llama2_host.image.model import Model
from llama2_spec.golden import Golden
from llama2_spec.image import Kind
from llama2_spec.reference import Reference
from llama2_spec.traffic import TARGETS, useful_beats
from tests.host.checkpoints import write_gguf
from tests.host.generated import random_tensors
from tests.host.test_cli import refusal, run
from tests.host.tiny import CONFIG, TOKENIZER

TEXTS = ["abc abd abe", "the moon, the lake"]
KEYS = {"perplexity", "delta_percent", "kl", "top1", "bits_per_weight", "bytes", "tokens_per_second"}


@pytest.fixture
def text(files):
    (files / "text.txt").write_text("<|endoftext|>".join(TEXTS))
    return files / "text.txt"


def by_hand(golden, exact):
    """Perplexities, divergence and agreement, one token at a time."""
    ours, own, kl, same = [], [], [], []
    for story in TEXTS:
        ids = TOKENIZER.encode(story)
        for position, (token, following) in enumerate(zip(ids, ids[1:])):
            p = np.exp(np.float64(exact.step(token, position)))
            q = np.exp(golden.step(token, position).values / 2.0 ** 18)
            p, q = p / p.sum(), q / q.sum()
            ours.append(-np.log(q[following])), own.append(-np.log(p[following]))
            kl.append(np.sum(p * np.log(p / q))), same.append(p.argmax() == q.argmax())
    return np.exp(np.mean(ours)), np.exp(np.mean(own)), np.mean(kl), np.mean(same)


def test_perplexity_is_reckoned_as_by_hand(files, text):
    out, _ = run("perplexity", "--model", files / "tiny.bin", "--text", text, "--format", "q4", "--json")
    result = json.loads(out)
    assert KEYS < result.keys() and result["model"] == "tiny.bin" and result["format"] == "q4"
    model = Model.load(files / "tiny.bin", format="q4")
    ours, own, kl, same = by_hand(Golden(model.image), Reference(CONFIG, load(files / "tiny.bin").tensors))
    assert result["perplexity"] == pytest.approx(ours) and result["perplexity_float32"] == pytest.approx(own, rel=1e-5)
    assert result["delta_percent"] == pytest.approx(100 * (ours / own - 1), rel=1e-3)
    assert result["kl"] == pytest.approx(kl, rel=1e-3) and result["top1"] == same
    assert result["tokens"] == sum(len(TOKENIZER.encode(story)) - 1 for story in TEXTS)
    header = model.image.header
    assert result["bytes"] == header["payload_bytes"] == sum(e.beats for e in model.image.entries) * 16
    parameters = load(files / "tiny.bin").n_parameters
    assert result["bits_per_weight"] == pytest.approx(8 * header["payload_bytes"] / parameters)
    beats = useful_beats(CONFIG, model.image.entries, CONFIG.seq_len // 2)
    assert result["tokens_per_second"] == pytest.approx(100e6 * TARGETS["arty"].share / beats)


def test_float32_keeps_what_an_image_does_not_say(files, tmp_path, text):
    """RoPE's scaling is a table in the image: the float model that golden is compared with has the checkpoint's own
    factors."""
    config = replace(CONFIG, head_dim=16, rope_theta=1000.0)
    tensors = random_tensors(config)
    path = write_gguf(tmp_path / "m.gguf", config, tensors,
                      fields={"llama.rope.scaling.factor": (8.0, GGUFValueType.FLOAT32)})
    result = json.loads(run("perplexity", "--model", path, "--tokenizer", files / "tokenizer.bin", "--text", text,
                            "--json")[0])
    scaled = replace(config, rope_factors=(8.0,) * 8)
    golden = Golden(Model.load(path).image)
    (_, own, kl, _), (_, plain, wrong, _) = (by_hand(golden, Reference(c, tensors)) for c in (scaled, config))
    assert result["perplexity_float32"] == pytest.approx(own, rel=1e-5) and own != pytest.approx(plain, rel=1e-5)
    assert result["kl"] == pytest.approx(kl, rel=1e-2) and wrong > 2 * kl
    rows = json.loads(run("compare", "--model", path, "--tokenizer", files / "tokenizer.bin", "--text", text,
                          "--format", "q8", "--json")[0])
    assert rows["rows"][0]["kl"] == pytest.approx(kl, rel=1e-2)


def test_an_image_has_nothing_to_compare_with(files, text):
    out, _ = run("perplexity", "--model", files / "tiny.llm", "--tokenizer", files / "tokenizer.bin", "--text", text,
                 "--json")
    result = json.loads(out)
    assert result["kl"] is None and result["delta_percent"] is None and result["format"] == "q8 g64"
    checkpoint = json.loads(run("perplexity", "--model", files / "tiny.bin", "--text", text, "--json")[0])
    assert result["perplexity"] == checkpoint["perplexity"]


def test_compare_tells_every_format(files, text):
    out, _ = run("compare", "--model", files / "tiny.bin", "--text", text, "--calibrate", text, "--budget", "7.5bits",
                 "--json")
    result = json.loads(out)
    rows = {row["format"]: row for row in result["rows"]}
    assert list(rows) == ["q8", "q4", "mixed"] and all(KEYS < row.keys() for row in rows.values())
    assert (rows["q4"]["bytes"] < rows["mixed"]["bytes"] < rows["q8"]["bytes"]
            and rows["mixed"]["bits_per_weight"] <= 7.5)
    assert rows["q8"]["kl"] < rows["mixed"]["kl"] < rows["q4"]["kl"]
    for row in rows.values():
        assert row["perplexity"] == pytest.approx(result["perplexity_float32"] * (1 + row["delta_percent"] / 100))
    table, _ = run("compare", "--model", files / "tiny.bin", "--text", text, "--format", "q8")
    lines = table.splitlines()
    assert lines[0].split() == ["format", "perplexity", "change", "KL", "top-1", "weights", "bits", "tokens/s"]
    assert lines[2].split()[:2] == ["q8", f"{rows['q8']['perplexity']:.4f}"] and len(lines) == 4


def test_perplexity_for_people(files, text):
    lines = run("perplexity", "--model", files / "tiny.bin", "--text", text)[0].splitlines()
    assert [line.split()[0] for line in lines] == ["q8", "float32", "size", "speed"]


@pytest.mark.parametrize("arguments, complaint", [
    (["compare", "--model", "tiny.llm"], "tiny.llm is a model image: compare takes a checkpoint"),
    (["perplexity", "--model", "tiny.bin", "--format", "mixed"], "--format mixed needs --calibrate FILE"),
    (["compare", "--model", "tiny.bin", "--format", "q4", "--calibrate", "absent.txt"], "absent.txt"),
    (["compare", "--model", "tiny.bin", "--calibrate", "text.txt", "--budget", "1kB"],
     "--budget 1kB is 1000 B of weights"),
])
def test_refusals(files, text, arguments, complaint):
    arguments = [files / a if "." in a and (files / a).exists() or a == "absent.txt" else a for a in arguments]
    assert complaint in refusal(*arguments, "--text", text, notes=9)


def test_bad_texts(files, text):
    assert "cannot read" in refusal("perplexity", "--model", files / "tiny.bin", "--text", files / "absent.txt",
                                    notes=1)
    text.write_bytes(b"\xff\xfe")
    assert "not UTF-8 at byte 0" in refusal("perplexity", "--model", files / "tiny.bin", "--text", text, notes=1)


def test_convert_writes_what_was_chosen(files, text):
    run("convert", files / "tiny.bin", "-o", files / "out.llm", "--format", "mixed", "--calibrate", text, "--budget",
        "7.5bits")
    entries = Model.load(files / "out.llm").image.entries
    assert {e.format.name for e in entries if e.kind != Kind.GAIN} == {"Q4", "Q8"}
    assert "q4 g32 and q8 g64" in run("info", files / "out.llm")[0]


def test_a_conversion_depends_on_its_calibration_text(files, text):
    first = Model.load(files / "tiny.bin", format="q4", calibrate=text).path
    assert Model.load(files / "tiny.bin", format="q4", calibrate=text).path == first
    text.write_text("quite another text")
    assert Model.load(files / "tiny.bin", format="q4", calibrate=text).path != first


def test_scores_add_up():
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 9, 30).tolist()
    p, q = (log_softmax(rng.normal(size=(30, 9)) * 2) for _ in range(2))
    whole, parts, same = Score(), Score(), Score()
    whole.add(ids, p, q)
    for at in (0, 10, 20):      # positions at the ends predict nothing
        parts.add(ids[at:at + 11], p[at:at + 11], q[at:at + 11])
    same.add(ids, p, p)
    assert whole.tokens == parts.tokens == 29
    assert (parts.perplexity, parts.kl, parts.top1) == pytest.approx((whole.perplexity, whole.kl, whole.top1))
    assert same.kl == 0 and same.top1 == 1 and whole.worst == parts.worst > whole.kl > 0


def test_dequantised_has_every_name_of_the_checkpoint(files):
    source = load(files / "tiny.bin")
    found = dequantised(Model.load(files / "tiny.llm").image)
    assert found.keys() == source.tensors.keys()
    for name, tensor in source.tensors.items():
        np.testing.assert_allclose(found[name], tensor, atol=np.abs(tensor).max() / 120)
