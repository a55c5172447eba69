"""Prompts from files and pipes, and standard streams that are closed, full, or cannot say every letter."""
import io
import itertools
import json
import os
import pty
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from llama2_host import prompt
from llama2_host.commands import COMMANDS
from llama2_host.commands.generate import why
from llama2_host.device.device import Device
from llama2_host.generation import Options, Outcome, Sampling
from llama2_host.progress import Progress
from llama2_spec.protocol import ModelState, Opcode, Reason
from tests.host.fake_device import FakeDevice
from tests.host.test_cli import ROOT, WAIT_S, refusal, run, start
from tests.host.tiny import CONFIG


def golden(files):
    return ["generate", "--golden", "--model", files / "tiny.llm", "--steps", 12, "--temperature", 0]


def shell(files, text, *, status=0, **environment):
    """A line of a shell, in which $G generates with golden."""
    command = (f'G() {{ "{sys.executable}" -m llama2_host generate --golden --model "{files}/tiny.llm" --steps 12 '
               f'--temperature 0 "$@"; }}; {text}')
    process = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, timeout=WAIT_S,
                             stdin=subprocess.DEVNULL,
                             env=os.environ | environment)
    errors = process.stderr.decode()
    assert "Traceback" not in errors and "Exception" not in errors
    assert process.returncode == status, errors
    return process.stdout.decode("utf-8", "replace"), errors


def test_prompt_from_a_pipe_or_a_file(files):
    expected = run(*golden(files), "--prompt", "hi")[0]
    (files / "prompt").write_bytes(b"\xef\xbb\xbfhi\r\n")
    assert run(*golden(files), stdin="hi\n")[0] == expected
    for text in ("echo hi | G", "echo hi | G -f -", f"G -f '{files}/prompt'", f"G < '{files}/prompt'",
                 "G -f <(echo hi)"):
        assert shell(files, text)[0] == expected, text
    assert run(*golden(files), "--prompt", "", stdin="not read")[0] == run(*golden(files), stdin="")[0]
    assert run(*golden(files), "--prompt-ids", "1", stdin="not read")[0] == run(*golden(files), stdin="")[0]
    assert run(*golden(files), "--prompt", "hi\n")[0] != expected


def test_prompts_that_are_none(files):
    (files / "latin").write_bytes("é".encode("latin-1"))
    assert "is no text in UTF-8" in refusal(*golden(files), "-f", files / "latin")
    assert "cannot read --file" in refusal(*golden(files), "-f", files / "absent")
    assert "cannot read --file" in refusal(*golden(files), "-f", files)
    assert "longer than 16 MiB" in refusal(*golden(files), "-f", "/dev/zero")


def test_a_silent_pipe_is_not_waited_for_without_end(files):
    process = start(*golden(files))
    _, errors = process.stdout.read(), process.stderr.read()    # stdin stays open
    assert process.wait(WAIT_S) == 1 and "no prompt came on stdin" in errors
    assert "waiting for the prompt on stdin" in errors
    process.stdin.close()
    assert prompt.NOTE_S < prompt.PATIENCE_S


@pytest.mark.parametrize("text", ["-Once", "--Once", "-n", "-1", "--prompts", "- a", "-", "-x y"])
def test_a_prompt_may_begin_with_a_dash(files, text):
    named = run(*golden(files), f"--prompt={text}")[0]
    if text == "-n":
        assert "expected one argument" in run(*golden(files), "-i", text, status=2)[1]
    else:
        assert named == run(*golden(files), "-i", text)[0] == run(*golden(files), "--prompt", text)[0]


def test_bytes_that_are_no_text_in_an_argument(files):
    output, _ = shell(files, r"G -i $'a\xffb'")
    assert "a\ufffdb" in output


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_closed_streams(files, command):
    program = f'"{sys.executable}" -m llama2_host {command} --golden --model "{files}/tiny.llm" --steps 5 -i x'
    assert "standard output is closed" in shell(files, f"{program} >&-", status=1)[1]
    assert shell(files, f"{program} <&-")[0].startswith(" x" if command == "generate" else "")
    output, errors = shell(files, f"{program} 2>&-")
    assert output and not errors
    shell(files, f"{program} <&- >&- 2>&-", status=1)
    assert "No space left" in shell(files, f"{program} > /dev/full", status=1)[1]


def test_readers_that_leave(files):
    for text in ("G -i x | true", "G --help | true", "G -i x | head -c 1 >/dev/null",
                 f'"{sys.executable}" -m llama2_host --help | true'):
        shell(files, text)


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"},
                                         {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_letters_that_stdout_cannot_say(files, environment):
    output, _ = shell(files, "G -i 'x é日' && printf 'é日\\xff\\n' | " + f'"{sys.executable}" -m llama2_host chat '
                                                                       '--golden --model '
                      f'"{files}/tiny.llm" -n 3', **environment)
    assert output.startswith((" x é日", " x \ufffd?", " x ??"))


def test_version_and_help():
    import tomllib
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert run("--version")[0] == f"llama2-host {declared}\n"
    default = Sampling()
    for name in COMMANDS:
        text = " ".join(run(name, "--help")[0].split())
        assert "default None" not in text and "(default)" not in text
        if name in ("generate", "chat"):
            for value in (default.temperature, default.top_p, default.top_k, default.min_p, default.repetition_penalty,
                          default.repetition_window, default.speculate, "q8", "k16v16", 256):
                assert f"(default {value})" in text
        if name in ("perplexity", "compare"):
            assert "the device's own" not in text and "(default: the project's)" in text


def test_a_package_that_is_missing_is_named():
    """Without site-packages, as in an interpreter that nothing was installed for."""
    process = subprocess.run([sys.executable, "-S", "-m", "llama2_host", "info", "x"], cwd=ROOT, capture_output=True,
                             text=True, timeout=WAIT_S,
                             env={**os.environ, "PYTHONPATH": f"{ROOT/'host'}{os.pathsep}{ROOT/'spec'}"})
    assert process.returncode == 1 and "Traceback" not in process.stderr
    assert "the Python package " in process.stderr and "is missing: `pip install .`" in process.stderr


def test_info_for_a_program(files):
    image, checkpoint = (json.loads(run("info", files / name, "--json")[0]) for name in ("tiny.llm", "tiny.bin"))
    assert set(image) == set(checkpoint) and (image["kind"], checkpoint["kind"]) == ("image", "checkpoint")
    epsilon = {"norm_epsilon": pytest.approx(checkpoint["shape"]["norm_epsilon"])}      # float32 in an image
    assert (image["shape"] | epsilon == checkpoint["shape"] and image["shape"]["dim"] == 32
            and image["shape"]["kv"] == "k16v16")
    assert (image["bytes"] == (files / "tiny.llm").stat().st_size and image["formats"] == ["q8"]
            and image["tokenizer"] == 259)


def test_why_a_text_ended(files, holding):
    assert "it ended because --steps 12 was reached" in run(*golden(files), "--prompt", "hi")[1]
    for arguments in (["--golden", "--model", files / "tiny.llm"], ["--port", holding.url]):
        output, errors = run("generate", *arguments, "--prompt", "hi", "--steps", 500, "--temperature", 0)
        assert "the context is full: all 32 positions are used" in errors
        output, _ = run("generate", *arguments, "--prompt", "hi", "--steps", 500, "--temperature", 0, "--json")
        assert json.loads(output)["reason"] == "context"
    holding.script = lambda position: 2 if position > 5 else 100
    assert "the model ended its text" in run("generate", "--port", holding.url, "--prompt", "x")[1]


@pytest.mark.parametrize("temperature, percent, told", [(1.0, 72.0, True), (1.0, 96.0, False), (0.0, 72.0, False),
                                                        (1.0, None, False)])
def test_why_sampling_is_slower(temperature, percent, told):
    writing = SimpleNamespace(outcome=Outcome(Reason.STOP, 5), options=Options(sampling=Sampling(temperature)),
                              prompt_ids=[1],
                              backend=SimpleNamespace(config=CONFIG),
                              statistics=SimpleNamespace(roofline_percent=percent))
    lines = why(writing)
    assert lines[0] == "the model ended its text" and ("sampling costs the rest" in lines[-1]) == told


def test_chat_says_paths_and_spaces(files):
    lines = "/usr/bin is a folder\n  indented\n//quit\n/help\n/unknown\n/bye\nnever said\n"
    output, errors = run("chat", "--golden", "--model", files / "tiny.llm", "--steps", 2, "--temperature", 0,
                         stdin=lines)
    assert errors.count("new tokens sent") == 3 and "no command /unknown (write //unknown to say it)" in errors
    assert errors.count("/help says this") >= 3
    assert "a story model: it continues what you write" in errors and "tiny.bin" in errors and "32 positions" in errors


def test_a_full_context_in_a_chat(files):
    _, errors = run("chat", "--golden", "--model", files / "tiny.llm", "--steps", 100, "--temperature", 0, stdin="x\n")
    assert "32 of 32 positions used" in errors and "the context is full" in errors


@pytest.mark.parametrize("looks, lines", [(1, 0), (4, 0), (7, 1), (60, 2)])
def test_only_a_device_that_checks_its_model_says_so(monkeypatch, looks, lines):
    """A look every 0.2 s, on a clock of the test's own: what is over at once is not told."""
    clock = SimpleNamespace(now_s=0.0)

    def sleep(seconds):
        clock.now_s += seconds
    monkeypatch.setattr("llama2_host.device.device.time", SimpleNamespace(monotonic=lambda: clock.now_s, sleep=sleep))
    states, notes = iter([ModelState.BOOTING] * looks + [ModelState.READY]), io.StringIO()
    device = Device.__new__(Device)
    uptime = itertools.count()
    device.hello = lambda: setattr(device, "info",
                                   SimpleNamespace(model_state=next(states), uptime=next(uptime), clock_hz=1))
    device.hello()
    device._await_boot(Progress(notes))
    assert notes.getvalue().count("the device checks its model, or copies it from flash") == lines


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_generation_cleanly(holding, number):
    holding.hold = True
    process = start("generate", "--port", holding.url, "--prompt", "x")
    deadline = time.monotonic() + WAIT_S
    while Opcode.GENERATE not in holding.effects and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 128 + number and "Traceback" not in errors


def test_names_on_a_terminal(files):
    """A checkpoint whose name would set the clipboard: its provenance in info, and in notes."""
    steering = files / "a\x1b]52;c;QQ==\x07b.bin"
    steering.write_bytes((files / "tiny.bin").read_bytes())
    run("convert", steering, "-o", files / "named.llm", "-z", files / "tokenizer.bin")
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-m", "llama2_host", "info", str(files / "named.llm")], cwd=ROOT,
                               stdout=theirs, stderr=theirs)
    assert process.wait(WAIT_S) == 0
    os.close(theirs)
    seen = os.read(ours, 65536)
    os.close(ours)
    assert b"ab.bin" in seen and b"\x1b" not in seen and b"\x07" not in seen
    assert "\x1b]52" in run("info", files / "named.llm")[0]
    assert "\x1b" not in run("chat", "--golden", "--model", files / "named.llm", stdin="")[1]
    assert "\x1b" not in run("convert", steering, "-o", files / "again.llm")[1]
    with FakeDevice(name="x\x1b[2Jy") as device:
        assert "\x1b" not in run("stats", "--port", device.url)[1]
