"""The command ``llama2-host serve``: what it refuses before a model is loaded, and how it begins and ends."""
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from llama2_host.cli import main
from llama2_host.image.model import Model
from tests.host.fake_device import FakeDevice
from tests.server.running import listening_at
from tests.waiting import PATIENCE_S


def refused(capsys, image, *arguments):
    """The line on stderr."""
    where = () if "--port" in arguments else ("--golden",)
    assert main(["serve", *where, "--model", str(image), "--http-port", "0", *arguments]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("llama2-host: ")
    return lines[-1]


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_other_machines_need_a_key(capsys, image, host):
    assert "--api-key-file" in refused(capsys, image, "--host", host)


@pytest.mark.parametrize("content", ["", "# only a comment\n", "two words\n", "ké\n", None])
def test_a_key_file_has_keys(capsys, image, tmp_path, content):
    if content is not None:
        (tmp_path / "keys").write_text(content)
    assert "--api-key-file" in refused(capsys, image, "--api-key-file", str(tmp_path / "keys"))


@pytest.mark.parametrize("arguments, said", [
    (["--copies", "0"], "--copies"), (["--queue", "-1"], "--queue"),
    (["--cors-origin", "example.org"], "--cors-origin"),
    (["--host", "no.such.host.invalid"], "cannot listen"), (["--temperature", "-1"], "--temperature"),
    (["--port", "x", "--port", "x"], "twice"), (["--port", "x", "--copies", "2"], "--copies"),
    (["--slots", "0"], "--slots is at least 1"), (["--port", "x", "--slots", "9"], "--slots is at most 8"),
    (["--slots", "2"], "--slots has no effect here: --golden has no device"),
    (["--sim"], "choose where")])
def test_what_cannot_be_is_refused_in_a_line(capsys, image, arguments, said):
    assert said in refused(capsys, image, *arguments)


def test_a_port_that_is_taken(capsys, image):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "another --http-port" in refused(capsys, image, "--http-port", str(taken.getsockname()[1]))


def test_a_board_that_does_not_answer(capsys, image):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert str(port) in refused(capsys, image, "--port", f"socket://127.0.0.1:{port}")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_listens_and_ends_when_told(image, tmp_path, how):
    process = subprocess.Popen([sys.executable, "-m", "llama2_host", "serve", "--golden", "--model", str(image),
                                "--http-port", "0", "-t", "0"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        url = listening_at(process)
        assert httpx.get(url + "/health").status_code == 200
        assert httpx.get(url + "/v1/models").json()["data"][0]["id"] == "tiny"
        texts = {httpx.post(url + "/v1/completions", json={"prompt": "x", "max_tokens": 5}).json()["choices"][0]["text"]
                 for _ in range(3)}
        assert len(texts) == 1                  # -t 0 holds where a request does not say
        process.send_signal(how)
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert "Traceback" not in errors
    finally:
        process.kill()
        process.communicate()


def test_firmware_of_before_is_told_where_slots_were_asked_for(capsys, image):
    model = Model.load(image)
    info = {"memory": model.data, "image_bytes": len(model.data), "header_crc": model.header_crc, "seq_len": 256,
            "payload_crc": model.payload_crc, "vocab_size": 259}
    with FakeDevice(**info) as device:
        assert "the firmware does not know SLOTS: build" in refused(capsys, image, "--port", device.url, "--slots", "2")


def test_two_devices_are_a_pool_and_must_hold_the_same_model(capsys, image):
    model = Model.load(image)
    info = {"memory": model.data, "image_bytes": len(model.data), "header_crc": model.header_crc, "seq_len": 256,
            "payload_crc": model.payload_crc, "vocab_size": 259}
    with FakeDevice(**info) as first, FakeDevice(**info | {"payload_crc": 1}) as second:
        assert main(["serve", "--port", first.url, "--port", second.url, "--http-port", "0"]) == 1
        assert "different models" in capsys.readouterr().err
