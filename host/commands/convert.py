"""Convert a checkpoint to a model image (.llm)."""
import argparse
from pathlib import Path

from host import checkpoint
from host.commands import options
from host.fit import arithmetic
from host.discovery import find_tokenizer
from host.files import ModelError, is_image, write_whole
from host.model import convert, prepared
from host.progress import Progress, quantity


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, help="llama2.c .bin, GGUF, or a folder with safetensors")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.llm")
    options.add_conversion(parser)


def run(args: argparse.Namespace) -> int:
    progress, recipe = Progress.stderr(), options.recipe(args)
    recipe.check()
    if is_image(args.checkpoint):
        raise ModelError(f"{args.checkpoint} is a model image already: convert takes a checkpoint")
    source = prepared(checkpoint.load(args.checkpoint), args.checkpoint, args.seq_len, args.kv, progress)
    tokenizer = args.tokenizer or find_tokenizer(args.checkpoint, source.config.vocab_size)
    try:
        write_whole(args.output, lambda file: convert(source, args.checkpoint, file, tokenizer=tokenizer, progress=progress,
                                                      recipe=recipe, template=options.template(args.template)))
    except OSError as error:
        raise ModelError(f"cannot write {args.output}: {error.strerror or error}") from error
    size = args.output.stat().st_size
    progress.note(f"wrote {args.output}, {quantity(size)}")
    progress.note(arithmetic(source.config, size))
    return 0
