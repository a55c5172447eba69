"""Paths that make cannot bear get a second name; with it, the firmware is built in a directory whose name has
spaces."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

from soc.unspaced import PLAIN, unspaced, unspaced_text

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path/"links"))
    (tmp_path/"links").mkdir()
    return tmp_path


def test_plain_path_stays(folder):
    assert unspaced(folder/"plain") == folder/"plain" and not list((folder/"links").iterdir())


@pytest.mark.parametrize("name", ["a b", "a:b", "a$b", "a#b", "it's", "two  spaces", "tab\there"])
def test_other_path_gets_a_link(folder, name):
    (folder/name).mkdir()
    link = unspaced(folder/name)
    assert PLAIN.fullmatch(str(link)) and os.path.samefile(link, folder/name)
    assert unspaced(folder/name) == link and unspaced(folder/f"{name}2") != link


def test_link_of_another_user_is_not_taken(folder):
    (folder/"links"/"elsewhere").mkdir()
    (folder/"links"/f"llama2-{os.getuid()}").symlink_to(folder/"links"/"elsewhere")
    with pytest.raises(OSError, match="set TMPDIR"):
        unspaced(folder/"a b")


def test_longest_directory_is_replaced_first(folder):
    text = unspaced_text(f"A={folder}/a b/c d/e\nB={folder}/a b/f", folder/"a b", folder/"a b"/"c d")
    assert text == f"A={unspaced(folder/'a b'/'c d')}/e\nB={unspaced(folder/'a b')}/f"


def test_firmware_is_built_in_a_path_with_spaces(tmp_path):
    out  = tmp_path/"a path with  spaces"/"out"
    done = subprocess.run([sys.executable, "targets/arty.py", "--build", "--no-compile-gateware", "--output-dir",
                           str(out)], cwd=ROOT,
                          text=True, capture_output=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (out/"software"/"firmware"/"firmware.bin").stat().st_size > 10_000
