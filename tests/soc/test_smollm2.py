"""A checkpoint of SmolLM2-135M's shape, as a folder of safetensors, decodes on the verilated SoC as in golden.

Random weights, and here 2 of its 30 layers and a third of its vocabulary; ``python -m bench.smollm2`` runs the whole.
"""
import os
from dataclasses import replace
from unittest import mock

import pytest

from llama2_host import connect
from llama2_host.device.device import Device
from llama2_host.generation import Options, Sampling
from soc.sim.simulator import Simulator
from llama2_spec.image import row_layout
from targets import sim
from tests.host import smollm2

pytestmark  = pytest.mark.soc
KV_ALIGN    = 2048
# 1 + 2 + ... + 256 s: the simulated core checks 16 bytes per cycle before the firmware answers
HELLO_TRIES = 9


def compare(vsim, folder, config, prompt, steps):
    """Greedy ids of golden and of the SoC for a checkpoint in ``folder``; K/V rows of two layers are compared, too."""
    smollm2.write(folder/"model", config=config)
    with mock.patch.dict(os.environ, LLAMA2_HOST_CACHE=str(folder/"cache")):
        golden = connect(golden=True, model=folder/"model", seq_len=64)
    ids = golden.tokenizer.encode(prompt)
    options = Options(max_new=steps, sampling=Sampling(temperature=0), stops=golden.model.template.stops)
    expected = [event.token for event in golden.generate(ids, options)]
    image = golden.model.path
    with Simulator(vsim, dram_image=image) as simulator, \
            Device.open(simulator.url, wait_s=60, hello_tries=HELLO_TRIES) as device:
        device.require_model()
        events = list(device.generate(ids, options))
        config, (_, beats) = golden.config, row_layout(golden.config)
        kv_base = -(-image.stat().st_size//KV_ALIGN)*KV_ALIGN
        for layer in {0, config.n_layers - 1}:
            for position in range(len(ids) + len(expected) - 1):
                at = kv_base + (layer*config.seq_len + position)*beats*16
                assert device.read(at, beats*16) == golden.golden.kv_row(layer, position), (layer, position)
    assert not simulator.violations()
    return ids, expected, events


def test_first_tokens_equal_golden(vsim, tmp_path):
    config = replace(smollm2.CONFIG, n_layers=2, vocab_size=16384)
    ids, expected, events = compare(vsim, tmp_path, config, prompt="Once", steps=3)
    assert [event.token for event in events] == expected
    assert len(expected) == 3 and len(set(expected)) > 1


@pytest.fixture(scope="module")
def vsim():
    return sim.build()
