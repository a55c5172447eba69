"""The decoder in C, on this PC: every logit and K/V row equal to golden, for many shapes and both formats."""
import ctypes
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from bench import reference_data
from llama2_host.image.model import Model
from llama2_spec import emit_c
from llama2_spec.golden import Golden
from llama2_spec.image import row_layout
from llama2_spec.model import KvFormat, ModelConfig
from llama2_spec.protocol import Status
from tests.accel.decoder import random_image
from tests.firmware.library import FLAGS, ROOT, counting

DRAM_BYTES = 64 << 20


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("baseline")
    (folder/"generated").mkdir()
    (folder/"generated/llama2_spec.h").write_text(emit_c.header())
    sources = [path for path in sorted((ROOT/"firmware/baseline").glob("*.c")) if path.name != "main.c"]
    subprocess.run(["gcc", *FLAGS, "-shared", f"-I{folder}", "-o", folder/"baseline.so", *sources,
                    ROOT/"firmware/exp2.c", *counting()], check=True)
    return ctypes.CDLL(str(folder/"baseline.so"))


class Decoder:
    """The C decoder with ``data`` as its image."""
    def __init__(self, library, data, dram_bytes=DRAM_BYTES):
        self.library = library
        self.dram = np.zeros(DRAM_BYTES, np.uint8)
        self.dram[:len(data)] = np.frombuffer(data, np.uint8)
        self.status = library.decoder_install(self.dram.ctypes.data_as(ctypes.c_void_p), dram_bytes)

    def step(self, token, position):
        logits = np.zeros(self.library.decoder_vocab_size(), np.int32)
        self.library.decoder_step(token, position, logits.ctypes.data_as(ctypes.c_void_p))
        return logits


def compare(library, image, tokens):
    """Decode ``tokens`` in both; greedy ones follow when they run out (None)."""
    golden, decoder = Golden(image), Decoder(library, image.data)
    assert decoder.status == Status.OK
    config = image.config
    _, beats = row_layout(config)
    kv_base = -(-len(image.data)//2048)*2048
    following = None
    for position, given in enumerate(tokens):
        token = following if given is None else given
        logits = golden.step(token, position)
        following = logits.argmax
        assert decoder.step(token, position).tolist() == logits.values.tolist(), position
        for layer in range(config.n_layers):
            at = kv_base + (layer*config.seq_len + position)*beats*16
            assert decoder.dram[at:at + beats*16].tobytes() == golden.kv_row(layer, position), (layer, position)


@pytest.mark.parametrize("path", [ROOT/"models"/"stories.bin",
                                  pytest.param(reference_data.path("models", "stories260K.bin"),
                                               marks=pytest.mark.reference)],
                         ids=["stories", "stories260K"])
@pytest.mark.parametrize("format", ["q8", "q4"])
def test_checkpoint_equals_golden(library, path, format):
    model = Model.load(path, format=format)
    compare(library, model.image, [1] + [None]*39)


@pytest.mark.parametrize("format, group", [("q8", 64), ("q8", 32), ("q4", 32), ("q4", 64)])
@pytest.mark.parametrize("shape", [
    dict(dim=32, hidden_dim=44, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, vocab_size=37, seq_len=16),
    dict(dim=16, hidden_dim=23, n_layers=1, n_heads=2, n_kv_heads=1, head_dim=8, vocab_size=9, seq_len=16),
    dict(dim=112, hidden_dim=172, n_layers=2, n_heads=8, n_kv_heads=8, head_dim=16, vocab_size=50, seq_len=16,
         tied=False),
    dict(dim=128, hidden_dim=64, n_layers=1, n_heads=1, n_kv_heads=1, head_dim=128, vocab_size=20, seq_len=16),
], ids=["grouped", "one word", "untied", "wide head"])
def test_random_model_equals_golden(library, shape, format, group):
    image = random_image(ModelConfig(**shape), seed=3, format=format, group=group)
    rng = np.random.default_rng(5)
    compare(library, image, rng.integers(0, shape["vocab_size"], 16).tolist())


def test_refuses_what_is_no_image_or_too_large(library):
    assert Decoder(library, bytes(4096)).status == Status.BAD_MAGIC
    config = ModelConfig(dim=32, hidden_dim=4112, n_layers=1, n_heads=4, n_kv_heads=2, head_dim=8, vocab_size=9,
                         seq_len=16)
    assert Decoder(library, random_image(config).data).status == Status.TOO_LARGE
    narrow = replace(config, hidden_dim=32, kv=KvFormat.K8V8)
    assert Decoder(library, random_image(narrow).data).status == Status.BAD_VALUE
    config = ModelConfig(dim=32, hidden_dim=32, n_layers=1, n_heads=4, n_kv_heads=2, head_dim=8, vocab_size=9,
                         seq_len=16)
    data = random_image(config).data
    assert Decoder(library, data, dram_bytes=len(data)).status == Status.NO_MEMORY
