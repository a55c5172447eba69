"""Turns a user's model, an image or a checkpoint, into an image in memory with its tokenizer and template."""
from dataclasses import fields
from functools import cached_property
from pathlib import Path

from llama2_host import checkpoint, combinations
from llama2_host.chat.template import Template
from llama2_host.files import IMAGE_SUFFIX, is_image, map_file, temporary_file
from llama2_host.image.conversion import KV_FORMATS
from llama2_host.image.pending import Pending
from llama2_host.image.reading import parse
from llama2_host.progress import Progress
from llama2_host.quantisation import FORMATS, Recipe
from llama2_host.tokenizer import Tokenizer, TokenizerError, unpack, vocabulary
from llama2_spec.image import Image
from llama2_spec.model import ModelConfig


class Model:
    """A model image; ``path`` is a file that holds exactly these bytes, for preloading a simulator.

    One that comes from a checkpoint is converted when its bytes are first asked for; ``config`` and ``expected_bytes``
    are known before.
    """

    def __init__(self, data: bytes | None = None, path: Path | None = None, *, template_text: str | None = None,
                 pending: Pending | None = None, weights: bool = True):
        self._data, self._path, self._pending, self._weights = data, path, pending, weights
        self.tokenizer_file: Tokenizer | None = None        #: given by the user; goes before the image's own
        self.template_text = template_text                  #: likewise

    @classmethod
    def load(cls, path: str | Path, *, tokenizer: str | Path | None = None, format: str | None = None,
             group: int | None = None,
             seq_len: int | None = None, kv: str | None = None, template: str | None = None,
             progress: Progress = Progress.silent, **quantisation) -> "Model":
        """Read an image, or prepare to convert a checkpoint; a conversion is kept in the cache for the next time.

        ``quantisation`` is for :class:`llama2_host.quantisation.Recipe`; an image with other properties is refused.
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
        return cls(pending=Pending(path, tokenizer=tokenizer, recipe=Recipe(format or FORMATS[0], group, **recipe),
                                   seq_len=seq_len,
                                   kv=kv or KV_FORMATS[0], template=template, progress=progress))

    def _convert(self) -> None:
        if self._data is None:
            self.__dict__["image"], self._path = self._to_come.convert()
            self._data = self.image.data

    @property
    def _to_come(self) -> Pending:
        """The pending conversion, as long as the image has no bytes."""
        assert self._pending is not None
        return self._pending

    @property
    def data(self) -> bytes:
        """The image: bytes, or a file mapped to memory."""
        self._convert()
        assert self._data is not None
        return self._data

    @property
    def path(self) -> Path:
        """A file that holds exactly these bytes; where the cache has none, one that lasts as long as this process."""
        self._convert()
        if self._path is None:
            self._path = temporary_file(self.data, IMAGE_SUFFIX)
        return self._path

    @property
    def expected_bytes(self) -> int:
        """Length of the image; before the conversion, the expected length without texts."""
        if self._data is not None:
            return len(self._data)
        return self._to_come.recipe.expected_bytes(self.config)

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
        return self.image.config if self._data is not None else self._to_come.source.config

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        if self.tokenizer_file is not None:
            return self.tokenizer_file
        packed = self.image.tokenizer
        return unpack(packed) if packed else None

    def use_tokenizer(self, file: str | Path) -> None:
        """Another vocabulary than the image's; what ends a text stays the image's own."""
        try:
            told = unpack(self.image.tokenizer).stop_ids if self.image.tokenizer else ()
        except TokenizerError:          # which another one is to replace
            told = ()
        self.tokenizer_file = vocabulary.of_model(vocabulary.load(file, self.config.vocab_size), list(told))

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
