"""Show what is in a checkpoint or a model image."""
import argparse
import json
from pathlib import Path

from llama2_host.image import description
from llama2_host.commands import options
from llama2_host.image.facts import facts
from llama2_host.files import is_image
from llama2_host.image.model import Model
from llama2_host.progress import quantity

LABEL_WIDTH = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="an image, a checkpoint, or a folder with one")
    options.add_json(parser)
    options.add_raw(parser)


def run(args: argparse.Namespace) -> int:
    options.check(args)
    if args.json:
        options.show([json.dumps(facts(args.file))])
    else:
        lines = image_lines(Model.load(args.file)) if is_image(args.file) else description.of_checkpoint(args.file)
        options.show([f"{label:<{LABEL_WIDTH}}{text}" for label, text in lines], args.raw)
    return 0


def image_lines(model: Model) -> list[description.Line]:
    image, tokenizer = model.image, model.tokenizer
    return [
        ("image", f"{model.path.name}: {quantity(len(model.data))}, {options.weights(image)}, {len(image.entries)} "
                  "tensors"),
        *description.shape(image.config, len(model.data)),
        ("tokenizer", f"{tokenizer.vocab_size} entries" if tokenizer else "none"),
        ("template", model.template.name),
        ("provenance", image.provenance or "none"),
        ("CRC", f"header {model.header_crc:#010x}, tensors {model.payload_crc:#010x}"),
    ]
