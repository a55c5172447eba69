"""Computes the cost of a generation: cycles per token, tokens/s at the target's clock, and the share of its DRAM's
roofline."""
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from llama2_host.generation import Outcome, TokenEvent
from llama2_spec.protocol import Stats
from llama2_spec.registers import REGISTERS, Counter, Phase
from llama2_spec.traffic import BEAT_BYTES

WORD32 = 1 << 32


@dataclass(frozen=True)
class Statistics:
    """Means over the tokens of one generation. ``None`` where nothing was measured: no device, or a single token."""
    tokens: int                                 #: generated
    prompt_tokens: int                          #: fed, the BOS included
    wall_s: float                               #: of the client's clock, prompt included
    clock_hz: int = 0
    measured: int = 0                           #: differences between consecutive token events in the means below
    cycles_per_token: float | None = None
    tokens_per_s: float | None = None           #: at clock_hz, however slow the simulator is
    bytes_per_token: float | None = None        #: useful ones: weights, scales, K/V rows, one embedding row
    roofline_percent: float | None = None       #: bytes_per_token / 16 / cycles_per_token
    prompt_cycles: int | None = None            #: from the start of the generation to its first token
    dropped: float = 0.0                        #: mean probability outside the sampler's candidates
    errors: int = 0                             #: sticky error flags of the core
    passes: int = 0                             #: passes over the weights that the tokens took
    guessed: int = 0                            #: tokens guessed for them
    tokens_per_pass: float | None = None        #: 1 without speculation

    def line(self) -> str:
        """One line for people."""
        count = f"{self.tokens} tokens"
        if self.cycles_per_token is None:
            return f"{count} in {self.wall_s:.1f} s"
        return (f"{self.tokens_per_s:,.1f} tokens/s at {self.clock_hz / 1e6:g} MHz, "
                f"{self.cycles_per_token:,.0f} cycles/token, {self.roofline_percent:.1f} % of the DRAM roofline"
                f"{self._speculation()} ({count} in {self.wall_s:.1f} s)")

    def _speculation(self) -> str:
        if not self.guessed:
            return ""
        return (f" of one pass a token, {self.tokens_per_pass:.2f} tokens a pass, "
                f"{self.tokens - self.passes:,} of {self.guessed:,} guesses right")

    def to_json(self) -> dict:
        return asdict(self)


def token_cycles(events: Sequence[TokenEvent]) -> list[int]:
    """Cycles between consecutive tokens; the counter is 32 bits wide and wraps every 43 s at 100 MHz."""
    return [(after.cycles - before.cycles) % WORD32 for before, after in zip(events, events[1:])]


def measure(events: Sequence[TokenEvent], *, prompt_tokens: int, wall_s: float, clock_hz: int,
            useful_beats: Callable[[int], int] | None = None, outcome: Outcome | None = None) -> Statistics:
    """Statistics of one generation. ``useful_beats(position)`` are the beats one token at ``position`` has to move."""
    common: dict[str, Any] = {"tokens": len(events), "prompt_tokens": prompt_tokens, "wall_s": wall_s,
                              "clock_hz": clock_hz}
    if outcome is not None:
        common |= {"dropped": outcome.dropped, "errors": outcome.errors, "passes": outcome.passes,
                   "guessed": outcome.guessed,
                   "tokens_per_pass": len(events) / outcome.passes if outcome.passes else None}
    cycles = token_cycles(events)
    if not clock_hz or not cycles or not sum(cycles):
        return Statistics(**common)
    # A token at position p was computed by a pass at position p - 1.
    beats = sum(useful_beats(event.position - 1) for event in events[1:]) if useful_beats else 0
    mean = sum(cycles) / len(cycles)
    return Statistics(
        **common, measured=len(cycles), cycles_per_token=mean, tokens_per_s=clock_hz / mean,
        bytes_per_token=beats * BEAT_BYTES / len(cycles), roofline_percent=100 * beats / sum(cycles),
        prompt_cycles=(events[0].cycles - outcome.start_cycles) % WORD32 if outcome else None)


def saturations(errors: int) -> list[str]:
    """Names of the core's error flags that are set."""
    fields = next(register for register in REGISTERS if register.name == "errors").fields
    return [field.name for bit, field in enumerate(fields) if errors >> bit & 1]


def phase_counters(stats: Stats) -> dict[str, dict[str, int]]:
    """A device's counters by the names of phase and counter."""
    return {phase.name.lower(): {counter.name.lower(): stats.counters[len(Counter) * phase + counter]
                                 for counter in Counter}
            for phase in Phase}
