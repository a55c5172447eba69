"""Conversations at the same time on the verilated SoC: each one's ids are golden's."""
from pathlib import Path

import pytest

from bench.slots import in_turns
from llama2_host import connect
from llama2_host.generation import Options, Sampling
from soc.sim.simulator import Simulator
from targets import sim

MODELS = Path(sim.ROOT)/"models"

pytestmark = pytest.mark.soc


@pytest.fixture(scope="module")
def vsim():
    return sim.build()


def test_two_slots_at_a_time_equal_golden(vsim, tmp_path):
    """Greedy and sampled, with prompts of different lengths; one of a slot is ended while the other goes on."""
    with connect(golden=True, model=MODELS/"stories.bin", tokenizer=MODELS/"stories.tokenizer.bin") as golden:
        image = tmp_path/"model.llm"
        image.write_bytes(golden.model.data)
        prompts = [golden.tokenizer.encode(text) for text in ("Once upon a time", "The dog was sad because it")]
        samplings = [Sampling(temperature=0), Sampling(temperature=1.0, top_p=0.9, seed=7)]
        requests = [(ids, Options(0, 18, sampling, ())) for ids in prompts for sampling in samplings]
        expected = [[event.token for event in golden.generate(*request)] for request in requests]
    with Simulator(vsim, dram_image=image) as simulator:
        with connect(port=simulator.url, wait_s=30, model=image, slots=2) as device:
            for one, other in ((0, 2), (1, 3)):
                events = in_turns([device.generate(*requests[number], slot=slot)
                                   for slot, number in enumerate((one, other))])
                assert [[event.token for event in taken] for taken in events] == [expected[one], expected[other]]
            long = device.generate(*requests[0], slot=1)
            cut = device.generate(requests[2][0], Options(0, 200, samplings[0], ()), slot=0)
            assert [next(cut).token for _ in range(3)] == expected[2][:3]
            cut.abort()
            assert [event.token for event in long] == expected[0]
        assert not simulator.violations()
