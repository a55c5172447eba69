"""Random generations: prompts, samplers and flags as a client may ask for them."""
from llama2_host.generation import Options, Sampling
from llama2_spec.protocol import MAX_HISTORY, MAX_SPECULATE, GenerateFlag

LONGEST = 260               #: tokens of a prompt: more than one GENERATE takes
TEMPERATURES = (1e-7, 1e-4, .01, .3, .7, 1.0, 1.0, 1.5, 5.0, 100.0)
COUNTS = (1, 2, 5, 10, 20, 30, 60)


def sampling(rng) -> Sampling:
    """Greedy, speculating or sampled, with penalties or without."""
    kind = rng.randrange(8)
    if kind < 2:
        return Sampling(temperature=0, seed=1)
    if kind < 4:
        return Sampling(temperature=0, seed=1, speculate=rng.randint(1, MAX_SPECULATE))
    penalty = rng.choice((1.0, 1.05, 1.3, 2.0, 16.0)) if rng.random() < .6 else 1.0
    return Sampling(temperature=0 if kind == 4 and penalty > 1 else rng.choice(TEMPERATURES),
                    top_p=rng.choice((0, 0, .1, .5, .9, .999, 1)), top_k=rng.choice((0, 0, 0, 1, 3, 12, 64, 5000)),
                    min_p=rng.choice((0, 0, 0, .02, .3, 1)), repetition_penalty=penalty,
                    repetition_window=rng.choice((0, 1, 7, 64, MAX_HISTORY)), seed=rng.getrandbits(64) or 1)


def length(rng, room: int) -> int:
    """Of a prompt: mostly short; sometimes all that there is room for."""
    most = min(room, LONGEST)
    return most if rng.random() < .08 else min(most, 1 + int(rng.random() ** 3 * most))


def position(rng, rows: int) -> int:
    """Where to go on: anew, at the end, or anywhere between."""
    return rng.choice((0, rows, int(rng.random() * (rows + 1))))


def request(rng, slot, vocab_size: int, *, dumps: float):
    """Ids, options and flags of a generation in ``slot``, an oracle's; a share of ``dumps`` hands over its logits."""
    at = min(position(rng, slot.rows), slot.length - 1)
    # A text that repeats gives speculation something to guess.
    phrase = [rng.randrange(vocab_size) for _ in range(rng.choice((3, 9, LONGEST)))]
    ids = [phrase[i % len(phrase)] for i in range(length(rng, slot.length - at))]
    chosen = sampling(rng)
    flags = GenerateFlag(0)
    if rng.random() < dumps and not chosen.speculate:
        flags |= GenerateFlag.DUMP_LOGITS
    if rng.random() < .2 and not chosen.speculate:
        flags |= GenerateFlag.ALL_LOGITS
    if at > slot.known or rng.random() < .05:
        flags |= GenerateFlag.PRELOADED
    stops = tuple(rng.randrange(vocab_size) for _ in range(rng.choice((0, 0, 0, 1, 4))))
    count = 0 if rng.random() < .06 else slot.length if rng.random() < .06 else rng.choice(COUNTS)
    return ids, Options(at, count, chosen, stops), flags
