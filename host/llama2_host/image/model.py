"""Turns what a user names as a model, an image or a checkpoint, into an image in memory with its tokenizer and template."""
import io
import struct
from dataclasses import fields, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from llama2_host.image import cache
from llama2_host import checkpoint, combinations
from llama2_host.checkpoint import padding
from llama2_host.image.discovery import find_template, load_tokenizer, read_files, search_tokenizer
from llama2_host.files import IMAGE_SUFFIX, ModelError, is_image, map_file, require_file, temporary_file
from llama2_host.progress import Progress
from llama2_host.quantisation import FORMATS, Losses, LostError, Recipe, plan
from llama2_host.chat.template import PLAIN, Template
from llama2_host.tokenizer.sentencepiece_tokenizer import SentencePieceTokenizer
from llama2_host.tokenizer.base import Tokenizer, TokenizerError
from llama2_host.tokenizer.vocabulary import of_model
from llama2_spec import image as image_module
from llama2_spec.image import Image
from llama2_spec.model import KvFormat, ModelConfig
from llama2_spec.numerics import MAX_SEQ_LEN
from llama2_spec.protocol import MAX_STOPS

GROUPS = (32, 64)
KV_FORMATS = tuple(format.name.lower() for format in KvFormat)


class Model:
    """A model image; ``path`` is a file that holds exactly these bytes, for preloading a simulator.

    One that comes from a checkpoint is converted when its bytes are first asked for; ``config`` and ``expected_bytes`` are
    known before.
    """

    def __init__(self, data: bytes | None = None, path: Path | None = None, *, template_text: str | None = None,
                 pending: "Pending | None" = None, weights: bool = True):
        self._data, self._path, self._pending, self._weights = data, path, pending, weights
        self.tokenizer_file: Tokenizer | None = None        #: given by the user; goes before the image's own
        self.template_text = template_text                  #: likewise

    @classmethod
    def load(cls, path: str | Path, *, tokenizer: str | Path | None = None, format: str | None = None, group: int | None = None,
             seq_len: int | None = None, kv: str | None = None, template: str | None = None,
             progress: Progress = Progress.silent, **quantisation) -> "Model":
        """Read an image, or prepare to convert a checkpoint; a conversion is kept in the cache for the next time.

        ``quantisation`` is for :class:`llama2_host.quantisation.Recipe`; what an image has otherwise is refused.
        """
        asked = {"format": format, "group": group, "seq_len": seq_len, "kv": kv, **quantisation}
        combinations.check_types(asked | {"template": template}, known=known_options())
        recipe = {name: value for name, value in quantisation.items() if value is not None}
        path = Path(path)
        if is_image(path):
            model = cls(map_file(path), path, template_text=template)
            combinations.check(combinations.Given(asked, model="image"))
            if any(value is not None for value in asked.values()):
                combinations.check_image(model.image, asked, path)
            if tokenizer is not None:
                model.use_tokenizer(tokenizer)
            return model
        return cls(pending=Pending(path, tokenizer=tokenizer, recipe=Recipe(format or FORMATS[0], group, **recipe), seq_len=seq_len,
                                   kv=kv or KV_FORMATS[0], template=template, progress=progress))

    def _convert(self) -> None:
        if self._data is None:
            self.__dict__["image"], self._path = self._pending.convert()
            self._data = self.image.data

    @property
    def data(self) -> bytes:
        """The image: bytes, or a file mapped to memory."""
        self._convert()
        return self._data

    @property
    def path(self) -> Path:
        """A file that holds exactly these bytes; where the cache has none, one that lasts as long as this process."""
        self._convert()
        if self._path is None:
            self._path = temporary_file(self._data, IMAGE_SUFFIX)
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
        if self._data is None:
            self._convert()                     # which leaves it here
            return self.__dict__["image"]
        return parse(self._data, self._path or "the image", weights=self._weights)

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


def known_options() -> set[str]:
    """Names of a conversion's options."""
    return {field.name for field in fields(Recipe)} | {"seq_len", "kv", "template"}


class Pending:
    """A checkpoint that is going to be an image."""

    def __init__(self, path: Path, *, tokenizer: str | Path | None, recipe: Recipe, seq_len: int | None,
                 kv: str, template: str | None, progress: Progress):
        recipe.check()
        if recipe.calibrate is not None:
            require_file(recipe.calibrate, "--calibrate")
        self.path, self.recipe, self.template, self.progress = path, recipe, template, progress
        self.source = prepared(checkpoint.load(path), path, seq_len, kv, progress)
        self.tokenizer, self.problem = tokenizer, ""
        if not tokenizer:
            self.tokenizer, reasons = search_tokenizer(path, self.source.config.vocab_size)
            self.problem = "; ".join(reasons) if self.tokenizer is None else ""
            for reason in reasons:
                progress.note(f"a tokenizer that was found is not used: {reason}")
        # A context changes no weight, unless they are rounded for a text in pieces of its length or for a speed at half of it.
        self._options = recipe, template, *((seq_len, kv) if recipe.calibrate or recipe.budget else ())

    def convert(self) -> tuple[Image, Path | None]:
        """The image and the file that holds it, from the cache if it was made before."""
        found = self._cached()
        if found is None:
            found = self._stored() or (self._parsed(self._in_memory()), None)
        return with_context(*found, self.source.config)

    def _write(self, file) -> None:
        convert(self.source, self.path, file, tokenizer=self.tokenizer, recipe=self.recipe, template=self.template,
                progress=self.progress)

    @cached_property
    def _key(self) -> str:
        read = sorted({*cache.read_files(self.path, self.tokenizer), *read_files(self.path, self.tokenizer)})
        return cache.digest(self.path, read, self.recipe.calibrate, *self._options)

    def _cached(self) -> tuple[Image, Path] | None:
        """What was made before, if it is whole and what was written there."""
        path = cache.find(self._key)
        if path is None:
            return None
        try:
            image = parse(map_file(path), path)
            if not cache.holds(path, image):
                raise ModelError("it is another image than was written there")
            cache.used(path)
            return image, path
        except ModelError as error:
            self.progress.note(f"the conversion in the cache cannot be used ({error}): it is made anew")
            cache.remove(path)
            return None

    def _stored(self) -> tuple[Image, Path] | None:
        """Converted into the cache, if there is room for it."""
        try:
            path = cache.store(self._key, self.recipe.expected_bytes(self.source.config), self._write)
            if path is None:
                self.progress.note(f"the conversion is not kept: it is larger than the cache may be ({cache.SIZE_VARIABLE})")
                return None
            image = parse(map_file(path), path)
            cache.make_room()                   # the image's texts were not in what was expected
            return image, path if path.exists() else None
        except OSError as error:                # a cache that cannot be written is no error
            self.progress.note(f"the conversion is not kept in {cache.cache_directory()}: {error.strerror or error}")
            return None

    def _in_memory(self) -> bytes:
        file = io.BytesIO()
        self._write(file)
        return file.getvalue()

    def _parsed(self, data: bytes) -> Image:
        return parse(data, self.path)


def with_context(image: Image, path: Path | None, config: ModelConfig) -> tuple[Image, Path | None]:
    """The same weights with another context or K/V format: only the header differs, and no file holds it then."""
    if (image.config.seq_len, image.config.kv) == (config.seq_len, config.kv):
        return image, path
    header = image.header_with(seq_len=config.seq_len, kv=config.kv)
    data = bytearray(image.data) if path is None else map_file(path, private=True)
    data[:len(header)] = header
    return image.replaced(data, config.seq_len, config.kv), None


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
        losses = Losses()
        with progress.bar("converting", total, "weights", patience_s=1.0) as bar:
            image_module.write(file, source.config, source.tensors, groups=source.groups, plan=formats,
                               tokenizer=packed, template=text, report=bar.update, watch=losses.add,
                               provenance=f"{path.name} ({source.source})")
        losses.report(progress, final_gain=float(np.abs(source.tensors["final_norm"][:]).max()), dim=source.config.norm_dim,
                      allowed=recipe.allow_loss)
    except checkpoint.CheckpointError:
        raise
    except LostError as error:
        raise LostError(f"{path}: {error}") from None
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


def parse(data: bytes, name, *, weights: bool = True) -> Image:
    """An image, refused in one line if it is damaged; without ``weights``, only what comes before them."""
    try:
        return Image.parse(data, weights=weights)
    except (ValueError, struct.error) as error:         # ImageError is a ValueError
        raise ModelError(f"{name}: {error}") from error


def prepared(source: checkpoint.Checkpoint, path: Path, seq_len: int | None, kv: str,
             progress: Progress = Progress.silent) -> checkpoint.Checkpoint:
    """A checkpoint with the context and the K/V format that were asked for, in sizes that the core takes."""
    config = with_cache(source.config, seq_len, kv, progress)
    if source.window is not None and config.seq_len > source.window:
        raise ModelError(f"{path}: unsupported: a sliding window of {source.window} positions, shorter than the context of "
                         f"{config.seq_len}: within it the model is a plain LLaMA, so convert with --seq-len {source.window}")
    source = padding.padded(replace(source, config=config))
    if added := padding.note(source.config):
        progress.note(f"{path.name}: {added}")
    return source


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
