"""Reads model images from bytes, in one line if they are damaged."""
import struct
from pathlib import Path
from typing import Any

from llama2_host.files import ModelError, map_file
from llama2_spec.image import Image
from llama2_spec.model import ModelConfig


def parse(data: bytes, name, *, weights: bool = True) -> Image:
    """An image, refused in one line if it is damaged; without ``weights``, only what comes before them."""
    try:
        return Image.parse(data, weights=weights)
    except (ValueError, struct.error) as error:         # ImageError is a ValueError
        raise ModelError(f"{name}: {error}") from error


def with_context(image: Image, path: Path | None, config: ModelConfig) -> tuple[Image, Path | None]:
    """The same weights with another context or K/V format: only the header differs, and no file holds it then."""
    if (image.config.seq_len, image.config.kv) == (config.seq_len, config.kv):
        return image, path
    header = image.header_with(seq_len=config.seq_len, kv=config.kv)
    data: Any = bytearray(image.data) if path is None else map_file(path, private=True)     # either may be written to
    data[:len(header)] = header
    return image.replaced(data, config.seq_len, config.kv), None
