"""Continue a prompt; the text streams to stdout, statistics go to stderr."""
import argparse
import codecs
import json
import sys

from llama2_host.backend import DEFAULT_STEPS, Writing
from llama2_host.commands import options
from llama2_host.errors import INTERRUPTED, HostError
from llama2_host.progress import Progress
from llama2_host.prompt import prompt_text
from llama2_host.statistics import saturations
from llama2_host.terminal import filter_for, is_terminal
from llama2_spec.protocol import Reason

SLOWER_PERCENT = 90.0       #: of the roofline; greedy decoding has some 97


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_device(parser)
    options.add_model(parser)
    options.add_sampling(parser)
    parser.add_argument("-i", "--prompt", metavar="TEXT", help="text to continue (default: what comes on stdin, unless "
                                                               "that is a terminal)")
    parser.add_argument("-f", "--file", metavar="FILE", help="continue the text in this file; - is stdin")
    parser.add_argument("--prompt-ids", type=_ids, metavar="1,403,...", help="token ids instead of a text")
    parser.add_argument("-n", "--steps", type=int, default=DEFAULT_STEPS, metavar="N",
                        help="positions in all, prompt included (default %(default)s)")
    parser.add_argument("--ids", action="store_true", help="print token ids instead of text")
    parser.add_argument("--json", action="store_true",
                        help="print the result and its statistics as JSON, for a program")
    options.add_raw(parser)


def run(args: argparse.Namespace) -> int:
    progress = Progress.stderr()
    sampling = options.sampling(args)
    options.check(args)
    if args.steps < 1:
        raise HostError(f"--steps is at least 1, not {args.steps}")
    interrupted = False
    text = None if args.prompt_ids is not None else prompt_text(args.prompt, args.file, progress)
    with options.open_backend(args, progress) as backend:
        if not (args.ids or args.json):
            _ = backend.tokenizer           # complains before anything runs
        writing = backend.write(args.prompt_ids if text is None else text, steps=args.steps, **sampling)
        try:
            show(writing, ids=args.ids, quiet=args.json, raw=args.raw)
        except KeyboardInterrupt:
            interrupted = True
            writing.abort()
        if args.json:
            # Escaped where letters would steer a terminal, or where stdout cannot say them.
            ascii_only = is_terminal(sys.stdout) or codecs.lookup(sys.stdout.encoding).name != "utf-8"
            print(json.dumps(result(writing, backend), ensure_ascii=ascii_only), flush=True)
        else:
            print(flush=True)
        report(writing, progress)
        if writing.outcome and writing.outcome.reason == Reason.ERROR:
            raise HostError("the core stopped with " + (", ".join(saturations(writing.outcome.errors)) or "an error"))
    return INTERRUPTED if interrupted else 0


def show(writing: Writing, *, ids: bool, quiet: bool, raw: bool = False) -> None:
    """Print what comes, as it comes; on a terminal without control characters, unless ``raw``."""
    if quiet:
        for _ in writing.tokens():
            pass
    elif ids:
        print(*writing.prompt_ids, end="", flush=True)
        for event in writing.tokens():
            print(f" {event.token}", end="", flush=True)
    else:
        shown = filter_for(sys.stdout, raw)
        for text in writing:
            sys.stdout.write(shown(text))
            sys.stdout.flush()


def result(writing: Writing, backend) -> dict:
    """The object that --json prints."""
    tokenizer = backend.model.tokenizer
    return {
        "backend": backend.name,
        "prompt_ids": writing.prompt_ids,
        "ids": writing.ids,
        "text": writing.text if tokenizer else None,
        "reason": writing.outcome.reason.name.lower() if writing.outcome else None,
        "seed": writing.options.sampling.seed,
        "cycles": [event.cycles for event in writing.events],
        "statistics": writing.statistics.to_json(),
    }


def report(writing: Writing, progress: Progress) -> None:
    """The statistics line, and what the user should know beside it."""
    statistics = writing.statistics
    progress.note(statistics.line())
    for line in why(writing):
        progress.note(line)
    if writing.options.sampling.speculate and not statistics.guessed:
        progress.note("no token was guessed: nothing was said twice, or the device has one column only")
    if statistics.errors:
        progress.note("the core reports " + ", ".join(saturations(statistics.errors))
                      + ": values left their range, the text may differ from the float model's")


def why(writing: Writing) -> list[str]:
    """Lines that say why the text ended where it did, and why sampling is slower than the memory allows."""
    outcome, sampling, seq_len = writing.outcome, writing.options.sampling, writing.backend.config.seq_len
    if outcome is None:
        return []
    lines = {
        Reason.STOP: ["the model ended its text"],
        Reason.LENGTH: [f"it ended because --steps {len(writing.prompt_ids) + writing.options.max_new - 1} was "
                        "reached: raise it for more"],
        Reason.CONTEXT: [f"it ended because the context is full: all {seq_len} positions are used"],
        Reason.ABORT: ["it was stopped"],
    }.get(outcome.reason, [])
    percent = writing.statistics.roofline_percent
    if percent is not None and sampling.temperature and percent < SLOWER_PERCENT:
        lines.append("sampling costs the rest: between two tokens the firmware chooses among the candidates, and the "
                     "memory waits; --temperature 0 needs no choice")
    return lines


def _ids(text: str) -> list[int]:
    try:
        return [int(part) for part in text.replace(",", " ").split()]
    except ValueError:
        raise argparse.ArgumentTypeError(f"token ids are numbers with commas between them, not {text!r}") from None
