"""Says which known models fit the boards' 256 MiB, how long their upload takes, and their predicted speed.

Ref: huggingface.co, config.json of karpathy/tinyllamas, HuggingFaceTB/SmolLM2, keeeeenw/MicroLlama,
ahxt/LiteLlama-460M-1T, TinyLlama/TinyLlama-1.1B-Chat-v1.0
"""
import json
from dataclasses import replace

from bench.shapes import SHAPES
from llama2_host.image.fit import kv_bytes, longest
from llama2_host.progress import quantity
from llama2_host.quantisation import Recipe
from llama2_spec.emit_docs import table
from llama2_spec.image import Kind, tensor_bytes
from llama2_spec.model import ModelConfig
from llama2_spec.packing import BEAT, row_beats
from llama2_spec.traffic import TARGETS, kv_beats
from soc import configuration
from soc.sim.simulator import DRAM_SIZE

MODELS = {
    **{name: SHAPES[name] for name in ("stories260K", "stories15M", "stories42M", "stories110M")},
    "SmolLM2-135M": replace(SHAPES["SmolLM2-135M"], seq_len=8192),
    "SmolLM2-360M": ModelConfig(960, 2560, 32, 15, 5, 64, 49152, 8192, 1e-5, 100000.0, True),
    "MicroLlama-300M": ModelConfig(1024, 5632, 12, 16, 4, 64, 32000, 2048, 1e-5, 10000.0, False),
    "LiteLlama-460M": ModelConfig(1024, 4096, 24, 16, 16, 64, 50304, 1024, 1e-5, 10000.0, False),
    "TinyLlama-1.1B": ModelConfig(2048, 5632, 22, 32, 4, 64, 32000, 2048, 1e-5, 10000.0, False),
}
FORMATS = ("q8", "q4")
LEAST   = 128    # positions of a context that is worth a row


def useful_beats(config, format, position):
    """The same as llama2_spec.traffic's, for a model without an image."""
    recipe = Recipe(format)
    tables = 0 if config.tied else tensor_bytes(config, Kind.EMBEDDING,
                                                *recipe.formats(config).get((Kind.EMBEDDING, 0), ("q8", None)))
    row    = row_beats(-(-config.dim//16), "q8", 64)
    return (recipe.expected_bytes(config) - tables)//BEAT + kv_beats(config, position + 1) + row


def too_large(config):
    """The first maximum of the boards' build that a model exceeds, or None."""
    maxima = configuration.PARAMETERS
    for name, value in (("dim", max(config.dim, config.q_dim)), ("hidden_dim", config.hidden_dim),
                        ("vocab_size", config.vocab_size),
                        ("heads", config.n_heads)):
        limit = maxima.get(f"max_{name}")
        if limit is not None and value > limit:
            return f"{name} {value:,}, at most {limit:,}"
    return None


def row(name, config, format, upload_bytes_per_s):
    if what := too_large(config):
        return name, format, "–", what, "–", "–", "–"
    size      = Recipe(format).expected_bytes(config)
    positions = {kv: min(count, config.seq_len) for kv, count in longest(config, size, DRAM_SIZE).items()}
    kv        = next(iter(positions))
    if max(positions.values()) < LEAST:
        return name, format, quantity(size), "no room beside the weights", "–", "–", "–"
    best   = max(positions, key=lambda kv: positions[kv]) if positions[kv] < LEAST else kv
    config = replace(config, seq_len=positions[best], kv=best)
    beats  = useful_beats(config, format, config.seq_len//2)
    target = TARGETS["arty"]
    others = "; ".join(f"{other.name.lower()}: {count:,}"
                       for other, count in positions.items() if count > positions[best])
    return (name, format, quantity(size), f"{config.seq_len:,} ({best.name.lower()}{f'; {others}' if others else ''})",
            quantity(kv_bytes(config)),
            f"{size/upload_bytes_per_s:,.0f} s", f"{target.clock_hz*target.share/beats:,.1f}")


def fits_table(results, age=""):
    """The table of docs/checkpoints.md; ``results`` is the folder of the records, ``age`` what is said of that of the
    upload."""
    rate = json.loads((results/"uart.json").read_text())["upload_bytes_per_s"]
    rows = [row(name, config, format, rate) for name, config in MODELS.items() for format in FORMATS]
    return table(("Model", "Format", "Weights", "Positions that fit, K/V format", "K/V cache",
                  "Upload at 3 Mbaud" + age, "Tokens/s at half of the context, Arty"), rows)
