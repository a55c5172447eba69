"""Files as every command reads and writes them: mapped to memory, and written whole or not at all."""
import mmap
import os
from pathlib import Path

from host.errors import HostError
from spec.image import MAGIC


class ModelError(HostError):
    """A file that cannot be a model for this purpose."""


def is_image(path: Path) -> bool:
    """Does this file begin as an image?"""
    if path.is_dir():
        return False
    try:
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error


def map_file(path: Path) -> bytes:
    """A file's bytes, mapped: memory holds what is looked at."""
    try:
        with open(path, "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:
        return b""                              # an empty file cannot be mapped
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error


def write_whole(path: Path, write) -> None:
    """Have ``write(file)`` make a file that appears whole or not at all; whoever has mapped an older one keeps that."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(partial, "wb") as file:
            write(file)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
