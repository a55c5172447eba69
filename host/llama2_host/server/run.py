"""Runs the application on a socket until it is told to stop."""
import asyncio
import ipaddress
import logging
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import uvicorn

from llama2_host.errors import HostError
from llama2_host.server.app import create_app
from llama2_host.server.adapter import Words
from llama2_host.server.http11 import MAX_HEADER_BYTES, Http11
from llama2_host.server.pool import Pool
from llama2_host.server.settings import Settings

SHUTDOWN_S = 5              #: for answers under way, once Ctrl-C is pressed
AFTER_S = 10                #: for what is then said of those that had not ended


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet; port 0 takes a free one."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        return bound
    except (OSError, OverflowError, UnicodeError) as error:
        raise HostError(f"cannot listen on {host} port {port} ({getattr(error, 'strerror', None) or error}): is "
                        "another server there? choose another --http-port, 0 takes a free one") from None


def is_loopback(bound: socket.socket) -> bool:
    return ipaddress.ip_address(bound.getsockname()[0]).is_loopback


def url(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def read_keys(path: Path) -> tuple[str, ...]:
    """API keys, one a line; # begins a comment."""
    try:
        lines = [line.split("#", 1)[0].strip() for line in path.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise HostError(f"--api-key-file {path}: cannot be read ({error})") from None
    keys = tuple(filter(None, lines))
    if not keys or not all(key.isascii() and key.isprintable() and " " not in key for key in keys):
        raise HostError(f"--api-key-file {path}: expected at least one key of printable ASCII without spaces, one a "
                        "line")
    return keys


class Server(uvicorn.Server):
    """Says when it listens, and when it begins to end."""

    def __init__(self, config: uvicorn.Config, listening: Callable[[], None], ending: Callable[[], None]):
        super().__init__(config)
        self._listening, self._ending = listening, ending

    async def startup(self, sockets=None) -> None:
        await super().startup(sockets)
        if self.started:
            self._listening()

    async def shutdown(self, sockets=None) -> None:
        self._ending()
        await super().shutdown(sockets)


def create_server(settings: Settings, pool: Callable[[], Pool], words: Words,
                  listening: Callable[[], None] = lambda: None) -> Server:
    """``pool`` is called in the event loop that it is for."""
    boards = pool()
    app = create_app(settings, boards, words)
    return Server(uvicorn.Config(app, http=Http11, ws="none", loop="asyncio", log_level="warning", access_log=False,
                                 server_header=False, timeout_keep_alive=60,
                                 timeout_graceful_shutdown=SHUTDOWN_S + AFTER_S,
                                 h11_max_incomplete_event_size=MAX_HEADER_BYTES), listening,
                  lambda: boards.end(SHUTDOWN_S))


def serve(settings: Settings, boards, words: Words, bound: socket.socket,
          note=lambda line: print(line, file=sys.stderr),
          listening: Callable[[str], None] = lambda url: None) -> None:
    """Until Ctrl-C or SIGTERM; ``listening`` is told the address once requests are taken."""
    # it warns of clients that leave while something is sent to them
    logging.getLogger("asyncio").setLevel(logging.ERROR)

    def begun():
        print(f"listening on {url(bound)}", flush=True)
        listening(url(bound))

    async def main():
        await create_server(settings, lambda: Pool(boards, settings.bound, note), words, begun).serve(sockets=[bound])
    asyncio.run(main())
