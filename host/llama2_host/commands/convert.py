"""Convert a checkpoint to a model image (.llm)."""
import argparse
from pathlib import Path

from llama2_host.image import cache
from llama2_host import checkpoint
from llama2_host.commands import options
from llama2_host.image.fit import arithmetic
from llama2_host.image.discovery import search_tokenizer
from llama2_host.files import ModelError, Output, is_image
from llama2_host.image.conversion import KV_FORMATS, convert, prepared
from llama2_host.progress import Progress, quantity


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, help="llama2.c .bin, GGUF, or a folder with safetensors")
    options.add_output(parser)
    options.add_conversion(parser)


def run(args: argparse.Namespace) -> int:
    progress, recipe = Progress.stderr(), options.recipe(args)
    recipe.check()
    if is_image(args.checkpoint):
        raise ModelError(f"{args.checkpoint} is a model image already: convert takes a checkpoint")
    output = Output(args.output, replace=args.force, inputs=[
        *cache.inputs(args.checkpoint), *cache.read_files(args.checkpoint, args.tokenizer), args.tokenizer,
        args.calibrate,
        args.template if args.template and options.is_file(args.template) else None])
    options.check(args)
    source = prepared(checkpoint.load(args.checkpoint), args.checkpoint, args.seq_len, args.kv or KV_FORMATS[0],
                      progress)
    tokenizer: Path | None = args.tokenizer
    reasons: list[str] = []
    if not tokenizer:
        tokenizer, reasons = search_tokenizer(args.checkpoint, source.config.vocab_size)
    for reason in reasons:
        progress.note(f"a tokenizer that was found is not used: {reason}")
    output.inputs += [Path(tokenizer)] if tokenizer else []
    output.check()
    output.write(lambda file: convert(source, args.checkpoint, file, tokenizer=tokenizer, progress=progress,
                                      recipe=recipe,
                                      template=options.template(args.template)))
    size = output.path.stat().st_size
    progress.note(f"wrote {output.named}, {quantity(size)}")
    progress.note(arithmetic(source.config, size))
    return 0
