"""A checkpoint that becomes an image when its bytes are first asked for, by way of the cache."""
import io
from functools import cached_property
from pathlib import Path

from llama2_host import checkpoint
from llama2_host.files import ModelError, map_file, require_file
from llama2_host.image import cache
from llama2_host.image.conversion import convert, prepared
from llama2_host.image.discovery import read_files, search_tokenizer
from llama2_host.image.reading import parse, with_context
from llama2_host.progress import Progress
from llama2_host.quantisation import Recipe
from llama2_spec.image import Image


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
        # A context changes no weight, unless they are rounded for a text in pieces of its length or for a speed at half
        # of it.
        self._options = recipe, template, *((seq_len, kv) if recipe.calibrate or recipe.budget else ())

    def convert(self) -> tuple[Image, Path | None]:
        """The image and the file that holds it, from the cache if it was made before."""
        image, path = self._cached() or self._stored() or (self._parsed(self._in_memory()), None)
        return with_context(image, path, self.source.config)

    def _write(self, file) -> None:
        convert(self.source, self.path, file, tokenizer=self.tokenizer, recipe=self.recipe, template=self.template,
                progress=self.progress)

    @cached_property
    def _key(self) -> str:
        read = sorted({*cache.read_files(self.path, self.tokenizer), *read_files(self.path, self.tokenizer)})
        return cache.digest(self.path, read, self.recipe.calibrate, *self._options)

    def _cached(self) -> tuple[Image, Path] | None:
        """The cached conversion, if it is whole and the one that was written."""
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

    def _stored(self) -> tuple[Image, Path | None] | None:
        """Converted into the cache, if there is room for it."""
        try:
            path = cache.store(self._key, self.recipe.expected_bytes(self.source.config), self._write)
            if path is None:
                self.progress.note("the conversion is not kept: it is larger than the cache may be "
                                   f"({cache.SIZE_VARIABLE})")
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
