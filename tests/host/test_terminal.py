"""What of a text may reach a terminal: its letters, new lines and tabs, and nothing that steers the terminal."""
import io
import os
import pty
import random
import subprocess
import sys
import unicodedata

import pytest

from llama2_host.terminal import LONGEST_STRING, Filter, filter_for, line, plain
from tests.host.test_cli import ROOT, WAIT_S

CLIPBOARD = "\x1b]52;c;cm0gLXJmIC8=\x07"


@pytest.mark.parametrize("text, shown", [
    ("plain, é, 日本, \U0001f469‍\U0001f4bb\n\ttext\n", "plain, é, 日本, \U0001f469‍\U0001f4bb\n\ttext\n"),
    (f"a{CLIPBOARD}b", "ab"), ("a\x1b]52;c;QQ==\x1b\\b", "ab"), ("a\x9d52;c;QQ==\x9cb", "ab"),
    ("a\x1bPq#0\x1b\\b", "ab"),
    ("a\x90q\x9cb", "ab"), ("a\x1b_x\x07b\x1b^y\x1b\\c\x1bXz\x9cd", "abcd"),
    ("a\x1b[31;1mb\x1b[0m\x9b2Jc\x1b[?25lD", "abcD"),
    ("a\x1bcb\x1b(0d\x1b7e", "abde"), ("a\rb\x08c\x00\x7f\x85d", "abcd"), ("\u202eevil\u202c\u2066x\u2069", "evilx"),
    ("a\x1b[3\x1b[31mb", "ab"), ("a\x1b[\nb", "a\nb"), ("a\x1b\x1b[31mb", "ab"), ("a\x1b]0;title\nb", "a\nb"),
    ("a\x1b", "a"),
    ("\x1b[31", ""), ("a\x1bé", "aé"), ("a\x1b]x\x1b[31mb", "ab")])
def test_plain(text, shown):
    assert plain(text) == shown
    pieces = Filter()
    assert "".join(pieces.feed(char) for char in text) == shown


def test_a_string_without_an_end_swallows_no_more_than_a_line():
    assert plain("a\x1b]never ends\nbut this is shown") == "a\nbut this is shown"
    assert len(plain("\x1b]" + "x" * (LONGEST_STRING + 50))) == 50


def test_nothing_that_steers_is_left_however_it_is_split():
    source = random.Random(1)
    alphabet = "\x1b[]PX^_\\;?0m\x07\x9b\x9c\x9d\x90\n\tab\r\u202e\x00 "
    for _ in range(3000):
        text = "".join(source.choices(alphabet, k=source.randrange(30)))
        pieces, at, shown = Filter(), 0, ""
        while at < len(text):
            size = source.randrange(1, 5)
            shown, at = shown + pieces.feed(text[at:at + size]), at + size
        assert shown == plain(text) and plain(shown) == shown
        assert all(char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf") for char in shown)


def test_a_name_is_one_line():
    assert line(f"my\nmodel{CLIPBOARD}\t") == "my model "


def test_only_terminals_are_spared():
    assert filter_for(io.StringIO())(CLIPBOARD) == CLIPBOARD
    ours, theirs = pty.openpty()
    with open(theirs, "w") as terminal:
        assert filter_for(terminal)(CLIPBOARD) == "" and filter_for(terminal, raw=True)(CLIPBOARD) == CLIPBOARD
    os.close(ours)


@pytest.mark.parametrize("arguments, steers", [((), False), (("--raw",), True)])
def test_generated_text_on_a_terminal(files, arguments, steers):
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-m", "llama2_host", "generate", "--golden", "--model",
                                str(files / "tiny.llm"), "--prompt",
                                f"x{CLIPBOARD}y", "--steps", "30", *arguments], cwd=ROOT, stdin=subprocess.DEVNULL,
                               stdout=theirs,
                               stderr=subprocess.PIPE)
    os.close(theirs)
    seen = b""
    try:
        while piece := os.read(ours, 4096):
            seen += piece
    except OSError:                             # the other end is closed
        pass
    errors = process.communicate(timeout=WAIT_S)[1]
    assert process.returncode == 0, errors
    assert (CLIPBOARD.encode() in seen) == steers and (b"\x1b" in seen or not steers)
    assert steers or b"xy" in seen and b"\x07" not in seen and b"\x1b" not in seen
