"""Files as every command reads and writes them: mapped to memory, never over an input, and written whole or not at
all."""
import atexit
import contextlib
import mmap
import os
import secrets
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import cast

from llama2_host.errors import HostError
from llama2_spec.image import MAGIC

IMAGE_SUFFIX = ".llm"


class ModelError(HostError):
    """A file that cannot be a model for this purpose."""


def is_image(path: Path) -> bool:
    """Returns whether this file begins as an image. Refuses anything but a file or a folder: reading a pipe would
    block."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return False
        if not stat.S_ISREG(mode):
            raise ModelError(f"{path} is {_kind(mode)}: a model is a file or a folder")
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {path}: {_reason(error)}") from error


def require_file(path: str | Path, option: str) -> None:
    """Refuse anything but a file that can be read twice and has an end."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError) as error:
        raise HostError(f"cannot read {option} {path}: {_reason(error)}") from error
    if not stat.S_ISREG(mode):
        raise HostError(f"{option} {path} is {'a folder' if stat.S_ISDIR(mode) else _kind(mode)}: name a file")


def map_file(path: Path, *, private: bool = False) -> bytes:
    """A file's bytes, mapped: memory holds what is looked at, and with ``private`` what is changed."""
    try:
        with open(path, "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY if private else mmap.ACCESS_READ)
            return cast(bytes, mapped)          # it is sliced, measured and compared as bytes are
    except ValueError:
        return b""                              # an empty file cannot be mapped
    except OSError as error:
        raise ModelError(f"cannot read {path}: {_reason(error)}") from error


def write_whole(path: Path, write) -> None:
    """Have ``write(file)`` make a file that appears whole or not at all; a process that has mapped an older file keeps
    it."""
    # Its own short name: a long one with more behind it may be too long for the file system.
    partial = path.with_name(partial_name())
    try:
        with open(partial, "w+b") as file:
            write(file)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def temporary_file(data: bytes, suffix: str) -> Path:
    """A file with these bytes, which is removed when the process ends."""
    handle, name = tempfile.mkstemp(suffix, "llama2-host-")
    atexit.register(Path(name).unlink, missing_ok=True)
    with open(handle, "wb") as file:
        file.write(data)
    return Path(name)


def partial_name() -> str:
    """Name of a file while it is written: hidden, with the writer's process id."""
    return f".{os.getpid()}-{secrets.token_hex(4)}.part"


class Output:
    """A file that a command is going to write. Made before the work is done, so that what cannot be written is refused
    first.

    ``named`` is what the user typed, ``inputs`` are files and folders that are read, in which nothing may be replaced.
    Without ``replace`` a file that is write-protected stays, and one that is no image though its name does not say so.
    """

    def __init__(self, named: str | Path, inputs: Iterable[str | Path | None] = (), *, replace: bool = False):
        self.named, self.inputs, self.replace = os.fspath(named), [Path(path) for path in inputs if path], replace
        if not self.named:
            raise ModelError("the output has no name: name a file, for example model.llm")
        if self.named == "-":
            raise ModelError("an image is not written to stdout: name a file, for example model.llm (or ./- if it "
                             "shall be called so)")
        # A link is written through, so that it goes on pointing where it did.
        try:
            self.path = Path(os.path.realpath(self.named))
        except ValueError as error:             # a NUL in it
            raise ModelError(f"cannot write {self.named}: {error}") from error
        self.check()

    def check(self) -> None:
        """Raise one line if the file cannot be written, or must not."""
        try:
            told = self.path.stat()
        except FileNotFoundError:
            told = None
        except (OSError, ValueError) as error:
            raise ModelError(f"cannot write {self.named}: {_reason(error)}") from error
        if self.named.endswith(("/", os.sep)) or told is not None and stat.S_ISDIR(told.st_mode):
            raise ModelError(f"{self.named} names a folder: name a file in it, for example "
                             f"{os.path.join(self.named, 'model.llm')}")
        if told is None:
            if not self.path.parent.is_dir():
                raise ModelError(f"cannot write {self.named}: there is no folder {self.path.parent}")
            if not os.access(self.path.parent, os.W_OK):
                raise ModelError(f"cannot write {self.named}: the folder {self.path.parent} is write-protected")
            return
        if not stat.S_ISREG(told.st_mode):
            raise ModelError(f"{self.named} is {_kind(told.st_mode)}: an image is written to a file")
        for path in _inside(self.inputs):
            if _same(path, told):
                raise ModelError(f"{self.named} is read for this ({path}), and would be lost: choose another output")
        if not self.replace:
            self._spare(told)

    def _spare(self, told: os.stat_result) -> None:
        # By the bits: root may write anything.
        if not told.st_mode & 0o222 or not os.access(self.path, os.W_OK):
            raise ModelError(f"{self.named} is write-protected: choose another output, or add --force to replace it")
        if told.st_size and self.path.suffix != IMAGE_SUFFIX and not is_image(self.path):
            raise ModelError(f"{self.named} is there, and no model image: choose another output, or add --force to "
                             "replace it")

    def write(self, write) -> None:
        """Have ``write(file)`` make the file; it appears whole or not at all."""
        def checked(file) -> None:
            write(file)
            self.check()            # much may have happened since
        try:
            write_whole(self.path, checked)
        except OSError as error:
            raise ModelError(f"cannot write {self.named}: {_reason(error)}") from error


def _inside(paths: Iterable[Path]) -> Iterator[Path]:
    """The given files, and those files in the given folders that may be read. Images in a folder do not count, since
    one may be an older output."""
    for path in paths:
        yield path
        if path.is_dir():
            with contextlib.suppress(OSError):
                yield from (found for found in sorted(path.iterdir()) if found.is_file() and not is_image(found))


def _same(path: Path, told: os.stat_result) -> bool:
    """Returns whether both names lead to the same file."""
    try:
        return os.path.samestat(path.stat(), told)
    except OSError:
        return False


def _kind(mode: int) -> str:
    names = {stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return names.get(stat.S_IFMT(mode), "no file")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
