"""What a device that speculates does in each step, planned by the reference's guesses (:mod:`llama2_spec.lookup`)."""
from llama2_spec.lookup import Lookup


def planned_steps(script, count, *, columns, most, seq_len, position=0, max_new=None, lookup=None):
    """The steps after a prompt of ``count`` tokens at ``position``, as a list of (position, tokens).

    ``script`` holds what the context says, from position 0 to the last token generated. A step's tokens are the last
    one known and its guesses, ``most`` and ``columns - 1`` at most. ``lookup`` is what earlier turns left, and goes on.
    """
    lookup = lookup or Lookup()
    lookup.rewind(position)
    for token in script[position:position + count]:
        lookup.add(token)
    first = position + count
    target = first + min(max_new or seq_len, seq_len - first + 1)
    lookup.add(script[first])
    at, result = first, []                      # at: the last token known
    while at + 1 < target:
        guesses = lookup.guess(min(most, columns - 1, seq_len - at - 1, target - at - 2))
        result.append((at, [script[at], *guesses]))
        right = right_guesses(script, result[-1])
        for token in script[at + 1:at + right + 2]:
            lookup.add(token)
        at += right + 1
    return result


def right_guesses(script, step):
    """How many of a step's guesses come true before the first that does not."""
    at, (_, *guesses) = step
    return next((i for i, guess in enumerate(guesses) if script[at + 1 + i] != guess), len(guesses))
