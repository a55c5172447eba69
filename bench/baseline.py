"""The software baseline: the decoder in C, by the same VexRiscv in the same simulated SoC; ``bench.cycles`` measures
it.

It is compiled with -O2 and runs with both caches on and an L2. Weights and K/V cache lie in DRAM, working vectors and
the stack in SRAM, which is larger than a board's. The decoder core is present and idle.
"""
import struct

import numpy as np
import serial

from soc.sim.simulator import Simulator
from llama2_spec.protocol import Status
from targets import sim

FIRMWARE  = sim.ROOT/"firmware"/"baseline"
SIZES     = {"integrated_rom_size": 0x10000, "integrated_sram_size": 0x8000, "l2_size": 8192,    # bytes
             "with_timer": True}    # LiteX's libraries ask for it
TIMEOUT_S = 600


class BaselineError(Exception):
    """The baseline cannot decode this model."""


def build():
    """Build a simulator with the baseline as its firmware and enough memory for it; all other gateware is the
    product's."""
    return sim.build(sim.ROOT/"build"/"sim-baseline", firmware=FIRMWARE, soc_options=SIZES)


class Baseline:
    """Speaks the requests of firmware/baseline/main.c to a simulator at ``url`` whose DRAM holds an image."""
    def __init__(self, url, vocab_size):
        self.port = serial.serial_for_url(url, timeout=TIMEOUT_S)
        self.vocab_size = vocab_size

    def words(self, count):
        data = self.port.read(4*count)
        if len(data) != 4*count:
            raise BaselineError(f"no answer within {TIMEOUT_S} s: {len(data)} of {4*count} bytes came")
        return np.frombuffer(data, "<i4")

    def step(self, token, position):
        """Cycles of decoding ``token`` at ``position``, and its logits, Q14.18."""
        self.port.write(b"d" + struct.pack("<II", token, position))
        status = int(self.words(1)[0])
        if status != Status.OK:
            raise BaselineError(f"the baseline refuses this model: {Status(status).name}")
        low, high = self.words(2).view("<u4")
        return int(low) | int(high) << 32, self.words(self.vocab_size)

    def close(self):
        self.port.close()


def decode(image_path, golden, count):
    """Cycles of positions 0 to ``count`` - 1, greedy from BOS; every logit must equal golden's.

    ``golden`` is a :class:`llama2_spec.golden.Golden` of the same image.
    """
    cycles, token = [], 1
    with Simulator(build(), image_path) as simulator:
        baseline = Baseline(simulator.url, golden.config.vocab_size)
        try:
            for position in range(count):
                expected = golden.step(token, position)
                taken, logits = baseline.step(token, position)
                if not np.array_equal(logits, expected.values):
                    raise BaselineError(f"position {position}: logits differ from golden's")
                cycles.append(taken)
                token = expected.argmax
        finally:
            baseline.close()
        if violations := simulator.violations():
            raise BaselineError(f"DRAM timing violations: {violations}")
    return cycles
