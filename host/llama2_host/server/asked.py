"""What a completion or chat request asks for, checked field by field: what cannot be honoured is refused by its
name."""
# Ref: OpenAI API reference, Chat and Completions; llama.cpp, tools/server/README.md for the extra fields
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from llama2_host.generation import Sampling
from llama2_host.server.errors import ApiError, refused
from llama2_host.server.fields import Fields, shown
from llama2_spec.protocol import MAX_HISTORY
from llama2_spec.sampling import MAX_PENALTY, MAX_TEMPERATURE, ONE

MAX_STOP_STRINGS = 16
MAX_STOP_CHARACTERS = 1024
MAX_TOP_LOGPROBS = 20
COMPLETION_TOKENS = 16          #: of /v1/completions, where a request names no limit
NEARLY_ZERO = 0.5 / ONE         #: top_p 0 means the likeliest token alone; the device takes 0 for "off"

ONE_ANSWER = "the device writes one answer at a time: send the request again"
NO_GRAMMAR = "the device cannot be held to a grammar: leave it out and check the answer"
NO_BIAS = "the device has no such change of the logits: leave it out, or use repeat_penalty"
NO_TOOLS = "the model is not told of tools: leave them out"
NOT_HERE = "there is no such thing here: leave it out"

#: Fields that are taken where they change nothing, and refused otherwise: name, values, why.
NEUTRAL: tuple[tuple[str, Sequence, str], ...] = (
    ("n", (1,), ONE_ANSWER), ("best_of", (1,), ONE_ANSWER),
    ("presence_penalty", (0,), NO_BIAS), ("frequency_penalty", (0,), NO_BIAS), ("logit_bias", ({}, []), NO_BIAS),
    ("response_format", ({"type": "text"},), NO_GRAMMAR), ("grammar", ("",), NO_GRAMMAR),
    ("json_schema", (), NO_GRAMMAR),
    ("tools", ([],), NO_TOOLS), ("tool_choice", ("none", "auto"), NO_TOOLS),
    ("parallel_tool_calls", (True, False), NO_TOOLS),
    ("functions", ([],), NO_TOOLS), ("function_call", ("none", "auto"), NO_TOOLS),
    ("modalities", (["text"],), "text is all it writes: leave it out"),
    ("store", (False,), "nothing is stored here: leave it out"), ("service_tier", ("auto", "default"), NOT_HERE),
    ("echo", (False,), "the answer is without its prompt: leave it out"),
    ("suffix", ("",), "the model only continues a text: leave it out"), ("ignore_eos", (False,), NOT_HERE),
    ("mirostat", (0,), NOT_HERE), ("typical_p", (1,), NOT_HERE), ("min_tokens", (0,), NOT_HERE),
)
INFORMATIVE = ("user", "safety_identifier", "prompt_cache_key")     #: strings that say who asks


@dataclass(frozen=True)
class Asked:
    """A request without its prompt."""
    sampling: Sampling
    max_tokens: int | None = None       #: None: to the end of the context
    stops: tuple[str, ...] = ()
    stream: bool = False
    include_usage: bool = False
    logprobs: int | None = None         #: alternatives to report beside each token; None: no logprobs at all
    cache: bool = True                  #: may rows that the K/V cache holds be used?
    timings_per_token: bool = False
    return_tokens: bool = False
    prompt: str | list[int] = ""        #: of a completion
    messages: list[dict[str, str]] = field(default_factory=list)    #: of a chat


def chat(body: dict, default: Sampling, model: str) -> Asked:
    """A request to /v1/chat/completions."""
    fields = Fields(body)
    messages = read_messages(fields)
    wanted = fields.boolean("logprobs")
    top = fields.whole("top_logprobs", 0, MAX_TOP_LOGPROBS)
    if top is not None and not wanted:
        raise refused("top_logprobs", "it needs logprobs: true")
    older, newer = (fields.whole(name, 1, 1 << 31) for name in ("max_tokens", "max_completion_tokens"))
    return replace(_common(fields, default, model), messages=messages, max_tokens=newer or older,
                   logprobs=(top or 0) if wanted else None)


def completion(body: dict, default: Sampling, model: str) -> Asked:
    """A request to /v1/completions."""
    fields = Fields(body)
    prompt = read_prompt(fields.take("prompt", ""))
    logprobs = fields.whole("logprobs", 0, MAX_TOP_LOGPROBS)
    most = fields.whole("max_tokens", 1, 1 << 31, COMPLETION_TOKENS)
    return replace(_common(fields, default, model), prompt=prompt, max_tokens=most, logprobs=logprobs)


def _common(fields: Fields, default: Sampling, model: str) -> Asked:
    """Fields that both kinds have; refuses what is left."""
    check_model(fields.text("model", model), model)
    stream = fields.boolean("stream")
    asked = Asked(
        read_sampling(fields, default), stops=read_stops(fields.take("stop")), stream=stream,
        include_usage=_stream_options(fields, stream), cache=fields.boolean("cache_prompt", True),
        timings_per_token=fields.boolean("timings_per_token"), return_tokens=fields.boolean("return_tokens"))
    for name in INFORMATIVE:
        fields.text(name)
    fields.object("metadata")
    for name, values, why in NEUTRAL:
        fields.neutral(name, values, why)
    fields.finish()
    return asked


def check_model(named: str | None, model: str) -> None:
    if named != model:
        raise ApiError(404, f"model: {shown(named)} is not here, this server has {model!r}", param="model",
                       code="model_not_found")


def _stream_options(fields: Fields, stream: bool) -> bool:
    if "stream_options" in fields.left and not stream:
        raise refused("stream_options", "it needs stream: true")
    options = Fields(fields.object("stream_options"), "stream_options.")
    include_usage = options.boolean("include_usage")
    options.boolean("include_obfuscation")      # padding against observers of an encrypted line; there is none here
    options.finish()
    return include_usage


def read_sampling(fields: Fields, default: Sampling) -> Sampling:
    """How tokens are chosen; a new seed where none is named."""
    top_p = fields.number("top_p", 0, 1, default.top_p or 1.0)
    seed = fields.whole("seed", 0, (1 << 64) - 1)
    return Sampling(
        temperature=fields.number("temperature", 0, MAX_TEMPERATURE / ONE, default.temperature),
        top_p=top_p or NEARLY_ZERO,
        top_k=fields.whole("top_k", 0, (1 << 31) - 1, default.top_k), min_p=fields.number("min_p", 0, 1, default.min_p),
        repetition_penalty=fields.number("repeat_penalty", 1, MAX_PENALTY / ONE, default.repetition_penalty),
        repetition_window=fields.whole("repeat_last_n", 0, MAX_HISTORY, default.repetition_window),
        seed=seed if seed is not None else secrets.randbelow(1 << 32) or 1)


def read_stops(value) -> tuple[str, ...]:
    """One string or several."""
    stops = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise refused("stop", f"{shown(value)}, expected a string or an array of strings", "invalid_type")
    if len(stops) > MAX_STOP_STRINGS or any(not 0 < len(stop) <= MAX_STOP_CHARACTERS for stop in stops):
        raise refused("stop", f"expected at most {MAX_STOP_STRINGS} strings of 1 to {MAX_STOP_CHARACTERS} characters")
    return tuple(dict.fromkeys(stops))


def read_prompt(value) -> str | list[int]:
    """A text or token ids; an array with one of them is taken for it."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], (str, list)):
        value = value[0]
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(id, int) and not isinstance(id, bool) for id in value):
        return value
    if isinstance(value, list) and all(isinstance(one, (str, list)) for one in value):
        raise refused("prompt", f"{len(value)} prompts at once, expected one: {ONE_ANSWER}", "unsupported_value")
    raise refused("prompt", f"{shown(value)}, expected a string or an array of token ids", "invalid_type")


def read_messages(fields: Fields) -> list[dict[str, str]]:
    """The conversation: roles and texts."""
    messages = fields.take("messages")
    if not isinstance(messages, list) or not messages:
        raise refused("messages", "expected an array of at least one message", "invalid_type")
    return [_message(message, f"messages[{index}]") for index, message in enumerate(messages)]


def _message(message, path: str) -> dict[str, str]:
    if not isinstance(message, dict):
        raise refused(path, f"{shown(message)}, expected an object", "invalid_type")
    fields = Fields(message, path + ".")
    role = fields.text("role")
    if role not in ("system", "developer", "user", "assistant"):
        raise refused(path + ".role", f"{shown(role)}, expected system, developer, user or assistant")
    content = _content(fields.take("content", "" if role == "assistant" else None), path + ".content")
    fields.text("name")
    fields.text("refusal")
    fields.text("reasoning_content")            # llama.cpp's clients send it back; the model never sees it
    fields.neutral("tool_calls", ([],), NO_TOOLS)
    for extra in ("audio", "function_call"):
        fields.neutral(extra, (), NOT_HERE)
    for ignored in ("annotations",):
        fields.neutral(ignored, ([],), NOT_HERE)
    fields.finish()
    return {"role": "system" if role == "developer" else role, "content": content}


def _content(content, path: str) -> str:
    """A text, or parts that are all texts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise refused(path, f"{shown(content)}, expected a string or an array of text parts", "invalid_type")
    texts = []
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            raise refused(f"{path}[{index}]", f"a part of type {shown(kind)}, expected text: this model reads nothing "
                                              "else",
                          "unsupported_value")
        texts.append(part["text"])
    return "".join(texts)
