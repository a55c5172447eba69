"""Describes a checkpoint before it is converted, as labelled lines. All commands take their words from here."""
from pathlib import Path
from types import SimpleNamespace

from llama2_host import checkpoint
from llama2_host.checkpoint import padding
from llama2_host.image.discovery import find_template, find_tokenizer
from llama2_host.errors import HostError
from llama2_host.image.fit import cache_arithmetic, check, kv_bytes, longest
from llama2_host.progress import quantity
from llama2_host.quantisation import Recipe
from llama2_host.chat.template import Template

from llama2_host.tokenizer import load as load_tokenizer
from llama2_spec import image as image_module
from llama2_spec.maxima import BUILD, DRAM_BYTES
from llama2_spec.model import ModelConfig

Line = tuple[str, str]          #: a label, empty where a line continues, and a text


def shape(config: ModelConfig, image_bytes: int, window: int | None = None) -> list[Line]:
    """Shapes, cache, and whether the default build runs it; ``image_bytes``: known, or expected."""
    lines = [
        ("shape", f"dim {config.norm_dim}, hidden_dim {config.hidden_dim}, {config.n_layers} layers, {config.n_heads} "
                  f"heads, {config.n_kv_heads} key/value heads, head_dim {config.score_dim}"),
        ("", f"vocabulary {config.vocab_size}, context {config.seq_len}, "
             f"classifier {'tied to the embedding' if config.tied else 'of its own'}"),
        *([("", f"stored with {padding.note(config)}")] if padding.note(config) else []),
        *([("", f"a sliding window of {window} positions: convert with --seq-len {window}")]
          if window is not None and window < config.seq_len else []),
        ("K/V cache", f"{quantity(kv_bytes(config))} for the whole context: {cache_arithmetic(config)}")]
    build = SimpleNamespace(**BUILD, dram_bytes=DRAM_BYTES)
    if refused := refusal(config, image_bytes, build):
        lines.append(("runs not", f"on the default build with {quantity(DRAM_BYTES)}: {refused}"))
    room = longest(config, image_bytes, DRAM_BYTES)
    if not refused or max(room.values()) and not refusal(config, image_bytes,
                                                         SimpleNamespace(**BUILD, dram_bytes=1 << 40)):
        lines.append(("", f"positions that fit {quantity(DRAM_BYTES)} of DRAM beside {quantity(image_bytes)} of image: "
                      + ", ".join(f"{count} {kv.name.lower()}" for kv, count in room.items())))
    return lines


def refusal(config: ModelConfig, image_bytes: int, device) -> str:
    """Why a model cannot be converted, or a device does not take it; empty if all is well."""
    try:
        image_module.check(config)
        check(config, image_bytes, device)
    except (ValueError, HostError) as error:
        return str(error)
    return ""


def of_checkpoint(path: Path, tokenizer: Path | None = None) -> list[Line]:
    """A checkpoint's weights, shapes, position encoding, vocabulary and template, and the parts of its files that are
    not used."""
    source = checkpoint.load(path)
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    groups = sorted({f"{part.format} g{part.group}" for part in (source.groups or {}).values()})
    weights = f", {' and '.join(groups)}" if groups else ""
    config = padding.padded_config(source.config)
    size = sum(file.stat().st_size for file in files)
    return [("checkpoint", f"{path.name}: {source.source}, {quantity(size)}, {source.n_parameters:,} "
                           f"parameters{weights}"),
            *shape(config, Recipe().expected_bytes(config), source.window), ("RoPE", rope(source.config)),
            *vocabulary(path, tokenizer, source.config.vocab_size),
            ("ignored", "; ".join(source.ignored) or "nothing")]


def rope(config: ModelConfig) -> str:
    """Base and scaling of the position encoding."""
    factors = config.rope_factors
    if not factors:
        return f"base {config.rope_theta:g}, no scaling"
    kind = f"linear scaling by {factors[0]:g}" if len(set(factors)) == 1 else \
           f"frequencies divided by {min(factors):g} to {max(factors):g}"
    return f"base {config.rope_theta:g}, {kind}"


def vocabulary(path: Path, tokenizer: Path | None, vocab_size: int) -> list[Line]:
    """Lines about the text side of a model: vocabulary, BOS, every end token, chat template."""
    lines, found = [], tokenizer or find_tokenizer(path, vocab_size)
    loaded = None
    if found is None:
        lines.append(("tokenizer", "none found: name one with --tokenizer"))
    else:
        try:
            loaded = load_tokenizer(found, vocab_size)
            lines += [("tokenizer", f"{loaded.vocab_size} entries from {found.name}"),
                      ("BOS", f"{_token(loaded, loaded.bos_id)} begins every text" if loaded.adds_bos
                       else "none is added"),
                      ("ends at", ", ".join(_token(loaded, id) for id in loaded.stop_ids)
                       or "no token: only at --steps")]
        except HostError as error:
            lines.append(("tokenizer", f"cannot be used: {error}"))
    try:
        text = find_template(path)
        lines.append(("template", Template.from_text(text).name if text
                      else "none: plain text, or name one with --template"))
    except HostError as error:
        lines.append(("template", f"cannot be used: {error}"))
    return lines


def _token(tokenizer, id: int | None) -> str:
    """An id with its text."""
    if id is None:
        return "none"
    text = next((text for text, special in tokenizer.specials.items() if special == id), None)
    text = text if text is not None else tokenizer.piece(id, first=False).decode("utf-8", "replace").strip()
    return f"{id} {text!r}"
