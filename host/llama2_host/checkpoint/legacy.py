"""Reads llama2.c's headerless-magic legacy format (v0): seven integers, then float32 tensors."""
# Ref: karpathy/llama2.c, export.py legacy_export and run.c memory_map_weights

import struct

import numpy as np

from llama2_host.checkpoint import foreign
from llama2_host.checkpoint.errors import CheckpointError
from llama2_host.checkpoint.layout import check_size, config_from_header, count, in_order, shapes
from llama2_host.checkpoint.lazy import RawFile, float_rows

SOURCE = "llama2.c v0"
HEADER = struct.Struct("<7i")
ORDER = ("embedding", "attention_norm", "wq", "wk", "wv", "wo", "ffn_norm", "w1", "w2", "w3", "final_norm",
         "rope", "classifier")


def matches(head: bytes) -> bool:
    """v0 has no magic: it is tried when no other format recognises the file."""
    return True


def read(data: np.ndarray, path):
    """Config, tensors still in the file, and no native groups."""
    foreign.refuse_tokenizer(data, path)        # a tokenizer.bin has no magic, either
    if len(data) < HEADER.size:
        raise CheckpointError(f"{path}: truncated checkpoint: {len(data)} bytes, a {SOURCE} header alone has "
                              f"{HEADER.size}: copy or export it again")
    *fields, vocab, seq_len = HEADER.unpack(bytes(data[:HEADER.size]))
    # A negative vocabulary size says that the classifier has weights of its own.
    config = config_from_header((*fields, abs(vocab), seq_len), tied=vocab > 0, path=path)
    sizes = shapes(config)
    # cos and sin of every position, which readers recompute.
    sizes["rope"] = (2, config.seq_len, config.head_dim // 2)
    check_size(path, len(data), HEADER.size + 4 * sum(map(count, sizes.values())), SOURCE)

    tensors, offset, file = {}, HEADER.size, RawFile(path)
    for name in in_order(config, ORDER):
        if name != "rope":
            tensors[name] = float_rows(name, file, offset, sizes[name])
        offset += 4 * count(sizes[name])
    return SOURCE, config, tensors, None, {"ignored": ("its RoPE tables, which are made anew",)}
