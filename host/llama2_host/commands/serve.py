"""Serve the model over HTTP, as OpenAI's clients expect it, with a page to look at."""
import argparse
import webbrowser
from pathlib import Path

from llama2_host.backend import Backend
from llama2_host.commands import options
from llama2_host.image.discovery import default_model
from llama2_host.errors import HostError
from llama2_host.generation import Sampling
from llama2_host.progress import Progress

DEFAULT_HTTP_PORT = 8080
DEFAULT_QUEUE = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_device(parser, several=True)
    parser.add_argument("--copies", type=int, default=1, metavar="N", help="with --sim and --golden: so many of them, as a pool (default 1)")
    options.add_model(parser)
    options.add_sampling(parser, requests=True)
    group = parser.add_argument_group("the server")
    group.add_argument("--host", default="127.0.0.1", help="address to listen on; any but this machine's own needs --api-key-file (default %(default)s)")
    group.add_argument("--http-port", type=int, default=DEFAULT_HTTP_PORT, metavar="N", help="0 takes a free one (default %(default)s)")
    group.add_argument("--api-key-file", type=Path, metavar="FILE", help="keys, one a line, of which a request must have one")
    group.add_argument("--allow-host", action="append", default=[], metavar="NAME", help="a name that requests may call this server by, beside localhost and addresses")
    group.add_argument("--cors-origin", action="append", default=[], metavar="URL", help="an origin whose pages may use this server (default: none)")
    group.add_argument("--queue", type=int, default=DEFAULT_QUEUE, metavar="N", help="requests that may wait for one board; more get 429 (default %(default)s)")
    group.add_argument("--model-name", metavar="NAME", help="what clients call the model (default: the file's name)")
    group.add_argument("--open", action="store_true", help="open the page in a browser")


def run(args: argparse.Namespace) -> int:
    try:
        from llama2_host.server import run as server
        from llama2_host.server.adapter import Board, Words
        from llama2_host.server.settings import Settings
    except ModuleNotFoundError as error:
        raise HostError(f"serve needs the package {error.name}: pip install 'llama2-host[server]'") from None
    progress, settings = Progress.stderr(), Settings(
        model=args.model_name or name_of(args), sampling=Sampling(**options.sampling(args) | {"seed": 1}), bound=args.queue,
        keys=server.read_keys(args.api_key_file) if args.api_key_file else (), names=tuple(args.allow_host),
        origins=tuple(args.cors_origin))
    bound = server.bind(args.host, args.http_port)
    try:
        check(args, settings, server.is_loopback(bound))
        boards = [Board(name, lambda port=port: options.open_backend(with_port(args, port), progress)) for name, port in places(args)]
        open_all(boards, progress)
        words = Words(next(board.backend for board in boards if board.backend))
        if args.open:
            webbrowser.open(server.url(bound))
        server.serve(settings, boards, words, bound, progress.note)
    finally:
        bound.close()
    return 0


def check(args: argparse.Namespace, settings, loopback: bool) -> None:
    """Refuse what cannot be, or should not, before a model is loaded."""
    if not loopback and not settings.keys:
        raise HostError(f"--host {args.host} can be reached from other machines: add --api-key-file FILE with a key that clients must have")
    if args.queue < 0:
        raise HostError(f"--queue is at least 0, not {args.queue}")
    if args.copies < 1 or args.copies > 1 and not (args.sim or args.golden):
        raise HostError("--copies is at least 1, and for --sim and --golden only: name several boards by several --port")
    if len(set(args.port or [])) != len(args.port or []):
        raise HostError("the same --port is named twice")
    for origin in args.cors_origin:
        if not origin.startswith(("http://", "https://")) or origin.count("/") != 2:
            raise HostError(f"--cors-origin {origin}: expected scheme and host as browsers send them, such as https://example.org")


def places(args: argparse.Namespace) -> list[tuple[str, str | None]]:
    """Name and port of each board."""
    if args.port:
        return [(port, port) for port in args.port]
    kind = "simulator" if args.sim else "golden"
    return [(f"{kind}-{index}" if args.copies > 1 else kind, None) for index in range(args.copies)]


def with_port(args: argparse.Namespace, port: str | None) -> argparse.Namespace:
    return argparse.Namespace(**vars(args) | {"port": port})


def name_of(args: argparse.Namespace) -> str:
    """What clients call the model if it was not said."""
    if args.model is not None:
        return Path(args.model).resolve().stem
    return "device" if args.port else Path(default_model()).stem


def open_all(boards, progress: Progress) -> None:
    """Open every board; at least one must answer, and all must hold the same model."""
    from llama2_host.server.adapter import BoardLost
    error = None
    for board in boards:
        try:
            board.open()
        except BoardLost as lost:
            error = lost
            progress.note(f"{board.name}: {lost}")
    ready = [board for board in boards if board.backend]
    if not ready:
        raise HostError(str(error))
    first = ready[0]
    for board in ready[1:]:
        if identity(board.backend) != identity(first.backend):
            raise HostError(f"{board.name} and {first.name} hold different models: name one for all with --model")


def identity(backend: Backend) -> tuple:
    device = getattr(backend, "device", None)
    return (device.info.header_crc, device.info.payload_crc) if device else (backend.model.header_crc, backend.model.payload_crc)
