"""What bench.server_slots makes of streams, asked of a server on the integer model."""
import pytest

from bench import server_slots, shapes
from bench.server_slots import Answer, Seen
from llama2_host.image.model import Model
from llama2_host.integer import GoldenBackend
from llama2_host.statistics import WORD32
from tests.server.conftest import image, own_cache  # noqa: F401 - fixtures
from tests.server.running import Running


def answer(start, first, *, step, count, text="x"):
    """Tokens ``step`` cycles apart from ``first`` on, of a generation that began at ``start``."""
    tokens = [Seen(n + 1, (first + n * step) % WORD32) for n in range(count)]
    return Answer(text, tokens, prompt_tokens=3, prompt_cycles=first - start, clock_hz=1000)


@pytest.mark.parametrize("origin", [0, WORD32 - 700])
def test_tokens_a_second_are_those_of_the_target_s_clock(origin):
    """Four in the time of one, of which the second began later; the counter may wrap."""
    alone = [answer(0, 200, step=100, count=11) for _ in range(4)]
    starts = (0, 50, 0, 0)
    shared = [answer(origin + at, origin + at + 400, step=100, count=11) for at in starts]
    result = server_slots.compared(alone, shared)
    assert result["alone"] == pytest.approx(10) and result["ratio"] == pytest.approx(4, rel=.06)
    assert result["alone_with_prompts"] == pytest.approx(11 / 1.2)
    assert result["together_with_prompts"] == pytest.approx(44 / 1.45)
    assert result["identical"] and result["clock_hz"] == 1000
    shared[3].text = "y"
    assert not server_slots.compared(alone, shared)["identical"]


def test_clients_are_answered_token_by_token(image):  # noqa: F811
    """The integer model has no counter, so its cycles are 0."""
    with Running(lambda: GoldenBackend(Model.load(image)), model="bench") as server:
        alone = [server_slots.ask(server.url, prompt, 5) for prompt in server_slots.PROMPTS[:2]]
        together = server_slots.ask_together(server.url, server_slots.PROMPTS[:2], 5)
    assert [one.text for one in alone] == [one.text for one in together] and alone[0].text != alone[1].text
    assert [seen.position for seen in alone[0].tokens] == [1, 2, 3, 4, 5]


def test_an_answer_that_ends_early_is_no_measurement(image):  # noqa: F811
    with Running(lambda: GoldenBackend(Model.load(image)), model="bench") as server:
        with pytest.raises(SystemExit, match="not 400"):
            server_slots.ask(server.url, "A", 400)      # the context ends it


def test_a_shape_has_a_vocabulary_of_its_size(monkeypatch, tmp_path):
    monkeypatch.setattr(shapes, "CACHE", tmp_path)
    model = Model.load(shapes.random_image("stories260K", "q8", layers=1, seq_len=20, words=True))
    tokenizer = model.tokenizer
    assert tokenizer.vocab_size == model.config.vocab_size == 512
    assert tokenizer.decode(tokenizer.encode("any text")) == " any text"    # as LLaMA-2's
    assert shapes.random_image("stories260K", "q8", layers=1, seq_len=20) != model.path


def test_command_can_be_typed_again():
    for arguments in (["--shape", "stories15M", "--tokens", "16", "--columns", "2"], ["--clients", "2"]):
        args = server_slots.parse(arguments)
        again = server_slots.parse(server_slots.command(args).split()[3:])
        assert {**vars(again), "model": again.model.resolve()} == {**vars(args), "model": args.model.resolve()}


@pytest.mark.parametrize("arguments", [["--clients", "1"], ["--clients", "9"], ["--tokens", "3"], ["--columns", "3"],
                                       ["--shape", "none"], ["--shape", "stories15M", "--model", "x"]])
def test_bad_arguments_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as refused:
        server_slots.parse(arguments)
    assert refused.value.code == 2 and "error: " in capsys.readouterr().err
