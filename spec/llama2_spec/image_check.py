"""Checks of a model image whose CRCs are right: every offset, length and number that a reader goes by is within its
bounds.

An image from elsewhere may be forged, its CRCs included.
"""
import math

from llama2_spec import image_layout as layout
from llama2_spec import packing, program
from llama2_spec.image_layout import ENTRY, HEADER_BYTES, PAYLOAD_ALIGN, Entry, Format, ImageError
from llama2_spec.model import ModelConfig
from llama2_spec.numerics import MAX_SEQ_LEN, WORD
from llama2_spec.packing import BEAT
from llama2_spec.program import Kind

AGAIN = "convert the checkpoint again"
PER_LAYER = program.LAYER_TENSORS    #: directory entries of a layer
MAX_TEXT = 1 << 20          #: bytes of template and provenance; templates have at most some ten thousand


def check_header(h: dict, config: ModelConfig) -> None:
    """Refuse shapes, constants and sections that contradict each other or reach out of the header."""
    for name in ("norm_epsilon", "rope_theta"):
        if not (math.isfinite(h[name]) and h[name] >= 0):
            raise ImageError(f"the image's {name} is {h[name]}: {AGAIN}")
    layout.check(config)
    if config.seq_len > MAX_SEQ_LEN:
        raise ImageError(f"the image's context has {config.seq_len} positions, at most {MAX_SEQ_LEN} are possible: "
                         f"{AGAIN}")
    if h["tied"] > 1:
        raise ImageError(f"the image's classifier is tied in the way {h['tied']}, which this program does not know: "
                         f"{AGAIN}")
    if h["payload_offset"] % PAYLOAD_ALIGN and h["payload_bytes"]:
        raise ImageError(f"the image's weights begin at byte {h['payload_offset']}, no multiple of {PAYLOAD_ALIGN}: "
                         f"{AGAIN}")
    if h["payload_bytes"] != h["file_bytes"] - h["payload_offset"]:
        raise ImageError(f"the image has {h['file_bytes'] - h['payload_offset']} bytes of weights, its header says "
                         f"{h['payload_bytes']}: {AGAIN}")
    # The check compares products, because the number of layers may be as wrong as the number of entries.
    expected = PER_LAYER * config.n_layers + (2 if config.tied else 3)
    if h["entries_count"] != expected:
        raise ImageError(f"the image has {h['entries_count']} tensors, {config.n_layers} layers need {expected}: "
                         f"{AGAIN}")
    for name, length in (("entries", h["entries_count"] * ENTRY.size), ("rope", config.head_dim // 2 * 4),
                         *((name, h[f"{name}_bytes"]) for name in ("tokenizer", "template", "provenance"))):
        offset = h[f"{name}_offset"]
        if length and not HEADER_BYTES <= offset <= offset + length <= h["payload_offset"]:
            raise ImageError(f"the image's {name} lies at {offset} .. {offset + length}, outside of its header "
                             f"({HEADER_BYTES} .. {h['payload_offset']}): {AGAIN}")
    if max(h["template_bytes"], h["provenance_bytes"]) > MAX_TEXT:
        raise ImageError(f"the image's template or provenance is longer than {MAX_TEXT} bytes: {AGAIN}")


def check_entries(image, *, weights: bool) -> None:
    """Refuse texts that are not UTF-8, and tensors whose size or place is not what the shapes ask for.

    ``image`` is a :class:`llama2_spec.image.Image`.
    """
    for name in ("template", "provenance"):
        try:
            getattr(image, name)
        except UnicodeDecodeError:
            raise ImageError(f"the image's {name} is no text in UTF-8: {AGAIN}") from None
    at = image.header["payload_offset"] // BEAT
    end = image.header["file_bytes"] // BEAT
    for number, ((kind, layer, _), entry) in enumerate(zip(layout.order(image.config), image.entries)):
        if (entry.kind, entry.layer) != (kind, layer & 0xffff) or not _fits(image.config, entry):
            raise ImageError(f"the image's tensor number {number} ({entry.kind.name} of layer {entry.layer}) is not "
                             f"what the decoder needs there: {AGAIN}")
        if weights and (entry.offset_beats < at or entry.offset_beats + entry.beats > end):
            raise ImageError(f"the image's tensor number {number} lies outside of its weights: {AGAIN}")


def _fits(config: ModelConfig, entry: Entry) -> bool:
    """Returns whether rows, words and length are right for this kind of tensor."""
    if entry.kind == Kind.GAIN:
        beats = -(-2 * config.dim // BEAT)
        return (entry.format, entry.group, entry.rows, entry.words,
                entry.beats) == (Format.Q8, 0, config.dim, beats & 0xffff, beats)
    if entry.group not in packing.GROUPS:
        return False
    format = entry.format.name.lower()
    length = layout.tensor_bytes(config, entry.kind, format, entry.group)
    rows = layout.matrix_rows(config, entry.kind)
    return (entry.rows, entry.words, entry.beats * BEAT) == (rows, -(-layout.columns(config, entry.kind) // WORD),
                                                             length)
