"""Encodes a conversation that comes as messages, as clients of the server send it, to the ids that a chat feeds turn by
turn."""
from llama2_host.chat.template import Template, TemplateError
from llama2_host.tokenizer.base import Tokenizer

Messages = list[dict[str, str]]


def encode(messages: Messages, template: Template, tokenizer: Tokenizer) -> list[int]:
    """Ids of the whole conversation; equal to :class:`llama2_host.chat.conversation.Conversation`'s where each answer
    is complete.

    An answer counts as ended by the model, because a message does not say what ended it; for the plain template, whose
    model tells stories, as ended by the limit. Where each turn is a text of its own, the space that encoding puts first
    is one that the answer's reader did not see. Raises TemplateError where the template has no place for a message.
    """
    if template.jinja:
        return tokenizer.encode_chat(template.render_messages(messages))
    if template.bos_every_turn:             # each turn is a text of its own, as in llama2.c
        return [id for part in _turns(messages, template, tokenizer) for id in part]
    ends, texts = _texts(messages, template, tokenizer)
    ids = tokenizer.encode(texts[0])
    for end, text in zip(ends, texts[1:]):
        ids += [end, *tokenizer.encode(text, bos=False)]
    return ids


def render(messages: Messages, template: Template, tokenizer: Tokenizer) -> str:
    """The conversation as text; ids that have no text, BOS and the end of an answer, are left out."""
    if template.jinja:
        return template.render_messages(messages)
    if template.bos_every_turn:
        return "".join(_written(messages, template))
    return "".join(_texts(messages, template, tokenizer)[1])


def end_of(template: Template, tokenizer: Tokenizer) -> int | None:
    """The id that ends an answer in a conversation that goes on; None where it would end the conversation."""
    if template.restarts or not template.stops:
        return None
    return tokenizer.eos_id if tokenizer.eos_id in template.stops else template.stops[0]


def _turns(messages: Messages, template: Template, tokenizer: Tokenizer) -> list[list[int]]:
    end = end_of(template, tokenizer)
    asked = [message["role"] == "user" for message in messages if message["role"] != "system"]
    parts = []
    for text, user in zip(_written(messages, template), asked):
        parts.append(tokenizer.encode(text) if user else
                     tokenizer.encode(text, bos=False, eos=False) + ([] if end is None else [end]))
    return parts


def _texts(messages: Messages, template: Template, tokenizer: Tokenizer) -> tuple[list[int], list[str]]:
    """The conversation in pieces: ids that have no text, and the texts before, between and behind them."""
    end, ends, said = end_of(template, tokenizer), list[int](), [""]
    written = next((text for text, id in tokenizer.specials.items() if id == end), None)
    turns = [message["role"] for message in messages if message["role"] != "system"]
    for index, (role, text) in enumerate(zip(turns, _written(messages, template))):
        if role == "user":
            said[-1] += template.follow(said[-1], text) if index else text
            continue
        said[-1] += text + (written or "")
        if end is not None and written is None:
            ends.append(end)
            said.append("")
    return ends, said


def _written(messages: Messages, template: Template) -> list[str]:
    """The text of each message but the system's, which belongs to the first turn."""
    system, texts = None, list[str]()
    for message in messages:
        role, text = message["role"], message["content"]
        if role == "system":
            if texts:
                raise TemplateError(f"the {template.name} template has a place for a system prompt at the beginning "
                                    "only: put it there")
            system = "\n".join(filter(None, (system, text)))
        elif role == "user":
            texts.append(template.render(text, system if not texts else None))
        else:
            texts.append(text)
    return texts
