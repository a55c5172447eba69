"""Prompt lookup: what followed the last tokens when they occurred before, as a guess of what follows now.

Normative for firmware/lookup.c. The guesses decide how many tokens a pass yields, never which ones.

Among the newest LOOKUP_STEPS earlier places of tokens with the last token's head, the one is chosen where most of the
last tokens occurred before, up to LOOKUP_SUFFIX; of equals the newest. What followed there is guessed; past the end of
the history it goes on as it repeated until there. A place that has only the last token alike gives one guess, no more.

Ref: Saxena 2023, Prompt Lookup Decoding.
"""
from llama2_spec.protocol import LOOKUP_HISTORY, LOOKUP_STEPS, LOOKUP_SUFFIX

HEADS = 256


def head(token: int) -> int:
    """Tokens with the same head share one list of places."""
    return (token ^ token >> 8) % HEADS


class Lookup:
    """The latest LOOKUP_HISTORY tokens by position."""

    def __init__(self):
        self.end = 0                        #: position after the last token
        self.tokens: dict[int, int] = {}

    def add(self, token: int) -> None:
        """The token at the position after the last one."""
        self.tokens[self.end] = token
        self.tokens.pop(self.end - LOOKUP_HISTORY, None)
        self.end += 1

    def rewind(self, position: int) -> None:
        """Forget the tokens from ``position`` on, or all of them if those before it are unknown too."""
        known = position <= self.end
        self.tokens = {at: token for at, token in self.tokens.items() if at < position and known}
        self.end = position

    def guess(self, limit: int) -> list[int]:
        """Up to ``limit`` tokens that may follow the last one."""
        last = self.end - 1
        if last not in self.tokens:
            return []
        same = [at for at in range(last - 1, last - LOOKUP_HISTORY, -1)
                if at in self.tokens and head(self.tokens[at]) == head(self.tokens[last])]
        best, length = 0, 0
        for at in same[:LOOKUP_STEPS]:
            n = next((n for n in range(LOOKUP_SUFFIX) if self.tokens.get(at - n) != self.tokens.get(last - n)
                      or at - n not in self.tokens), LOOKUP_SUFFIX)
            if n > length:
                best, length = at, n
        guesses: list[int] = []
        for i in range(min(limit, length) if length < 2 else limit):
            at = best + 1 + i
            guesses.append(self.tokens[at] if at < self.end else guesses[at - self.end])
        return guesses
