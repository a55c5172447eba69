"""Serve the model over HTTP, as OpenAI's clients expect it, with a page to look at."""
import argparse
import threading
import webbrowser
from functools import partial
from pathlib import Path

from llama2_host.backend import Backend
from llama2_host.commands import options
from llama2_host.connection import DEFAULT_SLOTS, DeviceBackend
from llama2_host.image.discovery import default_model
from llama2_host.errors import HostError
from llama2_host.generation import Sampling
from llama2_host.progress import Progress
from llama2_spec.protocol import MAX_SLOTS

DEFAULT_HTTP_PORT = 8080
DEFAULT_QUEUE = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_device(parser, several=True)
    parser.add_argument("--copies", type=int, metavar="N", help="with --sim and --golden: so many of them, as a pool "
                                                                "(default 1)")
    parser.add_argument("--slots", type=int, metavar="N", help="generations that each device runs at a time, each with "
                        f"the model's whole context (default: as many as its memory has room for, at most "
                        f"{DEFAULT_SLOTS})")
    options.add_model(parser)
    options.add_sampling(parser, requests=True)
    group = parser.add_argument_group("the server")
    group.add_argument("--host", default="127.0.0.1", help="address to listen on; any but this machine's own needs "
                                                           "--api-key-file (default %(default)s)")
    group.add_argument("--http-port", type=int, default=DEFAULT_HTTP_PORT, metavar="N",
                       help="0 takes a free one (default %(default)s)")
    group.add_argument("--api-key-file", type=Path, metavar="FILE",
                       help="keys, one a line, of which a request must have one")
    group.add_argument("--allow-host", action="append", default=[], metavar="NAME",
                       help="a name that requests may call this server by, beside localhost and addresses")
    group.add_argument("--cors-origin", action="append", default=[], metavar="URL",
                       help="an origin whose pages may use this server (default: none)")
    group.add_argument("--queue", type=int, default=DEFAULT_QUEUE, metavar="N",
                       help="requests that may wait for one board; more get 429 (default %(default)s)")
    group.add_argument("--model-name", metavar="NAME", help="what clients call the model (default: the file's name)")
    group.add_argument("--open", action="store_true", help="open the page in a browser")


def run(args: argparse.Namespace) -> int:
    try:
        from llama2_host.server import run as server
        from llama2_host.server.adapter import Board, Words
        from llama2_host.server.settings import Settings
    except ModuleNotFoundError as error:
        raise HostError(f"serve needs the package {error.name}: pip install 'llama2-host[server]'") from None
    if not args.port:
        options.find_port(args)
        args.port = [args.port] if args.port else None
    check_options(args)
    progress, settings = Progress.stderr(), Settings(
        model=args.model_name or name_of(args), sampling=Sampling(**options.sampling(args)), bound=args.queue,
        keys=server.read_keys(args.api_key_file) if args.api_key_file else (), names=tuple(args.allow_host),
        origins=tuple(args.cors_origin))
    bound, boards = server.bind(args.host, args.http_port), []
    try:
        if not server.is_loopback(bound) and not settings.keys:
            raise HostError(f"--host {args.host} can be reached from other machines: add --api-key-file FILE with a "
                            "key that clients must have")
        boards = [Board(name, partial(opened, with_port(args, port), progress))
                  for name, port in places(args)]
        open_all(boards, progress)
        words = Words(next(board.backend for board in boards if board.backend))
        server.serve(settings, boards, words, bound, progress.note, show if args.open else lambda url: None)
    finally:
        bound.close()
        for board in boards:
            board.close()                   # a simulator ends with its server, whatever ended that
    return 0


def opened(args: argparse.Namespace, progress: Progress) -> Backend:
    """The backend that the options name, with its slots."""
    backend = options.open_backend(args, progress)
    try:
        if isinstance(backend, DeviceBackend):
            backend.divide(args.slots)
            progress.detail(f"{args.port or backend.name}: {quantity_of(backend.slots, 'slot')} of "
                            f"{backend.device.info.seq_len} positions")
        return backend
    except BaseException:
        backend.__exit__(None, None, None)
        raise


def quantity_of(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def show(url: str) -> None:
    """Open the page; some browsers return only when they are closed."""
    threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()


def check_options(args: argparse.Namespace) -> None:
    """Refuse what cannot be, or has no effect, before a model is loaded."""
    if len(set(args.port or [])) != len(args.port or []):
        raise HostError("the same --port is named twice")
    for _, port in places(args):
        # What requests say of these may give the others an effect.
        options.check(with_port(args, port), temperature=None, repetition_window=None)
    for name, least in (("queue", 0), ("copies", 1), ("slots", 1)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise HostError(f"--{name} is at least {least}, not {value}")
    if (args.slots or 1) > MAX_SLOTS:
        raise HostError(f"--slots is at most {MAX_SLOTS}, not {args.slots}")
    for origin in args.cors_origin:
        if not origin.startswith(("http://", "https://")) or origin.count("/") != 2:
            raise HostError(f"--cors-origin {origin}: expected scheme and host as browsers send them, such as "
                            "https://example.org")


def places(args: argparse.Namespace) -> list[tuple[str, str | None]]:
    """Name and port of each board."""
    if args.port:
        return [(port, port) for port in args.port]
    kind, copies = "simulator" if args.sim else "golden", args.copies or 1
    return [(f"{kind}-{index}" if copies > 1 else kind, None) for index in range(copies)] or [(kind, None)]


def with_port(args: argparse.Namespace, port: str | None) -> argparse.Namespace:
    return argparse.Namespace(**vars(args) | {"port": port})


def name_of(args: argparse.Namespace) -> str:
    """The default name of the model for clients."""
    if args.model is not None:
        return Path(args.model).resolve().stem
    return "device" if args.port else Path(default_model()).stem


def open_all(boards, progress: Progress) -> None:
    """Open every board; at least one must answer, and those that do must hold the same model."""
    from llama2_host.server.adapter import BoardLost, identity
    error, first = None, None
    for board in boards:
        try:
            board.open()
        except BoardLost as lost:
            error = lost
            progress.note(f"{board.name}: {lost}")
            continue
        first = first or board
        if identity(board.backend) != identity(first.backend):
            raise HostError(f"{board.name} and {first.name} hold different models: name one for all with --model")
    if first is None:
        raise HostError(str(error))
    for board in boards:
        board.holds = identity(first.backend)       # those that come later, too
