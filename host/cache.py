"""The cache of conversions and of devices' metadata: where it is, and what names an entry."""
import hashlib
import os
from pathlib import Path

from host import checkpoint, quantisation
from spec import image as image_module

INPUT_SUFFIXES = (".safetensors", ".json", ".jinja", ".model")     #: of a folder, what a conversion depends on


def cache_directory() -> Path:
    """Where conversions and devices' metadata are kept."""
    if os.environ.get("LLAMA2_HOST_CACHE"):
        return Path(os.environ["LLAMA2_HOST_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "llama2-host"


def digest(path: Path, files: list[Path], text: Path | None, *options) -> str:
    """Names a conversion by everything it depends on, the converter's own sources included.

    ``files``: what vocabulary, template and ends are read from, see :func:`host.discovery.read_files`.
    """
    hashed = hashlib.sha256(repr(options).encode())
    inputs = sorted(p for p in path.iterdir() if p.suffix in INPUT_SUFFIXES) if path.is_dir() else [path]
    if not path.is_dir() and path.suffix == ".safetensors":
        inputs += sorted(p for p in path.parent.iterdir() if p.suffix in INPUT_SUFFIXES and p != path)
    sources = [*Path(image_module.__file__).parent.glob("*.py"), *Path(__file__).parent.glob("*.py"),
               *Path(checkpoint.__file__).parent.glob("*.py"), *Path(quantisation.__file__).parent.glob("*.py")]
    named = [*files, *([Path(text)] if text else [])]
    for file in [*inputs, *named, *sorted(sources)]:
        hashed.update(f"\0{file.name}\0".encode())
        with open(file, "rb") as content:
            while chunk := content.read(1 << 20):
                hashed.update(chunk)
    return hashed.hexdigest()[:32]


def keep(path: Path, data: bytes) -> Path | None:
    """Write a cache entry at one stroke, and say where; a cache that cannot be written is no error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.part")
        partial.write_bytes(data)
        partial.replace(path)
        return path
    except OSError:
        return None
