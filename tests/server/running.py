"""A server in a thread of the test's process, on a free port."""
import asyncio
import select
import subprocess
import threading
from collections.abc import Callable

import httpx

from llama2_host.backend import Backend
from llama2_host.server import run
from llama2_host.server.adapter import Board, Words
from llama2_host.server.pool import Pool
from llama2_host.server.settings import Settings
from tests.waiting import PATIENCE_S


class Running:
    """A context manager; ``connects`` open the boards, in order."""

    def __init__(self, *connects: Callable[[], Backend], **settings):
        # A stream that never ends must end its test: signs of life would keep its reader waiting.
        self.settings = Settings(**{"model": "tiny", "ping_s": 100 * PATIENCE_S} | settings)
        self.boards = [Board(f"board-{index}", connect) for index, connect in enumerate(connects)]
        self.notes: list[str] = []

    def __enter__(self) -> "Running":
        for board in self.boards:
            board.open()
        self.bound = run.bind("127.0.0.1", 0)
        self.url, self.port = run.url(self.bound), self.bound.getsockname()[1]
        listening = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(listening),), daemon=True)
        self._thread.start()
        assert listening.wait(PATIENCE_S)
        self.client = httpx.Client(base_url=self.url, timeout=PATIENCE_S)
        return self

    async def _serve(self, listening: threading.Event) -> None:
        def pool():
            self.pool = Pool(self.boards, self.settings.bound, self.notes.append)
            return self.pool
        self.server = run.create_server(self.settings, pool, Words(self.boards[0].backend), listening.set)
        await self.server.serve(sockets=[self.bound])

    def __exit__(self, *_) -> None:
        self.client.close()
        self.server.should_exit = True
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the server does not stop"
        self.bound.close()

    def chat(self, text: str = "x", **more) -> httpx.Response:
        return self.client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": text}]} | more)

    def complete(self, prompt="x", **more) -> httpx.Response:
        return self.client.post("/v1/completions", json={"prompt": prompt} | more)


def listening_at(process: subprocess.Popen, within_s: float = PATIENCE_S) -> str:
    """The address that a server's process says it listens at, in the first line of its output."""
    assert select.select([process.stdout], [], [], within_s)[0], "the server does not say where it listens"
    line = process.stdout.readline()
    assert line.startswith("listening on "), f"the server says {line!r}"
    return line.removeprefix("listening on ").strip()
