"""pull: only what is needed, whole or refused, and resumed where it stopped; against a stand-in of the hub."""
import json

import numpy as np
import pytest

from llama2_host import cli
from llama2_host.checkpoint import load
from llama2_host.errors import HostError
from llama2_host.pull import File, matches, pull, shards, weights
from tests.host.checkpoints import write_huggingface
from tests.host.generated import random_tensors
from tests.host.hub import COMMIT, Hub
from tests.host.tiny import CONFIG


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "pulled"


@pytest.fixture
def files(tmp_path):
    """A model's folder as a hub has it, with what nobody needs beside it."""
    made = tmp_path / "made"
    write_huggingface(made, CONFIG, random_tensors(CONFIG))
    needed = {path.name: path.read_bytes() for path in made.iterdir()}
    return needed | {"README.md": b"hello", "pytorch_model.bin": b"x" * 9000,
                     "original/consolidated.00.pth": b"x" * 9000,
                     "onnx/model.onnx": b"x", "tf_model.h5": b"x", "../evil.json": b"{}",
                     "chat_template.jinja": b"{{ messages }}",
                     "additional_chat_templates/tool.jinja": b"tool"}


@pytest.fixture
def hub(files, monkeypatch):
    with Hub(files=files) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        # what is written at once: 10 MB else
        monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 500)
        yield hub


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
            and ".cache" not in path.parts}


def test_takes_what_a_conversion_reads_and_no_more(hub, folder):
    pulled = pull("org/model", folder)
    assert names(folder) == {"config.json", "model.safetensors", "chat_template.jinja",
                             "additional_chat_templates/tool.jinja"}
    assert pulled.model == folder and pulled.commit == COMMIT
    assert load(folder).config.dim
    assert all((folder / name).read_bytes() == hub.files[name] for name in names(folder))


def test_what_is_there_is_not_sent_again(hub, folder):
    pull("org/model", folder)
    hub.gets.clear()
    pull("org/model", folder)
    assert hub.gets == []


def test_a_broken_connection_goes_on_where_it_stopped(hub, folder):
    hub.cut["model.safetensors"] = 2000
    pull("org/model", folder)
    assert [first for name, first in hub.gets if name == "model.safetensors"] == [0, 2000]
    assert (folder / "model.safetensors").read_bytes() == hub.files["model.safetensors"]


def test_a_pull_that_failed_goes_on_where_it_stopped(hub, folder):
    hub.cut["model.safetensors"] = 2000
    hub.down_after_cut = True
    with pytest.raises(HostError, match="goes on where it stopped"):
        pull("org/model", folder)
    assert not (folder / "model.safetensors").exists()
    hub.down = False
    hub.gets.clear()
    pull("org/model", folder)
    assert hub.gets == [("model.safetensors", 2000)]
    assert (folder / "model.safetensors").read_bytes() == hub.files["model.safetensors"]


def test_damage_on_the_way_is_fetched_anew(hub, folder):
    hub.lie["model.safetensors"] = 1
    pull("org/model", folder)
    assert (folder / "model.safetensors").read_bytes() == hub.files["model.safetensors"]


def test_a_hub_that_lies_is_refused_and_leaves_no_file(hub, folder):
    hub.lie["model.safetensors"] = 9
    with pytest.raises(HostError, match="does not have the hash"):
        pull("org/model", folder)
    assert not (folder / "model.safetensors").exists()


def test_damage_on_the_disk_is_found(hub, folder):
    pull("org/model", folder)
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    pull("org/model", folder)
    assert path.read_bytes() == hub.files["model.safetensors"]


def test_an_index_names_its_shards_and_no_others(hub, folder):
    weight = hub.files.pop("model.safetensors")
    hub.files["model-00001-of-00001.safetensors"] = weight
    hub.files["model-00009-of-00009.safetensors"] = b"x" * 9000
    hub.files["model.safetensors.index.json"] = json.dumps({"weight_map":
                                                            {"a": "model-00001-of-00001.safetensors"}}).encode()
    pull("org/model", folder)
    assert ("model-00001-of-00001.safetensors" in names(folder)
            and "model-00009-of-00009.safetensors" not in names(folder))


def test_another_architecture_is_refused_before_its_weights_come(hub, folder):
    hub.files["config.json"] = json.dumps(json.loads(hub.files["config.json"]) | {"model_type": "gemma2"}).encode()
    with pytest.raises(HostError, match="soft-capped"):
        pull("org/model", folder)
    assert not (folder / "model.safetensors").exists()


def test_one_of_several_gguf_files_is_chosen(hub, folder):
    hub.files = {"a.Q8_0.gguf": b"GGUF a", "a.Q4_0.gguf": b"GGUF b", "README.md": b""}
    with pytest.raises(HostError, match="--file: a.Q8_0.gguf, a.Q4_0.gguf"):
        pull("org/model", folder)
    assert pull("org/model", folder, file="a.Q4_0.gguf").model == folder / "a.Q4_0.gguf"
    assert names(folder) == {"a.Q4_0.gguf"}


def test_no_room_is_told_before_anything_comes(hub, folder, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("usage", (), {"free": 1 << 20}))
    with pytest.raises(HostError, match="make room"):
        pull("org/model", folder)


@pytest.mark.parametrize("repository, revision, said", [("org/other", None, "has no model org/other"),
                                                        ("org/model", "nowhere", "no revision nowhere"),
                                                        ("model", None, "ORG/NAME"), ("../../etc", None, "ORG/NAME")])
def test_what_is_not_there_is_one_line(hub, folder, repository, revision, said):
    with pytest.raises(HostError, match=said):
        pull(repository, folder, revision=revision)


def test_a_gated_model_says_what_to_do(hub, folder):
    hub.gated = True
    with pytest.raises(HostError, match="gated.*HF_TOKEN"):
        pull("org/model", folder)


def test_no_hub_is_one_line(folder, monkeypatch, hub):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HostError, match="127.0.0.1:9 does not give org/model"):
        pull("org/model", folder)


def test_command_prints_the_folder(hub, folder, capsys):
    assert cli.main(["pull", "org/model", "-o", str(folder)]) == 0
    told = capsys.readouterr()
    assert told.out.strip() == str(folder) and "llama2-host chat" in told.err
    assert cli.main(["pull", "org/model", "-o", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["commit"] == COMMIT


def test_an_index_that_leaves_the_folder_is_refused(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../x.safetensors"}}))
    with pytest.raises(HostError, match="not complete"):
        shards(index, [File("../x.safetensors", 1)])


def test_weights_that_are_none_are_refused():
    with pytest.raises(HostError, match="neither safetensors"):
        weights([File("pytorch_model.bin", 1), File("x.onnx", 1)], None, "org/model")


def test_a_git_hash_is_checked(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(np.arange(10, dtype=np.uint8).tobytes())
    assert (matches(path, File("a", 10)) and not matches(path, File("a", 11))
            and not matches(path, File("a", 10, git_sha1="0" * 40)))
