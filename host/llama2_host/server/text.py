"""The text of an answer as it may be shown: whole characters, and never a part of a stop string."""
from collections.abc import Sequence
from dataclasses import dataclass, field

from llama2_host.tokenizer.base import Decoder


@dataclass
class Piece:
    """Text that may be shown now, with what is known of the tokens that begin in it."""
    text: str = ""
    tokens: list = field(default_factory=list)


class TextStream:
    """Feeds tokens to a decoder and holds back what may become a stop string.

    The stop string that is complete first ends the text, whatever the tokens are; ``stopped`` says so. It and what
    follows it are never shown.
    """

    def __init__(self, decoder: Decoder, stops: Sequence[str] = ()):
        self.decoder, self.stops = decoder, tuple(stops)
        self.stopped = False
        self._held = ""
        self._shown = 0                     # characters given out
        self._tokens: list[tuple[int, object]] = []     # those not given out: where in the text each begins

    def feed(self, id: int, about: object = None) -> Piece:
        """One more token; ``about`` goes out with the text that it begins in."""
        self._tokens.append((self._shown + len(self._held), about))
        return self._take(self.decoder.feed(id))

    def silent(self, about: object = None) -> None:
        """A token that has no text, as the one that ends an answer."""
        self._tokens.append((self._shown + len(self._held), about))

    def finish(self) -> Piece:
        """The rest: nothing can become a stop string any more."""
        piece = self._take(self.decoder.finish())
        if self.stopped:
            return piece
        rest, self._held = self._held, ""
        self._shown += len(rest)
        tokens, self._tokens = self._tokens, []
        return Piece(piece.text + rest, piece.tokens + [about for _, about in tokens])

    def _take(self, text: str) -> Piece:
        if self.stopped:
            return Piece()
        before, self._held = len(self._held), self._held + text
        if (cut := self._find(before)) is not None:
            self.stopped, shown, self._held = True, self._held[:cut], ""
        else:
            keep = len(self._held) - self._partial()
            shown, self._held = self._held[:keep], self._held[keep:]
        self._shown += len(shown)
        ready = [about for start, about in self._tokens if start < self._shown]
        self._tokens = [(start, about) for start, about in self._tokens if start >= self._shown]
        return Piece(shown, ready)

    def _find(self, before: int) -> int | None:
        """Where the stop string begins that ends first, the longest of those that end there."""
        found = None
        for stop in self.stops:
            at = self._held.find(stop, max(before - len(stop) + 1, 0))
            if at >= 0 and (found is None or (at + len(stop), at) < found):
                found = at + len(stop), at
        return found[1] if found else None

    def _partial(self) -> int:
        """Length of the longest end that begins a stop string."""
        return max((length for stop in self.stops for length in range(min(len(stop) - 1, len(self._held)), 0, -1)
                    if self._held.endswith(stop[:length])), default=0)
