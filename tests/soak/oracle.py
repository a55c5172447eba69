"""What a slot's generations are to be: golden and the integer sampler, with the cache and the history of that slot."""
from collections.abc import Sequence
from dataclasses import dataclass

from llama2_host.generation import Options
from llama2_spec.golden import Golden
from llama2_spec.image import Image
from llama2_spec.protocol import MAX_PROMPT, Generate, GenerateFlag, Reason
from llama2_spec.sampling import Sampler


@dataclass(frozen=True)
class Expected:
    """A whole generation. ``logits`` are by position, of all positions that a dump sends."""
    tokens: list[int]
    reason: Reason
    first: int                      #: position of the first token
    logits: dict[int, list[int]]
    draws: int
    dropped: float
    piece: int                      #: position from which on the request's last part was fed

    def position(self, count: int, reason: Reason) -> int:
        """Positions that the cache holds after ``count`` tokens."""
        if count:
            return self.first + count - 1
        return self.piece if reason == Reason.ABORT else self.first


class Slot:
    """One slot of the device, as it is to be."""

    def __init__(self, image: Image, length: int):
        self.length = length
        self.golden = Golden(image)
        self.history: dict[int, int] = {}
        self.rows = 0               #: positions that golden's cache holds and the device's does, too
        self.known = 0              #: of these, those that the device knows of at least
        self.exact = True           #: it knows of no more

    def prefix(self, ids: Sequence[int]) -> None:
        """These tokens' rows are put into the device's memory without its knowledge: no penalty is for them."""
        if len(ids):
            self.golden.prefill(ids, 0)
        self.rows = len(ids)

    def expect(self, ids: Sequence[int], options: Options, flags: int) -> Expected:
        """What the device is to answer to GENERATE; from here on the slot is as after that."""
        sampler = Sampler(Generate(position=options.position, max_new=options.max_new, **options.sampling.fixed()))
        sampler.history = self.history
        for position, token in enumerate(ids, options.position):
            sampler.remember(position, token)
        first = options.position + len(ids)
        dumped = dict(self._prompt(ids, options, bool(flags & GenerateFlag.ALL_LOGITS)))
        tokens, reason, last = [], Reason.LENGTH, dumped.get(first - 1)
        target = min(options.max_new, self.length - first + 1)      # the last one needs no position of its own
        while len(tokens) < target:
            at = first + len(tokens)
            if tokens:
                dumped[at - 1] = last = self.golden.step(tokens[-1], at - 1)
            tokens.append(sampler.choose(at, *last.kept(sampler.scale)) if sampler.wanted else last.argmax)
            sampler.remember(at, tokens[-1])
            if tokens[-1] in options.stops:
                reason = Reason.STOP
                break
            if len(tokens) == target and at == self.length:
                reason = Reason.CONTEXT
        return Expected(tokens, reason, first, {at: one.values.tolist() for at, one in dumped.items()}, sampler.draws,
                        sampler.dropped / 2 ** 32 / sampler.draws if sampler.draws else 0.0,
                        options.position + (len(ids) - 1) // MAX_PROMPT * MAX_PROMPT)

    def _prompt(self, ids, options, every):
        """Logits of the prompt's positions: of all, of the last, or of none where no token follows."""
        if every:
            yield from enumerate(self.golden.logits(ids, options.position), options.position)
        else:
            last = self.golden.prefill(ids, options.position)
            if options.max_new:
                yield options.position + len(ids) - 1, last

    def ended(self, position: int, exact: bool = True) -> None:
        """The device's cache holds these positions now, or these at least."""
        self.rows = self.known = position
        self.exact = exact
