"""The command line as users meet it: a process, its exit status, one line for every kind of bad input."""
import json
import math
import os
import pty
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from llama2_host.checkpoint import huggingface
from llama2_host.checkpoint.layout import shapes
from llama2_host.image.fit import longest
from llama2_host.image.model import Model
from llama2_host.tokenizer.base import Tokenizer
from llama2_spec import protocol
from llama2_spec.model import KvFormat
from llama2_spec.protocol import ModelState, Opcode, Status, Subject
from tests.host import vocabularies
from tests.host.checkpoints import huggingface_config, write_huggingface
from tests.host.fake_device import FakeDevice
from tests.host.test_vocabulary import small
from tests.host.tiny import CONFIG, TOKENIZER

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 60


def obey_ctrl_c():
    """A run in the background of a script begins with SIGINT ignored, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def ignore_ctrl_c():
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def start(*arguments, preexec_fn=obey_ctrl_c):
    return subprocess.Popen([sys.executable, "-m", "llama2_host", *map(str, arguments)], cwd=ROOT, text=True,
                            stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=preexec_fn)


def run(*arguments, stdin="", status=0):
    process = start(*arguments)
    output, errors = process.communicate(stdin, timeout=WAIT_S)
    assert "Traceback" not in errors
    assert process.returncode == status, errors
    return output, errors


def refusal(*arguments, notes=0):
    """The one line of an error; ``notes`` lines of progress may come before it."""
    output, errors = run(*arguments, status=1)
    assert not output
    lines = errors.strip().splitlines()
    assert len(lines) <= 1 + notes, errors
    assert lines[-1].startswith("llama2-host: ")
    return lines[-1]


# Bad input ----------------------------------------------------------------------------------------

def test_asks_to_choose_a_device(files):
    assert ("--port URL (a board or a running simulator), --sim, or --golden" in refusal(
        "generate", "--model", files / "tiny.bin"))


@pytest.mark.parametrize("content", [b"", b"\0" * 10, b"hello, this is no model" * 50])
def test_foreign_checkpoint(files, content):
    (files / "foreign.bin").write_bytes(content)
    assert "foreign.bin" in refusal("info", files / "foreign.bin")
    assert "foreign.bin" in refusal("generate", "--golden", "--model", files / "foreign.bin")


def test_truncated_checkpoint(files):
    (files / "short.bin").write_bytes((files / "tiny.bin").read_bytes()[:-100])
    assert "truncated" in refusal("convert", files / "short.bin", "-o", files / "short.llm")
    assert not (files / "short.llm").exists()


def test_output_in_a_folder_that_is_not_there(files):
    assert "cannot write" in refusal("convert", files / "tiny.bin", "-o", files / "absent" / "out.llm")
    assert not (files / "absent").exists()


def test_missing_file(files):
    assert "nothing.bin" in refusal("generate", "--golden", "--model", files / "nothing.bin")


@pytest.mark.parametrize("damage", [lambda data: data[:-16], lambda data: data[:100],
                                    lambda data: data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]])
def test_damaged_image(files, damage):
    (files / "bad.llm").write_bytes(damage((files / "tiny.llm").read_bytes()))
    assert "bad.llm" in refusal("generate", "--golden", "--model", files / "bad.llm")


def test_tokenizer_of_another_size(files):
    (files / "other.bin").write_bytes(Tokenizer(TOKENIZER.pieces + [b"more"], [0.0] * 260).pack())
    for model in ("tiny.bin", "tiny.llm"):
        line = refusal("generate", "--golden", "--model", files / model, "--tokenizer", files / "other.bin")
        assert "tokenizer has 260 entries, the model has 259" in line


def test_prompt_longer_than_the_context(files, holding):
    for device in (["--golden", "--model", files / "tiny.llm"], ["--port", holding.url]):
        line = refusal("generate", *device, "--prompt", "x" * 40, notes=2)
        assert "the prompt has 42 tokens, the model's context 32 positions" in line


def test_option_out_of_range(files):
    assert "--temperature is from 0 to 100" in refusal("generate", "--golden", "--model", files / "tiny.llm",
                                                       "--temperature", "-1")
    assert "--speculate verifies guesses" in refusal("generate", "--golden", "--model", files / "tiny.llm",
                                                     "--speculate", "3")
    assert "--steps is at least 1" in refusal("generate", "--golden", "--model", files / "tiny.llm", "--steps", "0")


def test_text_from_a_model_without_tokenizer(files, tmp_path):
    (tmp_path / "tokenizer.bin").unlink()
    run("convert", files / "tiny.bin", "-o", files / "bare.llm")
    assert "the model has no tokenizer" in refusal("generate", "--golden", "--model", files / "bare.llm")
    assert len(run("generate", "--golden", "--model", files / "bare.llm", "--ids", "--steps", 3)[0].split()) >= 2


def test_unknown_option_is_a_usage_error():
    run("generate", "--nonsense", status=2)


def test_port_that_does_not_exist():
    assert "port /dev/no-such-port does not exist" in refusal("stats", "--port", "/dev/no-such-port")
    assert "nothing listens on socket://127.0.0.1:1" in refusal("generate", "--port", "socket://127.0.0.1:1")


def test_serial_port_that_does_not_answer():
    host_side, device_side = pty.openpty()
    try:
        line = refusal("stats", "--port", os.ttyname(device_side))
        assert "does not answer HELLO: wrong port or baud rate? is the board powered and its bitstream loaded?" in line
    finally:
        os.close(host_side), os.close(device_side)


def test_device_without_a_model():
    with FakeDevice(model_state=ModelState.NONE) as device:
        assert "the device has no model: name one with --model" in refusal("generate", "--port", device.url)


def test_model_beyond_the_maxima(files):
    with FakeDevice(model_state=ModelState.NONE, max_hidden_dim=32) as device:
        line = refusal("generate", "--port", device.url, "--model", files / "tiny.bin", notes=1)
        assert "the model's hidden_dim is 48, this device's maximum is 32" in line
        assert Opcode.LOAD_BEGIN not in device.effects


def test_model_beyond_the_dram(files):
    size = -(-(files / "tiny.llm").stat().st_size // 2048) * 2048
    with FakeDevice(model_state=ModelState.NONE, dram_bytes=size + 1536) as device:
        line = refusal("load", "--port", device.url, "--model", files / "tiny.llm")
        assert "the model needs" in line and "K/V cache of 32 positions 2.5 KiB" in line and "--seq-len 16" in line


def test_context_beyond_the_dram_fits_in_eight_bits(files):
    """The refusal reckons it out for the formats that would do better; following it works."""
    size = -(-(files / "tiny.llm").stat().st_size // 2048) * 2048
    # a row has 80, 64 or 48 bytes
    with FakeDevice(model_state=ModelState.NONE, dram_bytes=size + 32 * 64) as device:
        line = refusal("load", "--port", device.url, "--model", files / "tiny.bin", "--kv", "k16v16", notes=1)
        assert "K/V cache of 32 positions 2.5 KiB: 1 layers x 80 bytes each, k16v16)" in line
        assert ("convert with --seq-len 16 or less or --kv k16v8 (all 32) or --kv k8v8 (all 32), "
                "or use a smaller model") in line
        line = refusal("load", "--port", device.url, "--model", files / "tiny.bin", "--kv", "k8v8", "--seq-len", 48,
                       notes=2)
        assert "48 positions 2.2 KiB: 1 layers x 48 bytes each, k8v8)" in line
        assert "--seq-len 32 or less, or use" in line
    for arguments in (["--kv", "k8v8"], ["--kv", "k16v8"], ["--kv", "k8v8", "--seq-len", 42]):
        memory = FakeDevice(model_state=ModelState.NONE, dram_bytes=size + 32 * 64)
        with memory as device:
            run("convert", files / "tiny.bin", "-o", files / "out.llm", *arguments)
            process = start("load", "--port", device.url, "--model", files / "out.llm")
            assert "K/V cache" not in process.communicate(timeout=WAIT_S)[1]
            assert Opcode.LOAD_BEGIN in device.effects


def test_bad_cache_options(files):
    assert "--seq-len 65537: a context has 1 to 65536 positions" in refusal(
        "convert", files / "tiny.bin", "-o", files / "out.llm", "--seq-len", 65537)
    assert "--seq-len 0: a context has 1 to" in refusal("generate", "--golden", "--model", files / "tiny.bin",
                                                        "--seq-len", 0)
    _, errors = run("convert", files / "tiny.bin", "-o", files / "out.llm", "--kv", "k8v16", status=2)
    assert "--kv: invalid choice: 'k8v16' (choose from" in errors.splitlines()[-1]
    assert not (files / "out.llm").exists()


def test_a_model_that_cannot_fit_is_refused_before_it_is_converted(tmp_path):
    """TinyLlama's shape, 2.2 GB of zeros in a file with holes: the arithmetic comes at once, and nothing is written."""
    sparse_tinyllama(tmp_path / "tinyllama")
    with FakeDevice(model_state=ModelState.NONE, dram_bytes=256 << 20, max_dim=2048, max_hidden_dim=5632,
                    max_heads=64) as device:
        line = refusal("load", "--port", device.url, "--model", tmp_path / "tinyllama")
        assert ("the model needs 1.0 GiB (image 1017.5 MiB + K/V cache of 2048 positions 44.7 MiB: 22 layers x 1040 "
                "bytes each, k16v16), the device has 256.0 MiB: ") in line
        assert line.endswith("use a smaller model, this one has 555.1 MiB even with --format q4 --embedding q4")
        assert Opcode.LOAD_BEGIN not in device.effects
    assert not (tmp_path / "cache").exists()


def sparse_tinyllama(folder):
    """A folder whose weights are all zero and take no place on disk."""
    config = replace(CONFIG, dim=2048, hidden_dim=5632, n_layers=22, n_heads=32, n_kv_heads=4, head_dim=64,
                     vocab_size=32000,
                     seq_len=2048, tied=True)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(huggingface_config(config)))
    header, at = {}, 0
    for name, shape in shapes(config).items():
        _, layer, kind = name.split(".") if name.startswith("layers.") else ("", "", name)
        theirs = {"embedding": huggingface.EMBEDDING, "final_norm": "model.norm.weight"}.get(name) \
            or f"model.layers.{layer}.{huggingface.LAYER[kind]}.weight"
        header[theirs] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at := at + 2 * math.prod(shape)]}
    text = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + at)


def test_damaged_image_on_the_device():
    with FakeDevice(model_state=ModelState.REFUSED, model_status=Status.BAD_PAYLOAD,
                    model_error=(0, 0x1234, 0x5678)) as device:
        assert "CRC 0x00001234, should be 0x00005678: load it again" in refusal("generate", "--port", device.url)


def test_refused_shapes_on_the_device():
    error = (int(Subject.HEAD_DIM), 256, 128)
    with FakeDevice(model_state=ModelState.REFUSED, model_status=Status.TOO_LARGE, model_error=error) as device:
        assert "the model's head_dim is 256, this device's maximum is 128" in refusal("chat", "--port", device.url)


def test_refused_kv_format_on_the_device():
    error = (int(Subject.KV_FORMAT), 7, 3)
    with FakeDevice(model_state=ModelState.REFUSED, model_status=Status.BAD_VALUE, model_error=error) as device:
        line = refusal("chat", "--port", device.url)
        assert "keeps K and V in format 7, which this firmware does not know: build client and firmware" in line


# Ctrl-C -------------------------------------------------------------------------------------------

def interrupted(process, device):
    """Press Ctrl-C once a generation runs."""
    deadline = time.monotonic() + WAIT_S
    while Opcode.GENERATE not in device.effects and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)


@pytest.mark.parametrize("inherited", [obey_ctrl_c, ignore_ctrl_c])
def test_ctrl_c_ends_a_generation_cleanly(holding, inherited):
    holding.hold = True
    process = start("generate", "--port", holding.url, "--prompt", "x", preexec_fn=inherited)
    interrupted(process, holding)
    output, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130 and "Traceback" not in errors
    assert output == " x\n"
    assert holding.effects[-1] == Opcode.ABORT


def test_ctrl_c_returns_to_the_chat(holding):
    holding.hold = True
    process = start("chat", "--port", holding.url, "--prompt", "x")
    interrupted(process, holding)
    time.sleep(0.5)
    holding.hold = False
    output, errors = process.communicate("y\n/quit\n", timeout=WAIT_S)
    assert process.returncode == 0, errors
    assert "(stopped)" in errors and "Traceback" not in errors
    assert holding.effects.count(Opcode.GENERATE) == 2


# Good input ---------------------------------------------------------------------------------------

def test_text_streams_to_stdout_and_figures_to_stderr(holding):
    output, errors = run("generate", "--port", holding.url, "--prompt", "x", "--steps", 8, "--temperature", 0)
    assert output == " xdefghi\n"
    assert "tokens/s at 100 MHz, 1,000 cycles/token" in errors and "% of the DRAM roofline" in errors


def test_ids_and_json(holding, files):
    output, _ = run("generate", "--port", holding.url, "--prompt", "x", "--steps", 5, "--ids")
    assert output.split() == ["1", "35", "123", "103", "104", "105"]
    output, _ = run("generate", "--port", holding.url, "--prompt-ids", "1,35,123", "--steps", 5, "--json", "--model",
                    files / "tiny.llm")
    result = json.loads(output)
    assert result["ids"] == [1, 35, 123, 103, 104, 105] and result["text"] == " xdef"
    assert result["statistics"]["cycles_per_token"] == 1000
    assert Opcode.LOAD not in holding.effects


def test_chat_uploads_a_model_that_the_device_lacks(files):
    image = (files / "tiny.llm").read_bytes()
    with FakeDevice(model_state=ModelState.NONE, seq_len=32, script=lambda position: 3 + ord("a")) as device:
        output, errors = run("chat", "--port", device.url, "--model", files / "tiny.bin", "--steps", 3,
                             stdin="hi\n/quit\n")
        assert output.strip() == "aaa"
        assert bytes(device.memory) == image


def test_load_writes_the_flash(files):
    size = (files / "tiny.llm").stat().st_size
    with FakeDevice(model_state=ModelState.NONE) as device:
        device.flash_bytes, device.flash_room = 1 << 24, size
        output, errors = run("load", "--port", device.url, "--model", files / "tiny.llm", "--flash")
        assert not output and "the board's flash holds it, read back" in errors
        assert device.stored == device.memory == (files / "tiny.llm").read_bytes()


@pytest.mark.parametrize("flash_bytes, room, line", [
    (0, 0, "this build has no flash for a model (JEDEC ID 0x0): build the board with --with-spi-flash, or load without "
           "--flash"),
    (1 << 24, 4096, "the board's flash room for 4.0 KiB (16.0 MiB less 16.0 MiB for the bitstream): convert with "
                    "--format q4, "
     "use a smaller model, or load without --flash")])
def test_flash_without_room_is_refused_before_the_upload(files, flash_bytes, room, line):
    with FakeDevice(model_state=ModelState.NONE) as device:
        device.flash_bytes, device.flash_room = flash_bytes, room
        assert line in refusal("load", "--port", device.url, "--model", files / "tiny.llm", "--flash")
        assert Opcode.LOAD_BEGIN not in device.effects


def test_chat_waits_for_a_device_that_copies_its_model_from_flash(holding):
    ready = dict(holding.info)
    holding.info["model_state"] = ModelState.BOOTING
    process = start("generate", "--port", holding.url, "--prompt", "x", "--steps", 8, "--temperature", 0)
    assert "the device checks its model, or copies it from flash: waiting" in process.stderr.readline()
    holding.info.update(ready)
    output, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0 and output == " xdefghi\n"


def test_chat_survives_a_lost_connection(holding):
    process = start("chat", "--port", holding.url, "--steps", 3, "--temperature", 0)
    process.stdin.write("x\n")
    process.stdin.flush()
    assert process.stdout.readline()
    holding.cut_after = holding._sent + 3       # in the middle of the next answer
    output, errors = process.communicate("y\n/quit\n", timeout=WAIT_S)
    assert process.returncode == 0, errors
    assert "went away" in errors and "(connected again)" in errors and "Traceback" not in errors
    sent = [protocol.Generate.unpack(frame.payload) for frame in holding.requests if frame.opcode == Opcode.GENERATE]
    assert sent[-1].position == 0 and len(sent[-1].ids) == 3 + 3 + 2     # everything again: BOS, x, answer, y


def test_trace_shows_frames(holding):
    _, errors = run("generate", "--port", holding.url, "--prompt", "x", "--steps", 4, "--trace")
    assert "> GENERATE #" in errors and "< TOKENS #" in errors and "< DONE #" in errors


def test_golden_generates_the_same_with_the_same_seed(files):
    one = run("generate", "--golden", "--model", files / "tiny.bin", "--steps", 12, "--seed", 7, "--ids")[0]
    assert one == run("generate", "--golden", "--model", files / "tiny.llm", "--steps", 12, "--seed", 7, "--ids")[0]
    assert len(one.split()) <= 13


def test_convert_and_info(files):
    run("convert", files / "tiny.bin", "-o", files / "out.llm", "--format", "q4", "--seq-len", 16)
    for name in ("tiny.bin", "tiny.llm", "out.llm"):
        output, _ = run("info", files / name)
        assert "dim 32" in output and "vocabulary 259" in output
    assert "q4" in output and "context 16" in output


def test_the_cache_is_reckoned_out(files):
    """By convert and info: 80 bytes of a 16-bit row, 48 of an 8-bit one, and what 256 MiB would hold of each."""
    _, errors = run("convert", files / "tiny.bin", "-o", files / "out.llm", "--kv", "k8v8", "--seq-len", 64)
    assert "trained on 32 positions" in errors
    size = (files / "out.llm").stat().st_size
    total = -(-size // 2048) * 2048 + 64 * 48
    assert (f"it takes {total / 1024:.1f} KiB of DRAM: image {size / 1024:.1f} KiB + K/V cache 3.0 KiB "
            "(64 positions x 1 layers x 48 bytes, k8v8)") in errors
    output, _ = run("info", files / "out.llm")
    assert "K/V cache   3.0 KiB for the whole context: 64 positions x 1 layers x 48 bytes, k8v8" in output
    assert "65536 k16v16, 65536 k16v8, 65536 k8v8" in output
    config = replace(CONFIG, n_layers=64)
    assert longest(config, 1 << 20, 256 << 20) == {kv: min((255 << 20) // (64 * row), 65536)
                                                   for kv, row in zip(KvFormat, (80, 64, 48))}
    assert longest(config, 257 << 20, 256 << 20) == dict.fromkeys(KvFormat, 0)


def test_eight_bit_caches_generate(files):
    """Golden on the command line: the same seeds, other texts only where rounding says so; the weights are in the cache
    once."""
    seen = {kv: run("generate", "--golden", "--model", files / "tiny.bin", "--steps", 30, "--seed", 7, "--ids", "--kv",
                    kv)[0]
            for kv in ("k16v16", "k16v8", "k8v8")}
    assert seen["k16v16"] == run("generate", "--golden", "--model", files / "tiny.llm", "--steps", 30, "--seed", 7,
                                 "--ids")[0]
    assert len(list((files / "cache").glob("*.llm"))) == 1


def test_a_folder_with_its_chat(tmp_path):
    """From a folder of Hugging Face to a chat in one command: its tokenizer, its template, its stop ids."""
    folder = vocabularies.write_folder(write_huggingface(tmp_path / "hf", *small(400, seq_len=128)),
                                       vocabularies.byte_level(),
                                       eos_token="<|im_end|>", chat_template=vocabularies.CHATML)
    output, errors = run("chat", "--golden", "--model", folder, "--steps", 2, "--temperature", 0, "--system", "S",
                         stdin="H\nI\n/quit\n")
    assert "converting hf (safetensors) to q8 with tokenizer.json" in errors
    assert "28 new tokens sent" in errors and "20 new tokens sent" in errors
    run("convert", folder, "-o", tmp_path / "hf.llm")
    output, _ = run("info", tmp_path / "hf.llm")
    assert "template    jinja" in output and "tokenizer   400 entries" in output
    assert "safetensors" in run("info", folder)[0]
    template = json.dumps({"name": "mine", "stop_tokens": ["<eot>"]})
    assert "which the vocabulary does not have" in refusal("convert", tmp_path / "hf", "-o", tmp_path / "x.llm",
                                                           "--template", template, notes=1)


def test_stats(holding):
    output, _ = run("stats", "--port", holding.url)
    assert "classify" in output and "errors: none" in output
    assert json.loads(run("stats", "--port", holding.url, "--json")[0])["phases"]["embed"]["cycles"] == 0


def test_stats_verifies_first(holding, files):
    crc = Model.load(files / "tiny.llm").payload_crc
    said = f"the model in memory is undamaged (CRC {crc:#010x}, 0 cycles)"
    assert run("stats", "--verify", "--port", holding.url)[0].splitlines()[0] == said
    output, errors = run("stats", "--verify", "--json", "--port", holding.url)
    assert json.loads(output)["phases"] and errors.splitlines() == [said]
    with FakeDevice(model_state=ModelState.NONE) as empty:
        assert "no model" in refusal("stats", "--verify", "--port", empty.url)


def test_convert_names_a_tokenizer_that_it_leaves_out(files):
    (files / "tokenizer.bin").write_bytes(TOKENIZER.pack()[:-3])
    _, errors = run("convert", files / "tiny.bin", "-o", files / "out.llm")
    assert "a tokenizer that was found is not used: " in errors and "tokenizer.bin: truncated in entry 258" in errors
    assert Model.load(files / "out.llm").tokenizer is None


def test_closed_output_is_no_traceback(holding):
    process = start("generate", "--port", holding.url, "--steps", 20)
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.wait(WAIT_S)


# Packaging ----------------------------------------------------------------------------------------

def test_client_needs_no_hdl():
    code = ("import sys, llama2_host.cli, llama2_host.commands, llama2_host.integer; "
            "print([name for name in ('amaranth', 'litex', 'migen', 'accel', 'soc', 'targets')"
            " if name in sys.modules])")
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S)
    assert output.stdout.strip() == "[]", output.stderr
