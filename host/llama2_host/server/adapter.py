"""A board as the server sees it: opens a backend, runs jobs on it, knows what its K/V cache holds. All that depends on
:mod:`llama2_host.backend`, :mod:`llama2_host.connection` and :mod:`llama2_host.device.device` is here."""
import threading
import time
from collections.abc import Callable, Sequence

from llama2_host.backend import Backend
from llama2_host.chat.messages import encode, render
from llama2_host.device.link import DeviceError, LinkError
from llama2_host.device.simulator import SimulatorError
from llama2_host.device.transport import TransportError
from llama2_host.errors import HostError
from llama2_host.generation import Options, Outcome, told
from llama2_host.server.hardware import Hardware, between
from llama2_host.server.job import Job
from llama2_host.server.logprobs import Collector
from llama2_host.statistics import WORD32, Statistics, measure
from llama2_spec.protocol import MAX_PROMPT, GenerateFlag, Reason, Stats, Status, Subject

#: Refusals that mean that the device is no longer what it was: it was reset, or another client uses it.
CHANGED = (Status.NO_MODEL, Status.BAD_POSITION, Status.BUSY, Status.NO_DRAM, Status.BAD_VERSION, Status.FORGOTTEN)


class BoardLost(HostError):
    """The board does not answer, or forgot its model: it has to be opened again."""


class BoardFailed(HostError):
    """The board is there, but this generation failed."""


class Board:
    """One place where the model runs, with as many generations at a time as it has slots. ``run`` is called by a thread
    for each of them, ``open`` and ``close`` while none runs; ``held`` and what is constant by any."""

    def __init__(self, name: str, connect: Callable[[], Backend]):
        self.name, self._connect = name, connect
        self.backend: Backend | None = None
        #: by slot, ids whose rows are in the K/V cache; other threads replace them at any time
        self.held: dict[int, tuple[int, ...]] = {}
        self._accounting = threading.Lock()
        self._accounted_s = 0.0                 # when a generation ended last
        self.hardware: Hardware | None = None   #: of the last generation
        self.stats: Stats | None = None
        self.holds: tuple[int, int] | None = None       #: :func:`identity` of the model that it must hold, once that is
                                                        #: known

    @property
    def slots(self) -> int:
        """Generations at a time."""
        return self.backend.slots if self.backend is not None else 1

    @property
    def live(self) -> Backend:
        """The open backend."""
        if self.backend is None:
            raise BoardLost(f"{self.name} is not open")
        return self.backend

    def open(self) -> Backend:
        """Connect, and put the model there if need be; :class:`BoardLost` if it does not answer or holds another
        model."""
        self.close()
        try:
            backend = self._connect()
        except HostError as error:
            raise BoardLost(str(error)) from error
        self.backend = backend
        try:
            self.holds = self.holds or identity(backend)
            if identity(backend) != self.holds:
                raise BoardLost(f"{self.name} holds another model than the server began with: name one for all with "
                                "--model, or start the server anew")
            self.stats = self._read_stats()
        except HostError as error:
            self.close()
            raise BoardLost(str(error)) from error
        return self.backend

    def close(self) -> None:
        backend, self.backend, self.held = self.backend, None, {}
        if backend is not None:
            try:
                backend.__exit__(None, None, None)
            except (HostError, OSError):
                pass                            # it is gone; closing it can only say so again

    def shared(self, ids: Sequence[int], slot: int | None = None) -> int:
        """How many of ``ids`` the K/V cache holds, in a slot or in the best one; at least one is always fed, for its
        logits."""
        if slot is None:
            return max((self.shared(ids, number) for number in range(self.slots)), default=0)
        held, limit = self.held.get(slot, ()), len(ids) - 1
        return min(next((i for i, (a, b) in enumerate(zip(held, ids)) if a != b), min(len(held), len(ids))), limit)

    def run(self, job: Job, slot: int = 0) -> None:
        """Do one job to its end, its abort or its failure."""
        try:
            self._run(job, slot)
        except (LinkError, TransportError, SimulatorError, OSError) as error:
            self.held[slot] = ()
            raise BoardLost(f"{self.name}: {error}") from error
        except DeviceError as error:
            self.held[slot] = ()
            # It had this slot: somebody divided it anew, or loaded another model.
            changed = error.status in CHANGED or error.error.subject == Subject.SLOT
            raise (BoardLost if changed else BoardFailed)(f"{self.name}: {error}") from error
        except BaseException:
            self.held[slot] = ()
            raise

    def _run(self, job: Job, slot: int) -> None:
        position = self.shared(job.ids, slot) if job.cache else 0
        job.start(position)
        self.held[slot] = tuple(job.ids[:position])     # all that is sure if this fails
        rest = job.ids[position:]
        while len(rest) > MAX_PROMPT and not job.cancelled:
            for _ in self.live.generate(rest[:MAX_PROMPT], Options(position, 0, job.sampling, job.stop_ids),
                                        **in_slot(slot)):
                pass
            position, rest = position + MAX_PROMPT, rest[MAX_PROMPT:]
            self.held[slot] = tuple(job.ids[:position])
        if job.cancelled:
            return
        start_s = time.monotonic()
        outcome = self._generate(job, slot, rest, position)
        if outcome.reason in (Reason.ERROR, Reason.ABORT) and not (job.cancelled or job.text.stopped):
            raise BoardFailed(f"{self.name}: the generation ended by itself ({outcome.reason.name.lower()}, error "
                              f"flags {outcome.errors:#x}): does another client use the board?")
        statistics = self._measure(job, outcome, time.monotonic() - start_s)
        try:
            # before the end is said: who asks then where the cycles went is told of this answer
            job.hardware = self._account(outcome, start_s)
        finally:
            job.close(outcome, self.name, statistics)

    def _generate(self, job: Job, slot: int, ids: list[int], position: int) -> Outcome:
        collector = Collector(self.live.config.vocab_size) if job.logprobs is not None else None
        generation = self.live.generate(ids, Options(position, job.max_new, job.sampling, job.stop_ids),
                                        **self._dump(collector), **in_slot(slot))
        tokens = []
        for event in generation:
            tokens.append(event.token)
            alternatives = collector.at(event.position - 1) if collector else None
            if collector and alternatives is None:
                generation.abort()
                raise BoardFailed(f"{self.name}: logits of position {event.position - 1} were lost on the line: try "
                                  "again")
            if not job.take(event, alternatives):
                late = [event.token for event in generation.abort()]
                job.overrun, tokens = job.overrun + len(late), tokens + late
                break
        outcome = told(generation.outcome, job.events, self.live.config.seq_len)
        if outcome is None:
            raise BoardFailed(f"{self.name}: the generation did not say how it ended: try again")
        # A device may have run ahead of the tokens it sent: never claim more than what is known to be there.
        known = [*job.ids, *tokens]
        self.held[slot] = tuple(known[:min(outcome.position, len(known) - 1)])
        return outcome

    def _dump(self, collector: Collector | None) -> dict:
        if collector is None:
            return {}
        flags = {"flags": GenerateFlag.DUMP_LOGITS} if hasattr(self.live, "device") else {}
        return {"on_logits": collector.take, **flags}

    def _measure(self, job: Job, outcome: Outcome, wall_s: float) -> Statistics:
        return measure(job.events, prompt_tokens=len(job.ids), clock_hz=self.live.clock_hz, wall_s=wall_s,
                       useful_beats=self.live.useful_beats, outcome=outcome)

    def _read_stats(self) -> Stats | None:
        device = getattr(self.backend, "device", None)
        return device.stats() if device is not None else None

    def _account(self, outcome: Outcome, start_s: float) -> Hardware | None:
        """Where the cycles went since the last generation that ended."""
        with self._accounting:
            before, self.stats = self.stats, self._read_stats()
            if before is None or self.stats is None:
                return None
            # The counters begin where the last generation ended, which may be in the middle of this one.
            alone = self._accounted_s <= start_s
            since, until = ((outcome.start_cycles, outcome.end_cycles) if alone
                            else (before.cycles, self.stats.cycles))
            self.hardware = between(before, self.stats, (until - since) % WORD32)
            self._accounted_s = time.monotonic()
            return self.hardware


def in_slot(slot: int) -> dict:
    """The argument of a backend that has several."""
    return {"slot": slot} if slot else {}


def identity(backend: Backend) -> tuple[int, int]:
    """What tells two models apart: a device says it of what its memory holds."""
    holder = getattr(backend, "device", None)
    holder = backend.model if holder is None else holder.info
    return holder.header_crc, holder.payload_crc


class Words:
    """The model's tokenizer and chat template, for several threads."""

    def __init__(self, backend: Backend):
        self.config, self.tokenizer, self.template = backend.config, backend.tokenizer, backend.model.template
        self.start_id = backend.start_id
        self.stop_ids = tuple(self.template.stops)
        pieces = [self.tokenizer.piece(id, False) for id in range(self.tokenizer.vocab_size)]
        self.longest_bytes = max([len(piece) for piece in pieces] +
                                 [len(text.encode()) for text in self.tokenizer.specials])
        self._jinja = threading.Lock()          # templates are rendered by one process, a question at a time

    def piece(self, id: int) -> bytes:
        """What a token adds to a text; a special token as it is written."""
        for text, special in self.tokenizer.specials.items():
            if special == id:
                return text.encode()
        return self.tokenizer.piece(id, False)

    def render(self, messages: list[dict[str, str]]) -> str:
        """A conversation as text, BOS left out where the template does not write it."""
        with self._jinja:
            return render(messages, self.template, self.tokenizer)

    def chat_ids(self, messages: list[dict[str, str]]) -> list[int]:
        """A conversation as ids: those that ``llama2-host chat`` feeds."""
        with self._jinja:
            return encode(messages, self.template, self.tokenizer) or [self.start_id]
