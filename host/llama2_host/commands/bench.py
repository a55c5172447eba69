"""Measure prompt and generation speed at several lengths, as llama-bench prints it."""
import argparse
import json

from llama2_host import benchmark
from llama2_host.commands import options
from llama2_host.progress import Progress, quantity
from llama2_host.version import version

PROMPTS, TEXTS = (64,), (32, 128)       #: unless others are asked for


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_device(parser)
    options.add_model(parser)
    parser.add_argument("-p", "--prompt-tokens", type=lengths, metavar="N,...",
                        help="lengths of prompts; 0 for none (default 64)")
    parser.add_argument("-n", "--tokens", type=lengths, metavar="N,...",
                        help="lengths of texts; 0 for none (default 32,128)")
    parser.add_argument("-r", "--repetitions", type=int, default=1, metavar="N",
                        help="of each; the simulator's never differ (default %(default)s)")
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    options.check(args)
    progress = Progress.stderr()
    with options.open_backend(args, progress) as backend:
        prompts, texts = (chosen(given, usual, backend.config.seq_len)
                          for given, usual in ((args.prompt_tokens, PROMPTS), (args.tokens, TEXTS)))
        benchmark.check(prompts, texts, args.repetitions, backend.config.seq_len)
        rows = benchmark.run(backend, prompts, texts, args.repetitions,
                             watch=lambda row: progress.note(f"{row.test}: {row.tokens_per_s:,.1f} tokens/s "
                                                             f"({row.wall_s:.1f} s)"))
        device = getattr(backend, "device", None)
        uploaded = device.uploaded_bytes_per_s if device else None
        name = (backend.model.image.provenance or "unknown").splitlines()[0]
        size = device.info.image_bytes if device else len(backend.model.data)
        if args.json:
            options.show([json.dumps({"version": version(), "model": name, "bytes": size, "backend": backend.name,
                                      "clock_hz": backend.clock_hz,
                                      "upload_bytes_per_s": uploaded, "rows": [row.to_json() for row in rows]})])
        else:
            options.show(benchmark.markdown(rows, name, quantity(size), backend.name))
            if uploaded:
                progress.note(f"the upload ran at {uploaded / 1e3:,.0f} kB/s")
            if not backend.clock_hz:
                progress.note("rates are of this machine: the integer model has no clock")
    return 0


def chosen(given: tuple[int, ...] | None, usual: tuple[int, ...], seq_len: int) -> list[int]:
    """The lengths that were asked for, or of the usual ones those that the context has room for."""
    if given is not None:
        return [length for length in given if length]
    return [length for length in usual if length <= seq_len] or [seq_len]


def lengths(text: str) -> tuple[int, ...]:
    """``32,128`` as numbers."""
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        values = (-1,)
    if min(values) < 0:
        raise argparse.ArgumentTypeError(f"lengths are numbers with commas between them, not {text!r}")
    return values
