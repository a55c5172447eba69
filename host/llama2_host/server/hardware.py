"""Where cycles went, phase by phase: the difference of the device's counters between two readings."""
from dataclasses import asdict, dataclass

from llama2_host.statistics import WORD32, phase_counters
from llama2_spec.protocol import Stats
from llama2_spec.traffic import BEAT_BYTES


@dataclass(frozen=True)
class Hardware:
    """One generation, its prompt included; where others ended meanwhile, what all did since the last of them ended."""
    cycles: int                             #: from its first pass to its last token, or between these two ends
    passes: int                             #: passes over the weights that its tokens took
    prompt_tokens: int
    tokens: int
    phases: dict[str, dict[str, int]]       #: cycles, beats, starved, fenced and stalled of each phase
    cpu_cycles: int                         #: cycles in which no command executed: firmware and the link
    bytes: int                              #: that streamed from DRAM

    def to_json(self) -> dict:
        return asdict(self)


def between(before: Stats, after: Stats, cycles: int) -> Hardware:
    """What happened between two readings, which are 32 bits wide and wrap, in so many cycles."""
    old, new = phase_counters(before), phase_counters(after)
    phases = {phase: {name: (value - old[phase][name]) % WORD32 for name, value in named.items()}
              for phase, named in new.items()}
    busy = sum(phase["cycles"] for phase in phases.values())
    difference = lambda name: (getattr(after, name) - getattr(before, name)) % WORD32
    return Hardware(cycles, difference("passes"), difference("prompt_tokens"), difference("tokens"), phases,
                    max(cycles - busy, 0), sum(phase["beats"] for phase in phases.values()) * BEAT_BYTES)
