"""Feeds every reader damaged and random files by the thousand; ``python -m bench.fuzz`` reports how each was handled.

Each input must become a checkpoint, tokenizer or template, or be refused by an error of one line, in bounded time and
memory. Anything else is a finding: the bench prints it, keeps its input, and exits with 1.
"""
import argparse
import base64
import contextlib
import copy
import json
import os
import random
import resource
import struct
import tempfile
import time
import traceback
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench import records
from llama2_host import checkpoint, combinations
from llama2_host.tokenizer import vocabulary
from llama2_host.checkpoint import gguf_file
from llama2_host.checkpoint.layout import shapes
from llama2_host.checkpoint.write import pack_v0, pack_v1, pack_v2
from llama2_host.commands.info import image_lines
from llama2_host.chat.conversation import Conversation
from llama2_host.errors import HostError
from llama2_host.image.discovery import find_template
from llama2_host.integer import GoldenBackend
from llama2_host.image.model import Model
from llama2_host.chat.template import Template

from llama2_host.tokenizer import load as load_tokenizer, unpack
from llama2_spec import image
from tests.host import vocabularies
from tests.host.checkpoints import write_gguf, write_huggingface
from tests.host.generated import SMALL, random_tensors
from tests.host.test_containers import CONFIG
from tests.host.test_vocabulary import ranks
from tests.host.tiny import CONFIG as TINY

ROOT = Path(__file__).parent.parent
INPUTS = 60_000
SECONDS = 5.0               #: no input may take longer
MEMORY_MIB = 256            #: nor may all of them make the process grow by more
SPECIAL = [0, 1, 2, 0x7F, 0x80, 0xFF]
WIDE = [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 20, 1 << 31, 1 << 40, 1 << 60, (1 << 64) - 1]


class Target:
    """A valid input in ``folder`` with a reader; ``file`` is the file that gets damaged."""

    def __init__(self, name: str, folder: Path, file: Path, read, *, hot: int | None = None, codec=None,
                 repair=lambda data: data):
        self.name, self.folder, self.file, self.read, self.codec, self.repair = name, folder, file, read, codec, repair
        self.valid = file.read_bytes()
        self.described = codec[0](self.valid) if codec else None    #: the JSON in it
        self.hot = min(hot or len(self.valid), len(self.valid))     #: damage beyond rarely changes what is read

    def inputs(self, rng: random.Random):
        """One damaged input; most of those with checksums have them right all the same."""
        data = self._damaged(rng)
        return self.repair(data) if rng.random() < 0.9 else data

    def _damaged(self, rng: random.Random):
        """One damaged input; half of those that hold JSON stay JSON, with other values."""
        if self.codec and rng.random() < 0.5:
            described = copy.deepcopy(self.described)
            for _ in range(rng.choice((1, 1, 2, 4))):
                described = changed(described, rng)
            return self.codec[1](described)
        data = bytearray(self.valid)
        kind = rng.randrange(8)
        if kind == 0:
            return bytes(data[:rng.randrange(len(data))])
        if kind == 1:
            return rng.randbytes(rng.randrange(400))
        if kind == 2:
            return bytes(data[:rng.randrange(min(64, len(data)))]) + rng.randbytes(rng.randrange(400))
        for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
            at = rng.randrange(self.hot)
            if kind == 3:
                data[at] = rng.choice(SPECIAL)
            elif kind == 4:
                data[at] ^= 1 << rng.randrange(8)
            elif kind == 5:
                size = rng.choice((2, 4, 8))
                value = rng.choice(WIDE) & ((1 << 8 * size) - 1)
                data[at:at + size] = value.to_bytes(size, "little")
            elif kind == 6:                 # a piece is repeated, moved or removed
                size = rng.randrange(1, 64)
                piece = data[at:at + size]
                to = rng.randrange(self.hot)
                data[to:to + rng.choice((0, size))] = piece if rng.random() < 0.7 else b""
            else:                           # a number or a text of another kind, where the file is JSON
                data[at:at + rng.choice((0, 1, 3))] = rng.choice((b"-1", b"null", b"[]", b"{}", b'"', b"1e999", b"NaN",
                                                                  b"true",
                                                                   b"99999999999999999999", b"\\ud800", b"[" * 50))
        return bytes(data)


def changed(value, rng: random.Random):
    """The same JSON but for one value, anywhere in it."""
    children = (list(value.items() if isinstance(value, dict) else enumerate(value)) if isinstance(value, (dict, list))
                else [])
    if not children or rng.random() < 0.08:
        return rng.choice((value * 2 if isinstance(value, (int, list)) and value not in ([],) and len(str(value)) < 99
                           else 7,
                           None, True, -1, 0, 1, 1.5, 1e308, float("inf"), 1 << 31, 1 << 63, 1 << 200, "", "x",
                           "\ud800", "a\nb\0", "é" * 300, [], {},
                           [[]], {"a": 1}, str(value)[:50], [value], "default", "llama3", "linear", "F32", "BPE",
                           "ByteLevel"))
    key, child = rng.choice(children)
    if rng.random() < 0.06:
        del value[key]
    elif rng.random() < 0.04 and isinstance(value, dict):
        value[rng.choice(("x", "", "bos_token_id", "rope_scaling", "sliding_window", "a.bias"))] = child
    else:
        value[key] = changed(child, rng)
    return value


def json_bytes(value) -> bytes:
    return json.dumps(value).encode()


JSON = json.loads, json_bytes
IMAGE_NAMES = [name for name, _, _ in image.HEADER_FIELDS]
#: the header of safetensors, the weights behind it as they were
HEADER = (lambda data: [json.loads(data[8:8 + int.from_bytes(data[:8], "little")]),
                        data[8 + int.from_bytes(data[:8], "little"):].hex()],
          lambda pair: header_bytes(*pair) if isinstance(pair, list) and len(pair) == 2 else json_bytes(pair))
PACKED = (lambda data: json.loads(zlib.decompress(data[4:])),
          lambda value: b"TOKZ" + zlib.compress(json_bytes(value), 1))


def image_json(data: bytes):
    """A model image as JSON: header, directory, and in hexadecimal what lies behind."""
    h = dict(zip(IMAGE_NAMES, image.HEADER.unpack_from(data)))
    end = h["entries_offset"] + h["entries_count"] * image.ENTRY.size
    entries = [list(image.ENTRY.unpack_from(data, at)) for at in range(h["entries_offset"], end, image.ENTRY.size)]
    return [h | {"magic": h["magic"].decode()}, entries, data[end:].hex()]


def image_bytes(described) -> bytes:
    """The image that such JSON describes; values that do not fit their field wrap."""
    header, entries, tail = described if isinstance(described, list) and len(described) == 3 else [{}, [], ""]
    header = header if isinstance(header, dict) else {}
    values = [header.get(name) for name in IMAGE_NAMES]
    packed = b"".join(packed_value(code, value) for (_, code, _),
                      value in zip(image.HEADER_FIELDS, values)).ljust(image.HEADER_BYTES, b"\0")
    for entry in entries if isinstance(entries, list) else []:
        entry = entry if isinstance(entry, list) else []
        packed += b"".join(packed_value(code, value) for (_, code, _),
                           value in zip(image.ENTRY_FIELDS, entry)).ljust(image.ENTRY.size, b"\0")
    return repaired(packed + from_hex(tail))


def packed_value(code: str, value) -> bytes:
    """A field of this type, wrapped where the value is too large."""
    if code.endswith("s"):
        return str(value).encode(errors="replace")[:4].ljust(4, b"\0")
    if code == "f":
        try:
            return struct.pack("<f", value if isinstance(value, (int, float)) else 0)
        except (OverflowError, struct.error):
            return struct.pack("<f", float("inf"))
    number = int(value) if isinstance(value, (int, float)) and abs(value) < 1 << 64 else 0
    size = struct.calcsize(code)
    return (number & (1 << 8 * size) - 1).to_bytes(size, "little")


def repaired(data: bytes) -> bytes:
    """The same image with the right length and CRCs, so that a reader gets as far as its content."""
    if len(data) < image.HEADER_BYTES:
        return data
    data, at = bytearray(data), struct.calcsize("<4sIIII")
    struct.pack_into("<I", data, 8, len(data))
    begin = min(int.from_bytes(data[16:20], "little"), len(data))
    if begin >= image.HEADER_BYTES:
        struct.pack_into("<II", data, at, len(data) - begin, zlib.crc32(data[begin:]))
        struct.pack_into("<I", data, 12, zlib.crc32(data[image.CHECKED_FROM:begin]))
    return bytes(data)


def from_hex(text) -> bytes:
    try:
        return bytes.fromhex(text)
    except (ValueError, TypeError):
        return b""


def header_bytes(header, weights) -> bytes:
    text = json_bytes(header)
    return len(text).to_bytes(8, "little") + text + from_hex(weights)


def read_checkpoint(path: Path) -> None:
    """Read everything in a checkpoint, as a conversion does."""
    loaded = checkpoint.load(path)
    assert {name: tuple(tensor.shape) for name, tensor in loaded.tensors.items()} == shapes(loaded.config)
    for tensor in loaded.tensors.values():
        assert np.isfinite(np.asarray(tensor)).all()


def read_image(path: Path) -> None:
    """All that a client does with an image: its description, a step of the model, the beginning of a chat."""
    model = Model.load(path)
    image_lines(model)
    combinations.described(model.image)
    backend = GoldenBackend(model)
    list(backend.write([0, model.config.vocab_size - 1], steps=3, temperature=0).tokens())
    list(backend.write([1], steps=2, seed=1).tokens())
    if model.tokenizer is not None:
        Conversation(backend, model.template, system="s" if model.template.system else None)
        list(backend.write("a b", steps=60, temperature=0, stops=range(4)))


def read_tokenizer(path: Path) -> None:
    tokenizer = load_tokenizer(path)
    tokenizer.decode(tokenizer.encode("a b\n12 é<|im_end|>"))
    unpack(tokenizer.pack())


def read_template(path: Path) -> None:
    text = find_template(path)
    if text is not None:
        template = Template.from_text(text)
        template.check("s")


def targets(folder: Path):
    """Every reader with a valid input of its own."""
    def place(name):
        (folder / name).mkdir()
        return folder / name

    def binary(name, data, read):
        directory = place(name)
        (directory / "model.bin").write_bytes(data)
        return Target(name, directory, directory / "model.bin", read)

    tensors = random_tensors(SMALL)
    for name, data in (("llama2c-v0", pack_v0(SMALL, tensors)), ("llama2c-v1", pack_v1(SMALL, tensors)),
                       ("llama2c-v2", pack_v2(SMALL, tensors, 4))):
        yield binary(name, data, lambda folder: read_checkpoint(folder / "model.bin"))
    tiny = replace(CONFIG, vocab_size=400, n_layers=1)
    tensors = random_tensors(tiny)
    single = write_huggingface(place("safetensors"), tiny, tensors)
    yield Target("safetensors", single, single / "model.safetensors", read_checkpoint, hot=1800, codec=HEADER)
    sharded = write_huggingface(place("sharded"), tiny, tensors, shards=2, dtype="BF16")
    yield Target("config.json", sharded, sharded / "config.json", read_checkpoint, codec=JSON)
    again = write_huggingface(place("index"), tiny, tensors, shards=2, dtype="F16")
    yield Target("index.json", again, again / "model.safetensors.index.json", read_checkpoint, codec=JSON)
    for name, type, write in (("gguf-q8_0", "Q8_0",
                               vocabularies.gguf_byte_level(vocabularies.byte_level(), template=vocabularies.CHATML)),
                              ("gguf-f16", "F16", lambda writer: None)):
        directory = place(name)
        path = write_gguf(directory / "model.gguf", tiny, tensors, type, vocabulary=write, factors=(1.0,) * 8)
        meta = path.stat().st_size - 2 * sum(tensor.size for tensor in tensors.values()) if type == "F16" else 20000
        yield Target(name, directory, path, lambda folder: read_checkpoint(folder / "model.gguf"), hot=max(meta, 2000))
    for name, path in (("gguf-vocabulary", "vocabulary"), ("gguf-template", "template")):
        directory = place(name)
        file = write_gguf(directory / "model.gguf", replace(tiny, dim=32, hidden_dim=32),
                          random_tensors(replace(tiny, hidden_dim=32)),
                          "F16", vocabulary=vocabularies.gguf_byte_level(vocabularies.byte_level(),
                                                                         template=vocabularies.CHATML))
        read = read_tokenizer if path == "vocabulary" else read_template
        yield Target(name, directory, file, lambda folder, read=read: read(folder / "model.gguf"), hot=16000)
    directory = place("gguf-scored")
    scored = load_tokenizer(ROOT / "models" / "stories.tokenizer.bin")
    file = write_gguf(directory / "model.gguf", replace(tiny, vocab_size=513),
                      random_tensors(replace(tiny, vocab_size=513)), "F16",
                      vocabulary=vocabularies.gguf_scored(scored, extra=["<|im_end|>"]))
    yield Target("gguf-scored", directory, file, lambda folder: read_tokenizer(folder / "model.gguf"), hot=16000)
    yield binary("tokenizer.bin", scored.pack(), lambda folder: read_tokenizer(folder / "model.bin"))
    sentencepiece = (ROOT / "models" / "stories.model")
    if sentencepiece.exists():
        yield binary("sentencepiece", sentencepiece.read_bytes(), lambda folder: read_tokenizer(folder / "model.bin"))
    for name, file in (("tokenizer.json", "tokenizer.json"), ("tokenizer_config.json", "tokenizer_config.json")):
        directory = vocabularies.write_folder(place(name), vocabularies.byte_level(300), bos_token="<|im_start|>",
                                              eos_token={"content": "<|im_end|>"}, chat_template=vocabularies.CHATML,
                                              generation={"eos_token_id": [2, 0]})
        yield Target(name, directory, directory / file, lambda folder: (read_template(folder), read_tokenizer(folder)),
                     codec=JSON)
    directory = place("chat_template.jinja")
    (directory / "chat_template.jinja").write_text(vocabularies.LLAMA2)
    yield Target("chat_template.jinja", directory, directory / "chat_template.jinja", read_template)
    for name, format, chosen in (("image-q8", "q8", ""),
                                 ("image-q4", "q4", json.dumps({"name": "x", "user": "{user}", "stops": [2]}))):
        directory = place(name)
        packed = load_tokenizer(folder / "tokenizer.json").pack() if format == "q8" else scored.pack()
        config = replace(TINY, vocab_size=unpack(packed).vocab_size)
        (directory / "model.llm").write_bytes(image.build(config, random_tensors(config), format=format,
                                                          tokenizer=packed,
                                                          template=chosen, provenance="fuzz"))
        begin = image.HEADER.unpack_from((directory / "model.llm").read_bytes())[IMAGE_NAMES.index("payload_offset")]
        yield Target(name, directory, directory / "model.llm", lambda folder: read_image(folder / "model.llm"),
                     hot=begin + 512,
                     codec=(image_json, image_bytes), repair=repaired)
    lines = b"".join(base64.b64encode(piece) + b" %d\n" % rank for rank, piece in enumerate(ranks(300)))
    yield binary("llama3-ranks", lines, lambda folder: read_tokenizer(folder / "model.bin"))
    directory = place("packed-tokenizer")
    (directory / "section").write_bytes(load_tokenizer(folder / "tokenizer.json").pack())
    yield Target("packed-tokenizer", directory, directory / "section", codec=PACKED,
                 read=lambda folder: unpack((folder / "section").read_bytes()).decode([1, 2, 3]))


def attempt(target: Target, data: bytes) -> str:
    """Handle one input; returns whether it was read, refused, or is a finding."""
    target.file.unlink(missing_ok=True)         # an earlier one may still be mapped
    target.file.write_bytes(data)
    for cache in (gguf_file._open, vocabulary._load):
        cache.cache_clear()                     # files change faster than their time stamps
    start_s = time.process_time()               # chat templates have a process and a limit of their own
    try:
        target.read(target.folder)
        result = "read"
    except HostError as error:
        result = ("refused" if "\n" not in str(error) and 0 < len(str(error)) < 1000
                  else f"not one line: {str(error)[:200]!r}")
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        result = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}\n{traceback.format_exc(limit=-4)}"
    elapsed_s = time.process_time() - start_s
    return result if elapsed_s < SECONDS else f"took {elapsed_s:.1f} s"


def run(inputs: int, seed: int, keep: Path | None = None, only: str | None = None, say=lambda line: None) -> dict:
    """Counts per target and the findings; reproducible by the seed."""
    rows, findings = [], []
    with tempfile.TemporaryDirectory() as temporary, quiet():
        found = [target for target in targets(Path(temporary)) if only in (None, target.name)]
        for target in found:
            assert attempt(target,
                           target.valid) == "read", f"{target.name}: the valid input is {attempt(target, target.valid)}"
        before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for target in found:
            rng, counts, slowest_s = random.Random(f"{seed} {target.name}"), Counter(), 0.0
            for _ in range(-(-inputs // len(found))):
                data = target.inputs(rng)
                start_s = time.monotonic()
                result = attempt(target, data)
                slowest_s = max(slowest_s, time.monotonic() - start_s)
                counts[result if result in ("read", "refused") else "finding"] += 1
                if result not in ("read", "refused"):
                    findings.append({"target": target.name, "what": result})
                    if keep is not None:
                        keep.mkdir(parents=True, exist_ok=True)
                        (keep / f"{target.name}-{len(findings)}").write_bytes(data)
            rows.append({"target": target.name, "inputs": sum(counts.values()), **counts,
                         "slowest_s": round(slowest_s, 2)})
            say(json.dumps(rows[-1]))
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib) / 1024
    if grown > MEMORY_MIB:
        findings.append({"target": "all", "what": f"memory grew by {grown:.0f} MiB"})
    return {"inputs": sum(row["inputs"] for row in rows), "memory_grown_mib": round(grown), "findings": findings,
            "rows": rows}


@contextlib.contextmanager
def quiet():
    """Some libraries write their complaints to stderr themselves."""
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=INPUTS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target")
    parser.add_argument("--keep", type=Path, default=ROOT / "build" / "fuzz", help="folder for the inputs of findings")
    parser.add_argument("--json", type=Path, default=ROOT / "bench" / "results" / "fuzz.json")
    args = parser.parse_args()
    start_s = time.monotonic()
    result = run(args.inputs, args.seed, args.keep, args.target, lambda line: print(line, flush=True))
    result |= {"command": f"python -m bench.fuzz --inputs {args.inputs} --seed {args.seed}",
               "wall_s": round(time.monotonic() - start_s)}
    for finding in result["findings"][:40]:
        print(finding["target"], finding["what"])
    print(f"{result['inputs']} inputs, {len(result['findings'])} findings, {result['wall_s']} s, memory "
          f"+{result['memory_grown_mib']} MiB")
    if args.target is None:
        records.write(args.json, "fuzz", result)
    return 1 if result["findings"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
