"""Copies all sources of a generated design beside it, so that its folder can be moved to another machine."""
import os
import re
from pathlib import Path
from unittest import mock

from soc.vexriscv import place_memories

# Sources ------------------------------------------------------------------------------------------

def copied_name(path):
    """Name of a source's copy. A cached file loses the digest in its name, so that a new copy replaces an older one."""
    return re.sub(r"-[0-9a-f]{16}(?=\.v$)", "", Path(path).name)


def write_if_new(path, text):
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def gather(platform, directory):
    """Copy the sources that ``platform`` names to ``directory``, VexRiscv's with its memories placed, and name the
    copies instead."""
    directory.mkdir(parents=True, exist_ok=True)
    names = set()
    for i, (path, *rest) in enumerate(platform.sources):
        path, name = directory/path, copied_name(path)    # an absolute path stays absolute
        if name in names:
            raise ValueError(f"Two sources of the design are called {name}")
        names.add(name)
        text = path.read_text()
        write_if_new(directory/name, place_memories(text) if name.startswith("VexRiscv") else text)
        platform.sources[i] = (name, *rest)


def relative_names(platform, directory):
    """A context in which ``platform`` names files of ``directory`` that are added as lying there, wherever it is."""
    plain = platform.add_source

    def add_source(filename, *args, **kwargs):
        plain(filename, *args, **kwargs)
        path, *rest = platform.sources[-1]
        if Path(path).parent == directory:
            platform.sources[-1] = (Path(path).name, *rest)

    return mock.patch.object(platform, "add_source", add_source)

# Script -------------------------------------------------------------------------------------------

def portable_script(toolchain):
    """A context in which ``toolchain`` writes a script that runs in its own folder, from wherever it is called.

    Vivado's settings are those of the machine that runs it.
    """
    plain = getattr(toolchain, "build_script", None)
    if plain is None:
        return mock.patch.dict({})

    def build_script():
        with mock.patch.dict(os.environ):
            os.environ.pop("LITEX_ENV_VIVADO", None)
            script = plain()
        path = Path(script)
        if path.suffix == ".sh":
            head = ['cd "$(dirname "$0")"']
            if "vivado" in path.read_text():
                head.append('if [ -n "${LITEX_ENV_VIVADO:-}" ]; then . "$LITEX_ENV_VIVADO/settings64.sh"; fi')
            path.write_text(path.read_text().replace("set -e\n", "\n".join(["set -e", *head, ""]), 1))
        return script

    return mock.patch.object(toolchain, "build_script", build_script)
