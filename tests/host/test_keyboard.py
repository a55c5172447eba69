"""The chat's keyboard: several lines are one turn, lines are remembered, commands complete, keys do not mix into an
answer."""
import os
import pty
import select
import subprocess
import sys
import termios
import time

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from prompt_toolkit.application import create_app_session

from llama2_host.chat import keyboard
from llama2_host.chat.chat import COMMANDS
from tests.host.test_cli import ROOT, WAIT_S


@pytest.fixture(autouse=True)
def own_history(monkeypatch, tmp_path):
    monkeypatch.setenv(keyboard.VARIABLE, str(tmp_path / "state" / "history"))
    return tmp_path / "state" / "history"


def typed(text, turns=1):
    """What is read when these keys are pressed."""
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        read = keyboard.reader(COMMANDS)
        keys.send_text(text)
        return [read("> ") for _ in range(turns)]


def test_enter_sends():
    assert typed("hello\rthere\r", turns=2) == ["hello", "there"]


def test_pasted_lines_are_one_turn():
    assert typed("\x1b[200~one\ntwo\r\nthree\x1b[201~\r") == ["one\ntwo\nthree"]


def test_alt_enter_begins_a_line():
    assert typed("one\x1b\rtwo\r") == ["one\ntwo"]


def test_ctrl_d_ends_and_ctrl_c_interrupts():
    with pytest.raises(EOFError):
        typed("\x04")
    with pytest.raises(KeyboardInterrupt):
        typed("half a li\x03")


def test_lines_are_remembered_across_sessions(own_history):
    typed("first\r")
    assert typed("\x1b[A\r") == ["first"]            # arrow up
    assert own_history.stat().st_mode & 0o077 == 0


def test_a_line_that_begins_with_a_space_is_not_remembered(own_history):
    typed(" secret\r")
    assert "secret" not in own_history.read_text()


def test_a_history_that_cannot_be_is_no_obstacle(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(keyboard.VARIABLE, str(tmp_path / "file" / "history"))
    assert typed("hello\r") == ["hello"]
    monkeypatch.setenv(keyboard.VARIABLE, "")
    assert typed("hello\r") == ["hello"]


def completions(text):
    made = keyboard._completer(COMMANDS)
    return [one.text for one in made.get_completions(Document(text), CompleteEvent())]


def test_commands_complete(tmp_path):
    assert completions("/s") == ["/save", "/stats"] and completions("/") == list(COMMANDS)
    assert completions("s") == [] and completions("say /s") == [] and completions("/stats x") == []
    (tmp_path / "story.json").write_text("")
    assert completions(f"/load {tmp_path}/sto") == ["ry.json"]


def test_no_echo_while_an_answer_is_written(monkeypatch):
    ours, theirs = pty.openpty()
    with open(theirs, "r") as stdin, open(theirs, "w", closefd=False) as stdout:
        monkeypatch.setattr("sys.stdin", stdin)
        monkeypatch.setattr("sys.stdout", stdout)
        echo = lambda: bool(termios.tcgetattr(theirs)[3] & termios.ECHO)
        assert echo()
        with keyboard.silent():
            assert not echo()
        assert echo()
        with pytest.raises(KeyboardInterrupt), keyboard.silent():
            raise KeyboardInterrupt
        assert echo()
    os.close(ours)


def test_enter_between_an_answer_and_the_next_prompt_still_sends(monkeypatch):
    """The terminal is as ever there, but for Enter: it is not made the key that begins a new line."""
    ours, theirs = pty.openpty()
    with open(theirs, "r") as stdin, open(theirs, "w", closefd=False) as stdout:
        monkeypatch.setattr("sys.stdin", stdin)
        monkeypatch.setattr("sys.stdout", stdout)
        before = termios.tcgetattr(theirs)
        with keyboard.reading(COMMANDS):
            with keyboard.silent():
                pass
            os.write(ours, b"/quit\r")              # now
            with keyboard.silent():                 # raw, as a prompt has it
                assert select.select([theirs], [], [], WAIT_S)[0] and os.read(theirs, 99) == b"/quit\r"
        assert termios.tcgetattr(theirs) == before
    os.close(ours)


def test_pipes_have_no_echo_to_silence():
    with keyboard.silent():
        pass


def test_a_chat_on_a_terminal(files, tmp_path):
    """Two lines that are typed while nothing is asked become two turns; the first one's answer is not mixed with the
    second."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (24, 80))
    environment = os.environ | {"TERM": "xterm", "NO_COLOR": "1", "PYTHONPATH": f"{ROOT}/host:{ROOT}/spec"}
    process = subprocess.Popen([sys.executable, "-m", "llama2_host", "chat", "--golden", "--model",
                                str(files / "tiny.llm"), "--temperature", "0",
                                "--steps", "4"], cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, env=environment,
                               start_new_session=True)
    os.close(theirs)
    seen = b""

    def until(done):
        """Read what the chat shows, as a terminal does, which it may wait for to the very end."""
        nonlocal seen
        end = time.monotonic() + WAIT_S
        while not done() and time.monotonic() < end:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    piece = os.read(ours, 4096)
                except OSError:
                    break
                seen += piece
                if b"\x1b[6n" in piece:             # where is the cursor?
                    os.write(ours, b"\x1b[1;1R")
    until(lambda: b">" in seen)
    os.write(ours, b"ab\rcd\r")
    until(lambda: seen.count(b"positions used]") >= 2)
    assert seen.count(b"positions used]") >= 2, seen
    os.write(ours, b"/quit\r")
    until(lambda: process.poll() is not None)
    assert process.wait(WAIT_S) == 0
    os.close(ours)
