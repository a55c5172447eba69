"""Where a generation's cycles went, phase by phase: the difference of the device's counters before and after it."""
from dataclasses import asdict, dataclass

from llama2_host.generation import Outcome
from llama2_host.statistics import WORD32, phase_counters
from llama2_spec.protocol import Stats
from llama2_spec.traffic import BEAT_BYTES


@dataclass(frozen=True)
class Hardware:
    """One generation, its prompt included."""
    cycles: int                             #: from its first pass to its last token
    passes: int                             #: passes over the weights that its tokens took
    prompt_tokens: int
    tokens: int
    phases: dict[str, dict[str, int]]       #: cycles, beats, starved, fenced and stalled of each phase
    cpu_cycles: int                         #: cycles in which no command executed: firmware and the link
    bytes: int                              #: that streamed from DRAM

    def to_json(self) -> dict:
        return asdict(self)


def between(before: Stats, after: Stats, outcome: Outcome) -> Hardware:
    """What happened between two readings, which are 32 bits wide and wrap."""
    old, new = phase_counters(before), phase_counters(after)
    phases = {phase: {name: (value - old[phase][name]) % WORD32 for name, value in named.items()}
              for phase, named in new.items()}
    cycles = (outcome.end_cycles - outcome.start_cycles) % WORD32
    busy = sum(phase["cycles"] for phase in phases.values())
    difference = lambda name: (getattr(after, name) - getattr(before, name)) % WORD32
    return Hardware(cycles, difference("passes"), difference("prompt_tokens"), difference("tokens"), phases,
                    max(cycles - busy, 0), sum(phase["beats"] for phase in phases.values()) * BEAT_BYTES)
