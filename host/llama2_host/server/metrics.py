"""What Prometheus reads at /metrics: requests, the queue, and each board's counters."""
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from llama2_host.server.adapter import Board
from llama2_host.server.job import Job
from llama2_host.server.pool import Pool, Seat
from llama2_host.statistics import measure
from llama2_spec.protocol import Stats

PATHS = ("/", "/v1/chat/completions", "/v1/completions", "/v1/models", "/health", "/props", "/tokenize", "/detokenize",
         "/apply-template", "/boards", "/metrics")
FIRST_TOKEN_S = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
disable_created_metrics()      # a series each that says when a counter began: nobody asks for it


def _waiting(seat: Seat) -> int:
    return len(seat.waiting)


def _running(seat: Seat) -> int:
    return len(seat.jobs)


class Metrics:
    """A registry of its own, so that several servers in a process do not meet."""

    def __init__(self, pool: Pool):
        self.pool, self.registry = pool, CollectorRegistry()
        count = lambda name, text, *labels: Counter(f"llama2_{name}", text, labels, registry=self.registry)
        gauge = lambda name, text, *labels: Gauge(f"llama2_{name}", text, labels, registry=self.registry)
        self.requests = count("requests", "answers", "path", "status")
        self.tokens = count("tokens", "tokens generated", "board")
        self.prompt_tokens = count("prompt_tokens", "prompt tokens fed", "board")
        self.cached_tokens = count("cached_prompt_tokens", "prompt tokens that the K/V cache held", "board")
        self.passes = count("passes", "passes over the weights that tokens took", "board")
        self.cycles = count("phase", "cycles and beats of a phase, by the core's counters", "board", "phase", "counter")
        self.cpu = count("cpu_cycles", "cycles of generations in which no command executed", "board")
        self.damaged = count("link_damaged_frames", "frames that arrived damaged at the device", "board")
        self.resent = count("link_resent_tokens", "tokens that the device sent again", "board")
        self.roofline = gauge("roofline_percent", "of what the DRAM could do, in the last generation", "board")
        self.rate = gauge("tokens_per_second", "at the target's clock, in the last generation", "board")
        self.overrun = 0
        gauge("overrun_tokens",
              "most tokens that a board made for a client that had left").set_function(lambda: self.overrun)
        self.first_token = Histogram("llama2_first_token_seconds", "from a request's arrival to its first token",
                                     buckets=FIRST_TOKEN_S, registry=self.registry)
        up, line = gauge("board_up", "1 while the board answers",
                         "board"), gauge("queue_waiting", "requests in line", "board")
        running = gauge("queue_running", "generations that run now", "board")
        for seat in pool.seats:
            name = seat.board.name
            up.labels(name).set_function(partial(getattr, seat, "ready"))
            line.labels(name).set_function(partial(_waiting, seat))
            running.labels(name).set_function(partial(_running, seat))
        for name, text in (("refused", "requests refused because the line was full"),
                           ("aborted", "requests whose client left"),
                           ("lost", "times a board was lost")):
            gauge(f"{name}_total", text).set_function(partial(getattr, pool, name))
        self._links: dict[str, tuple[int, int]] = {}
        pool.finished = self.finished

    def seen(self, path: str, status: int) -> None:
        """One answer. Paths that do not exist share a name: strangers must not fill the memory."""
        self.requests.labels(path if path in PATHS else "/page" if path.startswith("/page/") else "other",
                             str(status)).inc()

    def finished(self, board: Board, job: Job) -> None:
        """A board did a job."""
        self.overrun = max(self.overrun, job.overrun if job.cancelled else 0)
        self.tokens.labels(board.name).inc(len(job.events))
        self.prompt_tokens.labels(board.name).inc(len(job.ids) - job.cached)
        self.cached_tokens.labels(board.name).inc(job.cached)
        if job.events:
            self.first_token.observe(max(job.first_s - job.created_s, 0.0))
        hardware = job.hardware
        if hardware is None or board.stats is None or board.backend is None:
            return
        self.passes.labels(board.name).inc(hardware.passes)
        self.cpu.labels(board.name).inc(hardware.cpu_cycles)
        for phase, counters in hardware.phases.items():
            for name, value in counters.items():
                self.cycles.labels(board.name, phase, name).inc(value)
        self._link(board.name, board.stats)
        statistics = measure(job.events, prompt_tokens=len(job.ids), wall_s=0.0, clock_hz=board.backend.clock_hz,
                             useful_beats=board.backend.useful_beats)
        if statistics.roofline_percent is not None and statistics.tokens_per_s is not None:
            self.roofline.labels(board.name).set(statistics.roofline_percent)
            self.rate.labels(board.name).set(statistics.tokens_per_s)

    def _link(self, name: str, stats: Stats) -> None:
        """These two count since the device's boot, and so begin anew with it."""
        now = stats.link_damaged, stats.resent
        before = self._links.get(name, (0, 0))
        for counter, value, old in zip((self.damaged, self.resent), now, before):
            counter.labels(name).inc(value - old if value >= old else value)
        self._links[name] = now

    def text(self) -> bytes:
        return generate_latest(self.registry)
