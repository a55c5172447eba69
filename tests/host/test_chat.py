"""The books of a chat: what is sent, what is kept, and what is forgotten."""
import io
from types import SimpleNamespace

import pytest

from llama2_host.chat.chat import Chat
from llama2_host.chat.conversation import Conversation
from llama2_host.errors import HostError
from llama2_host.generation import Outcome, Sampling, TokenEvent
from llama2_host.progress import Progress
from llama2_host.chat.template import LLAMA2, PLAIN, Template, TemplateError
from llama2_host.tokenizer.base import Tokenizer
from llama2_host.device.transport import TransportError
from llama2_spec.protocol import Reason

BYTES = Tokenizer([b"<unk>", b"\n<s>\n", b"\n</s>\n"] + [b"<0x%02X>" % byte for byte in range(256)], [0.0] * 259)
GREEDY = Sampling(temperature=0)


def ids(text):
    return [3 + byte for byte in text.encode()]


class Backend:
    """Answers with scripted texts; remembers what it was asked. A cache that is claimed but not there is an error."""
    clock_hz = 0
    tokenizer = BYTES
    closed = False

    def __init__(self, *answers, seq_len=256, template=PLAIN):
        self.answers = [list(answer) for answer in answers]
        self.config = SimpleNamespace(seq_len=seq_len)
        self.model = SimpleNamespace(template=template)
        self.requests, self.rows = [], []

    def generate(self, new, options):
        assert options.position <= len(self.rows), "a gap in the K/V cache"
        self.requests.append((options.position, list(new)))
        self.rows = self.rows[:options.position] + list(new)
        answer = self.answers.pop(0)
        return Generation(self, answer[:options.max_new])

    def useful_beats(self, position):
        return 1

    def close(self):
        self.closed = True

    def settle(self):
        pass


class Generation:
    def __init__(self, backend, answer):
        self.backend, self.answer, self.outcome, self.index = backend, answer, None, 0
        self.position = len(backend.rows)

    def __iter__(self):
        return self

    def __next__(self):
        if self.index == len(self.answer):
            self.outcome = Outcome(Reason.LENGTH, self.position + max(self.index - 1, 0))
            raise StopIteration
        token = self.answer[self.index]
        if isinstance(token, BaseException):
            self.answer = self.answer[:self.index]
            raise token
        if self.index:
            self.backend.rows.append(self.answer[self.index - 1])
        self.index += 1
        return TokenEvent(self.index - 1, self.position + self.index - 1, token, 0)

    def abort(self):
        return list(self)


def talk(backend, *lines, **options):
    """Run a chat over ``lines``; stdout and notes."""
    output, notes = io.StringIO(), io.StringIO()
    notes.isatty = lambda: False
    source = iter(lines)

    def read_line(prompt):
        try:
            line = next(source)
        except StopIteration:
            raise EOFError from None
        if isinstance(line, BaseException):
            raise line
        return line
    options = {"sampling": GREEDY, "max_new": 50} | options
    chat = Chat(backend, progress=Progress(notes), output=output, **options)
    chat.run(read_line)
    return chat, output.getvalue(), notes.getvalue()


def test_only_new_tokens_are_sent():
    backend = Backend(ids("abc"), ids("de"), ids("f"))
    conversation = Conversation(backend, PLAIN)
    for text in ("x", "y", "z"):
        list(conversation.turn(text, max_new=50, sampling=GREEDY))
    # The last token of an answer was sampled but never fed, so the next turn sends it.
    assert backend.requests == [(0, [1] + ids(" x")), (5, ids("c y")), (9, ids("e z"))]
    assert conversation.history == [1] + ids(" xabc yde zf")
    assert backend.rows == conversation.history[:-1]


def test_interrupted_answer_stays_in_the_history():
    backend = Backend(ids("ab") + [KeyboardInterrupt()] + ids("c"), ids("d"))
    chat, output, notes = talk(backend, "x", "y")
    assert output.splitlines()[:2] == ["ab", "d"]
    assert "(stopped)" in notes
    assert backend.requests[1] == (4, ids("b y"))


def test_finished_story_begins_anew():
    backend = Backend(ids("ab") + [1], ids("c"))
    _, output, _ = talk(backend, "x", "y")
    assert output.splitlines()[:2] == ["ab", "c"]
    assert backend.requests == [(0, [1] + ids(" x")), (0, [1] + ids(" y"))]


def test_chat_template_keeps_the_stop_token():
    backend = Backend(ids("a") + [2], ids("b") + [2], template=LLAMA2)
    talk(backend, "x", "y", system="s")
    (first, opening), (second, turn) = backend.requests
    assert opening == [1] + ids(" [INST] <<SYS>>\ns\n<</SYS>>\n\nx [/INST]")
    assert second == len(opening) + 1 and turn == [2, 1] + ids(" [INST] y [/INST]")


def test_full_context_begins_anew():
    backend = Backend(ids("a" * 20), ids("b"), seq_len=32)
    chat, _, notes = talk(backend, "x" * 8, "y" * 8)
    assert backend.requests[1] == (0, [1] + ids(" " + "y" * 8))
    assert "context was full" in notes


def test_answer_ends_with_the_context():
    backend = Backend(ids("a" * 100), seq_len=32)
    chat, output, _ = talk(backend, "x" * 8)
    # 10 tokens are fed, the pass at position 31 is the last: 23 tokens.
    assert output == "a" * 23 + "\n\n"


def test_turn_longer_than_the_context_is_refused_and_the_chat_goes_on():
    backend = Backend(ids("a"), seq_len=32)
    _, output, notes = talk(backend, "x" * 40, "y")
    assert "this turn has 42 tokens, the context 32 positions" in notes
    assert output.startswith("a\n")
    assert backend.requests == [(0, [1] + ids(" y"))]


def test_lost_connection_sends_everything_again():
    old, new = Backend(ids("ab"), ids("c") + [TransportError("gone")]), Backend(ids("de"))
    chat, output, notes = talk(old, "x", "y", reconnect=lambda: new)
    assert old.closed and "gone" in notes
    assert new.requests == [(0, [1] + ids(" xab y"))]
    assert chat.conversation.history == [1] + ids(" xab yde")


def test_lost_connection_without_a_way_back_is_an_error():
    with pytest.raises(HostError, match="gone"):
        talk(Backend([TransportError("gone")]), "x")


def test_commands():
    backend = Backend(ids("a"), ids("b"))
    chat, output, notes = talk(backend, "/stats", "x", "/reset", "y", "/nonsense", KeyboardInterrupt(), "/stats",
                               "/quit", "never")
    assert backend.requests[1][0] == 0
    assert "no answer yet" in notes and "no command /nonsense" in notes and "/quit or Ctrl-D leaves" in notes
    assert len(backend.requests) == 2


def test_a_system_prompt_may_stand_behind_the_user():
    template = Template.from_text('{"name": "x", "user": "{user}!", "system": "{user} ({system})"}')
    assert template.render("{system} a", "s {user}") == "{system} a (s {user})" and template.render("b") == "b!"


def test_what_is_said_and_what_is_a_command():
    backend = Backend(*(ids("a") for _ in range(6)))
    said = ["/usr/bin is a folder", "//quit", "  x", "/reset the clock", "x/y", "/tmp is one "]
    chat, _, notes = talk(backend, *said, "/unknown", "/", " ", "/help", "/stats  ", "/exit", "never")
    texts = [bytes(id - 3 for id in request if id >= 3).decode() for _, request in backend.requests]
    # A space stands between an answer and what is said, unless that begins with one.
    expected = [line if line.startswith(" ") else f" {line}" for line in ("/usr/bin is a folder", "/quit", *said[2:])]
    assert [text.removeprefix("a") for text in texts] == expected
    assert notes.count("no command") == 2 and "/help says this" in notes


def test_a_full_context_is_said():
    backend = Backend(ids("a" * 100), seq_len=24)
    _, _, notes = talk(backend, "x" * 8)
    assert "24 of 24 positions used" in notes and "the context is full: all 24 positions are used" in notes


def test_template_leaves_braces_alone():
    assert LLAMA2.render("{system} {0}") == "[INST] {system} {0} [/INST]"


@pytest.mark.parametrize("text", ["nonsense", "{}x", '{"user": "no place"}', '{"unknown": 1}', '{"stops": 5}', "[1]"])
def test_foreign_template_is_one_line(text):
    with pytest.raises(TemplateError) as error:
        Template.from_text(text)
    assert "\n" not in str(error.value)


def test_template_round_trip():
    assert Template.from_text(LLAMA2.to_text()) == LLAMA2
    assert Template.from_text("") == PLAIN and Template.from_text("llama2") == LLAMA2


def test_system_prompt_without_a_place_is_refused_first():
    with pytest.raises(TemplateError, match="no place for a system prompt"):
        Conversation(Backend(), PLAIN, system="be kind")
