"""A real checkpoint decodes on the verilated SoC with the shipped firmware and client, equal to golden in every
number."""
from pathlib import Path

import pytest

from bench import reference_data
from llama2_host import connect
from llama2_host.generation import Options, Sampling
from soc.sim.simulator import WATCH_CAUSES, Simulator
from llama2_spec.image import row_layout
from llama2_spec.lookup import Lookup
from llama2_spec.protocol import GenerateFlag
from targets import sim
from tests.speculation import planned_steps, right_guesses

MODELS   = Path(sim.ROOT)/"models"
OWN      = dict(model=MODELS/"stories.bin", tokenizer=MODELS/"stories.tokenizer.bin")
RECORDED = dict(model=reference_data.path("models", "stories260K.bin"),
                tokenizer=reference_data.path("models", "tok512.bin"))
COLUMNS  = 2                        # of the simulated SoC
GREEDY   = Sampling(temperature=0)

pytestmark = pytest.mark.soc


@pytest.fixture(scope="module")
def vsim():
    return sim.build()


@pytest.fixture(params=[OWN, pytest.param(RECORDED, marks=pytest.mark.reference)], ids=["stories", "stories260K"])
def files(request):
    """A checkpoint and its tokenizer: the project's own, and the one with recorded ids where it was asked for."""
    return request.param


def generated(backend, steps, sampling, prompt="Once upon a time"):
    """Ids of prompt and generation, up to a stop token or ``steps`` positions."""
    ids = backend.tokenizer.encode(prompt)
    events = list(backend.generate(ids, Options(max_new=steps - len(ids), sampling=sampling)))
    return ids + [event.token for event in events]


def compare(vsim, tmp_path, files, format, runs, upload=False):
    """Each run's ids on the SoC and in golden; the simulator starts with the model or is sent it."""
    golden = connect(golden=True, format=format, **files)
    image = tmp_path/"model.llm"
    image.write_bytes(golden.model.data)
    with Simulator(vsim, dram_image=None if upload else image) as simulator:
        with connect(port=simulator.url, wait_s=30, model=image) as device:
            for steps, sampling in runs:
                expected = generated(golden, steps, sampling)
                assert generated(device, steps, sampling) == expected
                assert len(expected) > 20
        assert not simulator.violations()
        watch = simulator.watch()           # every cycle has one cause, and every beat is that of a read
        assert len(watch) > 20 and not watch[-1]["strays"] and watch[-1]["beats"] > watch[0]["beats"]
        assert all(at["cycles"] == sum(at[cause] for cause in WATCH_CAUSES) for at in watch)


def test_q8_greedy_and_sampled(vsim, tmp_path, files):
    compare(vsim, tmp_path, files, "q8", [(200, GREEDY), (80, Sampling(temperature=1.0, top_p=0.9, seed=7)),
                                   (60, Sampling(temperature=0.7, top_p=0, top_k=12, min_p=0.02, repetition_penalty=1.2,
                                                 seed=3))])


def test_low_temperatures_and_history_of_rewound_turns(vsim, tmp_path, files):
    """From .3 down to where the sampler is greedy; a penalised turn looks back at a greedy one's tokens."""
    golden = connect(golden=True, format="q8", **files)
    image = tmp_path/"model.llm"
    image.write_bytes(golden.model.data)
    ids = golden.tokenizer.encode("Once upon a time")
    penalised = Sampling(temperature=0.9, repetition_penalty=1.4, repetition_window=256, seed=9)
    turns = [(0, ids, 12, Sampling(temperature=t, top_p=0, seed=5)) for t in (1e-6, .001, .005, .3, 2.0)]
    turns += [(0, ids, 24, GREEDY), (len(ids) + 9, ids[-1:], 12, penalised), (4, ids[-2:], 12, penalised)]
    with Simulator(vsim, dram_image=image) as simulator, connect(port=simulator.url, wait_s=30, model=image) as device:
        for position, part, count, sampling in turns:
            options = Options(position, count, sampling, ())
            expected = [event.token for event in golden.generate(part, options)]
            assert [event.token for event in device.generate(part, options)] == expected and len(expected) == count
        assert device.device.verify().crc == golden.model.payload_crc
        assert not simulator.violations()


def test_q4_greedy_and_sampled(vsim, tmp_path, files):
    compare(vsim, tmp_path, files, "q4", [(200, GREEDY), (60, Sampling(temperature=1.0, seed=11))])


def test_speculation_is_identical(vsim, tmp_path, files):
    """Tokens are golden's, passes and guesses those that the reference plans; guesses come true and fail, in two
    turns."""
    golden = connect(golden=True, format="q8", **files)
    image = tmp_path/"model.llm"
    image.write_bytes(golden.model.data)
    ids = golden.tokenizer.encode("The cat sat on the mat. The dog sat on the mat. "*2)
    more = golden.tokenizer.encode("The cat sat on the mat.")[1:]
    speculating = Sampling(temperature=0, speculate=3)      # of which two columns have room for one
    script, cached, lookup, guessed, right = [], 0, Lookup(), 0, 0
    with Simulator(vsim, dram_image=image) as simulator, connect(port=simulator.url, wait_s=30, model=image) as device:
        for part, count in ((ids, 60), (more, 30)):
            part = [*script[cached:], *part]                # the last token said is not in the cache yet
            expected = [event.token for event in golden.generate(part, Options(cached, count, GREEDY))]
            script = [*script[:cached], *part, *expected]
            steps = planned_steps(script, len(part), columns=COLUMNS, most=3, seq_len=golden.config.seq_len,
                                  position=cached, max_new=count, lookup=lookup)
            generation = device.generate(part, Options(cached, count, speculating))
            assert [event.token for event in generation] == expected
            outcome = generation.outcome
            assert outcome.passes == 1 + len(steps)
            assert outcome.guessed == sum(len(tokens) - 1 for _, tokens in steps)
            guessed += outcome.guessed
            right += sum(right_guesses(script, step) for step in steps)
            cached = outcome.position
            assert len(expected) == count and cached == len(script) - 1
        assert 0 < right < guessed
        assert not simulator.violations()


def test_uploaded_over_the_uart(vsim, tmp_path, files):
    compare(vsim, tmp_path, files, "q4", [(40, GREEDY)], upload=True)


@pytest.mark.parametrize("format, kv", [("q8", "k16v16"), ("q4", "k16v16"), ("q8", "k16v8"), ("q4", "k8v8")])
def test_every_logit_and_kv_row(vsim, tmp_path, files, format, kv):
    """All logits of 12 positions, and the K/V rows of all of them in DRAM."""
    golden = connect(golden=True, format=format, kv=kv, **files)
    image = tmp_path/"model.llm"
    image.write_bytes(golden.model.data)
    ids = golden.tokenizer.encode("Once upon a time")
    flags = GenerateFlag.DUMP_LOGITS | GenerateFlag.ALL_LOGITS
    options = Options(max_new=12 - len(ids), sampling=GREEDY)
    config = golden.config
    expected = {}
    tokens = list(ids)
    for position in range(11):
        logits = golden.golden.step(tokens[position], position)
        expected[position] = logits.values.tolist()
        if position + 1 == len(tokens):
            tokens.append(logits.argmax)
    with Simulator(vsim, dram_image=image) as simulator, connect(port=simulator.url, wait_s=30, model=image) as device:
        seen = {}

        def on_logits(position, first, values):
            assert first == len(seen.setdefault(position, []))
            seen[position] += [int(v) for v in values]
        events = list(device.generate(ids, options, flags=flags, on_logits=on_logits))
        assert [event.token for event in events] == tokens[len(ids):]
        assert len(seen) >= 8 and seen == {p: expected[p] for p in seen}
        _, beats = row_layout(config)
        kv_base = kv_offset(golden.model.data)
        for layer in range(config.n_layers):
            for position in range(len(seen)):
                at = kv_base + (layer * config.seq_len + position) * beats * 16
                assert device.device.read(at, beats * 16) == golden.golden.kv_row(layer, position), (layer, position)


def kv_offset(image):
    """Byte offset of the cache: after the image, on a DRAM row."""
    return -(-len(image) // 2048) * 2048
