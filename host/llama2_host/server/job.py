"""One generation on its way from a request to a board and back: what is asked, and a queue of what comes."""
import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from llama2_host.generation import Outcome, Sampling, TokenEvent
from llama2_host.server.errors import ApiError
from llama2_host.server.hardware import Hardware
from llama2_host.server.logprobs import Alternatives
from llama2_host.server.text import Piece, TextStream
from llama2_host.statistics import Statistics
from llama2_spec.protocol import Reason


@dataclass
class Said:
    """What is known of one token."""
    id: int
    logprob: float | None = None
    top: list[tuple[int, float]] = field(default_factory=list)


@dataclass
class Progress:
    """More of an answer; ``tokens`` so far, and the cycle counter at the last of them."""
    piece: Piece
    tokens: int
    cycles: int


@dataclass
class End:
    """The end of an answer: why, and what it cost."""
    piece: Piece
    finish: str                     #: "stop" or "length"
    tokens: int
    cached: int                     #: prompt tokens that the K/V cache held
    prompt_s: float
    predict_s: float
    board: str
    statistics: Statistics | None = None


class Job:
    """What a board does for one request. ``take`` and ``close`` are called by the board's thread, the rest by the
    server's."""

    def __init__(self, ids: Sequence[int], *, max_new: int, sampling: Sampling, stop_ids: tuple[int, ...],
                 text: TextStream,
                 cache: bool = True, logprobs: int | None = None):
        self.ids, self.max_new, self.sampling, self.stop_ids = list(ids), max_new, sampling, stop_ids
        self.text, self.cache, self.logprobs = text, cache, logprobs
        self.cancelled = False          #: nobody waits for it any more
        self.closed = False             #: its end was sent
        self.attempts = 0
        self.overrun = 0                #: tokens that the board made after that
        self.cached = 0
        self.events: list[TokenEvent] = []
        self.hardware: Hardware | None = None       #: where the cycles went, once that is known
        self.created_s = time.monotonic()
        self.started_s = self.first_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Progress | End | ApiError] = asyncio.Queue()

    # For the server ---------------------------------------------------------------------------

    async def next(self) -> Progress | End:
        """What comes next; an :class:`ApiError` if it failed."""
        item = await self._queue.get()
        if isinstance(item, ApiError):
            raise item
        return item

    def fail(self, error: ApiError) -> None:
        """Nothing more comes; called in the server's thread."""
        self.closed = True
        self._queue.put_nowait(error)

    # For the board ----------------------------------------------------------------------------

    @property
    def begun(self) -> bool:
        """Has anything been said? Then it cannot be repeated elsewhere."""
        return bool(self.events)

    def start(self, cached: int) -> None:
        """The board begins, with so many of the prompt's tokens in its cache."""
        self.cached, self.started_s = cached, time.monotonic()

    def take(self, event: TokenEvent, alternatives: Alternatives | None) -> bool:
        """One more token; returns whether the board goes on."""
        if not self.events:
            self.first_s = time.monotonic()
        self.events.append(event)
        self.overrun += self.cancelled
        said = Said(event.token)
        if alternatives is not None:
            said.logprob, said.top = alternatives.of(event.token), alternatives.best(self.logprobs or 0)
        if event.token in self.stop_ids:
            self.text.silent(said)
            return True                 # the device ends by itself
        piece = self.text.feed(event.token, said)
        self._send(Progress(piece, len(self.events), event.cycles))
        return not (self.text.stopped or self.cancelled)

    def close(self, outcome: Outcome | None, board: str, statistics: Statistics | None) -> None:
        """The board is done with it."""
        self.closed = True
        piece = self.text.finish()
        ended = self.text.stopped or outcome is not None and outcome.reason == Reason.STOP
        now = time.monotonic()
        self._send(End(piece, "stop" if ended else "length", len(self.events), self.cached,
                       (self.first_s or now) - self.started_s, now - (self.first_s or now), board, statistics))

    def _send(self, item: Progress | End) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, item)
