"""A generation's options, events and outcome, which are the same for a device and for the model in this process."""
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from typing import Protocol

from llama2_host.errors import HostError
from llama2_spec.protocol import MAX_HISTORY, MAX_SPECULATE, MAX_STOPS, Reason
from llama2_spec.sampling import MAX_PENALTY, MAX_TEMPERATURE, ONE

MAX_NEW = (1 << 32) - 1 #: tokens of a generation
SEED_STEP = 0x9e3779b97f4a7c15      #: odd, so that no turn's seed comes again; Ref: Steele et al. 2014, Fast splittable
                                    #: PRNGs
COARSE = ONE << 29      #: 1/8 in Q16.48: temperatures from here on are rounded to Q16.16, so that a seed keeps its text
STOP_IDS = (1, 2)       #: BOS and EOS: where llama2.c's story models end


#: What the older of two generations says that were taken in turns
SUPERSEDED = ("this generation was ended by a newer one on the same backend, whose K/V cache holds one text at a time: "
              "take a generation to its end, or open a second backend")


class OptionError(HostError, ValueError):
    """An option outside its range."""


class OptionTypeError(OptionError, TypeError):
    """An option of a wrong type."""


@dataclass(frozen=True)
class Sampling:
    """The options by which the next token is chosen; the defaults are llama2.c's. ``temperature`` 0 is greedy."""
    temperature: float = 1.0
    top_p: float = 0.9                  #: 0 or 1 is off
    top_k: int = 0                      #: 0 is off
    min_p: float = 0.0                  #: 0 is off
    repetition_penalty: float = 1.0     #: 1 is off
    repetition_window: int = 64         #: recent positions that count for the penalty
    seed: int = 1                       #: 0 is another one each time, from the clock, as in llama2.c
    speculate: int = 0                  #: tokens guessed in a pass, at most; greedy only, which it does not change

    def fixed(self) -> dict[str, int]:
        """The fields of a GENERATE request: factors in Q16.16."""
        speculate = _whole("speculate", self.speculate, 0, MAX_SPECULATE + 1)
        temperature = _fixed("temperature", self.temperature, 0, MAX_TEMPERATURE / ONE, ONE << 32)
        if temperature >= COARSE:
            temperature = (temperature + (1 << 31)) >> 32 << 32
        if speculate and (self.temperature or self.repetition_penalty > 1):
            raise OptionError("--speculate verifies guesses by the likeliest token: add --temperature 0 and no "
                              "--repetition-penalty, or leave it out")
        return {
            "temperature": temperature >> 32,
            "temperature_low": temperature & 0xffffffff,
            "top_p": _fixed("top-p", self.top_p, 0, 1),
            "top_k": _whole("top-k", self.top_k, 0, 1 << 31),
            "min_p": _fixed("min-p", self.min_p, 0, 1),
            "repetition_penalty": _fixed("repetition-penalty", self.repetition_penalty, 1, MAX_PENALTY / ONE),
            "repetition_window": _whole("repetition-window", self.repetition_window, 0, MAX_HISTORY + 1),
            "seed": _whole("seed", self.seed, 0, 1 << 64) or time.time_ns() % (1 << 64),
            "speculate": speculate,
        }

    def following(self, turn: int) -> "Sampling":
        """The options for a chat's turn, counted from 0: random numbers differ from turn to turn, and repeat in every
        chat with the same seed other than 0."""
        if not self.seed or not turn:
            return self
        return replace(self, seed=(self.seed + turn * SEED_STEP) % (1 << 64) or 1)


@dataclass(frozen=True)
class TokenEvent:
    """One generated token."""
    index: int      #: counted from 0 in this generation
    position: int   #: its position in the context
    token: int
    cycles: int     #: the device's cycle counter when its last logit was known, modulo 2**32; 0 without a device


@dataclass(frozen=True)
class Outcome:
    """The end of a generation: its reason, and its figures."""
    reason: Reason
    position: int               #: positions now valid in the K/V cache; the last token is not among them
    errors: int = 0             #: sticky error flags of the core
    draws: int = 0              #: tokens that were sampled
    dropped: float = 0.0        #: probability outside the kept candidates, mean per draw
    start_cycles: int = 0
    end_cycles: int = 0
    passes: int = 0             #: passes over the weights that the tokens took; 0 without a device
    guessed: int = 0            #: tokens guessed for these passes


def told(outcome: Outcome | None, events: Sequence[TokenEvent], seq_len: int) -> Outcome | None:
    """An outcome whose reason is the context where that is full: no more tokens were asked for than it had room for."""
    if outcome is not None and outcome.reason == Reason.LENGTH and events and events[-1].position >= seq_len:
        return replace(outcome, reason=Reason.CONTEXT)
    return outcome


class Generation(Protocol):
    """An iterator of :class:`TokenEvent`; ``outcome`` is set once it is exhausted or aborted."""
    outcome: Outcome | None

    def __iter__(self) -> "Generation": ...
    def __next__(self) -> TokenEvent: ...

    def abort(self) -> list[TokenEvent]:
        """End it now; the tokens that were already under way."""


@dataclass(frozen=True)
class Options:
    """A whole GENERATE: where, how many, how, and until which ids."""
    position: int = 0
    max_new: int = 256
    sampling: Sampling = field(default_factory=Sampling)
    stops: tuple[int, ...] = STOP_IDS

    def check(self, ids: Sequence[int], flags: int = 0) -> None:
        """Raise :class:`OptionError` for what no backend can take as a request with these new ``ids``."""
        if not isinstance(self.sampling, Sampling):
            raise OptionTypeError(f"sampling is a Sampling, not {self.sampling!r}")
        _whole("position", self.position, 0, MAX_NEW + 1)
        _whole("max-new", self.max_new, 0, MAX_NEW + 1)
        _whole("flags", flags, 0, MAX_NEW + 1)
        check_ids("ids", ids)
        check_ids("stops", self.stops)
        if not len(ids):
            raise OptionError("a generation needs at least one token id")
        if len(self.stops) > MAX_STOPS:
            raise OptionError(
                f"a generation has at most {MAX_STOPS} stop tokens, not {len(self.stops)}: leave some out")


def check_ids(name: str, ids: Sequence[int]) -> None:
    """Raise :class:`OptionError` unless ``ids`` is a sequence of token ids."""
    if (isinstance(ids, (str, bytes, bytearray, memoryview)) or not isinstance(ids, Sequence)
        and not hasattr(ids, "__array__")):
        raise OptionTypeError(f"{name} is a sequence of token ids, not {type(ids).__name__}")
    for id in ids:
        if isinstance(id, bool) or not isinstance(id, Integral):
            raise OptionTypeError(f"{name} are whole numbers, not {id!r}")
        if not 0 <= id <= MAX_NEW:
            raise OptionError(f"token id {id} is outside every vocabulary")


def _fixed(name: str, value: float, low: float, high: float, one: int = ONE) -> int:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise OptionTypeError(f"--{name} is a number, not {value!r}")
    if not low <= value <= high:        # also refuses what is not a number
        raise OptionError(f"--{name} is from {low:g} to {high:g}, not {value:g}")
    # Rounding to 0 would switch the option off.
    return max(round(value * one), 1 if value > 0 else 0)


def _whole(name: str, value: int, low: int, end: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise OptionTypeError(f"--{name} is a whole number, not {value!r}")
    if not low <= value < end:
        raise OptionError(f"--{name} is from {low} to {end - 1}, not {value}")
    return int(value)
