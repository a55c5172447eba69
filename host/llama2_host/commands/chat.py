"""Talk with the model, turn by turn; its K/V cache is kept, so that only new tokens are sent."""
import argparse
import sys
from contextlib import nullcontext

from llama2_host.backend import Backend
from llama2_host.chat import keyboard, saved
from llama2_host.chat.chat import COMMANDS, Chat
from llama2_host.commands import options
from llama2_host.connection import RECONNECT_S
from llama2_host.errors import HostError
from llama2_host.generation import Sampling
from llama2_host.progress import Progress
from llama2_host.prompt import readable
from llama2_host.chat.template import PLAIN
from llama2_host.terminal import is_terminal, line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_device(parser)
    options.add_model(parser)
    options.add_sampling(parser)
    parser.add_argument("-y", "--system", help="system prompt, for templates that have one")
    parser.add_argument("-i", "--prompt", help="the first turn")
    parser.add_argument("-n", "--steps", type=int, default=256, metavar="N",
                        help="longest answer, in tokens (default %(default)s)")
    parser.add_argument("--load", metavar="FILE", help="go on with a conversation that /save kept")
    options.add_raw(parser)


def run(args: argparse.Namespace) -> int:
    progress = Progress.stderr()
    sampling = Sampling(**options.sampling(args))
    options.check(args)
    if args.steps < 1:
        raise HostError(f"--steps is at least 1, not {args.steps}")
    with options.open_backend(args, progress) as backend:
        _ = backend.tokenizer               # complains before the first line is typed
        chat = Chat(backend, sampling=sampling, max_new=args.steps, progress=progress, raw=args.raw,
                    system=readable(args.system) if args.system is not None else None,
                    reconnect=(lambda: options.open_backend(args, progress, wait_s=RECONNECT_S)) if args.port else None)
        progress.note(banner(backend))
        try:
            if args.load is not None:
                saved.load(chat.conversation, args.load)
                progress.note(f"the conversation of {args.load} goes on")
            typed = is_terminal(sys.stdin)
            with keyboard.reading(COMMANDS, progress) if typed else nullcontext(_read_silently) as read:
                if args.prompt:
                    chat.handle(readable(args.prompt))
                chat.run(read)
        finally:
            chat.conversation.backend.close()
    return 0


def banner(backend: Backend) -> str:
    """A line that introduces the model: its name, its place, its context and its kind."""
    model = backend.model
    name = model.image.provenance or "a model of unknown origin"
    device = getattr(backend, "device", None)
    where = {"golden": "in this process", "simulator": "in the simulated SoC"}.get(backend.name) or \
        f"on {device.info.firmware or 'a device'}" if device else "in this process"
    plain = model.template == PLAIN.resolved(model.tokenizer)
    kind = "a story model: it continues what you write, and answers no questions" if plain \
        else f"its turns are written as its template says ({model.template.name})"
    return f"{line(name)} {line(where)}, {backend.config.seq_len} positions: {kind}"


def _read_silently(_: str) -> str:
    """A line from a file or pipe, without a prompt on stdout."""
    text = sys.stdin.readline()
    if not text:
        raise EOFError
    return text
