"""The whole core decodes random models: every logit and every K/V row equals golden.

What only decodes runs as Verilator compiled it; where a reset or a late beat is looked at, Amaranth simulates.
"""
import functools

import pytest

from accel.core import Core
from llama2_spec.golden import Golden
from llama2_spec.image import Format, Kind, order, row_layout
from llama2_spec.model import KvFormat, ModelConfig
from llama2_spec.numerics import logit_scale
from llama2_spec.registers import QUEUE_DEPTH, Counter, Model, Opcode, Phase, Window, encode
from tests.accel import verilated
from tests.accel.decoder import kv_place, kv_row, program, random_image, run
from tests.accel.fuzz import CORES, MAXIMA
from tests.accel.steps import idle

SMALL = dict(max_dim=128, max_hidden_dim=128, max_kv_dim=128, max_heads=8)


def compiled(columns):
    """The smallest core of so many columns, one of those that make fuzz-core compiles."""
    return verilated.VerilatedCore(**next(core for core in CORES if core["columns"] == columns), **MAXIMA)


def config(**shape):
    base = dict(dim=32, hidden_dim=44, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, vocab_size=24, seq_len=32)
    return ModelConfig(**{**base, **shape})


async def count(driver, phase, counter):
    return await driver.read(Window.COUNTERS + 4 * (8 * phase + counter))


def check(image, tokens, *, columns=1, split=None, **dram):
    """Decode ``tokens`` in steps of ``split`` columns; compare logits of each step's last, and the cache, whose rows
    are poisoned ahead."""
    golden = Golden(image)
    c = image.config
    _, row = row_layout(c)

    async def body(driver, memory):
        for layer in range(c.n_layers):
            for position in range(len(tokens)):
                for beat in kv_place(c, 0, layer, position):
                    memory.beats[beat] = 0xdead
        position = 0
        for n in split or [1] * len(tokens):
            step = tokens[position:position + n]
            expected = golden.prefill(step, position)
            commands = list(program(image, step, position, dump=1))
            for command in commands:
                await driver.push(command)
            assert await driver.dumped(c.vocab_size) == expected.values.tolist(), f"logits at {position}"
            result = await driver.result()
            assert result["token"] == expected.argmax
            position += n
        await idle(driver)          # the last rows may still be on their way

    memory = verilated.run(compiled(columns), image, body, **dram)
    for layer in range(c.n_layers):
        for t in range(len(tokens)):
            assert kv_row(memory, c, 0, layer, t) == golden.kv_row(layer, t), f"K/V row {t} of layer {layer}"
    assert len(memory.written) == len(tokens) * c.n_layers * row    # each row once
    memory.close()


@pytest.mark.parametrize("format, group, stalls", [
    ("q8", 64, {}), ("q4", 32, {}), ("q8", 32, dict(stall=0.6, latency=30)), ("q4", 64, dict(write_stall=0.97))])
def test_decodes(format, group, stalls):
    check(random_image(config(), 1, format, group), [3, 7] if stalls else [3, 7, 1], **stalls)


def test_every_matrix_in_a_format_of_its_own():
    """As a mixed image has them: neighbours that differ in format and group size, a q8 embedding before q4 layers."""
    choices = [("q8", 64), ("q4", 32), ("q8", 32), ("q4", 64)]
    slots = [(kind, layer) for kind, layer, _ in order(config()) if kind != Kind.GAIN]
    plan = {slot: choices[i % 4] for i, slot in enumerate(slots)} | {(Kind.CLASSIFIER, 0): ("q8", 64)}
    image = random_image(config(), 8, "q4", plan=plan)
    assert {(e.format, e.group) for e in image.entries if e.kind != Kind.GAIN} == {
        (Format.Q8, 64), (Format.Q4, 32), (Format.Q8, 32), (Format.Q4, 64)}
    check(image, [3, 7, 1])


@pytest.mark.parametrize("shape", [
    # one word, one K/V beat a row
    dict(dim=16, hidden_dim=20, n_layers=1, n_heads=2, n_kv_heads=1, vocab_size=10),
    dict(dim=16, n_layers=1, n_heads=1, n_kv_heads=1, head_dim=128, vocab_size=9),          # odd vocabulary, long head
    dict(dim=48, hidden_dim=86, n_layers=1, n_heads=8, n_kv_heads=8, tied=False, vocab_size=16),    # no sharing, untied
], ids=["tiny", "head128", "mha"])
def test_shapes_at_run_time(shape):
    check(random_image(config(**shape), 5, "q8", 32), [3, 7, 1])


@pytest.mark.parametrize("kv, shape", [
    (KvFormat.K8V8, dict(n_heads=6, n_kv_heads=3, dim=48, n_layers=1)),     # half a beat of K, and of V, is left over
    (KvFormat.K16V8, dict(n_kv_heads=4, head_dim=16))], ids=["k8v8", "k16v8"])
def test_kv_formats(kv, shape):
    """Two columns, whose newest rows are attended on chip, then on from DRAM: the same rounded elements."""
    check(random_image(config(kv=kv, **shape), 9), [3, 7, 1], columns=2, split=[2, 1])


@pytest.mark.parametrize("columns, active, vocab", [(2, 2, 24), (4, 3, 23)])
def test_every_column_yields_its_argmax(columns, active, vocab):
    """One pass over the classifier for all columns; then the rows of all but the first are decoded again, as if
    rejected."""
    image = random_image(config(vocab_size=vocab), 7)
    golden = Golden(image)

    async def body(driver, memory):
        for position, tokens in ((0, [3, 7, 1, 5][:active]), (1, [2, 9, 4, 8][:active]), (2, [6])):
            expected = [golden.step(token, position + i).argmax for i, token in enumerate(tokens)]
            for command in program(image, tokens, position, every=len(tokens) > 1):
                await driver.push(command)
            assert [(await driver.result())["token"] for _ in tokens] == expected
    verilated.run(compiled(columns), image, body).close()


def test_a_step_waits_for_the_tokens_that_firmware_draws():
    """Steps are pushed whole before their tokens are known, each column's on its own; an abort drops what was
    written."""
    image = random_image(config(n_layers=1), 6)
    golden, dut = Golden(image), Core(columns=2, **SMALL)
    scale = logit_scale(1 << 16)

    async def body(driver, memory):
        ctx = driver.ctx
        await driver.write(Window.MODEL + 4 * Model.LOGIT_SCALE, scale)
        await driver.write(Window.TOKEN, 23)
        ctx.set(dut.csr.control.abort, 1)
        await ctx.tick()
        ctx.set(dut.csr.control.abort, 0)
        for position in (0, 2):
            for command in program(image, [0, 0], position, awaited=True, keep=True):
                await driver.push(command)
        for position, tokens in ((0, [3, 7]), (2, [1, 5])):
            expected = golden.prefill(tokens, position)
            candidates, mass, maximum = expected.kept(scale)
            await driver.write(Window.TOKEN + 4, tokens[1])
            await ctx.tick().repeat(300)
            assert not ctx.get(dut.csr.status.result_valid) and ctx.get(dut.csr.status.busy)
            await driver.write(Window.TOKEN, tokens[0])
            result = await driver.result()
            assert (result["token"], result["mass_lo"], result["kept"]) == (
                expected.argmax, mass, len(candidates) + (1 << 8))
            assert [await driver.drawn() for _ in candidates] == [token for token, _ in candidates]
            assert await driver.read(Window.NEXT) & 0xffff == 0
    run(dut, image, body)


def test_late_kv_write_is_not_overtaken():
    """The K/V write port stalls past the next token's first reads; the cache of a one-layer model is poisoned ahead."""
    image = random_image(config(n_layers=1, dim=16, hidden_dim=16, n_heads=2, n_kv_heads=2, vocab_size=8), 4)
    check(image, [1, 2, 3, 4, 5], write_stall=0.995)


def test_crc_and_busy():
    """A CRC command is done when the core is no longer busy, and busy at every moment before."""
    import zlib
    image = random_image(config(), 2)
    dut = Core(**SMALL)

    async def body(driver, memory):
        for base, beats in ((1, 40), (0, 1), (130, 300)):
            await driver.push(encode(Opcode.CRC, base=base, beats=beats))
            while driver.ctx.get(dut.csr.status.busy):
                await driver.ctx.tick()
            data = b"".join(memory.beats.get(base + i, 0xdead).to_bytes(16, "little") for i in range(beats))
            assert driver.ctx.get(dut.csr.crc.value) == zlib.crc32(data)
    run(dut, image, body)


def abort_at(cycles, image, golden, expected):
    """Decode a token, begin the next one's step, abort it after so many ``cycles``, and decode that token; returns
    whether its result was there before the abort."""
    c, dut, came = image.config, compiled(1), False

    async def decode(driver, position):
        for command in program(image, [TOKENS[position]], position, dump=1):
            await driver.push(command)
        assert await driver.dumped(c.vocab_size) == expected[position].values.tolist(), f"after {cycles}"
        assert (await driver.result())["token"] == expected[position].argmax

    async def body(driver, memory):
        nonlocal came
        ctx, row = driver.ctx, row_layout(c)[1]
        await decode(driver, 0)
        end = memory.cycles + cycles
        for command in program(image, [TOKENS[1]], 1):
            await driver.push(command)
        while memory.cycles < end and not ctx.get(dut.csr.status.result_valid):
            await ctx.tick()
        came = bool(ctx.get(dut.csr.status.result_valid))
        ctx.set(dut.csr.control.abort, 1)
        await ctx.tick()
        ctx.set(dut.csr.control.abort, 0)
        await ctx.tick().until(~dut.csr.status.aborting)
        assert not ctx.get(dut.csr.status.result_valid)
        await idle(driver)
        assert len(memory.written) in (row, 2 * row), "half of a row"
        await decode(driver, 1)
        await idle(driver)
    memory = verilated.run(dut, image, body, latency=40)
    for position in range(len(TOKENS)):
        assert kv_row(memory, c, 0, 0, position) == golden.kv_row(0, position)
    memory.close()
    return came


TOKENS = 5, 3


def test_an_abort_at_whatever_cycle_of_a_step():
    """What it drops leaves nothing behind: rows of before are whole, and the next step is golden's. A store that has
    begun ends first, so that no row is half of one."""
    image = random_image(config(n_layers=1), 6)
    golden = Golden(image)
    expected = [golden.prefill([token], position) for position, token in enumerate(TOKENS)]
    cycles = next(cycles for cycles in range(0, 10_000, 3) if abort_at(cycles, image, golden, expected))
    assert cycles > 500         # until then the step was aborted before its end


def test_busy_until_a_row_is_stored():
    """At every moment, though nothing follows the STORE; all commands are there before the first beat is."""
    image = random_image(config(), 2)
    step = list(program(image, [3], 0))
    store = next(i for i, (word, *_) in enumerate(step) if word & 15 == Opcode.STORE)

    async def body(driver, memory):
        for command in step[:store + 1]:
            await driver.push(command)
        await idle(driver)
        assert len(memory.written) == row_layout(image.config)[1]
    for write_stall in (0, .5, .9):
        verilated.run(compiled(1), image, body, latency=1000, write_stall=write_stall).close()


CHECK = Phase.S3_STORE      #: any command may be counted anywhere; a STORE takes no beats


def test_a_slower_memory_is_seen_in_the_cycles_that_starve():
    """Attention over rows in DRAM, and the check of a model: more latency than the reader can hide."""
    image, tokens, beats = random_image(config(n_layers=1), 6), list(range(1, 21)), 200
    counted = {}

    async def body(driver, memory):
        for position, token in enumerate(tokens):
            for command in program(image, [token], position):
                await driver.push(command)
            await driver.result()
        await driver.push(encode(Opcode.CRC, base=1, beats=beats, phase=CHECK))
        await idle(driver)
        for phase in (Phase.S2_ATTEND, CHECK):
            for counter in Counter:
                counted[phase, counter] = await count(driver, phase, counter)
    seen = []
    for latency in (14, 1000):
        verilated.run(compiled(1), image, body, latency=latency).close()
        seen.append(dict(counted))
    near, far = seen
    assert near[CHECK, Counter.BEATS] == beats and near[CHECK, Counter.STARVED] < 100
    for phase in (Phase.S2_ATTEND, CHECK):
        assert near[phase, Counter.BEATS] == far[phase, Counter.BEATS] > 0
        assert far[phase, Counter.STARVED] - near[phase, Counter.STARVED] > 900, phase
        assert far[phase, Counter.STARVED] <= far[phase, Counter.CYCLES]


def test_bad_commands_and_too_many_are_told():
    """Until firmware clears them. The queue fills up behind a command that waits for a token that nobody writes."""
    image = random_image(config(), 2)
    dut = Core(**SMALL)

    async def body(driver, memory):
        ctx = driver.ctx

        def told():
            return [ctx.get(dut.csr.errors.bad_command), ctx.get(dut.csr.errors.queue_overflow)]
        await driver.push((15, 0, 0, 0))
        await ctx.tick().until(~dut.csr.status.busy)
        assert told() == [1, 0]
        ctx.set(dut.csr.control.clear_errors, 1)
        await ctx.tick()
        ctx.set(dut.csr.control.clear_errors, 0)
        await driver.push(encode(Opcode.EMBED, awaited=1, words=1))
        await ctx.tick().repeat(20)
        for _ in range(QUEUE_DEPTH):
            assert told() == [0, 0]
            await driver.push(encode(Opcode.NOP))
        assert told() == [0, 0] and not ctx.get(dut.csr.status.queue_free)
        for word in range(4):
            await driver.write(Window.COMMAND + 4 * word, 0)
        await ctx.tick().repeat(3)
        assert told() == [0, 1]
    run(dut, image, body)


LATE = random_image(config(n_layers=1), 6)


@pytest.mark.parametrize("after", [10, 300, 700, 1500])
def test_reset(after):
    """At whatever it was, from then on it does what it does after power-up."""
    golden, dut = Golden(LATE), Core(**SMALL)
    expected = golden.prefill([2], 0)

    async def body(driver, memory):
        ctx = driver.ctx
        for command in program(LATE, [3], 0):
            await driver.push(command)
        await driver.push((0xffffffff,) * 4)
        await ctx.tick().repeat(after)
        ctx.set(dut.csr.control.abort, after == 300)      # within an abort, too
        await ctx.tick()
        ctx.set(dut.csr.control.abort, 0)
        ctx.set(dut.reset, 1)
        memory.reset = True
        await ctx.tick().repeat(20)
        assert not ctx.get(dut.csr.status.result_valid) and not ctx.get(dut.csr.cycles.value)
        ctx.set(dut.reset, 0)
        memory.reset = False
        await ctx.tick().repeat(10)
        assert not any(ctx.get(getattr(dut.csr.status, name)) for name in ("busy", "aborting", "result_valid",
                                                                           "logit_valid"))
        assert not any(ctx.get(getattr(dut.csr.errors, name)) for name in ("bad_command", "queue_overflow"))
        memory.written.clear()
        await driver.setup(LATE)
        for command in program(LATE, [2], 0, dump=1):
            await driver.push(command)
        assert await driver.dumped(LATE.config.vocab_size) == expected.values.tolist()
        assert (await driver.result())["token"] == expected.argmax
        await ctx.tick().until(~dut.csr.status.busy)
        assert len(memory.written) == row_layout(LATE.config)[1]
    run(dut, LATE, body)


# Cycles by which a beat may be asked for before it can be used: for those that the reader holds (its buffer, and eight
# behind each half), and while the first of them waits for a fence
AHEAD = 512 + 16 + 11


@functools.cache
def phase_cycles(withhold):
    """Cycles of the second token: of each phase, of both tokens; with ``withhold`` of the second's beats."""
    dut, counted = Core(**SMALL), {}

    async def body(driver, memory):
        before = 0
        for position in range(2):
            if position == 1:
                memory.withheld, memory.silence = withhold
            for command in program(LATE, [2], position):
                await driver.push(command)
            result = await driver.result()
            counted["token"], before = result["cycles"] - before, result["cycles"]
        for p in Phase:
            counted[p.name] = await count(driver, p, Counter.CYCLES)
        counted["argmax"] = result["token"]
    run(dut, LATE, body)
    return counted


@pytest.mark.parametrize("phase", ["S1_QKV", "S2_ATTEND", "S4_OUTPUT", "S5_GATE_UP", "S5_DOWN", "CLASSIFY"])
def test_a_stage_is_not_done_before_its_last_beat(phase):
    """The last beat of a stage comes late by ``silence``: so does the result, in that stage and no other."""
    silence, last = 2000, {}
    for word0, _, base, beats in program(LATE, [2], 1):
        if beats and (word0 & 15) in (Opcode.MATVEC, Opcode.ATTEND):
            last[Phase(word0 >> 19 & 15).name] = base + beats - 1
    plain, late = phase_cycles((None, 0)), phase_cycles((last[phase], silence))
    assert late["argmax"] == plain["argmax"]
    grown = {p.name: late[p.name] - plain[p.name] for p in Phase}
    assert late["token"] - plain["token"] >= silence - AHEAD
    assert grown[phase] >= silence - AHEAD, grown
    assert all(growth <= 100 for name, growth in grown.items() if name != phase), grown
