"""Turns what a user names as a model, an image or a checkpoint, into an image in memory with its tokenizer and template."""
import hashlib
import io
import mmap
import os
import struct
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from host import checkpoint, jinja_template, quantisation, vocabulary
from host.checkpoint import gguf
from host.checkpoint.fields import read_json
from host.checkpoint.gguf_file import GgufFile
from host.errors import HostError
from host.progress import Progress
from host.quantisation import Recipe, plan
from host.template import PLAIN, Template
from host.tokenizer import Tokenizer, TokenizerError
from spec import image as image_module
from spec.image import MAGIC, Image
from spec.model import KvFormat, ModelConfig
from spec.numerics import MAX_SEQ_LEN

GROUPS = (32, 64)
KV_FORMATS = tuple(format.name.lower() for format in KvFormat)
INPUT_SUFFIXES = (".safetensors", ".json", ".jinja", ".model")     #: of a folder, what a conversion depends on
DEFAULT_MODEL = Path("models") / "stories.bin"


class ModelError(HostError):
    """A file that cannot be a model for this purpose."""


class Model:
    """A model image; ``path`` is the file that holds exactly these bytes, for preloading a simulator.

    One that comes from a checkpoint is converted when its bytes are first asked for; ``config`` and ``expected_bytes`` are
    known before.
    """

    def __init__(self, data: bytes | None = None, path: Path | None = None, *, template_text: str | None = None,
                 pending: "Pending | None" = None):
        self._data, self._path, self._pending = data, path, pending
        self.tokenizer_file: Tokenizer | None = None        #: given by the user; goes before the image's own
        self.template_text = template_text                  #: likewise

    @classmethod
    def load(cls, path: str | Path, *, tokenizer: str | Path | None = None, format: str = "q8", group: int | None = None,
             seq_len: int | None = None, kv: str = KV_FORMATS[0], template: str | None = None,
             progress: Progress = Progress.silent, **quantisation) -> "Model":
        """Read an image, or prepare to convert a checkpoint; a conversion is kept in the cache for the next time.

        ``quantisation`` is for :class:`host.quantisation.Recipe`.
        """
        path = Path(path)
        if is_image(path):
            model = cls(map_file(path), path, template_text=template)
            if tokenizer is not None:
                model.tokenizer_file = Tokenizer.load(tokenizer, model.config.vocab_size)
            return model
        return cls(pending=Pending(path, tokenizer=tokenizer, recipe=Recipe(format, group, **quantisation), seq_len=seq_len,
                                   kv=kv, template=template, progress=progress))

    def _convert(self) -> None:
        if self._data is None:
            self._data, self._path = self._pending.convert()

    @property
    def data(self) -> bytes:
        """The image: bytes, or a file mapped to memory."""
        self._convert()
        return self._data

    @property
    def path(self) -> Path | None:
        self._convert()
        return self._path

    @property
    def expected_bytes(self) -> int:
        """Length of the image, or what it will be, but for its texts."""
        if self._data is not None:
            return len(self._data)
        return self._pending.recipe.expected_bytes(self.config)

    @property
    def source(self) -> checkpoint.Checkpoint | None:
        """The checkpoint that it comes from; an image that was made before has none."""
        return self._pending.source if self._pending else None

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
        return self.image.config if self._data is not None else self._pending.source.config

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        if self.tokenizer_file is not None:
            return self.tokenizer_file
        packed = self.image.tokenizer
        return Tokenizer.unpack(packed) if packed else None

    @cached_property
    def template(self) -> Template:
        text = self.template_text if self.template_text is not None else self.image.template
        return Template.from_text(text).resolved(self.tokenizer)


class Pending:
    """A checkpoint that is going to be an image."""

    def __init__(self, path: Path, *, tokenizer: str | Path | None, recipe: Recipe, seq_len: int | None,
                 kv: str, template: str | None, progress: Progress):
        recipe.check()
        self.path, self.recipe, self.template, self.progress = path, recipe, template, progress
        self.source = checkpoint.load(path)
        self.tokenizer = tokenizer or find_tokenizer(path, self.source.config.vocab_size)
        self._options = recipe, seq_len, kv, template
        self.source.config = with_cache(self.source.config, seq_len, kv, progress)

    def convert(self) -> tuple[bytes, Path | None]:
        """The image and the file that holds it, from the cache if it was made before."""
        cached = cache_directory() / f"{_digest(self.path, self.tokenizer, self.recipe.calibrate, *self._options)}.llm"
        if not cached.exists():
            write = lambda file: convert(self.source, self.path, file, tokenizer=self.tokenizer, recipe=self.recipe,
                                         template=self.template, progress=self.progress)
            try:
                cached.parent.mkdir(parents=True, exist_ok=True)
                write_whole(cached, write)
            except OSError:                     # a cache that cannot be written is no error
                file = io.BytesIO()
                write(file)
                return file.getvalue(), None
        return map_file(cached), cached


def convert(source: checkpoint.Checkpoint, path: Path, file, *, tokenizer: str | Path | None = None,
            recipe: Recipe = Recipe(), template: str | None = None, progress: Progress = Progress.silent) -> None:
    """Write a checkpoint as a model image to an open file; ``path`` is where it came from."""
    vocabulary = Tokenizer.load(tokenizer, source.config.vocab_size) if tokenizer else None
    progress.note(f"converting {path.name} ({source.source}) to {recipe.format}"
                  + (f" for the text of {Path(recipe.calibrate).name}" if recipe.calibrate else "")
                  + (f" with {Path(tokenizer).name}" if tokenizer else ", without a tokenizer"))
    text = ""
    if template is not None or (template := find_template(path)):
        chosen = Template.from_text(template)
        text = chosen.to_text() if chosen != PLAIN else ""
        vocabulary = with_special_texts(vocabulary) if chosen.jinja and vocabulary else vocabulary
        if vocabulary is not None:
            chosen.resolved(vocabulary)         # complains now
    packed, total = vocabulary.pack() if vocabulary else b"", image_module.weights(source.config)
    try:
        image_module.check(source.config)
        formats = plan(recipe, source, vocabulary, progress=progress)
        with progress.bar("converting", total, "weights", patience_s=1.0) as bar:
            image_module.write(file, source.config, source.tensors, groups=source.groups, plan=formats,
                               tokenizer=packed, template=text, report=bar.update,
                               provenance=f"{path.name} ({source.source})")
    except checkpoint.CheckpointError:
        raise
    except ValueError as error:
        raise ModelError(f"{path}: cannot become a model image: {error}") from error


def with_special_texts(tokenizer: Tokenizer) -> Tokenizer:
    """LLaMA-2's own vocabulary with BOS and EOS as chat templates write them."""
    if not isinstance(tokenizer, Tokenizer) or tokenizer.specials:
        return tokenizer
    specials = {"<s>": tokenizer.bos_id, "</s>": tokenizer.eos_id}
    return Tokenizer(tokenizer.pieces, tokenizer.scores, **tokenizer.options() | {"specials": specials})


def write_whole(path: Path, write) -> None:
    """Have ``write(file)`` make a file that appears whole or not at all; whoever has mapped an older one keeps that."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(partial, "wb") as file:
            write(file)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def parse(data: bytes, name) -> Image:
    """An image, refused in one line if it is damaged."""
    try:
        return Image.parse(data)
    except (ValueError, struct.error) as error:         # ImageError is a ValueError
        raise ModelError(f"{name}: {error}") from error


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


def find_tokenizer(checkpoint_path: Path, vocab_size: int) -> Path | None:
    """The tokenizer that lies in a folder or a GGUF file, or beside a checkpoint; others' sizes do not fit.

    Beside a checkpoint it has its name, or one of llama2.c's or Hugging Face's.
    """
    folder = checkpoint_path if checkpoint_path.is_dir() else checkpoint_path.parent
    names = (checkpoint_path.stem + ".tokenizer", checkpoint_path.stem, f"tok{vocab_size}", "tokenizer")
    found = [folder / (name + suffix) for name in names for suffix in (".bin", ".json", ".model")]
    if _starts(checkpoint_path, gguf.MAGIC):
        found = [checkpoint_path]
    elif checkpoint_path.suffix == ".safetensors" or checkpoint_path.is_dir():
        found = [folder / name for name in vocabulary.NAMES]
    for path in found:
        if path.is_file() and (path != checkpoint_path or len(found) == 1):
            try:
                Tokenizer.load(path, vocab_size)
                return path
            except TokenizerError:
                continue
    return None


def find_template(checkpoint_path: Path) -> str | None:
    """The chat template that a model brings along: in its folder, or in its GGUF file."""
    if _starts(checkpoint_path, gguf.MAGIC):
        text = GgufFile.open(checkpoint_path).value("tokenizer.chat_template")
        return text if isinstance(text, str) else None
    folder = checkpoint_path if checkpoint_path.is_dir() else checkpoint_path.parent
    if not checkpoint_path.is_dir() and checkpoint_path.suffix != ".safetensors":
        return None
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_bytes()[:jinja_template.MAX_SOURCE + 1].decode("utf-8", "replace")
    if not (folder / "tokenizer_config.json").is_file():
        return None
    told = read_json(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(told, list):                  # several by name
        told = next((entry.get("template") for entry in told if isinstance(entry, dict) and entry.get("name") == "default"), None)
    return told if isinstance(told, str) else None


def _starts(path: Path, magic: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(magic)) == magic
    except OSError:
        return False


def default_model() -> Path:
    """The project's own model, in a clone."""
    for root in (Path(__file__).resolve().parent.parent, Path.cwd()):
        if (root / DEFAULT_MODEL).exists():
            return root / DEFAULT_MODEL
    raise ModelError(f"name a model with --model: the project's own ({DEFAULT_MODEL}) lies in a clone only")


def with_cache(config: ModelConfig, seq_len: int | None, kv: str, progress: Progress = Progress.silent) -> ModelConfig:
    """A checkpoint's shapes with the context and the K/V format that were asked for."""
    if kv not in KV_FORMATS:
        raise ModelError(f"--kv {kv}: choose from {', '.join(KV_FORMATS)}")
    seq_len = seq_len if seq_len is not None else config.seq_len
    if not 1 <= seq_len <= MAX_SEQ_LEN:
        raise ModelError(f"--seq-len {seq_len}: a context has 1 to {MAX_SEQ_LEN} positions")
    if seq_len > config.seq_len:
        progress.note(f"the checkpoint was trained on {config.seq_len} positions: what it writes beyond them may make no sense")
    return replace(config, seq_len=seq_len, kv=KvFormat[kv.upper()])

# Cache --------------------------------------------------------------------------------------------


def cache_directory() -> Path:
    """Where conversions and devices' metadata are kept."""
    if os.environ.get("LLAMA2_HOST_CACHE"):
        return Path(os.environ["LLAMA2_HOST_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "llama2-host"


def _digest(path: Path, tokenizer: str | Path | None, text: Path | None, *options) -> str:
    """Names a conversion by everything it depends on, the converter's own sources included."""
    digest = hashlib.sha256(repr(options).encode())
    inputs = sorted(p for p in path.iterdir() if p.suffix in INPUT_SUFFIXES) if path.is_dir() else [path]
    if not path.is_dir() and path.suffix == ".safetensors":
        inputs += sorted(p for p in path.parent.iterdir() if p.suffix in INPUT_SUFFIXES and p != path)
    sources = [*Path(image_module.__file__).parent.glob("*.py"), *Path(__file__).parent.glob("*.py"),
               *Path(checkpoint.__file__).parent.glob("*.py"), *Path(quantisation.__file__).parent.glob("*.py")]
    named = [Path(file) for file in (tokenizer, text) if file and not Path(file).is_dir()]
    for file in [*inputs, *named, *sorted(sources)]:
        digest.update(f"\0{file.name}\0".encode())
        with open(file, "rb") as content:
            while chunk := content.read(1 << 20):
                digest.update(chunk)
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
