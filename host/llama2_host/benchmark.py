"""Measures a backend as llama-bench does: prompts of several lengths (``pp``), and texts of several lengths
(``tg``)."""
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import mean, pstdev

from llama2_host.backend import Backend
from llama2_host.errors import HostError
from llama2_host.generation import Options, Sampling, TokenEvent
from llama2_host.statistics import WORD32, token_cycles
from llama2_spec.traffic import BEAT_BYTES

STRIDE = 7919       #: from one id of a made-up prompt to the next; a prime, so that it visits every id


@dataclass(frozen=True)
class Row:
    """One test. Fields that need a clock are ``None`` for a backend without one, and the rate is then this
    machine's."""
    test: str                           #: pp and its prompt's tokens, tg and its generated ones
    tokens: int
    tokens_per_s: float                 #: at the target's clock; of this machine where ``cycles_per_token`` is None
    deviation: float                    #: of ``tokens_per_s``, over the repetitions
    cycles_per_token: float | None
    bytes_per_token: float | None       #: useful ones
    roofline_percent: float | None      #: of ``tg``: useful bytes over what DRAM could bring in these cycles
    wall_s: float                       #: of all repetitions

    def to_json(self) -> dict:
        return asdict(self)


def prompt_ids(backend: Backend, count: int) -> list[int]:
    """A made-up prompt: the cost of a prompt does not depend on its words."""
    vocab = backend.config.vocab_size
    return [backend.start_id, *((STRIDE * n + 1) % vocab for n in range(1, count))]


def check(prompts: Sequence[int], texts: Sequence[int], repetitions: int, seq_len: int) -> None:
    """Raise one line for a length that the context has no room for."""
    for name, lengths, most in (("--prompt-tokens", prompts, seq_len), ("--tokens", texts, seq_len)):
        for length in lengths:
            least = 1 if name == "--prompt-tokens" else 2       # one token has no distance to another
            if not least <= length <= most:
                raise HostError(f"{name} {length}: expected {least} to {most}, which the model's context has room for")
    if not prompts and not texts:
        raise HostError("nothing is measured: give --prompt-tokens or --tokens a length")
    if repetitions < 1:
        raise HostError(f"--repetitions is at least 1, not {repetitions}")


def run(backend: Backend, prompts: Sequence[int], texts: Sequence[int], repetitions: int,
        watch=lambda row: None) -> list[Row]:
    """All tests, in their order; ``watch(row)`` hears of each when it is over."""
    rows = []
    for length in prompts:
        rows.append(_row(f"pp{length}", length, [_prompt(backend, length) for _ in range(repetitions)], backend))
        watch(rows[-1])
    for length in texts:
        rows.append(_row(f"tg{length}", length, [_text(backend, length) for _ in range(repetitions)], backend))
        watch(rows[-1])
    return rows


@dataclass(frozen=True)
class _Run:
    """The cost of one repetition: the cycles and seconds of ``tokens`` tokens."""
    tokens: int
    wall_s: float
    cycles: int | None
    beats: int


def _generate(backend: Backend, ids: list[int], count: int) -> tuple[list[TokenEvent], int, float, float]:
    """(events, cycle counter at the beginning, seconds to the first token, seconds from there to the last)."""
    start_s = time.monotonic()
    generation = backend.generate(ids, Options(0, count, Sampling(temperature=0), ()))
    events, first_s = [], 0.0
    for event in generation:
        first_s = first_s or time.monotonic() - start_s
        events.append(event)
    start = generation.outcome.start_cycles if generation.outcome else 0
    return events, start, first_s, time.monotonic() - start_s - first_s


def _prompt(backend: Backend, length: int) -> _Run:
    events, start, first_s, _ = _generate(backend, prompt_ids(backend, length), 1)
    return _Run(length, first_s, (events[0].cycles - start) % WORD32 if backend.clock_hz else None, 0)


def _text(backend: Backend, length: int) -> _Run:
    events, _, _, rest_s = _generate(backend, prompt_ids(backend, 1), length)
    beats = sum(backend.useful_beats(event.position - 1) for event in events[1:])
    return _Run(len(events) - 1, rest_s, sum(token_cycles(events)) if backend.clock_hz else None, beats)


def _row(test: str, tokens: int, runs: list[_Run], backend: Backend) -> Row:
    counted = [run.cycles for run in runs if run.cycles]
    rates = [run.tokens * backend.clock_hz / run.cycles if run.cycles else run.tokens / max(run.wall_s, 1e-9)
             for run in runs]
    cycles = mean(count / run.tokens for count, run in zip(counted, runs)) if len(counted) == len(runs) else None
    beats = sum(run.beats for run in runs)
    return Row(test, tokens, mean(rates), pstdev(rates), cycles,
               beats * BEAT_BYTES / sum(run.tokens for run in runs) if beats else None,
               100 * beats / sum(counted) if beats and cycles else None, sum(run.wall_s for run in runs))


def markdown(rows: Sequence[Row], model: str, size: str, backend: str) -> list[str]:
    """A table as llama-bench prints it, with the columns that hardware adds."""
    head = ("model", "size", "backend", "test", "t/s", "cycles/token", "% of roofline", "bytes/token")
    lines = ["| " + " | ".join(head) + " |", "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |"]
    for row in rows:
        cells = (model, size, backend, row.test, f"{row.tokens_per_s:.2f} ± {row.deviation:.2f}",
                 _cell(row.cycles_per_token, ",.0f"),
                 _cell(row.roofline_percent, ".1f"), _cell(row.bytes_per_token, ",.0f"))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
