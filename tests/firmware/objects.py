"""Keeps compiled C files by what they were made of, so that a build after a small change compiles one file."""
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path


def compiled(source: Path, *, command: list[str], includes: list[Path], keep: Path) -> Path:
    """The object of ``source`` in the folder ``keep``, compiled by ``command`` unless it is there.

    Raises
    ------
    subprocess.CalledProcessError
        The compiler refuses it.
    """
    made_of = hashlib.sha256("\0".join(map(str, command)).encode())
    for path in [source, *sorted(header for folder in includes for header in folder.rglob("*.h"))]:
        made_of.update(b"\0" + path.name.encode() + b"\0" + path.read_bytes())
    made = keep/f"{made_of.hexdigest()[:32]}.o"
    if not made.exists():
        keep.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=keep) as folder:
            part = Path(folder)/"part.o"
            subprocess.run([*command, *(f"-I{path}" for path in includes), "-c", "-o", part, source], check=True)
            os.replace(part, made)      # nobody meets half an object
    return made
