"""Gives a directory a second name without spaces: make's rules split names at spaces, LiteX's as well as ours."""
import hashlib
import os
import re
import tempfile
from pathlib import Path

PLAIN = re.compile(r"[\w@+,./=~^-]+")    # characters without a special meaning for make or a shell


def unspaced(path) -> Path:
    """``path`` if make can handle it, else a link to it in a directory of this user's. Raises OSError."""
    path = Path(os.path.abspath(path))
    if PLAIN.fullmatch(str(path)):
        return path
    folder = Path(tempfile.gettempdir())/f"llama2-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid() or not PLAIN.fullmatch(str(folder)):
        raise OSError(f"make needs a path without spaces, and {folder} cannot hold a link to {path}: move the clone, "
                      "or set TMPDIR")
    link = folder/hashlib.sha256(str(path).encode()).hexdigest()[:16]
    if not link.is_symlink() or os.readlink(link) != str(path):
        partial = link.with_suffix(f".{os.getpid()}")
        partial.symlink_to(path)
        os.replace(partial, link)
    return link


def unspaced_text(text: str, *directories) -> str:
    """``text`` in which the names of ``directories``, and of what lies below them, are replaced where make needs it."""
    for directory in sorted({os.path.abspath(directory) for directory in directories}, key=len, reverse=True):
        text = text.replace(directory, str(unspaced(directory)))
    return text
