"""Images of known models' shapes with random weights, for cycles, which do not depend on values.

Ref: huggingface.co/karpathy/tinyllamas (stories15M, 42M, 110M), huggingface.co/HuggingFaceTB/SmolLM2-135M,
huggingface.co/TinyLlama/TinyLlama-1.1B-Chat-v1.0, huggingface.co/meta-llama/Llama-3.2-1B
"""
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from llama2_host.checkpoint.layout import shapes
from llama2_host.files import write_whole
from llama2_host.tokenizer.base import BYTE_PIECES, Tokenizer
from llama2_spec import image
from llama2_spec.image import row_layout
from llama2_spec.model import KvFormat, ModelConfig

CACHE = Path(__file__).resolve().parent.parent/"build"/"bench"
POOL  = 4_194_301    # numbers drawn; a prime, so that no rows repeat

SHAPES = {
    "stories260K": ModelConfig(64, 172, 5, 8, 4, 8, 512, 512, 1e-5, 10000.0, True),
    "stories15M":  ModelConfig(288, 768, 6, 6, 6, 48, 32000, 256, 1e-5, 10000.0, True),
    "stories42M":  ModelConfig(512, 1376, 8, 8, 8, 64, 32000, 1024, 1e-5, 10000.0, True),
    "stories110M": ModelConfig(768, 2048, 12, 12, 12, 64, 32000, 1024, 1e-5, 10000.0, True),
    # Its context is 8192; the cache has as many positions as a 256 MiB DRAM holds beside the weights.
    "SmolLM2-135M": ModelConfig(576, 1536, 30, 9, 3, 64, 49152, 2048, 1e-5, 100000.0, True),
    "TinyLlama-1.1B": ModelConfig(2048, 5632, 22, 32, 4, 64, 32000, 2048, 1e-5, 10000.0, False),
    # The heads of Llama-3.2-1B in layers of TinyLlama's size: its hidden dim of 8192 is more than builds take.
    "heads-32-8":   ModelConfig(2048, 5632, 16, 32, 8, 64, 32000, 4096, 1e-5, 500000.0, True),
}


class RandomTensors:
    """Weights that keep activations of order one, drawn once and repeated with an odd period."""
    def __init__(self, config, seed=1):
        self.shapes = shapes(config)
        self.pool   = np.random.default_rng(seed).standard_normal(POOL, dtype=np.float32)

    def __getitem__(self, name):
        shape = self.shapes[name]
        noise = np.resize(np.roll(self.pool, zlib.crc32(name.encode()) % POOL), shape)
        return 1 + np.float32(0.1)*noise if len(shape) == 1 else noise*np.float32(shape[-1]**-0.5)


def config_of(name, layers=None, seq_len=None, kv=KvFormat.K16V16):
    """A shape, with fewer layers, another context or another cache if asked."""
    config = SHAPES[name]
    return replace(config, n_layers=layers or config.n_layers, seq_len=seq_len or config.seq_len, kv=kv)


def random_image(name, format, group=None, layers=None, seq_len=None, kv=KvFormat.K16V16, words=False):
    """Path of the image of shape ``name``, with a made-up vocabulary if it shall have ``words``; images are kept in
    ``build/bench``."""
    config = config_of(name, layers, seq_len, kv)
    path   = CACHE/(f"{name}-{format}-g{group or 0}-l{config.n_layers}-s{config.seq_len}-{kv.name.lower()}"
                    f"{'-words' if words else ''}.llm")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda file: image.write(file, config, RandomTensors(config), format=format, group=group,
                                                   tokenizer=vocabulary(config.vocab_size).pack() if words else b"",
                                                   provenance=f"{name}, random weights"))
    return path


def vocabulary(size):
    """A tokenizer of single bytes and, as far as ``size`` has room, of words that no text has."""
    pieces = [b"<unk>", b"\n<s>\n", b"\n</s>\n", *BYTE_PIECES]
    pieces += [b" word%d" % n for n in range(size - len(pieces))]
    return Tokenizer(pieces, [0.0]*len(pieces))


def with_cache(path, config, seed=1, slots=1):
    """Path of the DRAM's content with rows at every position of the K/V cache behind the image at ``path``, the same
    ones in each slot.

    Mantissas are random, exponents those of rows with values around one.
    """
    filled = path.with_suffix(".cached" if slots == 1 else f".cached-{slots}")
    if filled.exists():
        return filled
    head, beats = row_layout(config)
    rng  = np.random.default_rng(seed)
    rows = rng.integers(0, 1 << 16, (config.n_layers*config.seq_len, beats*8), dtype=np.uint16).view(np.uint8)
    rows[:, :16*head] = 0
    rows[:, :2*config.n_kv_heads] = 4
    data = path.read_bytes()
    partial = path.with_suffix(".part")
    with open(partial, "wb") as file:
        file.write(data + bytes(-len(data) % image.PAYLOAD_ALIGN))
        for _ in range(slots):
            file.write(rows.tobytes())
    partial.replace(filled)
    return filled
