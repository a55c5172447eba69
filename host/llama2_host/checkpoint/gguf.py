"""Reads GGUF models of the llama architecture, version 2 and 3, in the types that llama.cpp's files usually hold."""
# Ref: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; llama.cpp's converter for names and the order of rows

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from llama2_host.checkpoint import keys, rope
from llama2_host.checkpoint.errors import CheckpointError
from llama2_host.checkpoint.fields import Fields
from llama2_host.checkpoint.gguf_file import MAGIC, GgufFile, Stored
from llama2_host.checkpoint.layout import check_shapes, config_from_fields, shapes
from llama2_host.checkpoint.lazy import RawFile, Rows, equal
from llama2_spec.packing import Native

PREFIX = "llama."               #: of the keys that say what the model computes
TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K")
EMBEDDING, CLASSIFIER, FINAL_NORM, ROPE_FACTORS = ("token_embd.weight", "output.weight", "output_norm.weight",
                                                   "rope_freqs.weight")
# wq and wk are in llama2.c's order already: the converter to GGUF has put them so.
LAYER = {"attention_norm": "attn_norm", "wq": "attn_q", "wk": "attn_k", "wv": "attn_v", "wo": "attn_output",
         "ffn_norm": "ffn_norm", "w1": "ffn_gate", "w2": "ffn_down", "w3": "ffn_up"}
NATIVE_GROUP = 32
NATIVE_BYTES = {"Q8_0": 34, "Q4_0": 18}     #: a float16 scale, then 32 codes


def matches(head: bytes) -> bool:
    return head[:4] == MAGIC


def read(data, path: Path):
    """Returns the config, tensors still in the file, the groups of those in Q8_0 and Q4_0, and notes for people."""
    file = GgufFile.open(path)
    if file.value("general.type") == "adapter" or file.value("adapter.type") is not None:
        raise CheckpointError(f"{path}: this is a LoRA adapter, expected a whole model: merge it into its base model "
                              "(llama.cpp: llama-export-lora) and name the result")
    architecture = file.value("general.architecture")
    if architecture != "llama":
        raise CheckpointError(f"{path}: unsupported: architecture {str(architecture)[:40]!r}, expected llama")
    if (file.value("split.count") or 1) != 1:
        raise CheckpointError(f"{path}: unsupported: one of {file.value('split.count')} parts of a model: "
                              "join them with llama.cpp's gguf-split --merge")
    config = _config(file, path)
    names = {"embedding": EMBEDDING, "final_norm": FINAL_NORM, "classifier": CLASSIFIER}
    names |= {f"layers.{i}.{ours}": f"blk.{i}.{theirs}.weight" for i in range(config.n_layers)
              for ours, theirs in LAYER.items()}
    for stray in sorted(set(file.tensors) - set(names.values()) - {ROPE_FACTORS}):
        what = "biases" if stray.endswith(".bias") else "QK-norm" if "q_norm" in stray or "k_norm" in stray else \
               "experts" if "exp" in stray else "this tensor"
        raise CheckpointError(f"{path}: unsupported: {what} ({stray[:80]}): expected the tensors of a LLaMA of "
                              f"{config.n_layers} layers")
    raw, tensors, native = RawFile(path), {}, {}
    for name in shapes(config):
        stored = file.tensors.get(names[name])
        if stored is None:
            raise CheckpointError(f"{path}: tensor {names[name]} is missing: copy or download the file again")
        tensors[name] = _rows(name, stored, raw)
        if stored.type in NATIVE_BYTES:
            native[name] = stored
    check_shapes(config, tensors, path)
    ignored: tuple[str, ...] = ()
    if not config.tied and equal(tensors["embedding"], tensors["classifier"]):      # stored twice: once is enough
        config, ignored = replace(config, tied=True), (f"{CLASSIFIER}, which equals {EMBEDDING}",)
        for held in (tensors, native):
            held.pop("classifier", None)
    if file.value(PREFIX + "rope.scaling.type") == "none" and file.value(PREFIX + "rope.scaling.factor"):
        ignored += (f"{PREFIX}rope.scaling.factor, whose type is none",)
    return f"GGUF {_types(file)}", config, tensors, Groups(native, raw) if native else None, {
        "window": _window(file, path), "ignored": ignored}


def _config(file: GgufFile, path: Path):
    fields = Fields({name[len(PREFIX):]: file.value(name) for name in file.names() if name.startswith(PREFIX)}, path)
    heads = _same_in_all_layers(fields, "attention.head_count", 0)
    if not heads:
        fields.whole("attention.head_count")
    embedding = file.tensors.get(EMBEDDING)
    if embedding is None or len(embedding.shape) != 2:
        raise CheckpointError(f"{path}: tensor {EMBEDDING} is missing: copy or download the file again")
    config = config_from_fields(
        path, dim=fields.whole("embedding_length"), hidden_dim=_same_in_all_layers(fields, "feed_forward_length", 0),
        n_layers=fields.whole("block_count"), n_heads=heads,
        n_kv_heads=_same_in_all_layers(fields, "attention.head_count_kv", heads),
        head_dim=fields.whole("attention.key_length", 0), vocab_size=embedding.shape[0],
        seq_len=fields.whole("context_length", 2048),
        norm_epsilon=fields.real("attention.layer_norm_rms_epsilon", 1e-5),
        rope_theta=fields.real("rope.freq_base", 10000.0), tied=CLASSIFIER not in file.tensors)
    _refuse_keys(fields, config.head_dim)
    if fields.whole("rope.dimension_count", config.head_dim) != config.head_dim:
        raise CheckpointError(f"{path}: unsupported: rotation of a part of the head, "
                              f"{fields.get('rope.dimension_count')} of {config.head_dim} elements")
    if fields.whole("attention.value_length", config.head_dim) != config.head_dim:
        raise CheckpointError(f"{path}: unsupported: values of {fields.get('attention.value_length')} elements with "
                              f"keys of {config.head_dim}")
    return replace(config, rope_factors=_factors(file, fields, config, path))


def _same_in_all_layers(fields: Fields, name: str, default: int) -> int:
    """A number that a file may also give layer by layer."""
    value = fields.get(name)
    if not isinstance(value, list):
        return fields.whole(name, default)
    if len(set(map(str, value))) != 1:
        raise CheckpointError(f"{fields.where}: unsupported: layers that differ in {name}")
    return Fields({name: value[0]}, fields.where).whole(name)


def _refuse_keys(fields: Fields, head_dim: int) -> None:
    """Refuse keys that are not read; the attention's scale may be there if it is the usual one."""
    told = dict(fields.values)
    scale = told.get("attention.scale")
    if isinstance(scale, float) and abs(scale * head_dim ** 0.5 - 1) < 1e-5:
        del told["attention.scale"]
    if fields.get("attention.layer_norm_rms_epsilon") is not None:
        told.pop("attention.layer_norm_epsilon", None)      # of another norm than LLaMA's
    for name, usual in (("attention.key_length_swa", head_dim), ("attention.value_length_swa", head_dim),
                        ("rope.dimension_count_swa", head_dim), ("rope.freq_base_swa", fields.get("rope.freq_base"))):
        if told.get(name) == usual:
            told.pop(name, None)
    if told.get("rope.scaling.yarn_ext_factor") == -1:      # llama.cpp: as the type says
        del told["rope.scaling.yarn_ext_factor"]
    keys.refuse(fields.where, told, keys.GGUF, all_matter=True, prefix=PREFIX)


def _window(file: GgufFile, path: Path) -> int | None:
    """Positions that attention looks back, where that is not all of them."""
    value = file.value(PREFIX + "attention.sliding_window")
    return None if value in (None, 0) else Fields({"sliding_window": value}, path).whole("sliding_window")


def _factors(file: GgufFile, fields: Fields, config, path: Path) -> tuple[float, ...]:
    """The scaling that the metadata names, and the file's own factors; each divides the frequencies.

    A factor without a type is linear scaling, and so is the older key rope.scale_linear.
    """
    kind, stored = fields.text("rope.scaling.type"), file.tensors.get(ROPE_FACTORS)
    factor = next((name for name in ("rope.scaling.factor", "rope.scale_linear") if fields.get(name) not in (None, 0)),
                  None)
    names = {"factor": factor or "rope.scaling.factor",
             "original_max_position_embeddings": "rope.scaling.original_context_length"}
    if not kind and factor:
        kind = "linear"
    if kind == "linear" and not factor:
        kind = "none"
    scaling = rope.factors(kind, config.head_dim, config.rope_theta,
                           lambda name: fields.real(names.get(name, f"rope.scaling.{name}")), path)
    if stored is None:
        return scaling
    if stored.type != "F32" or stored.shape != (config.head_dim // 2,):
        raise CheckpointError(f"{path}: {ROPE_FACTORS} is not one float32 per pair of a head ({config.head_dim // 2})")
    factors = tuple(float(factor) for factor in np.asarray(_rows(ROPE_FACTORS, stored, RawFile(path))))
    if not all(1e-6 < factor < 1e6 for factor in factors):
        raise CheckpointError(f"{path}: {ROPE_FACTORS} holds factors outside 1e-6 to 1e6: copy or download the file "
                              "again")
    return tuple(a * b for a, b in zip(factors, scaling)) if scaling else factors


def _rows(name: str, stored: Stored, raw: RawFile) -> Rows:
    from gguf import GGMLQuantizationType, dequantize
    if stored.type not in TYPES:
        raise CheckpointError(f"{raw.path}: unsupported: tensor {name} is {stored.type}, expected {', '.join(TYPES)}")
    kind = GGMLQuantizationType[stored.type]
    one = len(stored.shape) == 1        # its elements are the rows
    row_bytes = stored.row_bytes // stored.shape[0] if one else stored.row_bytes
    if one and stored.type not in ("F32", "F16", "BF16"):
        raise CheckpointError(f"{raw.path}: unsupported: the vector {name} is {stored.type}, expected F32, F16 or BF16")

    def read(start, stop):
        data = raw.read(stored.offset_bytes + start * row_bytes, (stop - start) * row_bytes)
        if not len(data):
            return np.zeros((0, *stored.shape[1:]), np.float32)
        with np.errstate(all="ignore"):         # damaged scales: what is not finite is refused by Rows
            return dequantize(data.reshape(1 if one else stop - start, -1), kind).astype(np.float32, copy=False)
    return Rows(name, raw.path, stored.shape, read)


class Groups(Mapping):
    """The groups of 32 in which the file holds tensors of Q8_0 and Q4_0, sliced by rows."""

    def __init__(self, stored: dict[str, Stored], raw: RawFile):
        self._stored, self._raw = stored, raw

    def __getitem__(self, name: str) -> Native:
        stored = self._stored[name]
        return Native(_Part(stored, self._raw, codes=True), _Part(stored, self._raw, codes=False), NATIVE_GROUP,
                      {"Q8_0": "q8", "Q4_0": "q4"}[stored.type])

    def __iter__(self):
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


class _Part:
    """The codes, int8 [out][in], or the scales, float32 [out][groups], of a tensor in Q8_0 or Q4_0."""

    def __init__(self, stored: Stored, raw: RawFile, *, codes: bool):
        self._stored, self._raw, self._codes = stored, raw, codes
        rows, columns = stored.shape
        self.shape = (rows, columns if codes else columns // NATIVE_GROUP)

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(self.shape[0])
        data = self._raw.read(self._stored.offset_bytes + start * self._stored.row_bytes,
                              (stop - start) * self._stored.row_bytes).reshape(-1, NATIVE_BYTES[self._stored.type])
        scales = np.ascontiguousarray(data[:, :2]).view("<f2").astype(np.float32)
        if not np.isfinite(scales).all():
            raise CheckpointError(f"{self._raw.path}: a scale is no number: copy or download the file again")
        if not self._codes:
            return np.abs(scales).reshape(stop - start, -1)
        if self._stored.type == "Q4_0":         # low nibbles, then high ones; 8 is zero
            codes = np.concatenate([data[:, 2:] & 15, data[:, 2:] >> 4], axis=1).astype(np.int8) - np.int8(8)
        else:                                   # -128, which nobody writes, has no opposite and saturates
            codes = np.maximum(data[:, 2:].view(np.int8), -127)
        # A negative scale turns its codes over: in Q4_0 half of them are.
        return np.where(scales < 0, -codes, codes).reshape(stop - start, -1)


def _types(file: GgufFile) -> str:
    """The types of the matrices, the most frequent first."""
    found = [stored.type for stored in file.tensors.values() if len(stored.shape) == 2]
    return "/".join(sorted(set(found), key=lambda type: -found.count(type)))
