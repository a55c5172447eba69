"""Gets the product's answer to a case: ids, texts, ends, and a chat of three turns."""
from pathlib import Path
from types import SimpleNamespace

from bench.conformance.cases import DECODE, MODEL, TALK, Case
from llama2_host.chat.conversation import Conversation
from llama2_host.image.discovery import find_template, load_tokenizer
from llama2_host.generation import Outcome, Sampling, TokenEvent
from llama2_host.chat.template import Template
from llama2_host.tokenizer.base import Decoder
from llama2_host.tokenizer import vocabulary
from llama2_spec.protocol import Reason


def says(case: Case, path: Path) -> dict:
    """The product's answer in the same form as a reference's, with the questions that the reference is asked next."""
    tokenizer = load_tokenizer(path / MODEL, path) if case.model else vocabulary.load(path)
    ids = [tokenizer.encode(text) for text in case.texts]
    given = ids + [[id for id in each if id < tokenizer.vocab_size] for each in DECODE if case.texts]
    given = [_without_bos(tokenizer, each) for each in given] if case.reference == "llama.cpp" else given
    answer = {"ids": ids, "decode": given, "texts": [tokenizer.decode(each) for each in given],
              "streams": [stream(tokenizer, each) for each in given], "ends": sorted(tokenizer.stop_ids),
              "specials": tokenizer.specials}
    return answer | ({"chats": talk(tokenizer, path)} if case.talk else {})


def _without_bos(tokenizer, ids: list[int]) -> list[int]:
    """llama.cpp prints the space after a BOS, which is not there when BOS is left out: see docs/checkpoints.md."""
    return [id for id in ids if id != tokenizer.bos_id]


def stream(tokenizer, ids: list[int]) -> str:
    """The text as it is printed, token by token."""
    decoder = Decoder(tokenizer)
    return "".join([decoder.feed(id) for id in ids]) + decoder.finish()


class Scripted:
    """A backend that answers with the ids it is told, and keeps the rows of its cache as a device does."""

    def __init__(self, tokenizer, template: Template):
        self.tokenizer, self.model, self.config = tokenizer, SimpleNamespace(template=template), SimpleNamespace(
            seq_len=4096)
        self.rows: list[int] = []
        self.answer: list[int] = []

    def generate(self, new, options):
        """One pass a token: the row of a token is written when the next one is computed."""
        assert options.position <= len(self.rows), "a gap in the K/V cache"
        self.rows = self.rows[:options.position] + list(new)
        self.seen = list(self.rows)
        return ScriptedGeneration(self, self.answer[:options.max_new])

    def useful_beats(self, position):
        """Nothing is measured."""
        return 1


class ScriptedGeneration:
    """The events of one answer."""
    outcome = None

    def __init__(self, backend: Scripted, answer: list[int]):
        self.backend, self.answer, self.index, self.start = backend, answer, 0, len(backend.rows)

    def __next__(self):
        if self.index == len(self.answer):
            self.outcome = Outcome(Reason.LENGTH, len(self.backend.rows))
            raise StopIteration
        if self.index:
            self.backend.rows.append(self.answer[self.index - 1])
        self.index += 1
        return TokenEvent(self.index - 1, self.start + self.index - 1, self.answer[self.index - 1], 0)


def talk(tokenizer, path: Path) -> list[dict]:
    """Three turns; of each what was said until then, and the ids that the model saw before it answered."""
    found = find_template(path)
    template = Template.brought(found).resolved(tokenizer)
    backend = Scripted(tokenizer, template)
    conversation = Conversation(backend, template)
    turns = []
    for text, answer, cut in TALK:
        ids = tokenizer.encode(answer, bos=False)
        backend.answer = ids[:cut] if cut else [*ids, template.stops[0]]
        list(conversation.turn(text, max_new=100, sampling=Sampling(temperature=0)))
        turns.append({"messages": list(conversation.messages), "ids": backend.seen,
                      "text": template.render_messages(conversation.messages)})
    return turns
