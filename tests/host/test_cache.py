"""The cache of conversions: what is damaged is made anew, no context stores the weights again, and it does not grow
without end."""
import io
import json
import os
import resource
import subprocess
import sys
import time

import pytest

from llama2_host.device import remote
from llama2_host.image import cache
from llama2_host.connection import connect
from llama2_host.errors import HostError
from llama2_host.image.model import Model
from tests import imports
from llama2_host.progress import Progress
from llama2_spec.image import Image
from tests.host.test_cli import ROOT, WAIT_S, refusal, run
from tests.host.uncounted import uncounted



def load(files, **options):
    notes = io.StringIO()
    model = Model.load(files / "tiny.bin", progress=Progress(notes), **options)
    return model, bytes(model.data), notes.getvalue()


def the_entry(files):
    (entry,) = (files / "cache").glob("*.llm")
    return entry


def grown(data):
    return data + b"more"


def of_another(data):
    """A whole image, but not that one."""
    image = Image.parse(data)
    return image.header_with(seq_len=7, kv=image.config.kv) + data[256:]


@pytest.mark.parametrize("damage", [
    lambda data: b"", lambda data: data[:100], lambda data: data[:-16], grown, lambda data: b"foreign" * 1000,
    of_another,
    *(lambda data, at=at: data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]
      for at in (0, 5, 9, 13, 20, 250, 300, 2000, -1))])
def test_what_is_damaged_is_made_anew(files, damage):
    whole = (files / "tiny.llm").read_bytes()
    entry = the_entry(files)
    told = entry.stat()
    at = damage(whole) if damage(whole) != whole else pytest.fail("no damage")
    entry.write_bytes(at)
    os.utime(entry, ns=(told.st_atime_ns, told.st_mtime_ns))        # as if nothing had happened
    _, data, notes = load(files)
    assert data == whole and "made anew" in notes and "converting tiny.bin" in notes
    assert the_entry(files).read_bytes() == whole
    assert "made anew" not in load(files)[2] and "converting" not in load(files)[2]


def test_a_folder_in_the_place_of_an_entry(files):
    entry = the_entry(files)
    entry.unlink()
    entry.mkdir()
    for _ in range(2):
        assert load(files)[1] == (files / "tiny.llm").read_bytes()


def test_a_context_stores_no_weights_again(files):
    for options in ({"seq_len": 16}, {"kv": "k8v8"}, {"seq_len": 20, "kv": "k16v8"}):
        model, data, notes = load(files, **options)
        assert "converting" not in notes
        arguments = [argument for name, value in options.items() for argument in ("--" + name.replace("_", "-"), value)]
        run("convert", files / "tiny.bin", "-o", files / "out.llm", *arguments)
        assert data == (files / "out.llm").read_bytes() == model.path.read_bytes()
        assert Image.parse(data).header == model.image.header and model.config == model.image.config
    assert the_entry(files).read_bytes() == (files / "tiny.llm").read_bytes()


def test_weights_rounded_for_a_context_are_its_own(files):
    (files / "text").write_text("some text\n" * 20)
    for seq_len in (16, 32):
        load(files, format="q4", calibrate=files / "text", seq_len=seq_len)
    assert len(list((files / "cache").glob("*.llm"))) == 3


@pytest.mark.parametrize("name", ["tokenizer.bin", "tokenizer_config.json", "special_tokens_map.json",
                                  "generation_config.json",
                                  "added_tokens.json", "chat_template.jinja"])
def test_whatever_is_read_names_the_entry(files, name):
    before = cache.digest(files / "tiny.bin", cache.read_files(files / "tiny.bin", None), None)
    (files / name).write_bytes((files / name).read_bytes() + b" " if (files / name).exists() else b"{}")
    assert cache.digest(files / "tiny.bin", cache.read_files(files / "tiny.bin", None), None) != before


#: what a conversion imports that does not decide its bytes: how files, messages and refusals are made
NEUTRAL = {"llama2_host.combinations", "llama2_host.errors", "llama2_host.files", "llama2_host.image.cache",
           "llama2_host.image.reading", "llama2_host.nested_json", "llama2_host.progress", "llama2_host.screen",
           "llama2_host.terminal", "llama2_spec.frame", "llama2_spec.image_check", "llama2_spec.registers",
           "llama2_spec.sampling", "llama2_spec.tensors", "llama2_spec.wire"}


def test_the_program_s_part_in_a_conversion_names_the_entry(files, monkeypatch):
    """A module that conversions begin to use is either among the sources or known to decide nothing."""
    sources = {file for name in cache.SOURCES for file in cache._files(name)}
    used = {imports.modules()[name].resolve() for name in imports.reached("llama2_host.image.pending") - NEUTRAL}
    assert used - sources == set()
    before = cache.digest(files / "tiny.bin", [], None)
    monkeypatch.setattr(cache, "SOURCES", cache.SOURCES[:-1])
    assert cache.digest(files / "tiny.bin", [], None) != before


def test_a_tokenizer_elsewhere_names_the_entry_with_what_lies_beside_it(files):
    (files / "elsewhere").mkdir()
    other = files / "elsewhere" / "tokenizer.json"
    other.write_text("{}")
    before = cache.digest(files / "tiny.bin", cache.read_files(files / "tiny.bin", other), None)
    (files / "elsewhere" / "tokenizer_config.json").write_text("{}")
    assert cache.digest(files / "tiny.bin", cache.read_files(files / "tiny.bin", other), None) != before


def test_the_least_recently_used_goes(files, monkeypatch):
    size = the_entry(files).stat().st_size
    first = the_entry(files)
    load(files, group=32)
    (second,) = set((files / "cache").glob("*.llm")) - {first}
    for age, entry in ((100, first), (50, second)):
        os.utime(entry, (time.time() - age,) * 2)
    load(files)                                 # uses the first
    monkeypatch.setenv(cache.SIZE_VARIABLE, str(2 * size + size // 3))
    load(files, format="q4")
    kept = set((files / "cache").glob("*.llm"))
    assert first in kept and second not in kept and len(kept) == 2


@pytest.mark.parametrize("limit", ["0", "1KB"])
def test_without_room_nothing_is_kept(files, monkeypatch, limit):
    whole = (files / "tiny.llm").read_bytes()
    monkeypatch.setenv(cache.SIZE_VARIABLE, limit)
    cache.clear()
    model, data, notes = load(files)
    assert data == whole and "not kept" in notes and not cache.entries()
    assert model.path.read_bytes() == whole


def test_a_limit_that_is_none(files, monkeypatch):
    monkeypatch.setenv(cache.SIZE_VARIABLE, "much")
    with pytest.raises(HostError, match="expected a size such as 500MB"):
        cache.limit_bytes()
    assert cache.SIZE_VARIABLE in refusal("cache")


@pytest.mark.parametrize("text, size", [("500", 500), ("2KiB", 2048), ("1.5 GB", 1_500_000_000), ("8gib", 8 << 30)])
def test_limits(monkeypatch, text, size):
    monkeypatch.setenv(cache.SIZE_VARIABLE, text)
    assert cache.limit_bytes() == size


def test_a_cache_that_cannot_be_written(files, monkeypatch):
    (files / "file").write_bytes(b"")
    monkeypatch.setenv("LLAMA2_HOST_CACHE", str(files / "file" / "below"))
    model, data, notes = load(files)
    assert data == (files / "tiny.llm").read_bytes() and "is not kept in" in notes


def test_a_full_disk(files, monkeypatch):
    """The conversion is then made in memory, and a file that a simulator needs is missed in one line."""
    cache.clear()
    process = subprocess.run([sys.executable, "-m", "llama2_host", "generate", "--golden", "--model",
                              files / "tiny.bin", "--steps", "3", "-i", "x"],
                             cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S,
                             env=uncounted(),
                             preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)))
    assert process.returncode == 0 and process.stdout
    assert "is not kept in" in process.stderr and "Traceback" not in process.stderr
    assert not list((files / "cache").iterdir())


def test_left_over_pieces_go(files):
    dead, ours = files / "cache" / ".999999999-0badcafe.part", files / "cache" / f".{os.getpid()}-0badcafe.part"
    for path in (dead, ours):
        path.write_bytes(b"half")
    load(files, group=32)
    assert not dead.exists() and ours.exists()


def test_the_command_shows_and_clears_only_what_is_its_own(files):
    (files / "cache" / "mine.llm").write_bytes(b"mine")
    (files / "cache" / "notes.txt").write_bytes(b"mine")
    output, _ = run("cache")
    assert "1 entry" in output and "tiny.bin" in output and "of at most 8.0 GiB" in output
    told = json.loads(run("cache", "--json")[0])
    assert told["bytes"] == the_entry_bytes(files) and len(told["entries"]) == 1
    the = next(path for path in (files / "cache").glob("*.llm") if path.name != "mine.llm")
    the.write_bytes(the.read_bytes()[:-1])
    assert "damaged" in run("cache")[0]
    assert "removed 1 entry" in run("cache", "clear")[1] and "removed 0 entries" in run("cache", "--clear")[1]
    assert sorted(path.name for path in (files / "cache").iterdir()) == ["mine.llm", "notes.txt"]


def the_entry_bytes(files):
    return sum(path.stat().st_size for path in (files / "cache").glob("*-*-*.llm"))


@pytest.mark.parametrize("at", [0, 4, 8, 12, 40, -1])
def test_a_damaged_head_of_a_device_is_read_again(files, holding, at):
    with connect(port=holding.url) as llama:
        expected = llama.config
    (head,) = (files / "cache").glob("*.head")
    whole = head.read_bytes()
    damaged = bytearray(whole)
    damaged[at] ^= 1
    head.write_bytes(damaged)
    for _ in range(2):
        with connect(port=holding.url) as llama:
            assert llama.config == expected
    if at != 8:                                 # the file's length, which is not used
        assert head.read_bytes() == whole


def test_a_head_of_a_device_that_is_read_counts_as_used(files, holding, monkeypatch):
    """So that the least recently used goes first."""
    seen = []
    with connect(port=holding.url):
        pass
    monkeypatch.setattr(remote, "used", seen.append)
    with connect(port=holding.url):
        assert seen == list((files / "cache").glob("*.head"))
