"""Turns what a user names as a model, an image or a checkpoint, into an image in memory with its tokenizer and template."""
import io
import struct
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from host import checkpoint
from host.cache import cache_directory, digest
from host.discovery import find_template, load_tokenizer, read_files, search_tokenizer
from host.files import ModelError, is_image, map_file, write_whole
from host.progress import Progress
from host.quantisation import Recipe, plan
from host.template import PLAIN, Template
from host.sentencepiece_tokenizer import SentencePieceTokenizer
from host.tokenizer import Tokenizer, TokenizerError
from host.vocabulary import of_model
from spec import image as image_module
from spec.image import Image
from spec.model import KvFormat, ModelConfig
from spec.numerics import MAX_SEQ_LEN
from spec.protocol import MAX_STOPS

GROUPS = (32, 64)
KV_FORMATS = tuple(format.name.lower() for format in KvFormat)


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
                model.use_tokenizer(tokenizer)
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

    def use_tokenizer(self, file: str | Path) -> None:
        """Another vocabulary than the image's; what ends a text stays the image's own."""
        try:
            told = Tokenizer.unpack(self.image.tokenizer).stop_ids if self.image.tokenizer else ()
        except TokenizerError:          # which another one is to replace
            told = ()
        self.tokenizer_file = of_model(Tokenizer.load(file, self.config.vocab_size), list(told))

    @cached_property
    def template(self) -> Template:
        given = self.template_text
        template = Template.from_text(given) if given is not None else Template.stored(self.image.template)
        return template.resolved(self.tokenizer)

    @property
    def tokenizer_problem(self) -> str:
        """Why a tokenizer that was found cannot be used; empty where there is none, or nothing is wrong with it."""
        return self._pending.problem if self._pending else ""


class Pending:
    """A checkpoint that is going to be an image."""

    def __init__(self, path: Path, *, tokenizer: str | Path | None, recipe: Recipe, seq_len: int | None,
                 kv: str, template: str | None, progress: Progress):
        recipe.check()
        self.path, self.recipe, self.template, self.progress = path, recipe, template, progress
        self.source = checkpoint.load(path)
        self.tokenizer, self.problem = tokenizer, ""
        if not tokenizer:
            self.tokenizer, reasons = search_tokenizer(path, self.source.config.vocab_size)
            self.problem = "; ".join(reasons) if self.tokenizer is None else ""
            for reason in reasons:
                progress.note(f"a tokenizer that was found is not used: {reason}")
        self._options = recipe, seq_len, kv, template
        self.source.config = with_cache(self.source.config, seq_len, kv, progress)

    def convert(self) -> tuple[bytes, Path | None]:
        """The image and the file that holds it, from the cache if it was made before."""
        files = read_files(self.path, self.tokenizer)
        cached = cache_directory() / f"{digest(self.path, files, self.recipe.calibrate, *self._options)}.llm"
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
    vocabulary = load_tokenizer(path, tokenizer, source.config.vocab_size) if tokenizer else None
    progress.note(f"converting {path.name} ({source.source}) to {recipe.format}"
                  + (f" for the text of {Path(recipe.calibrate).name}" if recipe.calibrate else "")
                  + (f" with {Path(tokenizer).name}" if tokenizer else ", without a tokenizer"))
    text, chosen = "", choose_template(path, tokenizer, template)
    if chosen != PLAIN:
        text = chosen.to_text()
        vocabulary = with_special_texts(vocabulary) if chosen.jinja and vocabulary else vocabulary
    if vocabulary is not None:
        left_out = chosen.resolved(vocabulary).left_out     # complains now
        if left_out:
            progress.note(f"the model has {len(left_out)} end tokens more than a request takes ({MAX_STOPS}): its text goes on after "
                          + ", ".join(repr(vocabulary.decode([id]) or f"token {id}") for id in left_out))
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


def choose_template(path: Path, tokenizer: str | Path | None, named: str | None) -> Template:
    """The template that was named, else the one that the model brings along, else plain text."""
    if named is not None:
        return Template.from_text(named)
    brought = find_template(path, tokenizer)
    return Template.brought(brought) if brought else PLAIN


def with_special_texts(tokenizer):
    """A vocabulary whose BOS and EOS are letters in a text, with both as chat templates write them."""
    if isinstance(tokenizer, SentencePieceTokenizer) and not tokenizer.specials:
        return tokenizer.with_specials()
    if not isinstance(tokenizer, Tokenizer) or tokenizer.specials:
        return tokenizer
    specials = {"<s>": tokenizer.bos_id, "</s>": tokenizer.eos_id}
    return Tokenizer(tokenizer.pieces, tokenizer.scores, **tokenizer.options() | {"specials": specials})


def parse(data: bytes, name) -> Image:
    """An image, refused in one line if it is damaged."""
    try:
        return Image.parse(data)
    except (ValueError, struct.error) as error:         # ImageError is a ValueError
        raise ModelError(f"{name}: {error}") from error


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
