"""Random decoders on the core alone: a shape, formats, slots and steps by a seed, each result equal to golden's."""
import random
from collections import Counter
from dataclasses import dataclass, replace

from accel.attention.lanes import check_lanes
from llama2_spec.sampling import MAX_TEMPERATURE
from tests.accel.steps import Slots, Step, check, idle, prompt, push
from tests.accel.verilated import VerilatedCore, run
from tests.shapes import Within, random_model, told

MAXIMA = dict(max_dim=256, max_hidden_dim=512, max_kv_dim=256, max_heads=16)
WITHIN = Within(dim=256, hidden_dim=400, kv_dim=256, heads=16, layers=3, vocab_size=2000, seq_len=160, weights=60_000)
STEPS = 14          #: of a seed, at most
AHEAD = 2           #: steps whose results may wait: the window holds a few


def possible(lanes: int, pipes: int) -> bool:
    try:
        check_lanes(lanes, pipes)
    except ValueError:
        return False
    return True


#: Every core that there is, but for its maxima.
CORES = [dict(columns=columns, attention_lanes=lanes, softmax_pipes=pipes, candidate_sets=sets)
         for columns in (1, 2, 4) for sets in sorted({1, columns})
         for lanes in (8, 16, 32) for pipes in (1, 2) if possible(lanes, pipes)]


@dataclass
class Plan:
    """What a seed does, all of it known before."""
    core: dict
    image: object
    formats: str
    begin: list[int]            #: positions that each slot's cache holds at first
    steps: list[Step]
    dram: dict

    def __str__(self) -> str:
        core = ", ".join(f"{name} {value}" for name, value in self.core.items())
        return (f"{told(self.image.config)}, {self.formats}; {core}; {len(self.begin)} slots from {self.begin}, "
                f"{len(self.steps)} steps; DRAM {self.dram}")


def random_step(rng, positions: list[int], columns: int, sets: int, seq_len: int) -> Step | None:
    """Columns for some slots from their ``positions`` on, which go on; None if all are full."""
    pairs: list[tuple[int, int]] = []
    for slot in rng.sample(range(len(positions)), len(positions)):
        room = min(columns - len(pairs), seq_len - positions[slot])
        count = min(room, rng.choice((0, 1, 1, 1, 2, 4)))
        pairs += prompt(slot, positions[slot], count)
        positions[slot] += count
    if not pairs:
        return None
    first = rng.choice((len(pairs) - 1, rng.randrange(len(pairs))))
    results = len(pairs) - first
    keep = rng.random() < .4 and (sets != 1 or results == 1)
    temperature = rng.choice((1, 1 << 10, 1 << 16, rng.randint(1, MAX_TEMPERATURE)))
    return Step(pairs, first, dump=results == 1 and rng.random() < .5, temperature=temperature if keep else 0,
                popped=rng.choice((0, 1, 5, 64)), awaited=rng.random() < .3)


def random_plan(seed: int, cores=CORES) -> Plan:
    """Everything by chance."""
    rng = random.Random(seed)
    core = rng.choice(cores)
    image, formats = random_model(rng, WITHIN)
    length = image.config.seq_len
    begin = [rng.choice((0, rng.randrange(min(length, 9)), rng.randrange(length)))
             for _ in range(rng.randint(1, core["columns"] + 2))]
    positions, steps = list(begin), []
    for _ in range(rng.randint(3, STEPS)):
        step = random_step(rng, positions, core["columns"], core["candidate_sets"], length)
        if step is not None:
            steps.append(step)
    dram = dict(latency=rng.choice((9, 14, 14, 40)), stall=rng.choice((0, 0, .1, .6)),
                write_stall=rng.choice((0, 0, .5, .97)), seed=rng.getrandbits(32))
    return Plan(core, image, formats, begin, steps, dram)


def follows(step: Step, before: Step | None) -> bool:
    """Whether the step's token may be the last argmax: it is one column, behind the only result of the step before."""
    return (before is not None and len(step.pairs) == 1 and len(before.places) == 1
            and before.pairs[-1] == (step.pairs[0][0], step.pairs[0][1] - 1))


def play(plan: Plan, rng) -> Counter:
    """Run the plan on its core; an AssertionError names what is not golden's."""
    dut, slots, counts = VerilatedCore(**plan.core, **MAXIMA), Slots(plan.image, len(plan.begin)), Counter()
    vocab = plan.image.config.vocab_size
    draw = lambda count: [rng.randrange(vocab) for _ in range(count)]

    async def body(driver, memory):
        for slot, held in enumerate(plan.begin):
            slots.begin(slot, draw(held), memory)
        waiting, before, expected = [], None, []    # steps whose results are not taken yet
        for step in plan.steps:
            if follows(step, before) and not step.awaited and rng.random() < .7:
                step = replace(step, chained=True)
            tokens = [expected[-1].argmax] if step.chained else draw(len(step.pairs))
            expected, before = slots.step(tokens, step.pairs), step
            await push(driver, plan.image, step, tokens)
            waiting.append((step, expected))
            # Candidates last until the next classifier, logits hold the core up, and a written token waits for its
            # step.
            if step.temperature or step.dump or step.awaited or len(waiting) == AHEAD or rng.random() < .6:
                while waiting:
                    await check(driver, *waiting.pop(0))
            tally(step)
        while waiting:
            await check(driver, *waiting.pop(0))
        await idle(driver)

    def tally(step):
        counts["steps"] += 1
        counts["columns"] += len(step.pairs)
        counts["results compared"] += len(step.places)
        counts["logits"] += vocab * step.dump
        for name in ("awaited", "chained"):
            counts[f"steps {name}"] += getattr(step, name)
        counts["steps sampled"] += step.temperature != 0
    bench = run(dut, plan.image, body, **plan.dram)
    ends = [1 + max((p for step in plan.steps for s, p in step.pairs if s == slot), default=begin - 1)
            for slot, begin in enumerate(plan.begin)]
    slots.check_cache(bench, ends)
    counts["rows"] += sum(ends) * plan.image.config.n_layers
    counts["cycles"] += bench.cycles
    bench.close()
    return counts


def features(plan: Plan) -> Counter:
    """The plan's place in the tables."""
    config, core = plan.image.config, plan.core
    return Counter({f"columns {core['columns']}": 1, f"lanes {core['attention_lanes']}": 1,
                    f"pipes {core['softmax_pipes']}": 1,
                    f"candidate sets {'of every column' if core['candidate_sets'] == core['columns'] else 'one'}": 1,
                    f"kv {config.kv.name.lower()}": 1, f"format {plan.formats}": 1, f"slots {len(plan.begin)}": 1})
