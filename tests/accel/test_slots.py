"""Steps whose columns belong to different slots: results, logits and K/V rows equal those of a golden for each slot."""
import random

import pytest

from accel.core import Core
from llama2_spec.model import KvFormat, ModelConfig
from llama2_spec.program import runs
from llama2_spec.registers import Window
from tests.accel.decoder import mixed, random_image, run
from tests.accel.steps import Slots, Step, check, idle, prompt, push

SMALL = dict(max_dim=64, max_hidden_dim=64, max_kv_dim=64, max_heads=8)
TINY = dict(dim=16, hidden_dim=20, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, vocab_size=10, seq_len=48)


def decode(image, columns, steps, *, maxima=None, **dram):
    """Run ``steps``, each ((slot, position) pairs, first column with a result); what a slot is to hold before its first
    step is put into DRAM."""
    rng, places = random.Random(1), [pair for pairs, _ in steps for pair in pairs]
    slots, dut = Slots(image, 1 + max(places)[0]), Core(columns=columns, **{**SMALL, **(maxima or {})})
    vocab = image.config.vocab_size

    async def body(driver, memory):
        for slot in range(slots.count):
            begin = min((position for s, position in places if s == slot), default=0)
            slots.begin(slot, [rng.randrange(vocab) for _ in range(begin)], memory)
        for pairs, first in steps:
            tokens = [rng.randrange(vocab) for _ in pairs]
            step = Step(pairs, first, dump=first == len(pairs) - 1)
            expected = slots.step(tokens, pairs)
            await push(driver, image, step, tokens)
            await check(driver, step, expected)
        await idle(driver)
    memory = run(dut, image, body, deadline=40_000, **dram)     # some 4,000 a step
    slots.check_cache(memory, [1 + max((p for s, p in places if s == slot), default=-1) for slot in range(slots.count)])


CASES = {
    # a prompt; decoding beside the first token of another; one alone, on which both columns work
    "2 columns": (2, "q8", [(prompt(0, 0, 2), 1), ([(1, 0), (0, 2)], 0), ([(1, 1)], 0)]),
    # four slots at equal positions, at the first and far apart; decoding beside a prompt; two prompts
    "4 columns": (4, "q4", [([(0, 3), (1, 3), (2, 36), (3, 0)], 1), ([(2, 37), *prompt(3, 1, 3)], 3),
                            ([*prompt(1, 4, 2), (0, 4)], 1)]),
}


@pytest.mark.parametrize("columns, format, steps", CASES.values(), ids=CASES)
def test_columns_are_one_by_one(columns, format, steps):
    """However slots and positions share columns, each has the results, logits and K/V rows that it has alone."""
    decode(random_image(ModelConfig(**TINY), 3, format), columns, steps,
           maxima=dict(max_kv_dim=1024))        # a row takes more than 256 beats


def interleaved(rng, columns, slots, count):
    """Steps as they come when ``slots`` sequences wait for their turn, with prompts and with single tokens."""
    positions, steps = [rng.choice([0, 3, 36]) for _ in range(slots)], []
    for _ in range(count):
        pairs, ready = [], rng.sample(range(slots), slots)
        while ready and len(pairs) < columns:
            slot = ready.pop()
            added = prompt(slot, positions[slot], rng.choice([1, 1, rng.randint(1, columns - len(pairs))]))
            positions[slot] += len(added)
            pairs += added
        steps.append((pairs, rng.choice([len(pairs) - 1, rng.randrange(len(pairs))])))
    return steps


def test_interleaved_sequences(columns=4, kv=KvFormat.K8V8, seed=1, count=2):
    """More sequences than columns, in an order by chance; the writes of their rows are slow."""
    steps = interleaved(random.Random(seed), columns, columns + 1, count)
    assert max(len(runs(pairs)) for pairs, _ in steps) == columns
    decode(random_image(ModelConfig(**TINY, kv=kv), seed), columns, steps, stall=0.1, write_stall=0.8)


def test_a_row_whose_run_waits_is_not_read_before_it_is_written():
    """The next step is pushed before its tokens are known, so its K/V rows could be read ahead; both slots' runs of the
    one layer are still on their way to a slow DRAM, and the cache is poisoned."""
    image = random_image(ModelConfig(**{**TINY, "n_layers": 1}), 2)
    slots, dut, tokens = Slots(image, 2), Core(columns=2, **SMALL), [3, 7, 1, 5]
    steps = [[(slot, position) for slot in (0, 1)] for position in range(2)]

    async def body(driver, memory):
        for pairs in steps:
            for command in mixed(image, [0, 0], pairs, first=0, awaited=True):
                await driver.push(command)
        for i, pairs in enumerate(steps):
            chosen = tokens[2 * i:2 * i + 2]
            for column, token in enumerate(chosen):
                await driver.write(Window.TOKEN + 4 * column, token)
            expected = [logits.argmax for logits in slots.step(chosen, pairs)]
            assert [(await driver.result())["token"] for _ in pairs] == expected, f"step {i}"
        await driver.ctx.tick().until(~dut.csr.status.busy)
    slots.check_cache(run(dut, image, body, write_stall=0.95), [2, 2])
