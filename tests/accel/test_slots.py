"""Steps whose columns belong to different slots: results, logits and K/V rows equal those of a golden for each slot."""
import random
from dataclasses import dataclass, field

import pytest

from accel.core import Core
from llama2_spec.golden import Golden
from llama2_spec.image import row_layout
from llama2_spec.model import KvFormat, ModelConfig
from llama2_spec.program import runs
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


def decode(image, columns, lengths, steps, **dram):
    """Run ``steps``, each ((slot, position) pairs, first column with a result), over slots that hold ``lengths``
    positions at the end; those before the first step's are put into DRAM."""
    slots, dut, rng = Slots(image, len(lengths)), Core(columns=columns, **SMALL), random.Random(1)
    begin = [min((p for pairs, _ in steps for s, p in pairs if s == slot), default=length)
             for slot, length in enumerate(lengths)]

    async def body(driver, memory):
        for slot, (golden, position) in enumerate(zip(slots.goldens, begin)):
            for at in range(position):
                golden.step(rng.randrange(image.config.vocab_size), at)
            preload(memory, image.config, slot, golden, position)
        for pairs, first in steps:
            tokens = [rng.randrange(image.config.vocab_size) for _ in pairs]
            expected, dump = slots.step(tokens, pairs), first == len(pairs) - 1
            for command in mixed(image, tokens, pairs, first=first, dump=dump):
                await driver.push(command)
            if dump:
                assert await driver.dumped(len(expected[-1].values)) == expected[-1].values.tolist(), f"logits of {pairs}"
            results = [(await driver.result())["token"] for _ in pairs[first:]]
            assert results == [logits.argmax for logits in expected[first:]], f"results of {pairs}"
        await driver.ctx.tick().until(~dut.csr.status.busy)
        assert not any(driver.ctx.get(getattr(dut.csr.errors, e)) for e in ("bad_command", "queue_overflow"))
    slots.check_cache(run(dut, image, body, **dram), lengths)


def interleaved(rng, columns, slots, steps, length):
    """Steps as they come when ``slots`` sequences wait for their turn, with prompts and with single tokens."""
    positions, chosen = [rng.choice([0, 3, length - 12]) for _ in range(slots)], []
    for _ in range(steps):
        pairs, ready = [], rng.sample(range(slots), slots)
        while ready and len(pairs) < columns:
            slot = ready.pop()
            for _ in range(rng.choice([1, 1, rng.randint(1, columns - len(pairs))])):
                pairs.append((slot, positions[slot]))
                positions[slot] += 1
        chosen.append((pairs, rng.choice([len(pairs) - 1, rng.randrange(len(pairs))])))
    return positions, chosen


@pytest.mark.parametrize("kv", [KvFormat.K16V16, KvFormat.K8V8], ids=str)
@pytest.mark.parametrize("columns", [2, 4])
def test_interleaved_sequences(columns, kv):
    image = random_image(ModelConfig(**TINY, kv=kv), columns, "q4" if columns == 4 else "q8")
    lengths, steps = interleaved(random.Random(columns + kv), columns, columns + 1, 5, TINY["seq_len"])
    assert max(len(runs(pairs)) for pairs, _ in steps) == columns
    decode(image, columns, lengths, steps, stall=0.1, write_stall=0.8 if columns == 4 else 0.0)
