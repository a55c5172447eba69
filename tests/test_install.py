"""`pip install .` gives a client that tells a story, with every Python that it says it takes and that is there."""
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

ROOT     = Path(__file__).parents[1]
VERSIONS = ("3.10", "3.11", "3.12", "3.13")

pytestmark = pytest.mark.install


def interpreter(version):
    """A Python of this version: in the path, or where pyenv keeps its own."""
    found = [shutil.which(f"python{version}"),
             *map(str, sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python")))]
    for path in filter(None, found):
        told = subprocess.run([path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True,
                              text=True)
        if told.stdout.strip() == version:
            return path


THERE = [version for version in VERSIONS if interpreter(version)]


def test_this_python_is_there():
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in THERE


@pytest.mark.parametrize("version", THERE)
def test_the_installed_client_tells_a_story(version, tmp_path):
    """From sources in a path with a space, run in a folder whose own host.py and spec.py are nobody's business here."""
    sources, away = tmp_path/"the sources", tmp_path/"away"
    away.mkdir()
    sources.mkdir()
    for part in ("host", "spec", "models", "pyproject.toml", "setup.py", "MANIFEST.in", "LICENSE", "README.md"):
        (shutil.copytree if (ROOT/part).is_dir() else shutil.copy)(ROOT/part, sources/part)
    run = lambda *command: subprocess.run(command, cwd=away, check=True, text=True, capture_output=True,
                                          stdin=subprocess.DEVNULL).stdout
    run(interpreter(version), "-m", "venv", tmp_path/"venv")
    run(tmp_path/"venv/bin/python", "-m", "pip", "install", "-q", sources)
    for name in ("host.py", "spec.py"):
        (away/name).write_text("raise SystemExit('this file is the user\'s')")
    request = "generate", "--golden", "--prompt", "Once upon a time", "--temperature", "0", "--steps", "30"
    story = run(tmp_path/"venv/bin/llama2-host", *request)
    assert story.startswith("Once upon a time") and len(story.split()) > 15
    assert run(tmp_path/"venv/bin/python", "-m", "llama2_host", *request) == story
    assert "connect(" in run(tmp_path/"venv/bin/python", "-c", "from llama2_host import connect; help(connect)")
    top = run(tmp_path/"venv/bin/python", "-c", "import importlib.metadata as m; "
              "print(*sorted({str(f).split('/')[0] for f in m.files('llama2-host') if '.dist-info' not in str(f) and "
              "not str(f).startswith('..')}))")
    assert top.split() == ["llama2_host", "llama2_spec"]
    # The server's packages are an extra; what is missing is named.
    refused = subprocess.run([tmp_path/"venv/bin/llama2-host", "serve", "--golden"], cwd=away, text=True,
                             capture_output=True)
    assert refused.returncode == 1 and "pip install 'llama2-host[server]'" in refused.stderr and not refused.stdout
    run(tmp_path/"venv/bin/python", "-m", "pip", "install", "-q", f"{sources}[server]")
    assert "LLaMA on an FPGA" in page(tmp_path/"venv/bin/llama2-host", away)


def page(command, folder):
    """The page of a server that has the project's own model, with the script that it loads."""
    process = subprocess.Popen([command, "serve", "--golden", "--http-port", "0"], cwd=folder, text=True,
                               stdout=subprocess.PIPE)
    try:
        url = process.stdout.readline().removeprefix("listening on ").strip()
        get = lambda path: urllib.request.urlopen(url + path).read().decode()
        assert "/v1/chat/completions" in get("/page/app.js") and '"id":"stories"' in get("/v1/models")
        return get("/")
    finally:
        process.terminate()
        process.communicate()
