"""Show how well a model predicts a text, in the integers that the hardware computes."""
import argparse
import json

from llama2_host import corpus, evaluation
from llama2_host.commands import options
from llama2_host.image.discovery import default_model
from llama2_host.image.model import Model
from llama2_host.progress import Progress, quantity
from llama2_host.quantisation import Recipe
from llama2_spec.reference import Reference
from llama2_spec.traffic import TARGETS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_model(parser, default="the project's", template=False)
    options.add_text(parser)


def run(args: argparse.Namespace) -> int:
    progress = Progress.stderr()
    options.check(args)
    path = args.model or default_model()
    model = Model.load(path, tokenizer=args.tokenizer, progress=progress, **options.conversion(args))
    texts = corpus.sequences(args.text, options.require_tokenizer(model), model.config.seq_len)
    # An image has no float32 weights to compare with.
    exact = Reference(model.source.config, model.source.tensors) if model.source else None
    scores, own = evaluation.evaluate({"": model.image}, texts, exact=exact, progress=progress)
    result = {"model": path.name, "text": args.text.name, "format": args.format or Recipe().format if exact
              else options.weights(model.image),
              "target": args.target, **evaluation.row(model.image, scores[""], own, TARGETS[args.target])}
    options.show([json.dumps(result)] if args.json else lines(result))
    return 0


def lines(result: dict) -> list[str]:
    """The figures as lines for people."""
    exact = [] if result["kl"] is None else [
        f"float32     perplexity {result['perplexity_float32']:.4f}: {result['delta_percent']:+.2f} %, "
        f"KL divergence {result['kl']:.2g} nats a token, {100 * result['top1']:.1f} % of likeliest tokens equal"]
    return [f"{result['format']:<11} perplexity {result['perplexity']:.4f} over {result['tokens']:,} tokens", *exact,
            f"size        {quantity(result['bytes'])} of weights, {result['bits_per_weight']:.2f} bits a weight",
            f"speed       {result['tokens_per_second']:,.1f} tokens/s predicted on {result['target']} at half of the "
            "context"]
