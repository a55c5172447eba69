"""The findings, step by step: as text that can be pasted into an issue, and as JSON."""
from dataclasses import dataclass, field
from enum import Enum


class Verdict(Enum):
    """The result of a step."""
    OK = "ok"
    WARNING = "warning"     #: it works, and something is not as it should be
    FAILED = "failed"
    SKIPPED = "skipped"     #: not done; the text says why


@dataclass
class Step:
    """One step of the examination. ``fault`` names the fault in a word, for programs; ``advice`` says what to try."""
    name: str
    verdict: Verdict
    text: str
    fault: str | None = None
    advice: str | None = None
    data: dict = field(default_factory=dict)
    details: list[str] = field(default_factory=list)

    def to_json(self) -> dict:
        return {"name": self.name, "verdict": self.verdict.value, "text": self.text, "fault": self.fault,
                "advice": self.advice,
                "data": self.data}

    def lines(self) -> list[str]:
        """For people."""
        first = f"{self.verdict.value:<8}{self.name:<14}{self.text}"
        indent = " " * 22
        return [first, *(indent + line for line in self.details),
                *([f"{indent}try: {self.advice}"] if self.advice else [])]


@dataclass
class Report:
    """All steps, in their order. ``heading`` says who looked at what, ``simulated`` whether it is hardware."""
    heading: str
    simulated: bool = False
    steps: list[Step] = field(default_factory=list)

    def add(self, step: Step) -> Step:
        self.steps.append(step)
        return step

    @property
    def failed(self) -> bool:
        return any(step.verdict == Verdict.FAILED for step in self.steps)

    @property
    def faults(self) -> list[str]:
        return [step.fault for step in self.steps if step.fault]

    def to_json(self) -> dict:
        return {"doctor": self.heading, "simulated": self.simulated, "ok": not self.failed, "faults": self.faults,
                "steps": [step.to_json() for step in self.steps]}

    def end(self) -> str:
        """The last line."""
        what = "the simulated SoC (simulated: no hardware was looked at)" if self.simulated else "the device"
        if self.failed:
            return f"{what} has a fault: {', '.join(self.faults) or 'see above'}"
        warned = [step.name for step in self.steps if step.verdict == Verdict.WARNING]
        return f"{what} is in order" + (f", but see {', '.join(warned)}" if warned else "")


def ok(name: str, text: str, **more) -> Step:
    return Step(name, Verdict.OK, text, **more)


def warning(name: str, text: str, fault: str, **more) -> Step:
    return Step(name, Verdict.WARNING, text, fault, **more)


def failed(name: str, text: str, fault: str, **more) -> Step:
    return Step(name, Verdict.FAILED, text, fault, **more)


def skipped(name: str, text: str, **more) -> Step:
    return Step(name, Verdict.SKIPPED, text, **more)
