"""Show what is in a checkpoint or a model image."""
import argparse
import json
from pathlib import Path

from host import checkpoint
from host.commands import options
from host.facts import facts
from host.fit import cache_arithmetic, kv_bytes, longest
from host.files import is_image
from host.model import Model
from host.progress import quantity
from host.quantisation import Recipe
from spec.model import ModelConfig

DRAM_BYTES = 256 << 20      #: an Arty's


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="an image, a checkpoint, or a folder with one")
    options.add_json(parser)
    options.add_raw(parser)


def run(args: argparse.Namespace) -> int:
    options.check(args)
    if args.json:
        options.show([json.dumps(facts(args.file))])
    else:
        options.show(image_lines(Model.load(args.file)) if is_image(args.file) else checkpoint_lines(args.file), args.raw)
    return 0


def shape_lines(config: ModelConfig, image_bytes: int) -> list[str]:
    """``image_bytes``: known, or expected."""
    room = ", ".join(f"{count} {kv.name.lower()}" for kv, count in longest(config, image_bytes, DRAM_BYTES).items())
    return [
        f"shape       dim {config.dim}, hidden_dim {config.hidden_dim}, {config.n_layers} layers, {config.n_heads} heads, "
        f"{config.n_kv_heads} key/value heads, head_dim {config.head_dim}",
        f"            vocabulary {config.vocab_size}, context {config.seq_len}, "
        f"classifier {'tied to the embedding' if config.tied else 'of its own'}",
        f"K/V cache   {quantity(kv_bytes(config))} for the whole context: {cache_arithmetic(config)}",
        f"            positions that fit {quantity(DRAM_BYTES)} of DRAM beside {quantity(image_bytes)} of image: {room}",
    ]


def checkpoint_lines(path: Path) -> list[str]:
    source = checkpoint.load(path)
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    size = sum(file.stat().st_size for file in files)
    groups = sorted({f"{part.format} g{part.group}" for part in (source.groups or {}).values()})
    weights = f", {' and '.join(groups)}" if groups else ""
    return [f"checkpoint  {path.name}: {source.source}, {quantity(size)}, {source.n_parameters:,} parameters{weights}",
            *shape_lines(source.config, Recipe().expected_bytes(source.config))]


def image_lines(model: Model) -> list[str]:
    image = model.image
    tokenizer = model.tokenizer
    return [
        f"image       {model.path.name}: {quantity(len(model.data))}, {options.weights(image)}, {len(image.entries)} tensors",
        *shape_lines(image.config, len(model.data)),
        f"tokenizer   {f'{tokenizer.vocab_size} entries' if tokenizer else 'none'}",
        f"template    {model.template.name}",
        f"provenance  {image.provenance or 'none'}",
        f"CRC         header {model.header_crc:#010x}, tensors {model.payload_crc:#010x}",
    ]
