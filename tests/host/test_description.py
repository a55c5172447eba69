"""Shows what info says of a checkpoint: everything that decides which text it writes, and whether it fits."""
from dataclasses import replace

import numpy as np
import pytest

from llama2_host.image import description
from llama2_host.checkpoint.write import write_v0
from llama2_host.image.fit import check
from llama2_host.errors import HostError
from llama2_host.image.model import Model
from llama2_spec.maxima import BUILD, DRAM_BYTES
from tests.host import vocabularies
from tests.host.checkpoints import write_gguf, write_huggingface
from tests.host.generated import random_tensors
from tests.host.test_cli import run
from tests.host.test_containers import CONFIG, UNTIED
from tests.host.test_vocabulary import small


def told(path, **options) -> dict[str, str]:
    lines, out, label = description.of_checkpoint(path, **options), {}, ""
    for name, text in lines:
        label = name or label
        out[label] = f"{out[label]} {text}" if label in out else text
    return out


def test_a_folder_with_everything(tmp_path):
    config, tensors = small(400, seq_len=128)
    folder = write_huggingface(tmp_path / "hf", config, tensors, rope={"rope_type": "linear", "factor": 4.0},
                               layer_norm_eps=1e-12,
                               sliding_window=64)
    vocabularies.write_folder(folder, vocabularies.byte_level(), eos_token="<|im_end|>",
                              chat_template=vocabularies.CHATML)
    found = told(folder)
    assert (found["RoPE"] == "base 500000, linear scaling by 4"
            and "400 entries from tokenizer.json" in found["tokenizer"])
    assert "none is added" in found["BOS"] and "'<|im_end|>'" in found["ends at"] and found["template"] == "jinja"
    assert (found["ignored"] == "layer_norm_eps = 1e-12"
            and "sliding window of 64 positions: convert with --seq-len 64" in found["shape"])
    output, _ = run("info", folder)
    assert all(text in output for _, text in description.of_checkpoint(folder))


def test_a_gguf_without_a_vocabulary(tmp_path):
    tensors = random_tensors(CONFIG)
    found = told(write_gguf(tmp_path / "m.gguf", UNTIED, tensors | {"classifier": tensors["embedding"]},
                            factors=[1, 1, 1, 1, 2, 4, 8, 8]))
    assert found["tokenizer"].startswith("none found") and found["template"].startswith("none")
    assert found["RoPE"] == "base 500000, frequencies divided by 1 to 8" and "output.weight" in found["ignored"]


@pytest.mark.parametrize("shape, message", [
    ({}, None), ({"hidden_dim": 5648}, "hidden_dim is 5648, this device's maximum is 5632"),
    ({"hidden_dim": 8256}, "row sums hold rows of 8192"),
    ({"n_heads": 1, "n_kv_heads": 1, "head_dim": 136}, "head_dim 136 must be a multiple of 8 up to 128"),
    ({"dim": 36, "n_heads": 3, "n_kv_heads": 3, "head_dim": 12}, None), ({"seq_len": 1 << 20}, "seq_len is 1048576")])
def test_it_fits_only_where_a_device_takes_it(tmp_path, shape, message):
    config = replace(CONFIG, **shape)
    write_huggingface(tmp_path, config, random_tensors(config))
    lines = description.of_checkpoint(tmp_path)
    text = "\n".join(text for _, text in lines)
    assert ("runs not" in dict(lines)) == (message is not None)
    if message is None:
        model = Model.load(tmp_path)
        check(model.config, len(model.data), type("Device", (), {**BUILD, "dram_bytes": DRAM_BYTES}))
        assert "positions that fit 256.0 MiB" in text
    else:
        assert message in text
        if "seq_len" not in shape:
            assert "positions that fit" not in text
            with pytest.raises(HostError, match="maximum|cannot become"):
                model = Model.load(tmp_path)
                check(model.config, len(model.data), type("Device", (), {**BUILD, "dram_bytes": DRAM_BYTES}))


def test_sizes_that_are_stored_with_zeros_are_told(tmp_path):
    config = replace(CONFIG, dim=36, n_heads=3, n_kv_heads=3, head_dim=12, rope_theta=10000.0)
    write_v0(tmp_path / "m.bin", config, {name: np.asarray(tensor) for name, tensor in random_tensors(config).items()})
    found = told(tmp_path / "m.bin")
    assert ("dim 36" in found["shape"]
            and "stored with dim 36 as 48 and heads of 12 as 16, filled with zeros" in found["shape"])
