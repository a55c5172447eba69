"""The cache of conversions and of devices' metadata: names entries, checks that they are whole, and limits their size.

An entry's name ends with the two CRCs of the image in it. An entry that is damaged, cut off or replaced does not match
them, and counts as missing.
"""
import hashlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llama2_host import sizes
from llama2_host.errors import HostError
from llama2_host.files import partial_name, write_whole
from llama2_spec import image as image_module

#: Sources that decide the bytes of a conversion: files and folders of this package and of llama2_spec.
SOURCES = ("checkpoint", "chat/jinja_template.py", "chat/jinja_worker.py", "chat/template.py", "corpus.py",
           "generation.py", "image/conversion.py", "image/discovery.py", "image/pending.py", "quantisation", "sizes.py",
           "tokenizer", "image.py", "image_layout.py", "model.py", "numerics.py", "packing.py", "program.py",
           "protocol.py", "reference.py", "tables.py", "traffic.py")
PACKAGES = Path(__file__).resolve().parents[1], Path(image_module.__file__).resolve().parent
INPUT_SUFFIXES = (".safetensors", ".json", ".jinja", ".model")     #: of a folder, what a conversion depends on
#: files beside a checkpoint with its vocabulary, its chat template and the ids that end a text
TOLD_BESIDE = ("tokenizer*", "special_tokens_map*", "added_tokens*", "config.json", "generation_config.json",
               "chat_template*",
               "vocab.json", "merges.txt")
DEFAULT_SIZE = "8GiB"
SIZE_VARIABLE = "LLAMA2_HOST_CACHE_SIZE"
#: nothing else in the folder is ever removed
ENTRY = re.compile(r"[0-9a-f]{32}(-[0-9a-f]{8}-[0-9a-f]{8})?\.llm|device-[0-9a-f]{8}-[0-9a-f]{8}\.head")
PARTIAL = re.compile(r"\.(\d+)-[0-9a-f]{8}\.part")


def cache_directory() -> Path:
    """The folder of conversions and devices' metadata."""
    if os.environ.get("LLAMA2_HOST_CACHE"):
        return Path(os.environ["LLAMA2_HOST_CACHE"])
    # Without a home, a folder that cannot be made: nothing is kept.
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "llama2-host"


def limit_bytes() -> int:
    """The most that the cache may take, from the environment."""
    text = os.environ.get(SIZE_VARIABLE) or DEFAULT_SIZE
    size = sizes.parse(text)
    if size is None:
        raise HostError(
            f"{SIZE_VARIABLE} is {text[:40]!r}: expected a size such as 500MB or 8GiB, or 0 to keep nothing")
    return size


def read_files(path: Path, tokenizer: str | Path | None) -> list[Path]:
    """Files in the folders of the model and of the tokenizer that may provide vocabulary, template and ends."""
    folders = {place if place.is_dir() else place.parent for place in (path, *([Path(tokenizer)] if tokenizer else []))}
    found = {file for folder in folders for pattern in TOLD_BESIDE for file in folder.glob(pattern)}
    return sorted(file for file in found | ({Path(tokenizer)} if tokenizer else set()) if file.is_file())


def inputs(path: Path) -> list[Path]:
    """The files of a checkpoint: itself, what lies in its folder, or the other parts beside it."""
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix in INPUT_SUFFIXES and file.is_file())
    beside = sorted(file for file in path.parent.iterdir()
                    if file.suffix in INPUT_SUFFIXES and file != path and file.is_file()) \
        if path.suffix == ".safetensors" else []
    return [path, *beside]


def _files(name: str) -> list[Path]:
    """The sources of one name, in the first package that has it."""
    path = next(package / name for package in PACKAGES if (package / name).exists())
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def digest(path: Path, files: Sequence[Path], text: Path | None, *options) -> str:
    """Names a conversion by everything on which it depends, including the sources of this program that decide the
    result (:data:`SOURCES`).

    ``files`` are those that vocabulary, template and ends may be read from, see :func:`read_files`; ``text`` is the one
    that q4 is rounded for.
    """
    hashed = hashlib.sha256(repr((path.resolve().name, *options)).encode(errors="surrogateescape"))
    sources = [file for name in SOURCES for file in _files(name)]
    read = dict.fromkeys([*inputs(path), *files, *([Path(text)] if text else []), *sources])
    for file in read:
        hashed.update(b"\0" + os.fsencode(file.name) + b"\0")
        with open(file, "rb") as content:
            while chunk := content.read(1 << 20):
                hashed.update(chunk)
    return hashed.hexdigest()[:32]


# Entries ------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Entry:
    """A file of the cache."""
    path: Path
    bytes: int
    used_s: float       #: when it was last used, in seconds since 1970


def entries(directory: Path | None = None) -> list[Entry]:
    """The cache's entries, the least recently used first."""
    found = []
    for path in _listed(directory or cache_directory()):
        try:
            told = path.lstat()
        except OSError:                         # another client removed it just now
            continue
        if ENTRY.fullmatch(path.name) and path.is_file():
            found.append(Entry(path, told.st_size, max(told.st_atime, told.st_mtime)))
    return sorted(found, key=lambda entry: (entry.used_s, entry.path.name))


def _listed(directory: Path) -> Iterator[Path]:
    try:
        yield from list(directory.iterdir())
    except OSError:
        return


def used(path: Path) -> None:
    """Remember that an entry was used now, whether the file system notes that a file is read or not."""
    try:
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
    except OSError:
        pass                                    # a cache that cannot be written is still read


def make_room(needed_bytes: int = 0) -> bool:
    """Remove the least recently used until ``needed_bytes`` more fit; False where they never do."""
    limit = limit_bytes()
    sweep()
    kept = entries()
    while kept and sum(entry.bytes for entry in kept) + needed_bytes > limit:
        remove(kept.pop(0).path)
    return sum(entry.bytes for entry in kept) + needed_bytes <= limit


def remove(path: Path) -> bool:
    """Delete an entry; a process that has mapped it keeps it."""
    try:
        path.unlink()
        return True
    except OSError:
        return False


def sweep() -> None:
    """Remove half-written files of clients that were killed."""
    for path in _listed(cache_directory()):
        match = PARTIAL.fullmatch(path.name)
        if match and not _runs(int(match[1])):
            remove(path)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def clear() -> tuple[int, int]:
    """Remove all entries; how many, and how many bytes they had."""
    sweep()
    gone = [entry for entry in entries() if remove(entry.path)]
    return len(gone), sum(entry.bytes for entry in gone)


def keep(path: Path, data: bytes) -> Path | None:
    """Write a cache entry at one stroke, and say where; a cache that cannot be written is no error."""
    try:
        if not make_room(len(data)):
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda file: file.write(data))
        return path
    except OSError:
        return None


# Conversions --------------------------------------------------------------------------------------

def store(key: str, expected_bytes: int, write) -> Path | None:
    """Keep the image that ``write(file)`` makes; None where there is no room for one of its size.

    Raises :class:`OSError` where the cache cannot be written.
    """
    if not make_room(expected_bytes):
        return None
    directory = cache_directory()
    directory.mkdir(parents=True, exist_ok=True)
    partial = directory / partial_name()
    try:
        with open(partial, "w+b") as file:
            write(file)
            file.seek(0)
            crcs = image_module.crcs(file.read(image_module.HEADER_BYTES))
            name = f"{key}-{'-'.join(f'{crc:08x}' for crc in crcs)}.llm"
        partial.replace(directory / name)
    finally:
        partial.unlink(missing_ok=True)
    for older in _of(key):
        if older.name != name:
            remove(older)
    return directory / name


def _of(key: str) -> list[Path]:
    return [path for path in _listed(cache_directory()) if path.name.startswith(key) and ENTRY.fullmatch(path.name)]


def find(key: str) -> Path | None:
    """The entry of this name, without a check of its content."""
    return next(iter(_of(key)), None)


def holds(path: Path, image: image_module.Image) -> bool:
    """Returns whether this is the image that was written under that name."""
    return path.stem.split("-")[1:] == [f"{image.header[name]:08x}" for name in ("header_crc", "payload_crc")]
