"""The models of a session, and a DRAM's content with some of their rows in it."""
import numpy as np

from llama2_host.image.model import Model
from llama2_spec.image import PAYLOAD_ALIGN, Image, row_elements, row_layout
from llama2_spec.packing import BEAT
from tests.shapes import Within, random_model

#: So small that a pass takes a few thousand cycles, and an upload two seconds.
WITHIN = Within(dim=128, hidden_dim=256, kv_dim=128, heads=16, layers=3, vocab_size=900, seq_len=400, weights=48_000)


def session_model(rng) -> tuple[Model, str]:
    """A random model as the client takes it, and its formats."""
    image, formats = random_model(rng, WITHIN)
    return Model(image.data), formats


def row_bytes(image: Image) -> int:
    """Of one position in one layer."""
    return row_layout(image.config)[1] * BEAT


def cache_base(image: Image) -> int:
    """Byte offset of the K/V cache: behind the image, on a DRAM row."""
    return -(-len(image.data) // PAYLOAD_ALIGN) * PAYLOAD_ALIGN


def row_offset(image: Image, length: int, slot: int, layer: int, position: int) -> int:
    """Byte offset of a row where slots have ``length`` positions."""
    return cache_base(image) + ((slot * image.config.n_layers + layer) * length + position) * row_bytes(image)


def row_mask(config) -> bytes:
    """A one for each bit of a row that means something. What pads the exponents to a beat, and half a beat of 8-bit
    elements, is anything in DRAM: of a row of another model, say."""
    exponents, kv = 2 * config.n_kv_heads, config.kv
    elements = [row_elements(np.full(config.kv_dim, -1, np.int64), bits) for bits in (kv.k_bits, kv.v_bits)]
    return (b"\xff" * exponents).ljust(row_layout(config)[0] * BEAT, b"\0") + b"".join(elements)


def same_row(config, data: bytes, expected: bytes) -> bool:
    """The same in all bits that mean something."""
    mask = np.frombuffer(row_mask(config), np.uint8)
    one, other = (np.frombuffer(row, np.uint8) for row in (data, expected))
    return one.shape == other.shape == mask.shape and not ((one ^ other) & mask).any()


def dram_content(image: Image, slots) -> bytes:
    """The image, and behind it those rows of the slots (:class:`tests.soak.oracle.Slot`) that the device is not told
    of."""
    length = slots[0].length
    content = bytearray(image.data)
    content += bytes(row_offset(image, length, len(slots), 0, 0) - len(content))
    for number, slot in enumerate(slots):
        for layer in range(image.config.n_layers):
            for position in range(slot.rows):
                at = row_offset(image, length, number, layer, position)
                content[at:at + row_bytes(image)] = slot.golden.kv_row(layer, position)
    return bytes(content)
