"""The content of a checkpoint or an image as one dictionary for programs: numbers are numbers, in bytes and
positions."""
from dataclasses import asdict
from pathlib import Path

from llama2_host import checkpoint, combinations
from llama2_host.files import is_image
from llama2_host.image.fit import kv_bytes
from llama2_host.image.model import Model
from llama2_host.quantisation import Recipe
from llama2_spec.image import Kind
from llama2_spec.model import ModelConfig


def facts(path: Path) -> dict:
    """Facts about a file or folder; null where only a conversion would tell."""
    return of_image(Model.load(path), path) if is_image(path) else of_checkpoint(path)


def of_image(model: Model, path: Path) -> dict:
    """An image's shapes, formats and texts."""
    image, tokenizer, has = model.image, model.tokenizer, combinations.described(model.image)
    return {
        "kind": "image", "file": path.name, "bytes": len(model.data), "image_bytes": len(model.data),
        **of_shape(image.config),
        "parameters": None, "tensors": len(image.entries),
        "formats": sorted({entry.format.name.lower() for entry in image.entries if entry.kind != Kind.GAIN}),
        "groups": sorted({entry.group for entry in image.entries if entry.kind != Kind.GAIN}),
        "format": "/".join(sorted(has["format"])),
        "tokenizer": tokenizer.vocab_size if tokenizer else None, "template": model.template.name,
        "stops": list(model.template.stops),
        "provenance": image.provenance, "header_crc": model.header_crc, "payload_crc": model.payload_crc,
    }


def of_checkpoint(path: Path) -> dict:
    """A checkpoint's shapes, and how long its image in the default format is going to be."""
    source = checkpoint.load(path)
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    groups = (source.groups or {}).values()
    return {
        "kind": "checkpoint", "file": path.resolve().name, "bytes": sum(file.stat().st_size for file in files),
        "image_bytes": Recipe().expected_bytes(source.config), **of_shape(source.config),
        "parameters": source.n_parameters, "tensors": len(source.tensors),
        "formats": sorted({part.format for part in groups}), "groups": sorted({part.group for part in groups}),
        "format": None,
        "tokenizer": None, "template": None, "stops": None, "provenance": source.source, "header_crc": None,
        "payload_crc": None,
    }


def of_shape(config: ModelConfig) -> dict:
    """Shapes and constants, and what the K/V cache takes for the whole context."""
    values = asdict(config) | {"kv": config.kv.name.lower(), "rope_factors": list(config.rope_factors)}
    return {"shape": values, "kv_bytes": kv_bytes(config)}
