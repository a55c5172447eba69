"""What requests may ask for: everything else is refused with the field's name."""
import pytest

from llama2_host.generation import Sampling
from llama2_host.server import asked
from llama2_host.server.errors import ApiError
from llama2_host.server.fields import parse

HELLO = [{"role": "user", "content": "x"}]


def chat(**fields):
    return asked.chat({"messages": HELLO} | fields, Sampling(), "tiny")


@pytest.mark.parametrize("field, value", [
    ("n", 2), ("n", True), ("presence_penalty", 0.5), ("frequency_penalty", -1), ("logit_bias", {"1": 5}),
    ("response_format", {"type": "json_object"}), ("response_format", {"type": "json_schema", "json_schema": {}}),
    ("grammar", "root ::= x"), ("tools", [{"type": "function"}]), ("tool_choice", "required"), ("functions", [{}]),
    ("modalities", ["audio"]), ("store", True), ("temperature", -1), ("temperature", "hot"), ("temperature", True),
    ("temperature", 1e9), ("temperature", float("nan")), ("top_p", 1.5), ("top_k", -1), ("min_p", 2),
    ("repeat_penalty", 0.5),
    ("repeat_last_n", 257), ("seed", -1), ("seed", 1.5), ("max_tokens", 0), ("max_completion_tokens", "5"), ("stop", 5),
    ("stop", [""]), ("stop", ["x"] * 17), ("stop", ["x" * 1025]), ("stream", "yes"),
    ("stream_options", {"include_usage": True}),
    ("logprobs", 3), ("top_logprobs", 2), ("cache_prompt", 1), ("user", 5), ("metadata", "x"), ("no_such_field", 1),
    ("messages", []), ("messages", "x"), ("model", 5), ("mirostat", 2), ("timings_per_token", 1),
])
def test_what_cannot_be_honoured_is_refused_by_name(field, value):
    with pytest.raises(ApiError) as caught:
        chat(**{field: value})
    assert caught.value.status == 400 and caught.value.param == field and field in caught.value.message


@pytest.mark.parametrize("field, value", [
    ("n", 1), ("presence_penalty", 0), ("frequency_penalty", 0.0), ("logit_bias", {}),
    ("response_format", {"type": "text"}),
    ("tools", []), ("tool_choice", "auto"), ("store", False), ("user", "me"), ("metadata", {"a": "b"}), ("stop", None),
    ("temperature", None), ("seed", None), ("stream_options", None), ("logprobs", False), ("model", "tiny"),
])
def test_what_changes_nothing_is_taken(field, value):
    assert chat(**{field: value}).stream is False


def test_fields_arrive():
    got = chat(temperature=0.5, top_p=0.25, top_k=7, min_p=0.125, repeat_penalty=1.5, repeat_last_n=9, seed=3,
               stop="ab",
               max_completion_tokens=5, logprobs=True, top_logprobs=4, cache_prompt=False, stream=True,
               stream_options={"include_usage": True})
    assert got.sampling == Sampling(0.5, 0.25, 7, 0.125, 1.5, 9, 3)
    assert (got.stops, got.max_tokens, got.logprobs, got.cache, got.stream,
            got.include_usage) == (("ab",), 5, 4, False, True, True)


def test_top_p_of_zero_is_the_likeliest_token_alone():
    assert chat(top_p=0).sampling.fixed()["top_p"] == 1
    assert chat(top_p=1).sampling.fixed()["top_p"] == 1 << 16


def test_seeds_differ_where_none_is_named():
    assert len({chat().sampling.seed for _ in range(20)}) > 1


@pytest.mark.parametrize("message, param", [
    ({"role": "tool", "content": "x"}, "messages[0].role"), ({"content": "x"}, "messages[0].role"), (5, "messages[0]"),
    ({"role": "user"}, "messages[0].content"), ({"role": "user", "content": 5}, "messages[0].content"),
    ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, "messages[0].content[0]"),
    ({"role": "user", "content": "x", "extra": 1}, "messages[0].extra"),
    ({"role": "assistant", "content": None, "tool_calls": [{}]}, "messages[0].tool_calls"),
])
def test_messages_are_refused_by_their_place(message, param):
    with pytest.raises(ApiError) as caught:
        chat(messages=[message])
    assert caught.value.status == 400 and caught.value.param == param


def test_text_parts_are_joined():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert (chat(messages=[{"role": "developer", "content": parts}, *HELLO]).messages[0] ==
            {"role": "system", "content": "ab"})


@pytest.mark.parametrize("prompt", [["a", "b"], [[1], [2]], [1, "a"], {"a": 1}, [1.5], [True], 7])
def test_prompts_that_are_none(prompt):
    with pytest.raises(ApiError) as caught:
        asked.completion({"prompt": prompt}, Sampling(), "tiny")
    assert caught.value.param == "prompt"


@pytest.mark.parametrize("body", [b"", b"nonsense", b"[]", b"5", b"null", b'{"a": ', b"\xff\xfe", b'{"a": "\\ud800"}',
                                  b"[" * 5000,
                                  b'{"a":' * 200 + b"1" + b"}" * 200, b'{"a": ' + b"9" * 5000 + b"}"])
def test_bodies_that_are_no_object(body):
    with pytest.raises(ApiError) as caught:
        parse(body)
    assert caught.value.status == 400 and "\n" not in caught.value.message


def test_another_model_is_not_found():
    with pytest.raises(ApiError) as caught:
        chat(model="gpt-4")
    assert caught.value.status == 404 and caught.value.param == "model"
