"""A tiny model, made by a formula, whose answers are known: ids and logits of the integer model, cycles of the
simulated SoC."""
import zlib
from dataclasses import dataclass, replace

import numpy as np

from llama2_host.errors import HostError
from llama2_host.generation import Options, Sampling
from llama2_spec import image
from llama2_spec.model import ModelConfig
from llama2_spec.protocol import GenerateFlag

CONFIG = ModelConfig(dim=64, hidden_dim=96, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=16, vocab_size=96, seq_len=64)
NAME = "llama2-host doctor's known answer"
PROMPT = tuple(range(1, 12))        #: an odd number: passes of two columns and of one
TOKENS, DUMPED = 32, 4              #: generated; and of a second run, with all logits sent

IMAGE_CRC = 0x9d9f474e
#: greedy, after PROMPT
IDS = (45, 77, 56, 15, 75, 1, 52, 1, 32, 20, 95, 95, 95, 95, 95, 95,
       5, 0, 95, 95, 95, 95, 5, 95, 95, 95, 95, 45, 22, 39, 39, 39)
LOGITS_CRC = 0xadf8996e             #: CRC-32 of the first DUMPED positions' logits, Q14.18 in 32 bits, little-endian


@dataclass(frozen=True)
class Cycles:
    """Mean cycles per token of a core with these multipliers, on a DRAM that carries so many bytes a cycle."""
    columns: int
    lanes: int
    pin_bytes: int
    per_token: int


#: Of the simulated SoC, which has an Arty's DRAM: ``python -m bench.known_answer`` measures them.
CYCLES = (Cycles(2, 16, 16, 5510), Cycles(4, 16, 16, 5293))
SLOWER = 1.05                       #: times that many may be a refresh here and there; more is a finding


def known_image() -> bytes:
    """The model's image; raises where this machine's arithmetic makes another."""
    data = _image()
    if zlib.crc32(data) != IMAGE_CRC:
        raise HostError(f"the known answer's model has CRC {zlib.crc32(data):#010x} here, not {IMAGE_CRC:#010x}: "
                        "this client is damaged, or its numpy rounds otherwise")
    return data


def _image() -> bytes:
    config = CONFIG
    tensors: dict[str, np.ndarray] = {}
    shapes = {"wq": (config.q_dim, config.dim), "wk": (config.kv_dim, config.dim), "wv": (config.kv_dim, config.dim),
              "wo": (config.dim, config.q_dim), "w1": (config.hidden_dim, config.dim),
              "w2": (config.dim, config.hidden_dim),
              "w3": (config.hidden_dim, config.dim)}
    for layer in range(config.n_layers):
        for name, shape in shapes.items():
            tensors[f"layers.{layer}.{name}"] = _numbers(len(tensors), shape)
        for name in ("attention_norm", "ffn_norm"):
            tensors[f"layers.{layer}.{name}"] = 1 + _numbers(len(tensors), (config.dim,)) / 4
    tensors["final_norm"] = 1 + _numbers(len(tensors), (config.dim,)) / 4
    tensors["embedding"] = _numbers(len(tensors), (config.vocab_size, config.dim))
    return image.build(config, tensors, format="q4", provenance=NAME)


def _numbers(seed: int, shape) -> np.ndarray:
    """Multiples of 2**-9 below 1/4, the same everywhere. Ref: Steele and others 2014, SplitMix64."""
    count = int(np.prod(shape))
    z = (np.arange(1, count + 1, dtype=np.uint64) + np.uint64(seed << 32)) * np.uint64(0x9e3779b97f4a7c15)
    for shift, factor in ((30, 0xbf58476d1ce4e5b9), (27, 0x94d049bb133111eb)):
        z = (z ^ z >> np.uint64(shift)) * np.uint64(factor)
    z ^= z >> np.uint64(31)
    return ((z >> np.uint64(56)).astype(np.float32).reshape(shape) - 128) / 512


def ask(generate) -> tuple[list[int], list[int], int]:
    """Have ``generate(ids, options, **more)`` answer: (ids, cycle counters, CRC of the logits)."""
    options = Options(0, TOKENS, Sampling(temperature=0), ())
    events = list(generate(list(PROMPT), options))
    logits: dict[int, dict[int, list[int]]] = {}

    def see(position, first, values):
        logits.setdefault(position, {})[first] = list(values)
    for _ in generate(list(PROMPT), replace(options, max_new=DUMPED), on_logits=see):
        pass
    flat = [value for position in sorted(logits) for first in sorted(logits[position])
            for value in logits[position][first]]
    crc = zlib.crc32(np.array(flat, "<i4").tobytes())
    return [event.token for event in events], [event.cycles for event in events], crc


def ask_device(device) -> tuple[list[int], list[int], int]:
    """The same of a device, whose logits are sent in a second run."""
    def generate(ids, options, on_logits=None):
        flags = GenerateFlag.DUMP_LOGITS if on_logits else 0
        return device.generate(ids, options, flags=int(flags), on_logits=on_logits)
    return ask(generate)
