"""Boards with a bounded line of jobs before each: who gets a job, what happens when a board dies, and how it comes
back."""
import asyncio
import math
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from llama2_host.errors import HostError
from llama2_host.server.adapter import Board, BoardLost
from llama2_host.server.errors import ApiError
from llama2_host.server.job import Job
from llama2_spec.protocol import MAX_SLOTS

MAX_ATTEMPTS = 2            #: a job that has said nothing yet is repeated once
DEVOTION = 2                #: a board that holds most of a prompt gets it unless so many more wait there than elsewhere
FIRST_RETRY_S, LAST_RETRY_S = 0.5, 10.0     #: between looks for a board that was lost
USUAL_S = 0.8               #: weight of earlier jobs in the mean duration


@dataclass
class Seat:
    """A board, its line, and a thread for each of its slots."""
    board: Board
    waiting: deque[Job] = field(default_factory=deque)
    jobs: dict[int, Job] = field(default_factory=dict)              #: those that run, by slot
    used: dict[int, float] = field(default_factory=dict)            #: when a slot was last given a job or done with it
    ready: bool = True
    orphans: list[Job] = field(default_factory=list)                #: what ran when the board was lost
    loss: BoardLost | None = None
    trouble: str = ""               #: why it could not be opened when it was last looked for
    used_s: float = 0.0             #: when it was last given a job
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(MAX_SLOTS))

    @property
    def running(self) -> Job | None:
        """A job that runs, if one does."""
        return next(iter(self.jobs.values()), None)

    @property
    def full(self) -> bool:
        return len(self.jobs) >= self.board.slots

    @property
    def load(self) -> float:
        """Jobs that wait or run, per slot."""
        return (len(self.waiting) + len(self.jobs)) / self.board.slots

    def slot_for(self, job: Job) -> int | None:
        """The slot that holds more than half of the prompt, if it is free; else the free one that was unused longest.
        None: the former is free in a moment, as its answer has been sent."""
        fond = max(range(self.board.slots), key=lambda slot: self.board.shared(job.ids, slot))
        if job.cache and 2 * self.board.shared(job.ids, fond) > len(job.ids):
            if fond not in self.jobs:
                return fond
            if self.jobs[fond].closed:
                return None
        free = [slot for slot in range(self.board.slots) if slot not in self.jobs]
        return min(free, key=lambda slot: self.used.get(slot, 0.0))


class Pool:
    """All boards of a server. Used by the server's thread only; each slot of a board runs in a thread of its own.

    Parameters
    ----------
    boards : sequence of Board
        Those that are open take jobs at once; the others are looked for.
    bound : int
        Jobs that may wait for one board, beside those that run.
    note : callable
        Takes a line for the operator.
    """

    def __init__(self, boards: Sequence[Board], bound: int, note: Callable[[str], None] = lambda line: None):
        self.seats = [Seat(board, ready=board.backend is not None) for board in boards]
        self.bound, self.note = bound, note
        self.refused = self.aborted = self.lost = 0
        self.ending = False             #: the server stops: no more jobs
        self.finished: Callable[[Board, Job], None] = lambda board, job: None       #: told of every job that a board
                                                                                    #: did
        self._usual_s = 1.0
        self._tasks: set[asyncio.Task] = set()

    @property
    def ready(self) -> list[Seat]:
        return [seat for seat in self.seats if seat.ready]

    @property
    def waiting(self) -> int:
        return sum(len(seat.waiting) for seat in self.seats)

    def start(self) -> None:
        self._tasks = {asyncio.create_task(self._serve(seat)) for seat in self.seats}

    def end(self, within_s: float) -> None:
        """Take no more jobs, and none of those that wait; what runs has so long."""
        self._refuse()
        asyncio.get_running_loop().call_later(within_s, self._abort)

    def _abort(self) -> None:
        for seat in self.seats:
            for job in seat.jobs.values():
                job.cancelled = True
                job.fail(self.shutting_down())

    def _refuse(self) -> None:
        self.ending = True
        for seat in self.seats:
            for job in seat.waiting:
                job.fail(self.shutting_down())
            seat.waiting.clear()

    async def stop(self) -> None:
        """Abort what runs, refuse what waits, close the boards."""
        self._refuse()
        self._abort()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(seat.threads, seat.board.close) for seat in self.seats))
        for seat in self.seats:
            seat.threads.shutdown()

    # Jobs -------------------------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Put a job in a line; 429 if the lines are full, 503 if no board is there or the server ends."""
        if self.ending:
            raise self.shutting_down()
        seat = self._choose(job)
        if len(seat.jobs) + len(seat.waiting) >= seat.board.slots + self.bound:
            self.refused += 1
            raise ApiError(429, f"{self.waiting} requests wait already: try again later", code="queue_full",
                           retry_after_s=self._patience_s(seat))
        self._enqueue(seat, job)

    def cancel(self, job: Job) -> None:
        """Nobody waits for it any more: leave the line, or stop at the next token."""
        if not job.cancelled and not job.closed:
            self.aborted += 1
        job.cancelled = True
        for seat in self.seats:
            if job in seat.waiting:
                seat.waiting.remove(job)

    def _enqueue(self, seat: Seat, job: Job) -> None:
        seat.waiting.append(job)
        seat.used_s = time.monotonic()
        seat.wake.set()

    def _choose(self, job: Job) -> Seat:
        """The board that holds more than half of the prompt, unless it is much busier; else the least busy one, and of
        equals the one that was idle longest, so that a conversation's rows live long."""
        if not self.ready:
            raise self.no_board()
        idlest = min(self.ready, key=lambda seat: (seat.load, seat.used_s))
        if not job.cache:
            return idlest
        fond = max(self.ready, key=lambda seat: (seat.board.shared(job.ids), -seat.load))
        held = fond.board.shared(job.ids)
        return fond if 2 * held > len(job.ids) and fond.load < idlest.load + DEVOTION else idlest

    def _patience_s(self, seat: Seat) -> int:
        return min(max(math.ceil(self._usual_s * seat.load), 1), 60)

    @staticmethod
    def shutting_down() -> ApiError:
        return ApiError(503, "the server is shutting down: try again later", code="shutting_down",
                        retry_after_s=math.ceil(LAST_RETRY_S))

    @staticmethod
    def no_board() -> ApiError:
        return ApiError(503, "no board answers: the server looks for it, try again later", code="no_board",
                        retry_after_s=math.ceil(LAST_RETRY_S))

    # Boards -----------------------------------------------------------------------------------

    async def _serve(self, seat: Seat) -> None:
        """One board's life."""
        while True:
            if not seat.ready and not seat.jobs:
                await self._bring_back(seat)
            while seat.ready and seat.waiting and not seat.full:
                slot = seat.slot_for(seat.waiting[0])
                if slot is None:
                    break
                self._start(seat, slot, seat.waiting.popleft())
            seat.wake.clear()
            await seat.wake.wait()

    def _start(self, seat: Seat, slot: int, job: Job) -> None:
        seat.jobs[slot], seat.used[slot] = job, time.monotonic()
        task = asyncio.create_task(self._do(seat, slot, job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _do(self, seat: Seat, slot: int, job: Job) -> None:
        """A job from its start to its end in a slot."""
        start_s = time.monotonic()
        job.attempts += 1
        try:
            if await self._run(seat, slot, job):
                self._usual_s = USUAL_S * self._usual_s + (1 - USUAL_S) * (time.monotonic() - start_s)
                self.finished(seat.board, job)
        finally:
            seat.used[slot] = time.monotonic()
            del seat.jobs[slot]
            seat.wake.set()

    async def _run(self, seat: Seat, slot: int, job: Job) -> bool:
        """Whether the board did it, well or not; otherwise it was lost, or the server ends."""
        work = asyncio.get_running_loop().run_in_executor(seat.threads, seat.board.run, job, slot)
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:      # the server stops: let the board end its token
            job.cancelled = True
            await asyncio.wait([work])
            job.fail(self.shutting_down())
            raise
        except BoardLost as error:
            self._lose(seat, job, error)
            return False
        except HostError as error:
            self.note(str(error))
            job.fail(ApiError(503, str(error), code="generation_failed"))
        except Exception as error:          # a bug here must not take the board out of service
            traceback.print_exc(file=sys.stderr)
            job.fail(ApiError(500, f"the server failed: {type(error).__name__}", code="internal_error"))
        return True

    def _lose(self, seat: Seat, job: Job, error: BoardLost) -> None:
        """A board died, or was reset: take it out. What else runs there will see it by itself."""
        seat.orphans.append(job)
        if seat.loss is None:
            self.note(f"{error}: taken out")
            self.lost += 1
            seat.ready, seat.loss = False, error

    async def _bring_back(self, seat: Seat) -> None:
        """Repeat a lost board's jobs elsewhere where nothing was said yet, and look for it until it is back."""
        if seat.loss is not None:
            if not self.ready and await self._reopen(seat):     # perhaps it was only reset
                seat.ready = True
            orphans, error = [*seat.orphans, *seat.waiting], seat.loss
            seat.loss = None
            seat.orphans.clear()
            seat.waiting.clear()
            for orphan in orphans:
                self._rehome(orphan, error)
        if not seat.ready:
            await self._find(seat)

    def _rehome(self, job: Job, error: BoardLost) -> None:
        if job.closed or job.cancelled:
            return
        if job.begun:
            job.fail(ApiError(503, f"the board was lost in the middle of the answer: {error}", code="board_lost"))
        elif job.attempts >= MAX_ATTEMPTS or not self.ready:
            job.fail(ApiError(503, f"the board was lost: {error}", code="board_lost",
                              retry_after_s=math.ceil(LAST_RETRY_S)))
        else:
            self._enqueue(self._choose(job), job)

    async def _find(self, seat: Seat) -> None:
        """Look for a lost board until it is back."""
        pause_s = FIRST_RETRY_S
        while not await self._reopen(seat):
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LAST_RETRY_S)
        seat.ready = True
        self.note(f"{seat.board.name}: back again")

    async def _reopen(self, seat: Seat) -> bool:
        try:
            await asyncio.get_running_loop().run_in_executor(seat.threads, seat.board.open)
            seat.trouble = ""
            return True
        except (HostError, OSError) as error:
            if str(error) != seat.trouble:          # said once, not at every look
                seat.trouble = str(error)
                self.note(f"{seat.board.name}: {error}")
            return False
