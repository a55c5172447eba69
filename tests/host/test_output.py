"""Nothing is lost: what a command writes is never one of its inputs, and is there whole or not at all."""
import os
import resource
import signal
import subprocess
import sys
import time

import pytest

from llama2_host.checkpoint.write import pack_v0
from llama2_host.files import ModelError, Output
from tests.host.checkpoints import write_huggingface
from tests.host.generated import random_tensors
from tests.host.test_cli import ROOT, WAIT_S, refusal, run
from tests.host.test_vocabulary import small
from tests.host.tiny import CONFIG
from tests.host.uncounted import uncounted


def spellings(folder):
    """Other names for tiny.bin."""
    (folder / "link.llm").symlink_to("tiny.bin")
    (folder / "chain.llm").symlink_to("link.llm")
    os.link(folder / "tiny.bin", folder / "hard.llm")
    (folder / "below").mkdir()
    return [folder / "tiny.bin", f"{folder}/./tiny.bin", f"{folder}/below/../tiny.bin", f"{folder}//tiny.bin",
            folder / "link.llm",
            folder / "chain.llm", folder / "hard.llm", os.path.relpath(folder / "tiny.bin", ROOT)]


def test_an_input_is_no_output(files):
    before = (files / "tiny.bin").read_bytes()
    for name in spellings(files):
        for force in ((), ("--force",)):
            assert "is read for this" in refusal("convert", files / "tiny.bin", "-o", name, *force), name
    assert "is read for this" in refusal("convert", files / "tiny.bin", "-o", files / "tokenizer.bin", "--force")
    (files / "tokenizer.bin").rename(files / "tiny.tokenizer.bin")      # found by the checkpoint's name
    for name in ("tiny.tokenizer.bin", "tokenizer.bin"):
        (files / name).exists() or (files / name).symlink_to("tiny.tokenizer.bin")
        assert "is read for this" in refusal("convert", files / "tiny.bin", "-o", files / name, "--force")
    (files / "text").write_text("a text")
    assert "is read for this" in refusal("convert", files / "tiny.bin", "--format", "q4", "--calibrate", files / "text",
                                         "-o", files / "text",
                                         "--force")
    assert (files / "tiny.bin").read_bytes() == before


def test_a_file_of_a_folder_is_no_output_but_an_older_image_in_it_is(tmp_path):
    folder = write_huggingface(tmp_path / "hf", *small(400, seq_len=32))
    for name in ("config.json", "model.safetensors"):
        before = (folder / name).read_bytes()
        assert "is read for this" in refusal("convert", folder, "-o", folder / name, "--force")
        assert (folder / name).read_bytes() == before
    for _ in range(2):
        run("convert", folder, "-o", folder / "model.llm")


@pytest.mark.parametrize("name, what", [("", "the output has no name"), (".", "names a folder"),
                                        ("-", "not written to stdout"),
                                        ("..", "names a folder"), ("/dev/null", "is a device"),
                                        ("/dev/full", "is a device"),
                                        ("absent/", "names a folder"), ("README.md/", "names a folder"),
                                        ("x" * 300, "cannot write")])
def test_no_file(files, name, what):
    assert what in refusal("convert", files / "tiny.bin", "-o", name)
    assert not (ROOT / "-").exists()


def test_a_name_with_a_nul():
    with pytest.raises(ModelError, match="cannot write"):
        Output("a\0b")


def test_no_pipe(files):
    os.mkfifo(files / "pipe")
    assert "is a pipe" in refusal("convert", files / "tiny.bin", "-o", files / "pipe")
    assert "is a pipe" in refusal("convert", files / "pipe", "-o", files / "out.llm")
    assert "is a pipe" in refusal("info", files / "pipe")
    for what in ("pipe", "."):
        assert "name a file" in refusal("convert", files / "tiny.bin", "-o", files / "out.llm", "--format", "q4",
                                        "--calibrate", files / what)
        assert "name a file" in refusal("perplexity", "--model", files / "tiny.bin", "--text", files / what)
    assert (files / "pipe").is_fifo()


def test_a_protected_file_stays_unless_told(files):
    (files / "kept.llm").write_bytes(b"kept")
    (files / "kept.llm").chmod(0o444)
    assert "write-protected" in refusal("convert", files / "tiny.bin", "-o", files / "kept.llm")
    assert (files / "kept.llm").read_bytes() == b"kept"
    run("convert", files / "tiny.bin", "-o", files / "kept.llm", "--force")
    assert (files / "kept.llm").read_bytes() == (files / "tiny.llm").read_bytes()


def test_another_checkpoint_stays_unless_told(files):
    (files / "other.bin").write_bytes(pack_v0(CONFIG, random_tensors(CONFIG, 2)))
    before = (files / "other.bin").read_bytes()
    assert "no model image" in refusal("convert", files / "tiny.bin", "-o", files / "other.bin")
    assert (files / "other.bin").read_bytes() == before
    (files / "image.bin").write_bytes((files / "tiny.llm").read_bytes())
    run("convert", files / "tiny.bin", "-o", files / "image.bin", "--format", "q4")     # an older image is replaced


def test_a_link_is_written_through(files):
    (files / "below").mkdir()
    (files / "link").symlink_to("below/out.llm")
    run("convert", files / "tiny.bin", "-o", files / "link")
    assert ((files / "link").is_symlink() and (files / "below" / "out.llm").read_bytes() ==
            (files / "tiny.llm").read_bytes())


def test_a_name_as_long_as_may_be(files):
    run("convert", files / "tiny.bin", "-o", files / ("x" * 251 + ".llm"))


def test_what_became_an_input_meanwhile_is_spared(files):
    output = Output(files / "out.llm", [files / "tiny.bin"])

    def write(file):
        (files / "out.llm").symlink_to("tiny.bin")
        output.path.unlink()
        os.link(files / "tiny.bin", files / "out.llm")
        file.write(b"image")
    with pytest.raises(ModelError, match="is read for this"):
        output.write(write)
    assert (files / "out.llm").read_bytes() == (files / "tiny.bin").read_bytes()
    assert not list(files.glob(".*part"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_leaves_nothing_behind(files, number):
    """The conversion waits for a calibration's text in a file that has no end, once its own file is there."""
    (files / "out.llm").write_bytes((files / "tiny.llm").read_bytes())
    process = subprocess.Popen([sys.executable, "-c", STOPPED, "convert", files / "tiny.bin", "-o", files / "out.llm",
                                "--format", "q4"],
                               cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(number, signal.SIG_DFL))
    deadline = time.monotonic() + WAIT_S
    while not list(files.glob(".*.part")) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert list(files.glob(".*.part"))
    process.send_signal(number)
    _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 128 + number and "Traceback" not in errors
    assert not list(files.glob(".*.part")) and (files / "out.llm").read_bytes() == (files / "tiny.llm").read_bytes()


#: the command, whose conversion is never over
STOPPED = """
import sys, time
from llama2_host import cli
from llama2_host.image import conversion
conversion.image_module.write = lambda *_, **__: time.sleep(1000)
sys.exit(cli.main(sys.argv[1:]))
"""


def test_a_full_disk_leaves_nothing_behind(files):
    process = subprocess.run([sys.executable, "-m", "llama2_host", "convert", files / "tiny.bin", "-o",
                              files / "out.llm"], cwd=ROOT,
                             capture_output=True, text=True, timeout=WAIT_S, env=uncounted(),
                             preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)))
    assert process.returncode == 1 and "cannot write" in process.stderr and "Traceback" not in process.stderr
    assert not (files / "out.llm").exists() and not list(files.glob(".*.part"))
