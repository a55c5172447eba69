"""bench: figures are those of the device's counters, lengths that cannot be are refused, and the table is
llama-bench's."""
import json

import pytest

from llama2_host import benchmark, cli
from llama2_host.connection import connect


def test_a_text_s_rate_is_the_counter_s(holding):
    with connect(port=holding.url) as backend:
        prompt, text = benchmark.run(backend, [5], [8], 2)
    assert (text.test, text.tokens, text.cycles_per_token, text.deviation) == ("tg8", 8, 1000, 0)
    assert text.tokens_per_s == 100_000_000 / 1000
    assert text.roofline_percent == pytest.approx(100 * text.bytes_per_token / 16 / 1000)
    # FakeDevice: it begins at 0xffff0000, the first token is there at 0xfffff000.
    assert prompt.test == "pp5" and prompt.cycles_per_token == 0xf000 / 5 and prompt.roofline_percent is None


def test_the_integer_model_has_no_cycles(files):
    with connect(golden=True, model=files / "tiny.llm") as backend:
        rows = benchmark.run(backend, [3], [2], 1)
    assert [row.cycles_per_token for row in rows] == [None, None] and all(row.tokens_per_s > 0 for row in rows)


def test_prompts_are_ids_of_the_model(files):
    with connect(golden=True, model=files / "tiny.llm") as backend:
        ids = benchmark.prompt_ids(backend, 40)
        assert len(ids) == 40 and ids[0] == backend.start_id and all(0 <= id < backend.config.vocab_size for id in ids)


def test_prints_a_table(holding, capsys):
    assert cli.main(["bench", "--port", holding.url, "-p", "4", "-n", "8", "-r", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| model | size | backend | test | t/s |") and set(lines[1]) <= set("| -:")
    assert "| pp4 |" in lines[2] and "| tg8 | 100000.00 ± 0.00 | 1,000 |" in lines[3]


def test_prints_json(holding, files, capsys):
    assert cli.main(["bench", "--port", holding.url, "-p", "0", "-n", "8", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["backend"] == "device" and told["upload_bytes_per_s"] is None
    assert [row["test"] for row in told["rows"]] == ["tg8"]


def test_an_upload_is_timed(holding, files, capsys):
    holding.info["header_crc"] = 1
    image = str(files / "tiny.llm")
    assert cli.main(["bench", "--port", holding.url, "--model", image, "-p", "0", "-n", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["upload_bytes_per_s"] > 0


@pytest.mark.parametrize("options, said", [(["-p", "100000"], "--prompt-tokens 100000: expected 1 to"),
                                           (["-n", "1"], "--tokens 1: expected 2 to"),
                                           (["-p", "0", "-n", "0"], "nothing is measured"),
                                           (["-r", "0"], "--repetitions")])
def test_lengths_that_cannot_be_are_refused(holding, options, said, capsys):
    assert cli.main(["bench", "--port", holding.url, *options]) == 1
    assert said in capsys.readouterr().err


def test_what_is_no_length_is_refused(capsys):
    assert cli.main(["bench", "--golden", "-p", "x"]) == 2
    assert "lengths are numbers" in capsys.readouterr().err
