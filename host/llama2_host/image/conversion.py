"""Writes a checkpoint as a model image, with its tokenizer and chat template in it."""
from dataclasses import replace
from pathlib import Path

import numpy as np

from llama2_host import checkpoint
from llama2_host.chat.template import PLAIN, Template
from llama2_host.checkpoint import padding
from llama2_host.files import ModelError
from llama2_host.image.discovery import find_template, load_tokenizer
from llama2_host.progress import Progress
from llama2_host.quantisation import Losses, LostError, Recipe, plan
from llama2_host.tokenizer import Tokenizer
from llama2_host.tokenizer.sentencepiece_tokenizer import SentencePieceTokenizer
from llama2_spec import image as image_module
from llama2_spec.model import KvFormat, ModelConfig
from llama2_spec.numerics import MAX_SEQ_LEN
from llama2_spec.protocol import MAX_STOPS

GROUPS = (32, 64)
KV_FORMATS = tuple(format.name.lower() for format in KvFormat)


def convert(source: checkpoint.Checkpoint, path: Path, file, *, tokenizer: str | Path | None = None,
            recipe: Recipe = Recipe(), template: str | None = None, progress: Progress = Progress.silent) -> None:
    """Write a checkpoint as a model image to an open file; ``path`` is where it came from."""
    vocabulary = load_tokenizer(path, tokenizer, source.config.vocab_size) if tokenizer else None
    progress.note(f"converting {path.name} ({source.source}) to {recipe.format}"
                  + (f" for the text of {Path(recipe.calibrate).name}" if recipe.calibrate else "")
                  + (f" with {Path(tokenizer).name}" if tokenizer else ", without a tokenizer"))
    text, chosen = "", choose_template(path, tokenizer, template)
    if chosen != PLAIN:
        text = chosen.to_text()
        vocabulary = with_special_texts(vocabulary) if chosen.jinja and vocabulary else vocabulary
    if vocabulary is not None:
        left_out = chosen.resolved(vocabulary).left_out     # complains now
        if left_out:
            progress.note(f"the model has {len(left_out)} end tokens more than a request takes ({MAX_STOPS}): its text "
                          "goes on after "
                          + ", ".join(repr(vocabulary.decode([id]) or f"token {id}") for id in left_out))
    packed, total = vocabulary.pack() if vocabulary else b"", image_module.weights(source.config)
    try:
        image_module.check(source.config)
        formats = plan(recipe, source, vocabulary, progress=progress)
        losses = Losses()
        with progress.bar("converting", total, "weights", patience_s=1.0) as bar:
            image_module.write(file, source.config, source.tensors, groups=source.groups, plan=formats,
                               tokenizer=packed, template=text, report=bar.update, watch=losses.add,
                               provenance=f"{path.name} ({source.source})")
        losses.report(progress, final_gain=float(np.abs(source.tensors["final_norm"][:]).max()),
                      dim=source.config.norm_dim,
                      allowed=recipe.allow_loss)
    except checkpoint.CheckpointError:
        raise
    except LostError as error:
        raise LostError(f"{path}: {error}") from None
    except ValueError as error:
        raise ModelError(f"{path}: cannot become a model image: {error}") from error


def choose_template(path: Path, tokenizer: str | Path | None, named: str | None) -> Template:
    """The template that was named, else the one that the model brings along, else plain text."""
    if named is not None:
        return Template.from_text(named)
    brought = find_template(path, tokenizer)
    return Template.brought(brought) if brought else PLAIN


def with_special_texts(tokenizer):
    """A vocabulary whose BOS and EOS are letters in a text, with both as chat templates write them."""
    if isinstance(tokenizer, SentencePieceTokenizer) and not tokenizer.specials:
        return tokenizer.with_specials()
    if not isinstance(tokenizer, Tokenizer) or tokenizer.specials:
        return tokenizer
    specials = {"<s>": tokenizer.bos_id, "</s>": tokenizer.eos_id}
    return Tokenizer(tokenizer.pieces, tokenizer.scores, **tokenizer.options() | {"specials": specials})


def prepared(source: checkpoint.Checkpoint, path: Path, seq_len: int | None, kv: str,
             progress: Progress = Progress.silent) -> checkpoint.Checkpoint:
    """A checkpoint with the context and the K/V format that were asked for, in sizes that the core takes."""
    config = with_cache(source.config, seq_len, kv, progress)
    if source.window is not None and config.seq_len > source.window:
        raise ModelError(f"{path}: unsupported: a sliding window of {source.window} positions, shorter than the "
                         f"context of {config.seq_len}: within it the model is a plain LLaMA, so convert with "
                         f"--seq-len {source.window}")
    source = padding.padded(replace(source, config=config))
    if added := padding.note(source.config):
        progress.note(f"{path.name}: {added}")
    return source


def with_cache(config: ModelConfig, seq_len: int | None, kv: str, progress: Progress = Progress.silent) -> ModelConfig:
    """A checkpoint's shapes with the context and the K/V format that were asked for."""
    if kv not in KV_FORMATS:
        raise ModelError(f"--kv {kv}: choose from {', '.join(KV_FORMATS)}")
    seq_len = seq_len if seq_len is not None else config.seq_len
    if not 1 <= seq_len <= MAX_SEQ_LEN:
        raise ModelError(f"--seq-len {seq_len}: a context has 1 to {MAX_SEQ_LEN} positions")
    if seq_len > config.seq_len:
        progress.note(f"the checkpoint was trained on {config.seq_len} positions: what it writes beyond them may make "
                      "no sense")
    return replace(config, seq_len=seq_len, kv=KvFormat[kv.upper()])
