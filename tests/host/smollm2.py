"""Writes checkpoints of known models' shapes with random weights: a folder as transformers gives, tokenizer and all."""
import functools
import json
from pathlib import Path

import numpy as np
import tokenizers

from llama2_host.checkpoint.layout import shapes
from llama2_spec.model import ModelConfig
from tests.host import vocabularies
from tests.host.checkpoints import huggingface_config, half_split

#: Ref: huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct, config.json
CONFIG = ModelConfig(dim=576, hidden_dim=1536, n_layers=30, n_heads=9, n_kv_heads=3, head_dim=64, vocab_size=49152,
                     seq_len=8192,
                     norm_epsilon=1e-5, rope_theta=100000.0, tied=True)


POOL = 4_194_301            #: weights drawn; a prime, so that no rows repeat


@functools.cache
def tokenizer(size: int) -> tokenizers.Tokenizer:
    """Byte-level BPE of this size: what a few sentences give, then merges of pieces drawn at random."""
    trained = json.loads(vocabularies.byte_level(400).to_str())
    vocab, merges = trained["model"]["vocab"], trained["model"]["merges"]
    texts = list(vocab)[len(vocabularies.SPECIALS):]
    rng = np.random.default_rng(1)
    while len(vocab) < size:
        a, b = (texts[i] for i in rng.integers(0, len(texts), 2))
        if a + b not in vocab and len(a + b) <= 12:
            vocab[a + b] = len(vocab)
            merges.append([a, b])
            texts.append(a + b)
    return tokenizers.Tokenizer.from_str(json.dumps(trained))


def write(folder: Path, *, config: ModelConfig = CONFIG, seed: int = 1) -> Path:
    """config.json, model.safetensors in BF16, tokenizer.json, tokenizer_config.json and generation_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(huggingface_config(
        config, transformers=4, torch_dtype="bfloat16", is_llama_config=True, rope_interleaved=False)))
    vocabularies.write_folder(folder, tokenizer(config.vocab_size), bos_token="<|im_start|>", eos_token="<|im_end|>",
                              chat_template=vocabularies.CHATML, generation={"eos_token_id": 2, "bos_token_id": 1})
    write_bf16(folder / "model.safetensors", config, seed)
    return folder


def write_bf16(path: Path, config: ModelConfig, seed: int = 1) -> None:
    """Random weights, tensor by tensor: the whole is never in memory. Drawn once and repeated with an odd period."""
    from llama2_host.checkpoint import huggingface
    names = {"embedding": huggingface.EMBEDDING, "classifier": huggingface.CLASSIFIER,
             "final_norm": "model.norm.weight"}
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes(config).items():
        _, layer, kind = name.split(".") if name not in names else ("", "", name)
        theirs = names.get(name) or f"model.layers.{layer}.{huggingface.LAYER[kind]}.weight"
        size = 2 * int(np.prod(shape))
        header[theirs] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text, offset = json.dumps(header).encode(), 0
    text += b" " * (-len(text) % 8)
    pool = np.random.default_rng(seed).standard_normal(POOL, dtype=np.float32)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes(config).items():
            noise = np.resize(np.roll(pool, -offset), shape)
            offset = (offset + noise.size) % POOL
            tensor = 1 + np.float32(0.1) * noise if len(shape) == 1 else noise * np.float32(shape[-1] ** -0.5)
            if name.endswith((".wq", ".wk")):
                tensor = half_split(tensor, config.head_dim)
            file.write((np.ascontiguousarray(tensor).view(np.uint32) >> 16).astype("<u2").tobytes())
