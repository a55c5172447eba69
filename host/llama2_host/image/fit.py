"""Checks before an upload that a model fits a device, with the arithmetic in the refusal."""
from dataclasses import replace

from llama2_host.errors import HostError
from llama2_host.progress import quantity
from llama2_host.quantisation import Recipe
from llama2_spec.image import payload_bytes, row_layout
from llama2_spec.model import KvFormat, ModelConfig
from llama2_spec.numerics import MAX_SEQ_LEN
from llama2_spec.protocol import Device
from llama2_spec.traffic import BEAT_BYTES, kv_beats

FEW_POSITIONS = 16              #: a context that is not worth a model
KV_ALIGNMENT_BYTES = 2048       #: the cache begins at a multiple of it, behind the image


def kv_bytes(config: ModelConfig, positions: int | None = None) -> int:
    """The K/V cache, of the whole context if no number of positions is given."""
    return kv_beats(config, positions) * BEAT_BYTES


def arithmetic(config: ModelConfig, image_bytes: int) -> str:
    """The part of a device's DRAM that a model takes, as text."""
    return (f"it takes {quantity(_end(image_bytes) + kv_bytes(config))} of DRAM: image {quantity(image_bytes)} + K/V "
            f"cache {quantity(kv_bytes(config))} ({cache_arithmetic(config)})")


def cache_arithmetic(config: ModelConfig) -> str:
    """The product behind :func:`kv_bytes`."""
    return f"{config.seq_len} positions x {config.n_layers} layers x {row_layout(config)[1] * BEAT_BYTES} bytes, " \
           f"{config.kv.name.lower()}"


def longest(config: ModelConfig, image_bytes: int, dram_bytes: int) -> dict[KvFormat, int]:
    """Positions that the DRAM has room for behind the image, in each K/V format."""
    room = max(dram_bytes - _end(image_bytes), 0)
    return {kv: min(room // kv_bytes(replace(config, kv=kv), 1), MAX_SEQ_LEN) for kv in KvFormat}


def _end(image_bytes: int) -> int:
    """Offset at which the cache begins."""
    return -(-image_bytes // KV_ALIGNMENT_BYTES) * KV_ALIGNMENT_BYTES


def check(config: ModelConfig, image_bytes: int, device: Device) -> None:
    """Raise one line if the model exceeds a maximum of the build, or its DRAM."""
    maxima = (
        ("dim", config.dim, device.max_dim),
        ("n_heads * head_dim", config.q_dim, device.max_dim),
        ("hidden_dim", config.hidden_dim, device.max_hidden_dim),
        ("head_dim", config.head_dim, device.max_head_dim),
        ("n_kv_heads * head_dim", config.kv_dim, device.max_kv_dim),
        ("n_heads", config.n_heads, device.max_heads),
        ("n_layers", config.n_layers, device.max_layers),
        ("vocab_size", config.vocab_size, device.max_vocab_size),
        ("seq_len", config.seq_len, device.max_seq_len),
    )
    for name, value, limit in maxima:
        if value > limit:
            advice = f"convert with --seq-len {limit}" if name == "seq_len" else \
                     "use a smaller model or a build with larger maxima"
            raise HostError(f"the model's {name} is {value}, this device's maximum is {limit}: {advice}")
    needed = _end(image_bytes) + kv_bytes(config)
    if needed > device.dram_bytes:
        raise HostError(f"the model needs {quantity(needed)} (image {quantity(image_bytes)} + K/V cache of "
                        f"{config.seq_len} positions {quantity(kv_bytes(config))}: {config.n_layers} layers x "
                        f"{row_layout(config)[1] * BEAT_BYTES} bytes each, {config.kv.name.lower()}), the device has "
                        f"{quantity(device.dram_bytes)}: {_advice(config, image_bytes, device.dram_bytes)}")


def _advice(config: ModelConfig, image_bytes: int, dram_bytes: int) -> str:
    positions = longest(config, image_bytes, dram_bytes)
    if positions[config.kv] >= FEW_POSITIONS:
        larger = [f"--kv {kv.name.lower()} "
                  f"({f'all {config.seq_len}' if count >= config.seq_len else f'up to {count // 16 * 16}'})"
                  for kv, count in positions.items() if kv > config.kv]
        return " or ".join([f"convert with --seq-len {positions[config.kv] // 16 * 16} or less",
                            *larger]) + ", or use a smaller model"
    smallest = payload_bytes(config, "q4")
    if smallest + kv_bytes(config, FEW_POSITIONS) > dram_bytes:
        return f"use a smaller model, this one has {quantity(smallest)} even with --format q4 --embedding q4"
    enough = Recipe("q4").expected_bytes(config) + kv_bytes(config, FEW_POSITIONS) <= dram_bytes
    return f"convert with --format q4{'' if enough else ' --embedding q4'}, or use a smaller model"
