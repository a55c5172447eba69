"""Reads llama2.c's versioned formats: v1 (float32) and v2 (int8 in groups with float32 scales)."""
# Ref: karpathy/llama2.c, export.py version1_export and version2_export

import struct

import numpy as np

from llama2_host.checkpoint.errors import CheckpointError
from llama2_host.checkpoint.layout import MATRICES, NORMS, check_size, config_from_header, count, in_order, shapes
from llama2_host.checkpoint.lazy import FlatGroups, RawFile, float_rows
from llama2_spec.packing import Native

MAGIC = 0x616B3432
HEADER_BYTES = 256
HEADER = struct.Struct("<Ii7iB")          # magic, version, shape, classifier is shared
GROUP_SIZE = struct.Struct("<i")          # v2 only, right behind: at byte 37, unaligned
FLOATS = (*NORMS, "final_norm")
WEIGHTS = ("embedding", *MATRICES, "classifier")


def matches(head: bytes) -> bool:
    return head[:4] == struct.pack("<I", MAGIC)


def read(data: np.ndarray, path):
    """Config, float32 tensors, and for v2 the native codes, scales and group size per tensor."""
    if len(data) < HEADER_BYTES:
        raise CheckpointError(f"{path}: truncated checkpoint: {len(data)} bytes, a llama2.c header alone has "
                              f"{HEADER_BYTES}: copy or export it again")
    header = bytes(data[:HEADER_BYTES])
    _, version, *fields, shared = HEADER.unpack_from(header)
    if version not in (1, 2):
        raise CheckpointError(f"{path}: llama2.c checkpoint of version {version}, expected 0, 1 or 2: "
                              "export it again with export.py --version 1 or 2")
    if shared not in (0, 1):
        raise CheckpointError(f"{path}: impossible header: the shared-classifier flag is {shared}, expected 0 or 1: "
                              "copy or export it again")
    config = config_from_header(fields, tied=bool(shared), path=path)
    if version == 1:
        return _read_floats(data, config, path)
    return _read_groups(data, config, GROUP_SIZE.unpack_from(header, HEADER.size)[0], path)


def _read_floats(data, config, path):
    source, sizes = "llama2.c v1", shapes(config)
    _refuse_ternary(data, config, sizes, path)
    check_size(path, len(data), HEADER_BYTES + 4 * sum(map(count, sizes.values())), source)
    tensors, _ = _floats(path, in_order(config, FLOATS + WEIGHTS), sizes)
    return source, config, tensors, None


def _refuse_ternary(data, config, sizes, path) -> None:
    """Forks write matrices of -1, 0 and 1 under this version: four or five to a byte, the embedding as float32 or
    likewise."""
    weights, table = (sum(count(sizes[name]) for name in names) for names in (in_order(config, WEIGHTS), ["embedding"]))
    rest = len(data) - HEADER_BYTES - 4 * sum(count(sizes[name]) for name in in_order(config, FLOATS))
    for held, packed in ((rest, weights), (rest - 4 * table, weights - table)):
        if packed and 1.5 <= 8 * held / packed <= 2.7:
            raise CheckpointError(f"{path}: unsupported: {8 * held / packed:.1f} bits a weight behind a llama2.c v1 "
                                  "header, expected float32: a file of ternary weights, or a truncated one: export the "
                                  "model with export.py --version 1")


def _read_groups(data, config, group_size, path):
    source, sizes = "llama2.c v2", shapes(config)
    # Groups run over the flattened tensor and may span rows; a scale then serves the end of one
    # row and the start of the next. Only the whole tensor has to divide.
    for name in in_order(config, WEIGHTS):
        if group_size <= 0 or count(sizes[name]) % group_size:
            raise CheckpointError(f"{path}: impossible header: group size {group_size} does not divide the "
                                  f"{count(sizes[name])} weights of {name}: export it again")
    floats = sum(count(sizes[name]) for name in in_order(config, FLOATS))
    weights = sum(count(sizes[name]) for name in in_order(config, WEIGHTS))
    check_size(path, len(data), HEADER_BYTES + 4 * floats + weights + 4 * (weights // group_size), source)

    tensors, offset = _floats(path, in_order(config, FLOATS), sizes)
    groups = {}
    for name in in_order(config, WEIGHTS):
        size = count(sizes[name])
        codes = data[offset:offset + size].view(np.int8)
        offset += size
        # Copied: a scale need not start at a multiple of four bytes.
        scales = np.frombuffer(bytes(data[offset:offset + 4 * (size // group_size)]), "<f4")
        offset += 4 * len(scales)
        tensors[name] = FlatGroups(name, path, codes, scales, group_size).reshape(sizes[name])
        groups[name] = Native(codes.reshape(sizes[name]), scales, group_size)
    return source, config, tensors, groups


def _floats(path, names, sizes):
    """Tensors that begin behind the header, and where they end."""
    tensors, offset, file = {}, HEADER_BYTES, RawFile(path)
    for name in names:
        tensors[name] = float_rows(name, file, offset, sizes[name])
        offset += 4 * count(sizes[name])
    return tensors, offset
