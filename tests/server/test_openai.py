"""Answers as OpenAI's own package reads them, from the integer model."""
import math

import httpx
import openai as package
import pytest

from llama2_host import connect
from llama2_host.generation import Options, Sampling
from llama2_host.server.logprobs import Alternatives
from tests.host.tiny import TOKENIZER
from tests.waiting import PATIENCE_S, until

GREEDY = {"model": "tiny", "temperature": 0}


def user(text):
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="module")
def golden(image):
    with connect(golden=True, model=image) as backend:
        yield backend


@pytest.mark.parametrize("sampling", [{"temperature": 0}, {"temperature": 1.2, "seed": 7, "top_p": 0.8}])
def test_ids_are_the_command_s(server, golden, sampling):
    writing = golden.write("abc", steps=30, **{"top_p": 1.0} | sampling)
    text = "".join(writing)
    choice = server.complete("abc", max_tokens=30 - len(writing.prompt_ids) + 1, return_tokens=True,
                             **{"top_p": 1.0} | sampling).json()["choices"][0]
    assert writing.prompt_ids + choice["tokens"] == writing.ids
    assert golden.tokenizer.decode(writing.prompt_ids) + choice["text"] == text


def test_chat(openai, server):
    answer = openai.chat.completions.create(messages=user("hello"), max_tokens=9, **GREEDY)
    assert answer.object == "chat.completion" and answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "length"
    # BOS and the space before a text are tokens, too.
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (7, 9, 16)


@pytest.mark.parametrize("kind", ["chat", "completion"])
def test_streams_say_the_same(openai, kind):
    if kind == "chat":
        whole = openai.chat.completions.create(messages=user("ab"), max_tokens=12, **GREEDY).choices[0].message.content
        chunks = list(openai.chat.completions.create(messages=user("ab"), max_tokens=12, stream=True,
                                                     stream_options={"include_usage": True}, **GREEDY))
        texts = [chunk.choices[0].delta.content or "" for chunk in chunks[:-1]]
        assert chunks[0].choices[0].delta.role == "assistant"
    else:
        whole = openai.completions.create(prompt="ab", max_tokens=12, **GREEDY).choices[0].text
        chunks = list(openai.completions.create(prompt="ab", max_tokens=12, stream=True,
                                                stream_options={"include_usage": True},
                                                **GREEDY))
        texts = [chunk.choices[0].text for chunk in chunks[:-1]]
    assert "".join(texts) == whole and whole
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 12
    assert len({chunk.id for chunk in chunks}) == 1


def test_stop_strings_end_the_answer(openai):
    whole = openai.completions.create(prompt="stop", max_tokens=40, **GREEDY).choices[0].text
    stop = whole[5:8]
    choice = openai.completions.create(prompt="stop", max_tokens=40, stop=[stop], **GREEDY).choices[0]
    assert choice.finish_reason == "stop"
    assert choice.text == whole[:whole.index(stop)]
    streamed = openai.completions.create(prompt="stop", max_tokens=40, stop=stop, stream=True, **GREEDY)
    assert "".join(chunk.choices[0].text for chunk in streamed) == choice.text


def test_the_context_ends_an_answer(server):
    answer = server.complete([1] * 250, max_tokens=100, temperature=0, return_tokens=True).json()
    choice = answer["choices"][0]
    assert choice["finish_reason"] in ("length", "stop") and answer["usage"]["completion_tokens"] <= 7
    if choice["finish_reason"] == "length":
        assert len(choice["tokens"]) == 7


def test_logprobs_are_the_model_s(openai, golden):
    seen = {}
    generation = golden.generate(TOKENIZER.encode("log"), Options(0, 6, Sampling(temperature=0), ()),
                                 on_logits=lambda position, first, logits: seen.update({position: logits}))
    tokens = [event.token for event in generation]
    answer = openai.completions.create(prompt="log", max_tokens=6, logprobs=3, **GREEDY).choices[0].logprobs
    for index, token in enumerate(tokens[:len(answer.tokens)]):
        logits = [value / 2 ** 18 for value in seen[len(TOKENIZER.encode("log")) - 1 + index]]
        expected = logits[token] - math.log(sum(math.exp(value) for value in logits))
        assert answer.token_logprobs[index] == pytest.approx(expected, abs=1e-9)
        assert answer.token_logprobs[index] == max(answer.top_logprobs[index].values())
    chat = openai.chat.completions.create(messages=user("log"), max_tokens=6, logprobs=True, top_logprobs=2, **GREEDY)
    assert [entry.logprob for entry in chat.choices[0].logprobs.content] == pytest.approx(answer.token_logprobs)
    assert all(len(entry.top_logprobs) == 2 and entry.bytes for entry in chat.choices[0].logprobs.content)


def test_sampled_logprobs_are_of_the_tokens_chosen(server):
    answer = server.complete("q", max_tokens=20, temperature=2, seed=5, logprobs=0,
                             return_tokens=True).json()["choices"][0]
    assert len(answer["logprobs"]["token_logprobs"]) == len(answer["tokens"])
    assert min(answer["logprobs"]["token_logprobs"]) < -1


def test_a_probability_sums_to_one():
    import numpy as np
    logits = np.random.default_rng(0).integers(-10 << 18, 10 << 18, 259)
    assert np.exp(Alternatives(logits).logprobs).sum() == pytest.approx(1.0)


def test_a_conversation_pays_for_what_is_new(openai):
    messages = user("a conversation that begins")
    first = openai.chat.completions.create(messages=messages, max_tokens=8, **GREEDY)
    said = first.choices[0].message.content
    messages += [{"role": "assistant", "content": said}, *user("and goes on")]
    again = openai.chat.completions.create(messages=messages, max_tokens=8, **GREEDY)
    fresh = openai.chat.completions.create(messages=messages, max_tokens=8, extra_body={"cache_prompt": False},
                                           **GREEDY)
    assert again.usage.prompt_tokens_details.cached_tokens >= first.usage.prompt_tokens
    assert fresh.usage.prompt_tokens_details.cached_tokens == 0
    assert again.choices[0].message.content == fresh.choices[0].message.content


def test_the_same_prompt_feeds_one_token(openai):
    for _ in range(2):
        answer = openai.completions.create(prompt="the same again", max_tokens=3, **GREEDY)
    assert answer.usage.prompt_tokens_details.cached_tokens == answer.usage.prompt_tokens - 1


@pytest.mark.parametrize("fields, status, param", [
    ({"n": 2}, 400, "n"), ({"response_format": {"type": "json_object"}}, 400, "response_format"),
    ({"model": "gpt-4"}, 404, "model"),
    ({"temperature": -1}, 400, "temperature"), ({"messages": user("x" * 300)}, 400, "messages"),
    ({"stop": [""]}, 400, "stop"),
    ({"messages": [{"role": "system", "content": "be kind"}, *user("x")]}, 400, "messages"),
    ({"messages": [*user("x"), {"role": "assistant", "content": "y"}]}, 400, "messages"),
])
def test_errors_name_the_field(openai, fields, status, param):
    with pytest.raises(package.APIStatusError) as caught:
        openai.chat.completions.create(**GREEDY | {"messages": user("x"), "max_tokens": 2} | fields)
    assert caught.value.status_code == status and caught.value.param == param and caught.value.body["message"]


def test_a_prompt_that_cannot_fit_is_refused_before_it_is_encoded(server, monkeypatch):
    monkeypatch.setattr(TOKENIZER.__class__, "encode", lambda *_, **__: pytest.fail("it was encoded"))
    error = server.complete("x" * (256 * 100)).json()["error"]
    assert error["code"] == "context_length_exceeded" and error["param"] == "prompt"


def test_models(openai):
    assert [model.id for model in openai.models.list()] == ["tiny"]
    assert openai.models.retrieve("tiny").object == "model"
    with pytest.raises(package.NotFoundError):
        openai.models.retrieve("other")


def test_tokens_and_texts(server):
    ids = server.client.post("/tokenize", json={"content": "é x", "add_special": True}).json()["tokens"]
    assert ids == TOKENIZER.encode("é x")
    # bytes: the space stays
    assert server.client.post("/detokenize", json={"tokens": ids}).json() == {"content": " é x"}
    pieces = server.client.post("/tokenize", json={"content": "ab", "with_pieces": True}).json()["tokens"]
    assert pieces[-1] == {"id": 3 + ord("b"), "piece": "b"}
    messages = [*user("a"), {"role": "assistant", "content": " b"}, *user("c")]
    assert server.client.post("/apply-template", json={"messages": messages}).json() == {"prompt": "a b c"}


@pytest.mark.parametrize("path, body, param", [("/tokenize", {}, "content"), ("/tokenize", {"content": 5}, "content"),
                                               ("/detokenize", {"tokens": [-1]}, "tokens"),
                                               ("/detokenize", {"tokens": [1 << 40]}, "tokens"),
                                               ("/detokenize", {"tokens": "x"}, "tokens"),
                                               ("/apply-template", {}, "messages"),
                                               ("/tokenize", {"content": "x", "other": 1}, "other")])
def test_their_errors_name_the_field(server, path, body, param):
    response = server.client.post(path, json=body)
    assert response.status_code == 400 and response.json()["error"]["param"] == param


def test_other_pages(server):
    assert server.client.get("/health").json()["status"] == "ok"
    assert server.client.get("/props").json()["default_generation_settings"]["n_ctx"] == 256
    assert server.client.get("/boards").json()["boards"][0]["kind"] == "golden"
    assert server.client.get("/nowhere").json()["error"]["type"] == "not_found_error"
    wrong = server.client.get("/v1/completions")
    assert wrong.status_code == 405 and "POST" in wrong.headers["allow"] and wrong.json()["error"]["message"]


def test_metrics_count(server):
    def value(name):
        lines = [line for line in server.client.get("/metrics").text.splitlines() if line.startswith(name)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)
    until(lambda: server.pool.seats[0].running is None)
    before = value("llama2_tokens_total")
    done = server.complete("count", max_tokens=5, temperature=0).json()["usage"]["completion_tokens"]
    until(lambda: value("llama2_tokens_total") == before + done)     # they are counted when the board is done with it
    server.client.get("/some/path/of/a/stranger")
    assert "stranger" not in server.client.get("/metrics").text
    assert value('llama2_board_up{board="board-0"}') == 1


def test_the_stream_is_what_browsers_expect(server):
    body = {"messages": user("x"), "max_tokens": 2, "stream": True, "temperature": 0}
    with httpx.stream("POST", server.url + "/v1/chat/completions", json=body, timeout=PATIENCE_S) as response:
        lines = list(response.iter_lines())
    assert response.headers["content-type"].startswith("text/event-stream")
    assert all(line == "" or line.startswith("data: ") for line in lines) and "data: [DONE]" in lines
