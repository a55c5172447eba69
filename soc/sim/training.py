"""The workload for which a simulator's code is profiled: the shipped firmware decodes some tokens of a model with
random weights.

The model has the shape of stories260K, whose cycles do not depend on weights. Requests are sent as spec/ writes them;
the client has no part in a build.
"""
import socket
import time

import numpy as np

from llama2_spec import image
from llama2_spec.frame import DELIMITER, Frame, FrameError
from llama2_spec.image import Kind
from llama2_spec.model import ModelConfig
from llama2_spec.protocol import Device, Generate, Hello, ModelState, Opcode, Status
from llama2_spec.sampling import ONE
from soc.sim.simulator import Simulator, SimulatorError

CONFIG    = ModelConfig(dim=64, hidden_dim=172, n_layers=5, n_heads=8, n_kv_heads=4, head_dim=8, vocab_size=512,
                        seq_len=128)
PROMPT    = (1, 403, 407, 261, 378)
TOKENS    = 16      # of each generation
SILENCE_S = 120     # longest without a byte, on a machine with other work


class TrainingError(Exception):
    """The simulated SoC failed while it was profiled."""


class Tensors:
    """Random weights of each name that :func:`llama2_spec.image.build` asks for, which keep activations of order
    one."""
    def __init__(self, config):
        self.shapes = {"final_norm": (config.dim,)}
        for kind, _, names in image.order(config):
            rows = () if kind == Kind.GAIN else (image.matrix_rows(config, kind)//len(names),)
            self.shapes |= {name: (*rows, image.columns(config, kind)) for name in names}
        self.random = np.random.default_rng(1)

    def __getitem__(self, name):
        shape = self.shapes[name]
        noise = self.random.standard_normal(shape, dtype=np.float32)
        return 1 + np.float32(.1)*noise if len(shape) == 1 else noise*np.float32(shape[-1]**-.5)


class Line:
    """Sends requests to the firmware and receives its frames."""
    def __init__(self, url):
        host, _, port = url.removeprefix("socket://").rpartition(":")
        self.socket   = socket.create_connection((host, int(port)), timeout=SILENCE_S)
        self.bytes    = b""
        self.sequence = 0

    def request(self, opcode, payload):
        self.sequence += 1
        self.socket.sendall(bytes([DELIMITER]) + Frame(int(opcode), self.sequence, payload.pack()).encode())
        return self.await_(opcode)

    def await_(self, opcode):
        """Payload of the next frame of ``opcode``; others are passed over."""
        while True:
            encoded, delimiter, rest = self.bytes.partition(bytes([DELIMITER]))
            if not delimiter:
                received = self.socket.recv(4096)
                if not received:
                    raise TrainingError("the simulator closed its UART")
                self.bytes += received
                continue
            self.bytes = rest
            try:
                frame = Frame.decode(encoded)
            except FrameError:
                continue
            if frame.opcode == opcode:
                if frame.status != Status.OK:
                    raise TrainingError(f"the firmware answered {Opcode(opcode).name} with {Status(frame.status).name}")
                return frame.payload


def generate(line):
    """Greedy tokens, and sampled ones."""
    for temperature in (0, ONE):
        line.request(Opcode.GENERATE, Generate(flags=0, position=0, max_new=TOKENS, temperature=temperature, top_k=0,
                                               top_p=ONE*9//10, min_p=0,
                                               repetition_window=0, stop_count=0, speculate=0, temperature_low=0,
                                               seed=1, stops=(), ids=PROMPT))
        line.await_(Opcode.DONE)


def train(vsim):
    """Run ``vsim`` through its boot and two generations, then end it. Raises TrainingError."""
    path = vsim.parent/"training.llm"
    path.write_bytes(image.build(CONFIG, Tensors(CONFIG)))
    try:
        with Simulator(vsim, path, log=vsim.parent/"training.log") as simulator:
            line     = Line(simulator.url)
            deadline = time.monotonic() + SILENCE_S
            while Device.unpack(line.request(Opcode.HELLO, Hello(nonce=1))).model_state != ModelState.READY:
                if time.monotonic() > deadline:
                    raise TrainingError("the firmware has not taken the model")
            generate(line)
            line.socket.close()
    except (OSError, SimulatorError, ValueError) as error:
        raise TrainingError(str(error)) from error
