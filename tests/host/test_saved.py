"""Conversations in files: the next turn sends what it would have sent, another model's is refused, and nothing is
lost."""
import json

import pytest

from llama2_host import cli
from llama2_host.chat import saved
from llama2_host.chat.chat import Chat
from llama2_host.chat.conversation import Conversation
from llama2_host.connection import connect
from llama2_host.errors import HostError
from llama2_host.generation import Sampling
from tests.host.test_cli import run

GREEDY = Sampling(temperature=0)


@pytest.fixture
def backend(files):
    with connect(golden=True, model=files / "tiny.llm") as backend:
        yield backend


@pytest.fixture
def conversation(backend):
    return Conversation(backend, backend.model.template)


def say(conversation, text):
    return [event.token for event in conversation.turn(text, max_new=4, sampling=GREEDY)]


def test_a_loaded_conversation_goes_on_as_it_would_have(conversation, backend, tmp_path):
    say(conversation, "ab")
    saved.save(conversation, tmp_path / "a.json")
    went_on = say(conversation, "cd"), list(conversation.history)
    again = Conversation(backend, backend.model.template)
    saved.load(again, tmp_path / "a.json")
    assert (say(again, "cd"), again.history) == went_on


def test_what_is_no_conversation_is_refused_and_nothing_changes(conversation, tmp_path):
    say(conversation, "ab")
    before = conversation.state()
    good = tmp_path / "good.json"
    saved.save(conversation, good)
    state = json.loads(good.read_text())
    for name, content in (("a", "{}"), ("b", "no json"), ("c", json.dumps(state | {"history": [10 ** 9]})),
                          ("d", json.dumps(state | {"history": 5})),
                          ("e", json.dumps({key: value for key, value in state.items() if key != "said"})),
                          ("f", "[" * 100_000)):
        (tmp_path / name).write_text(content)
        with pytest.raises(HostError):
            saved.load(conversation, tmp_path / name)
        assert conversation.state() == before
    with pytest.raises(HostError, match="cannot read"):
        saved.load(conversation, tmp_path / "nowhere")


def test_another_model_s_is_refused_by_name(conversation, tmp_path):
    saved.save(conversation, tmp_path / "a.json")
    state = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps(state | {"model": state["model"] | {"name": "another", "dim": 7}}))
    with pytest.raises(HostError, match="held with another"):
        saved.load(conversation, tmp_path / "a.json")
    (tmp_path / "a.json").write_text(json.dumps(state | {"template": "chatml"}))
    with pytest.raises(HostError, match="--template chatml"):
        saved.load(conversation, tmp_path / "a.json")


def test_only_a_conversation_is_replaced(conversation, tmp_path):
    path = tmp_path / "thesis.txt"
    path.write_text("years of work")
    with pytest.raises(HostError, match="no saved conversation"):
        saved.save(conversation, path)
    assert path.read_text() == "years of work"
    saved.save(conversation, tmp_path / "a.json")
    saved.save(conversation, tmp_path / "a.json")


def test_commands_of_a_chat(backend, tmp_path, capsys):
    chat = Chat(backend, sampling=GREEDY, max_new=4)
    chat.handle("ab")
    chat.handle(f"/save {tmp_path}/a b.json")
    history = list(chat.conversation.history)
    chat.handle("/reset")
    assert not chat.conversation.history
    chat.handle(f"/load {tmp_path}/a b.json")
    assert chat.conversation.history == history
    chat.handle("/load nowhere.json")
    chat.handle("/save")
    assert chat.conversation.history == history


def test_command_line_goes_on_with_one(files, tmp_path):
    model = str(files / "tiny.llm")
    path = tmp_path / "a.json"
    run("chat", "--golden", "--model", model, "--temperature", "0", "--steps", "4", stdin=f"ab\n/save {path}\n")
    assert json.loads(path.read_text())["kind"] == saved.KIND
    run("chat", "--golden", "--model", model, "--temperature", "0", "--steps", "4", "--load", str(path),
        stdin=f"cd\n/save {path}\n")
    both = json.loads(path.read_text())["history"]
    with connect(golden=True, model=model) as backend:
        whole = Conversation(backend, backend.model.template)
        say(whole, "ab"), say(whole, "cd")
    assert both == whole.history
    assert cli.main(["chat", "--golden", "--model", model, "--load", str(tmp_path / "nowhere")]) == 1
