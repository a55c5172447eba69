"""-q and -v, colours, tables and bars: dressed where a person looks, plain everywhere else."""
import io
import os
import pty

import pytest

from llama2_host import cli, screen
from llama2_host.progress import Progress
from llama2_host.screen import Verbosity, set_verbosity


@pytest.fixture
def terminal(monkeypatch):
    """A stream that is a terminal, with colours."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    ours, theirs = pty.openpty()
    with open(theirs, "w") as stream:
        yield stream, ours
    os.close(ours)


@pytest.fixture
def loud():
    yield set_verbosity
    set_verbosity(Verbosity.NORMAL)


def test_a_file_gets_plain_columns():
    lines = screen.table(("name", "beats"), [("embed", "1"), ("s1_qkv", "1,234")], io.StringIO())
    assert lines == ["name    beats", "embed       1", "s1_qkv  1,234"]


def test_a_terminal_gets_a_drawn_table(terminal):
    lines = screen.table(("name", "beats"), [("embed", "1")], terminal[0])
    assert any("─" in line for line in lines) and "\x1b" in "".join(lines)


@pytest.mark.parametrize("name, value", [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colours_can_be_forbidden(terminal, monkeypatch, name, value):
    assert "\x1b" in screen.styled("x", "red", terminal[0])
    monkeypatch.setenv(name, value)
    assert screen.styled("x", "red", terminal[0]) == "x"
    assert "\x1b" not in screen.bar(1, 2, 10, terminal[0])


def test_what_a_table_holds_steers_no_terminal(terminal):
    assert "\x1b]52" not in "".join(screen.table(("name",), [("\x1b]52;c;QQ==\x07x [red]y[/red]",)], terminal[0]))
    assert "[red]y[/red]" in "".join(screen.table(("name",), [("[red]y[/red]",)], terminal[0]))


def test_a_bar_fills(terminal):
    assert (screen.bar(0, 10, 10, io.StringIO()) == "[..........]"
            and screen.bar(10, 10, 10, io.StringIO()) == "[##########]")
    assert screen.bar(0, 0, 4, io.StringIO()) == "[####]"
    assert "━" in screen.bar(5, 10, 10, terminal[0])


def test_a_dumb_terminal_is_a_log(terminal, monkeypatch):
    assert Progress(terminal[0]).on_terminal
    monkeypatch.setenv("TERM", "dumb")
    assert not Progress(terminal[0]).on_terminal


@pytest.mark.parametrize("level, said", [(Verbosity.QUIET, ["warn"]), (Verbosity.NORMAL, ["note", "warn"]),
                                         (Verbosity.VERBOSE, ["note", "detail", "warn"])])
def test_levels(loud, level, said):
    loud(level)
    stream = io.StringIO()
    progress = Progress(stream)
    for what in ("note", "detail", "warn"):
        getattr(progress, what)(what)
    with progress.bar("bar", 1):
        pass
    assert [line for line in stream.getvalue().splitlines() if "bar" not in line] == said
    assert ("bar" in stream.getvalue()) == (level != Verbosity.QUIET)


def test_quiet_leaves_the_answer_and_verbose_says_more(files, capsys):
    command = ["generate", "--golden", "--model", str(files / "tiny.llm"), "--prompt", "x", "--steps", "6",
               "--temperature", "0"]
    assert cli.main([*command, "-q"]) == 0
    quiet = capsys.readouterr()
    assert quiet.err == "" and quiet.out
    assert cli.main([*command, "-v"]) == 0
    loud = capsys.readouterr()
    assert loud.out == quiet.out and "generate took" in loud.err
    assert cli.main(command) == 0
    assert "generate took" not in capsys.readouterr().err


def test_quiet_still_says_what_is_wrong(capsys):
    assert cli.main(["info", "nowhere.bin", "-q"]) == 1
    assert "nowhere.bin" in capsys.readouterr().err


def test_quiet_and_verbose_exclude_each_other(capsys):
    assert cli.main(["info", "x", "-q", "-v"]) == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell, capsys):
    assert cli.main(["completion", shell]) == 0
    assert "llama2-host" in capsys.readouterr().out


@pytest.mark.parametrize("line, offered, not_offered", [("llama2-host do", "doctor", "chat"),
                                                        ("llama2-host doctor --dram-fault s", "stuck", "row"),
                                                        ("llama2-host bench --prom", "--prompt-tokens", "--tokens")])
def test_a_shell_is_told_what_may_follow(line, offered, not_offered, tmp_path):
    import subprocess
    import sys
    from tests.host.test_cli import ROOT, WAIT_S
    told = tmp_path / "told"
    environment = os.environ | {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)),
                                "_ARGCOMPLETE_IFS": "\n",
                                "_ARGCOMPLETE_STDOUT_FILENAME": str(told), "_ARGCOMPLETE_SHELL": "bash",
                                "PYTHONPATH": f"{ROOT}/host:{ROOT}/spec"}
    subprocess.run([sys.executable, "-m", "llama2_host"], env=environment, cwd=ROOT, timeout=WAIT_S,
                   stdin=subprocess.DEVNULL)
    words = [word.strip() for word in told.read_text().split("\n")]
    assert offered in words and not_offered not in words
