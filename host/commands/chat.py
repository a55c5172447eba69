"""Talk with the model, turn by turn; its K/V cache is kept, so that only new tokens are sent."""
import argparse
import sys

from host.chat import Chat
from host.commands import options
from host.connection import RECONNECT_S
from host.errors import HostError
from host.generation import Sampling
from host.progress import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_device(parser)
    options.add_model(parser)
    options.add_sampling(parser)
    parser.add_argument("-y", "--system", help="system prompt, for templates that have one")
    parser.add_argument("-i", "--prompt", help="the first turn")
    parser.add_argument("-n", "--steps", type=int, default=256, metavar="N", help="longest answer, in tokens (default %(default)s)")


def run(args: argparse.Namespace) -> int:
    progress = Progress.stderr()
    sampling = Sampling(**options.sampling(args))
    if args.steps < 1:
        raise HostError(f"--steps is at least 1, not {args.steps}")
    _line_editing()
    with options.open_backend(args, progress) as backend:
        backend.tokenizer                   # complains before the first line is typed
        chat = Chat(backend, sampling=sampling, max_new=args.steps, system=args.system, progress=progress,
                    reconnect=(lambda: options.open_backend(args, progress, wait_s=RECONNECT_S)) if args.port else None)
        try:
            if args.prompt:
                chat.handle(args.prompt)
            chat.run(input if sys.stdin.isatty() else _read_silently)
        finally:
            chat.conversation.backend.close()
    return 0


def _read_silently(_: str) -> str:
    """A line from a file or pipe, without a prompt on stdout."""
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line


def _line_editing() -> None:
    try:
        import readline                     # noqa: F401  arrow keys and history for input()
    except ImportError:
        pass                                # not on every system
