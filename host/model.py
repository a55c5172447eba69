"""Turns what a user names as a model, an image or a checkpoint, into an image in memory with its tokenizer and template."""
import hashlib
import os
import struct
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from host import checkpoint
from host.errors import HostError
from host.progress import Progress
from host.template import Template
from host.tokenizer import Tokenizer, TokenizerError
from spec import image as image_module
from spec.image import MAGIC, Image
from spec.model import ModelConfig

FORMATS = ("q8", "q4")
GROUPS = (32, 64)
DEFAULT_MODEL = Path("models") / "stories.bin"


class ModelError(HostError):
    """A file that cannot be a model for this purpose."""


@dataclass
class Model:
    """A model image; ``path`` is the file that holds exactly these bytes, for preloading a simulator."""
    data: bytes
    path: Path | None = None
    tokenizer_file: Tokenizer | None = None     #: given by the user; goes before the image's own
    template_text: str | None = None            #: likewise

    @classmethod
    def load(cls, path: str | Path, *, tokenizer: str | Path | None = None, format: str = "q8", group: int | None = None,
             seq_len: int | None = None, template: str | None = None, progress: Progress = Progress.silent) -> "Model":
        """Read an image, or convert a checkpoint; a conversion is kept in the cache for the next time."""
        path = Path(path)
        data = read_file(path)
        if is_image(data):
            model = cls(data, path, template_text=template)
            if tokenizer is not None:
                model.tokenizer_file = Tokenizer.load(tokenizer, model.config.vocab_size)
            return model
        source = checkpoint.load(path)
        tokenizer = tokenizer or find_tokenizer(path, source.config.vocab_size)
        cached = cache_directory() / f"{_digest(data, tokenizer, format, group, seq_len, template)}.llm"
        if cached.exists():
            return cls(cached.read_bytes(), cached)
        data = convert(source, path, tokenizer=tokenizer, format=format, group=group, seq_len=seq_len,
                       template=template, progress=progress)
        return cls(data, keep(cached, data))

    @cached_property
    def image(self) -> Image:
        return parse(self.data, self.path or "the image")

    @property
    def header_crc(self) -> int:
        return self.image.header["header_crc"]

    @property
    def payload_crc(self) -> int:
        return self.image.header["payload_crc"]

    @property
    def config(self) -> ModelConfig:
        return self.image.config

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        if self.tokenizer_file is not None:
            return self.tokenizer_file
        packed = self.image.tokenizer
        return Tokenizer.unpack(packed) if packed else None

    @property
    def template(self) -> Template:
        return Template.from_text(self.template_text if self.template_text is not None else self.image.template)


def convert(source: checkpoint.Checkpoint, path: Path, *, tokenizer: str | Path | None = None, format: str = "q8",
            group: int | None = None, seq_len: int | None = None, template: str | None = None,
            progress: Progress = Progress.silent) -> bytes:
    """A checkpoint as a model image; ``path`` is where it came from."""
    if seq_len is not None:
        source.config = _shorten(source.config, seq_len)
    vocabulary = Tokenizer.load(tokenizer, source.config.vocab_size).pack() if tokenizer else b""
    progress.note(f"converting {path.name} ({source.source}) to {format}"
                  + (f" with {Path(tokenizer).name}" if tokenizer else ", without a tokenizer"))
    options = {"group": group} if group else {}
    text = Template.from_text(template).to_text() if template else ""
    try:
        return image_module.build(source.config, source.tensors, format=format, groups=source.groups,
                                  tokenizer=vocabulary, template=text, provenance=f"{path.name} ({source.source})", **options)
    except ValueError as error:
        raise ModelError(f"{path}: cannot become a model image: {error}") from error


def parse(data: bytes, name) -> Image:
    try:
        return Image.parse(data)
    except (ValueError, struct.error) as error:         # ImageError is a ValueError
        raise ModelError(f"{name}: {error}") from error


def is_image(data: bytes) -> bool:
    return data[:len(MAGIC)] == MAGIC


def read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except IsADirectoryError as error:
        raise ModelError(f"{path} is a directory, not a model") from error
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error


def find_tokenizer(checkpoint_path: Path, vocab_size: int) -> Path | None:
    """The tokenizer that lies beside a checkpoint: under its name, or one of llama2.c's. Others' sizes do not fit."""
    names = (checkpoint_path.stem + ".tokenizer", checkpoint_path.stem, f"tok{vocab_size}", "tokenizer")
    for path in (checkpoint_path.parent / (name + suffix) for name in names for suffix in (".bin", ".model")):
        if path.exists() and path.name != checkpoint_path.name:
            try:
                Tokenizer.load(path, vocab_size)
                return path
            except TokenizerError:
                continue
    return None


def default_model() -> Path:
    """The project's own model, in a clone."""
    for root in (Path(__file__).resolve().parent.parent, Path.cwd()):
        if (root / DEFAULT_MODEL).exists():
            return root / DEFAULT_MODEL
    raise ModelError(f"name a model with --model: the project's own ({DEFAULT_MODEL}) lies in a clone only")


def _shorten(config: ModelConfig, seq_len: int) -> ModelConfig:
    if not 1 <= seq_len <= config.seq_len:
        raise ModelError(f"--seq-len {seq_len}: the checkpoint was made for contexts of 1 to {config.seq_len} positions")
    return replace(config, seq_len=seq_len)

# Cache --------------------------------------------------------------------------------------------


def cache_directory() -> Path:
    """Where conversions and devices' metadata are kept."""
    if os.environ.get("LLAMA2_HOST_CACHE"):
        return Path(os.environ["LLAMA2_HOST_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "llama2-host"


def _digest(data: bytes, tokenizer: str | Path | None, *options) -> str:
    """Names a conversion by everything it depends on, the converter's own sources included."""
    digest = hashlib.sha256(data)
    digest.update(read_file(Path(tokenizer)) if tokenizer else b"")
    digest.update(repr(options).encode())
    for source in sorted([*Path(image_module.__file__).parent.glob("*.py"), *Path(checkpoint.__file__).parent.glob("*.py")]):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:32]


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
