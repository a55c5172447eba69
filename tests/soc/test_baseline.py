"""The software baseline on the simulated SoC: its logits equal golden's, and its cycles are what software costs."""
import numpy as np
import pytest

from bench.baseline import FIRMWARE, Baseline
from soc.sim.simulator import Simulator
from llama2_spec.golden import Golden
from llama2_spec.model import ModelConfig
from tests.accel.decoder import random_image

pytestmark = pytest.mark.soc


def test_two_tokens_equal_golden(build_around_stub, tmp_path):
    """The core, which the baseline leaves alone, is the stub."""
    image = random_image(ModelConfig(dim=64, hidden_dim=92, n_layers=2, n_heads=8, n_kv_heads=4, head_dim=8,
                                     vocab_size=64,
                                     seq_len=16))
    golden = Golden(image)
    path = tmp_path/"model.llm"
    path.write_bytes(image.data)
    with Simulator(build_around_stub("sim-stub-baseline", firmware=FIRMWARE), path) as simulator:
        baseline = Baseline(simulator.url, image.config.vocab_size)
        for position, token in enumerate((1, 37)):
            cycles, logits = baseline.step(token, position)
            assert np.array_equal(logits, golden.step(token, position).values)
            # A multiplication per weight: no CPU of one issue does more than one per cycle.
            assert cycles > sum(e.rows*e.words*16 for e in image.entries if e.group)
        baseline.close()
        assert not simulator.violations()
