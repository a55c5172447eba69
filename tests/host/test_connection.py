"""The Python interface, with the examples of the documents run as they stand there."""
import re
from pathlib import Path

import pytest

from llama2_host import Device, connect
from llama2_host.errors import HostError
from llama2_host.generation import Options, Sampling
from llama2_host.image.model import Model
from llama2_spec.protocol import ModelState, Opcode, Reason
from tests.host.fake_device import FakeDevice

DOCS = Path(__file__).resolve().parents[2] / "docs"
EXAMPLES = [(page, code) for page in ("host.md", "quickstart.md")
            for code in re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)]


@pytest.mark.parametrize("page, code", EXAMPLES)
def test_documented_examples_run(page, code, holding, files, capsys):
    for shown, real in (("socket://127.0.0.1:40123", holding.url), ("/dev/ttyUSB1", holding.url),
                        ("sim=True", "golden=True"),
                        ("stories260K.bin", str(files / "tiny.bin")), ("tok512.bin", str(files / "tokenizer.bin")),
                        ("1, 403, 407", "1, 35, 123"), ("steps=200", "steps=30")):
        code = code.replace(shown, real)
    holding.max_slots = 2
    exec(compile(code, page, "exec"), {})
    assert capsys.readouterr().out


def test_a_device_s_own_model_is_read_back_once(holding, files):
    for _ in range(2):
        with connect(port=holding.url) as llama:
            assert llama.config == Model.load(files / "tiny.llm").config
            writing = llama.write("x", steps=6, temperature=0)
            assert "".join(writing) == " xdefg" == writing.text
            assert writing.outcome.reason == Reason.LENGTH
    # The weights are never read, and the head only the first time.
    head = Model.load(files / "tiny.llm").image.header["payload_offset"]
    assert holding.effects.count(Opcode.READ) <= 2 + head // 1024


def test_a_model_that_is_there_is_not_sent_again(holding, files):
    with connect(port=holding.url, model=files / "tiny.bin"):
        pass
    assert Opcode.LOAD_BEGIN not in holding.effects


def test_another_model_is_sent(holding, files):
    with connect(port=holding.url, model=files / "tiny.bin", format="q4") as llama:
        assert bytes(holding.memory) == bytes(llama.model.data)
    assert Opcode.LOAD_END in holding.effects


def test_damaged_head_on_the_device_is_an_error(holding):
    holding.memory[300] ^= 1
    with pytest.raises(HostError, match="damaged"):
        connect(port=holding.url)


def test_conversion_is_kept(files, tmp_path):
    first = Model.load(files / "tiny.bin")
    assert first.path.read_bytes() == bytes(first.data) and first.path.parent == tmp_path / "cache"
    stamp = first.path.stat().st_mtime_ns
    assert bytes(Model.load(files / "tiny.bin").data) == bytes(first.data)
    assert first.path.stat().st_mtime_ns == stamp
    assert bytes(Model.load(files / "tiny.bin", format="q4").data) != bytes(first.data)


def test_golden_keeps_its_cache_between_generations(files):
    with connect(golden=True, model=files / "tiny.bin") as llama:
        whole = [event.token for event in llama.generate([1, 40, 50, 60], Options(0, 8, Sampling(temperature=0), ()))]
        list(llama.generate([1, 40], Options(0, 0)))
        again = [event.token for event in llama.generate([50, 60], Options(2, 8, Sampling(temperature=0), ()))]
        assert whole == again
        with pytest.raises(HostError, match="past what the K/V cache holds"):
            llama.generate([1], Options(30, 1))


def test_golden_ends_with_the_context(files):
    with connect(golden=True, model=files / "tiny.bin") as llama:
        generation = llama.generate([1] * 30, Options(0, 100, Sampling(temperature=0), ()))
        assert len(list(generation)) == 3
        assert generation.outcome.reason == Reason.CONTEXT and generation.outcome.position == 32


def test_golden_can_be_aborted(files):
    with connect(golden=True, model=files / "tiny.bin") as llama:
        writing = llama.write("x", steps=30, temperature=0, stops=())
        next(iter(writing.tokens()))
        writing.abort()
        assert writing.outcome.reason == Reason.ABORT and len(writing.events) == 1


def test_exactly_one_place_to_run(files):
    with pytest.raises(HostError, match="choose where the model runs"):
        connect(sim=True, golden=True, model=files / "tiny.bin")


def test_device_alone_needs_no_model():
    with FakeDevice(model_state=ModelState.NONE) as fake, Device.open(fake.url) as device:
        assert device.info.name == "fake"
