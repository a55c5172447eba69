"""Gives the tensors of safetensors files, one or several with an index, as rows still in their files."""
# Ref: https://github.com/huggingface/safetensors, its README's format

import struct
from pathlib import Path

import numpy as np

from llama2_host import nested_json
from llama2_host.checkpoint.errors import CheckpointError
from llama2_host.checkpoint.foreign import refuse_pointer
from llama2_host.checkpoint.fields import read_json
from llama2_host.checkpoint.lazy import RawFile, Rows

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
DTYPES = {"F32": ("<f4", 4), "F16": ("<f2", 2), "BF16": ("<u2", 2)}
MAX_HEADER_BYTES = 100_000_000      #: as the format's own library has it


def is_safetensors(head: bytes) -> bool:
    """Returns whether a file with this beginning holds safetensors."""
    if len(head) < 9:
        return False
    length, = struct.unpack_from("<Q", head)
    return 2 <= length <= MAX_HEADER_BYTES and head[8:9] == b"{"


def has_model(directory: Path) -> bool:
    """Returns whether this folder holds a whole model, by the names of its files."""
    return any((directory / name).is_file() for name in (INDEX, SINGLE))


def find(directory: Path) -> list[Path]:
    """The files of a folder that hold its model, in order; empty if it has none."""
    if (directory / INDEX).is_file():
        names = read_json(directory / INDEX).get("weight_map")
        if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
            raise CheckpointError(f"{directory / INDEX}: no weight_map of tensors to files: copy the file again")
        for name in names.values():
            if Path(name).name != name or not name.isprintable():
                raise CheckpointError(f"{directory / INDEX}: {name[:60]!r} is no file of this folder: copy the folder "
                                      "again")
        return [directory / name for name in sorted(set(names.values()))]
    if (directory / SINGLE).is_file():
        return [directory / SINGLE]
    return sorted(directory.glob("*.safetensors"))[:1]


def read(paths: list[Path]) -> tuple[dict[str, Rows], dict[str, str]]:
    """Tensors by their names in the files, and the files' metadata."""
    tensors: dict[str, Rows] = {}
    metadata: dict[str, str] = {}
    for path in paths:
        for name, rows in _read_file(path, metadata):
            if name in tensors:
                raise CheckpointError(f"{path}: tensor {name[:60]} is in another file, too: copy the folder again")
            tensors[name] = rows
    return tensors, metadata


def _read_file(path: Path, metadata: dict):
    header, start, file = _header(path)
    for name, entry in header.items():
        if name == "__metadata__":
            metadata.update(entry)
            continue
        if entry["dtype"] not in DTYPES:
            raise CheckpointError(f"{path}: unsupported: tensor {name[:60]} is {entry['dtype']}, expected "
                                  f"{', '.join(DTYPES)}: export it in one of these")
        yield name, Rows(name, path, entry["shape"], _reader(file, start + entry["data_offsets"][0], entry))


def _header(path: Path):
    """The header, after the format's own library has found the file whole and consistent."""
    from safetensors import SafetensorError, safe_open
    file = RawFile(path)
    refuse_pointer(path, file.read(0, min(file.size_bytes, 64)).tobytes())
    try:
        with safe_open(path, framework="np"):
            pass
        length, = struct.unpack("<Q", file.read(0, 8).tobytes())
        return nested_json.loads(file.read(8, length).tobytes()), 8 + length, file
    except (SafetensorError, ValueError, OSError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: damaged safetensors file ({_line(error)}): copy or download it again") from None


def _reader(file: RawFile, offset: int, entry):
    dtype, size = DTYPES[entry["dtype"]]
    columns = int(np.prod(entry["shape"][1:], dtype=np.int64))

    def read(start, stop):
        data = file.read(offset + start * columns * size, (stop - start) * columns * size).view(dtype)
        if entry["dtype"] == "BF16":
            return (data.astype("<u4") << 16).view("<f4")       # the upper half of a float32
        return data.astype("<f4", copy=False)
    return read


def _line(error) -> str:
    return " ".join(str(error).split())[:120]
