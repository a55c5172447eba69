"""The sampler in integers: which token follows, from the logit unit's candidates and the whole vocabulary's mass.

Normative: firmware/sampler.c does the same, bit for bit. Options are those of a GENERATE request, in Q16.16.

The candidates, at most MAX_CANDIDATES, are the largest logits. The steps, in this order:

1. Repetition penalty: the logit of a candidate that occurs among the last ``repetition_window`` positions is multiplied
by
   the penalty if negative, by its reciprocal if positive. Only candidates are penalised, and their share of the mass.
2. Candidates are ordered by logit, the lower id first on a tie. Temperature 0 takes the first.
3. Probabilities are shares of the whole vocabulary's mass, not of what is left of it. ``top_k``, ``top_p`` and
``min_p``
   each keep the beginning of the order, and so all of them the shortest: k tokens; up to and with the token that
   reaches top_p; tokens not less likely than min_p times the first.
4. One random number of 24 bits (xorshift64*, as llama2.c draws it) chooses among what is kept, in proportion.

Where the penalty takes the first place from a token, the weights are taken anew, relative to the token that has it
then: at a low temperature all of them would else be 0.

A low temperature takes logit / temperature beyond the core's 32 bits (from .001 on where the largest logit is 22.7),
and the core's mass means nothing then. Weights are so few powers of two wide there that the candidates hold all that
counts: weights are relative to the largest candidate, in full, and the mass is the candidates'. Below FINEST only equal
logits share.

What this costs against the softmax in real numbers: a weight has 14 bits, so a probability is within 2**-13 of its
value relative to the likeliest token's, and a token less likely than 2**-15 times that is not drawn; log2(e) /
temperature has 16 bits, which stretches differences of logits by at most 2**-15.

What the candidate limit costs: the tokens beyond the candidates cannot be chosen. The probability they had is summed in
``dropped``; it does not change the proportions of the others. A top_p that the candidates together do not reach keeps
all of them.
"""
from llama2_spec.numerics import exp2_weight, logit_scale, logit_to_log2
from llama2_spec.registers import MAX_CANDIDATES

ONE = 1 << 16                    #: 1.0 in Q16.16
MAX_TEMPERATURE = 100 * ONE
MAX_PENALTY = 16 * ONE
FINEST = 1 << 26                 #: lowest temperature that differs from greedy, Q16.48: 2**-22, where one step of a
                                 #: logit is 2**-23
MASS_LIMIT = 1 << 34             #: 2**18 tokens of less than 2**16; the candidates' share is below 2**22
OUTSIDE_LIMIT = 1 << 38          #: of the mass outside the candidates, relative to a penalised first one
OUTSIDE_SHIFT = 20               #: most that it is shifted up
REFERENCE_LOW = -32750           #: between these the core's MAXIMUM is that of the largest logit, and no weight but 0
                                 #: is lost
REFERENCE_HIGH = 32766
NEAR_BITS = 24                   #: candidates further from the largest one than this (64.0) weigh nothing where it is
                                 #: not
NEAR_SHIFT = 6                   #: differences are multiplied by this power of two, the temperature is, too
DROPPED_BITS = 28                #: to which the dropped share is computed
COIN_BITS = 24
MULTIPLIER = 0x2545F4914F6CDD1D  #: of xorshift64*, Ref: Vigna 2016, An experimental exploration of Marsaglia's xorshift
                                 #: generators
WORD64 = (1 << 64) - 1
HISTORY_ALIGN = 2048             #: bytes: no cache line holds rows of the K/V cache, which the core writes, and history


class Xorshift:
    """llama2.c's random numbers."""

    def __init__(self, seed: int):
        self.state = seed or 1   # 0 would stay 0

    def next(self) -> int:
        """32 random bits."""
        self.state ^= self.state >> 12
        self.state ^= self.state << 25 & WORD64
        self.state ^= self.state >> 27
        return (self.state * MULTIPLIER & WORD64) >> 32


def penalised(logit: int, penalty: int) -> int:
    """``logit`` after the repetition penalty, at least 1.0."""
    factor = (1 << 32) // penalty if logit > 0 else penalty
    return max(logit * factor >> 16, -(1 << 31))


class Sampler:
    """Chooses the tokens of one generation.

    ``options`` has the fields of :class:`llama2_spec.protocol.Generate`. Statistics: ``draws``, and ``dropped``, the
    probability outside the candidates summed over the draws, where 2**32 is 1.0.
    """

    def __init__(self, options):
        self.options = options
        self.random = Xorshift(options.seed)
        self.history: dict[int, int] = {}
        self.draws = 0
        self.dropped = 0

    @property
    def penalising(self) -> bool:
        return self.options.repetition_penalty > ONE and self.options.repetition_window > 0

    @property
    def wanted(self) -> bool:
        """False if the argmax is the token."""
        return self.temperature > 0 or self.penalising

    @property
    def temperature(self) -> int:
        """Q16.48."""
        return self.options.temperature << 32 | self.options.temperature_low

    @property
    def scale(self) -> int:
        """The core's LOGIT_SCALE: log2(e) / temperature, of a temperature that it can scale by."""
        whole = max(self.temperature, 1 << 32) if self.temperature else ONE << 32
        return logit_scale(whole >> 32, whole & 0xffffffff)

    def remember(self, position: int, token: int) -> None:
        """The token at a position, for the repetition penalty."""
        self.history[position] = token

    def choose(self, position: int, candidates, mass: int, maximum: int) -> int:
        """The token for ``position``; ``candidates`` are pairs (token, logit)."""
        if not 0 < len(candidates) <= MAX_CANDIDATES:
            raise ValueError(f"1 to {MAX_CANDIDATES} candidates, not {len(candidates)}")
        if not 0 <= mass <= MASS_LIMIT:
            raise ValueError(f"mass {mass} is not below {MASS_LIMIT}")
        recent = set()
        if self.penalising:
            first = max(0, position - self.options.repetition_window)
            recent = {self.history.get(at) for at in range(first, position)}
        logits = [penalised(logit, self.options.repetition_penalty) if token in recent else logit
                  for token, logit in candidates]
        order = sorted(zip(logits, (token for token, _ in candidates)), key=lambda one: (-one[0], one[1]))
        logits = [logit for logit, _ in order]
        if self.temperature == 0:
            return order[0][1]
        self.draws += 1
        if self.options.temperature == 0 or not REFERENCE_LOW < maximum < REFERENCE_HIGH:
            weights = self._near(logits)
            mass = sum(weights)
        else:
            weights, mass = self._against(logits, sum(self._weights([logit for _, logit in candidates], maximum)), mass,
                                          maximum)
        return self._draw([(token, weight) for (_, token), weight in zip(order, weights)], mass)

    def _against(self, logits, kept: int, mass: int, maximum: int) -> tuple[list[int], int]:
        """Weights of ordered logits and the mass, from the core's; counts what is dropped. ``kept``: before the
        penalty."""
        if mass > kept:
            self.dropped += (mass - kept << DROPPED_BITS) // mass << 32 - DROPPED_BITS
        fallen = maximum - int(logit_to_log2(logits[0], self.scale) >> 16) - 1
        if fallen <= 0:
            weights = self._weights(logits, maximum)
            return weights, max(mass - kept + sum(weights), 0)
        weights = self._weights(logits, maximum - fallen)
        outside = min(max(mass - kept, 0) << min(fallen, OUTSIDE_SHIFT), OUTSIDE_LIMIT)
        return weights, outside + sum(weights)

    def _weights(self, logits, maximum: int) -> list[int]:
        return exp2_weight(logit_to_log2(logits, self.scale), maximum).tolist()

    def _near(self, logits) -> list[int]:
        """Weights of ordered logits relative to the first, which has 2**14."""
        scaled = max(self.temperature, FINEST) << NEAR_SHIFT
        scale = logit_scale(scaled >> 32, scaled & 0xffffffff)
        differences = [max(logit - logits[0], -(1 << NEAR_BITS)) << NEAR_SHIFT for logit in logits]
        return exp2_weight(logit_to_log2(differences, scale), 0).tolist()

    def _draw(self, order, mass: int) -> int:
        options, coin = self.options, self.random.next() >> 32 - COIN_BITS
        cut_k = options.top_k or len(order)
        cut_p = options.top_p * mass >> 16 if 0 < options.top_p < ONE else None
        floor = options.min_p * order[0][1] >> 16
        truncating = options.top_k or options.top_p % ONE or options.min_p
        prefix, total = [], 0
        for token, weight in order[:cut_k]:
            if weight < floor:
                break
            prefix.append((token, weight))
            total += weight
            if cut_p is not None and total >= cut_p:
                break
        target = coin * (total if truncating else mass) >> COIN_BITS
        if not truncating and target >= total and total:
            # Beyond the candidates: that range is mapped onto all of them, which keeps their proportions.
            target = (target - total) * total // (mass - total)
        for token, weight in prefix:
            target -= weight
            if target < 0:
                return token
        return order[0][0]
