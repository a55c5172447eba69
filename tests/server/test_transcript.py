"""What the server feeds for a client's messages is what ``llama2-host chat`` feeds, turn by turn, and so are the
answers."""
from pathlib import Path

import pytest

from llama2_host.chat.conversation import Conversation
from llama2_host.chat.template import CHATML, LLAMA2, PLAIN, Template
from llama2_host.generation import Sampling
from llama2_host.image.model import Model
from llama2_host.integer import GoldenBackend
from llama2_host.tokenizer.base import Tokenizer
from tests.host import tiny
from tests.server.running import Running
from tests.server.scripted import Scripted

STORIES = Path(__file__).resolve().parents[2] / "models" / "stories.bin"
QUESTIONS = ("hello there", "and then?", " more", "one last thing")
EOS = 2
PATTERN = Template("pattern", "Q: {user}\nA:", "S: {system}\nQ: {user}\nA:", restarts=False, stops=(EOS,))
WORD = Template("word", "{user}", restarts=False, stops=(EOS,))
SPECIALS = {"<|im_start|>": 3 + 0x10, "<|im_end|>": 3 + 0x11}


def ends_with(end, tokenizer, apart):
    """A script: seven letters, then ``end``; letters only where that is None. ``apart``: answers begin with a space, as
    models have learnt it where each is a text of its own."""
    id_of = lambda letter: tokenizer.encode(letter, bos=False)[-1]

    def script(position):
        script.said += 1
        if apart and script.said % 8 == 1:
            return id_of(" ")
        return end if end is not None and script.said % 8 == 0 else id_of(chr(ord("a") + position % 26))
    script.said = 0
    return script


def loaded(image, template, specials):
    """The tiny model with another template; where that writes each turn as a text of its own, with pieces that are no
    bare bytes."""
    model, pieces = Model.load(image), tiny.TOKENIZER.pieces
    if template.bos_every_turn:
        pieces = [*pieces[:3], *(bytes([byte]) for byte in reversed(range(256)))]
    model.tokenizer = Tokenizer(pieces, tiny.TOKENIZER.scores, specials=specials)
    model.template = template.resolved(model.tokenizer)
    return model


@pytest.mark.parametrize("template, end, system, specials", [
    (PLAIN, None, None, None), (LLAMA2, EOS, None, None), (LLAMA2, EOS, "be brief", None),
    (PATTERN, EOS, "be brief", None),
    (PATTERN, EOS, None, {"</s>": EOS}), (WORD, EOS, None, None),
    (CHATML, SPECIALS["<|im_end|>"], "be brief", SPECIALS)],
    ids=["plain", "llama2", "llama2-system", "pattern-system", "pattern-special", "word", "chatml-system"])
def test_feeds_what_the_chat_feeds(image, template, end, system, specials):
    model = loaded(image, template, specials)
    chat, served = (Scripted(model, ends_with(end, model.tokenizer, template.bos_every_turn)) for _ in range(2))
    conversation, texts = Conversation(chat, template, system=system), []
    messages = [{"role": "system", "content": system}] if system else []
    with Running(lambda: served) as server:
        for question in QUESTIONS:
            tokens = [event.token for event in conversation.turn(question, max_new=8, sampling=Sampling(temperature=0))]
            messages.append({"role": "user", "content": question})
            answer = server.client.post("/v1/chat/completions", json={
                "messages": messages, "max_tokens": 8, "temperature": 0, "return_tokens": True}).json()["choices"][0]
            assert answer["tokens"] == tokens and answer["finish_reason"] == ("length" if end is None else "stop")
            texts.append(answer["message"]["content"])
            assert not texts[-1].startswith(" ")
            messages.append({"role": "assistant", "content": texts[-1]})
    assert served.requests == chat.requests and len(chat.requests) == len(QUESTIONS)
    assert all(texts) and served.requests[-1][0] > len(QUESTIONS) * 8      # the cache was used


def test_answers_of_penalised_turns_are_the_chat_s():
    """The penalty looks back at the tokens of earlier turns, by their positions."""
    sampling = Sampling(temperature=0.6, top_p=0.9, repetition_penalty=1.5, repetition_window=64, seed=7)
    fields = {"temperature": 0.6, "top_p": 0.9, "repeat_penalty": 1.5, "repeat_last_n": 64, "seed": 7}
    chat = GoldenBackend(Model.load(STORIES))
    conversation, messages = Conversation(chat, PLAIN), []
    with Running(lambda: GoldenBackend(Model.load(STORIES))) as server:
        for question in ("Once upon a time", "The dog saw the dog", "The dog and the cat"):
            tokens = [event.token for event in conversation.turn(question, max_new=10, sampling=sampling)]
            messages.append({"role": "user", "content": question})
            answer = server.client.post("/v1/chat/completions", json={
                "messages": messages, "max_tokens": 10, "return_tokens": True} | fields).json()["choices"][0]
            assert answer["tokens"] == tokens and len(tokens) == 10
            messages.append({"role": "assistant", "content": answer["message"]["content"]})
