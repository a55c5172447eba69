"""Compare number formats of a checkpoint with float32 on a text: accuracy, size and predicted speed."""
import argparse
import json

from llama2_host import corpus, evaluation
from llama2_host.commands import options
from llama2_host.errors import HostError
from llama2_host.image.discovery import default_model
from llama2_host.files import is_image
from llama2_host.image.model import Model
from llama2_host.progress import Progress, quantity
from llama2_spec.reference import Reference
from llama2_spec.traffic import TARGETS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_model(parser, default="the project's", formats=True, template=False)
    options.add_text(parser)


def run(args: argparse.Namespace) -> int:
    progress = Progress.stderr()
    path = args.model or default_model()
    formats = list(dict.fromkeys(args.format or ["q8", "q4", *(["mixed"] if args.calibrate else [])]))
    if is_image(path):
        raise HostError(f"{path} is a model image: compare takes a checkpoint, and `llama2-host perplexity` an image")
    options.check(args, format=formats)
    models = {format: Model.load(path, tokenizer=args.tokenizer, progress=progress, **_conversion(args, format))
              for format in formats}
    first = models[formats[0]]
    assert first.source is not None             # a checkpoint, not an image
    texts = corpus.sequences(args.text, options.require_tokenizer(first), first.config.seq_len)
    scores, own = evaluation.evaluate({format: model.image for format, model in models.items()}, texts,
                                      exact=Reference(first.source.config, first.source.tensors), progress=progress)
    assert own is not None                      # there was float32 to compare with
    rows = [{"format": format, **evaluation.row(model.image, scores[format], own, TARGETS[args.target])}
            for format, model in models.items()]
    if args.json:
        print(json.dumps({"model": path.name, "text": args.text.name, "tokens": own.tokens, "target": args.target,
                          "perplexity_float32": own.perplexity, "rows": rows}))
    else:
        options.show(lines(rows, own, args.target))
    return 0


def _conversion(args: argparse.Namespace, format: str) -> dict:
    """Options of one format, without those that are for the others."""
    found = options.conversion(args) | {"format": format}
    if format == "q8":
        found["calibrate"] = found["embedding"] = None
    if format != "mixed":
        found["budget"] = None
    return found


def lines(rows: list[dict], own: evaluation.Score, target: str) -> list[str]:
    """A table for people."""
    table = [
        f"{'format':<8}{'perplexity':>11}{'change':>10}{'KL':>10}{'top-1':>8}"
        f"{'weights':>12}{'bits':>7}{'tokens/s':>10}",
             f"{'float32':<8}{own.perplexity:>11.4f}"]
    for r in rows:
        change, top1 = f"{r['delta_percent']:+.2f} %", f"{100 * r['top1']:.1f} %"
        table.append(
            f"{r['format']:<8}{r['perplexity']:>11.4f}{change:>10}{r['kl']:>10.2g}{top1:>8}{quantity(r['bytes']):>12}"
                     f"{r['bits_per_weight']:>7.2f}{r['tokens_per_second']:>10,.1f}")
    return [*table, f"{own.tokens:,} tokens; KL in nats a token from float32; tokens/s predicted on {target} at half "
                    "of the context"]
