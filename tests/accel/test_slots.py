"""Steps whose columns belong to different slots: results, logits and K/V rows equal those of a golden for each slot."""
import random
from dataclasses import dataclass, field

import pytest

from accel.core import Core
from llama2_spec.golden import Golden
from llama2_spec.image import row_layout
from llama2_spec.model import KvFormat, ModelConfig
from llama2_spec.program import runs
from llama2_spec.registers import Window
from tests.accel.decoder import kv_row, mixed, preload, random_image, run

SMALL = dict(max_dim=64, max_hidden_dim=64, max_kv_dim=64, max_heads=8)
TINY = dict(dim=16, hidden_dim=20, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, vocab_size=10, seq_len=48)


@dataclass
class Slots:
    """A golden for each slot, and what a core is to have done after the steps it was given."""
    image: object
    count: int
    goldens: list = field(init=False)
    rows: int = 0           #: of one layer, written so far

    def __post_init__(self):
        self.goldens = [Golden(self.image) for _ in range(self.count)]

    def step(self, tokens, columns):
        """Each column's logits."""
        self.rows += len(columns)
        return [self.goldens[slot].step(token, position) for token, (slot, position) in zip(tokens, columns)]

    def check_cache(self, memory, lengths):
        """Every row is golden's, and so many were written as there were columns."""
        config = self.image.config
        for slot, length in enumerate(lengths):
            for layer in range(config.n_layers):
                for position in range(length):
                    expected = self.goldens[slot].kv_row(layer, position)
                    assert kv_row(memory, config, slot, layer, position) == expected, (slot, layer, position)
        assert len(memory.written) == self.rows * config.n_layers * row_layout(config)[1]


def decode(image, columns, steps, *, maxima=None, **dram):
    """Run ``steps``, each ((slot, position) pairs, first column with a result); what a slot is to hold before its first
    step is put into DRAM."""
    rng, places = random.Random(1), [pair for pairs, _ in steps for pair in pairs]
    slots, dut = Slots(image, 1 + max(places)[0]), Core(columns=columns, **{**SMALL, **(maxima or {})})
    vocab = image.config.vocab_size

    async def body(driver, memory):
        for slot, golden in enumerate(slots.goldens):
            begin = min((position for s, position in places if s == slot), default=0)
            for position in range(begin):
                golden.step(rng.randrange(vocab), position)
            preload(memory, image.config, slot, golden, begin)
        for pairs, first in steps:
            tokens = [rng.randrange(vocab) for _ in pairs]
            expected, dump = slots.step(tokens, pairs), first == len(pairs) - 1
            for command in mixed(image, tokens, pairs, first=first, dump=dump):
                await driver.push(command)
            if dump:
                assert await driver.dumped(vocab) == expected[-1].values.tolist(), f"logits of {pairs}"
            results = [(await driver.result())["token"] for _ in pairs[first:]]
            assert results == [logits.argmax for logits in expected[first:]], f"results of {pairs}"
        await driver.ctx.tick().until(~dut.csr.status.busy)
        assert not any(driver.ctx.get(getattr(dut.csr.errors, e)) for e in ("bad_command", "queue_overflow"))
    memory = run(dut, image, body, deadline=40_000, **dram)     # some 4,000 a step
    slots.check_cache(memory, [1 + max((p for s, p in places if s == slot), default=-1) for slot in range(slots.count)])


def prompt(slot, position, count):
    """Columns of consecutive positions."""
    return [(slot, position + i) for i in range(count)]


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
