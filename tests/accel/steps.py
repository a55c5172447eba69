"""Steps whose columns belong to different slots, driven through a core as firmware does, and what golden says of
them."""
from dataclasses import dataclass, field

from llama2_spec.golden import Golden, Logits
from llama2_spec.image import Image, row_layout
from llama2_spec.numerics import exp2_weight, logit_scale, logit_to_log2
from llama2_spec.registers import Model, Window
from tests.accel.decoder import kv_row, mixed, preload

Pair = tuple[int, int]


def prompt(slot: int, position: int, count: int) -> list[Pair]:
    """Columns of consecutive positions."""
    return [(slot, position + i) for i in range(count)]


@dataclass
class Slots:
    """A golden for each slot, and what a core is to have done after the steps it was given."""
    image: Image
    count: int
    goldens: list[Golden] = field(init=False)
    rows: int = 0           #: of one layer, written so far

    def __post_init__(self):
        self.goldens = [Golden(self.image) for _ in range(self.count)]

    def begin(self, slot: int, tokens, memory) -> None:
        """The rows of these tokens, from position 0 on, lie in DRAM beforehand."""
        if tokens:
            self.goldens[slot].prefill(tokens, 0)
        preload(memory, self.image.config, slot, self.goldens[slot], len(tokens))

    def step(self, tokens, columns) -> list[Logits]:
        """Each column's logits."""
        self.rows += len(columns)
        return [self.goldens[slot].step(token, position) for token, (slot, position) in zip(tokens, columns)]

    def check_cache(self, memory, lengths) -> None:
        """Every row is golden's, and so many were written as there were columns."""
        config = self.image.config
        for slot, length in enumerate(lengths):
            for layer in range(config.n_layers):
                for position in range(length):
                    expected = self.goldens[slot].kv_row(layer, position)
                    assert kv_row(memory, config, slot, layer, position) == expected, (slot, layer, position)
        assert len(memory.written) == self.rows * config.n_layers * row_layout(config)[1]


@dataclass(frozen=True)
class Step:
    """A pass: its (slot, position) pairs, the first column that has a result, and what firmware may do otherwise.

    ``temperature``, Q16.16, keeps candidates of every column with a result, of which ``popped`` are read in order;
    ``awaited`` tokens are written after the commands; ``chained``: the token is the last argmax.
    """
    pairs: list[Pair]
    first: int
    dump: bool = False
    temperature: int = 0
    popped: int = 0
    awaited: bool = False
    chained: bool = False

    @property
    def places(self) -> range:
        """Columns that have a result."""
        return range(self.first, len(self.pairs))


async def push(driver, image, step: Step, tokens) -> None:
    """The step's commands, and before them the scales of its candidates."""
    for column in step.places if step.temperature else ():
        which = column if driver.dut.candidate_sets != 1 else 0
        await driver.write(Window.MODEL + 4 * (Model.LOGIT_SCALE + which), logit_scale(step.temperature + column))
    for command in mixed(image, tokens, step.pairs, first=step.first, dump=step.dump, keep=step.temperature != 0,
                         awaited=step.awaited, last_token=step.chained):
        await driver.push(command)
    for column, token in enumerate(tokens if step.awaited else ()):
        await driver.write(Window.TOKEN + 4 * column, token)


async def check(driver, step: Step, expected: list[Logits]) -> None:
    """Logits, results and candidates of a step are golden's."""
    if step.dump:
        dumped = await driver.dumped(len(expected[-1].values))
        assert dumped == expected[-1].values.tolist(), f"logits of {step}"
    for column in step.places:
        result, logits = await driver.result(), expected[column]
        assert (result["token"], result["logit"]) == (
            logits.argmax, int(logits.values[logits.argmax]) & 0xffff_ffff), f"column {column} of {step}"
        if step.temperature:
            await check_candidates(driver, step, column, result, logits)


async def check_candidates(driver, step: Step, column: int, result, logits: Logits) -> None:
    """Mass, weights and the order of what a column kept."""
    scale = logit_scale(step.temperature + column)
    candidates, mass, maximum = logits.kept(scale)
    weights = exp2_weight(logit_to_log2([logit for _, logit in candidates], scale), maximum).tolist()
    told = result["mass_lo"] + (result["mass_hi"] << 32), result["maximum"], result["kept"], result["total"]
    assert told == (mass, maximum & 0xffff_ffff, len(candidates) + (column << 8), sum(weights)), f"{column} of {step}"
    if driver.dut.candidate_sets != 1:
        await driver.write(Window.CANDIDATES, column)
    for (token, logit), weight in list(zip(candidates, weights))[:step.popped]:
        word = await driver.read(Window.NEXT)
        place = Window.CANDIDATES + 8 * (word >> 16)
        seen = await driver.read(place), await driver.read(place + 4), word & 0xffff
        assert seen == (token, logit & 0xffff_ffff, weight), f"candidates of column {column} of {step}"


async def idle(driver) -> None:
    """The last rows are written, and no error was met."""
    await driver.ctx.tick().until(~driver.dut.csr.status.busy)
    flags = driver.dut.csr.errors
    errors = [name for name in ("bad_command", "queue_overflow") if driver.ctx.get(getattr(flags, name))]
    assert not errors, errors
