"""Reads a device's own model back as far as a client needs it: shapes, directory, tokenizer and template, not the
weights."""
import struct
import zlib
from pathlib import Path

from llama2_host.device.device import Device
from llama2_host.errors import HostError
from llama2_host.image.cache import cache_directory, keep, used
from llama2_host.image.model import Model
from llama2_host.progress import Progress
from llama2_spec.image import CHECKED_FROM, HEADER, HEADER_BYTES, HEADER_FIELDS, MAGIC, VERSION

MAX_HEAD_BYTES = 64 << 20       #: tokenizer and template; the largest known vocabulary takes 10 MB
NAMES = [name for name, _, _ in HEADER_FIELDS]


def model_on(device: Device, *, tokenizer: str | Path | None = None, template: str | None = None,
             progress: Progress = Progress.silent) -> Model:
    """The device's model without its weights; what was read once is taken from the cache."""
    info = device.info
    cached = cache_directory() / f"device-{info.header_crc:08x}-{info.payload_crc:08x}.head"
    head = _cached(cached)
    if head and not is_head(head, info.header_crc):
        progress.note("what the cache holds of the device's model is damaged: it is read again")
    if not is_head(head, info.header_crc):
        head = read_head(device, progress)
        if not is_head(head, info.header_crc):
            raise HostError("the image on the device is damaged (CRC of its header): load it again with --model")
        keep(cached, head)
    model = Model(without_weights(head), template_text=template, weights=False)
    if tokenizer is not None:
        model.use_tokenizer(tokenizer)
    return model


def read_head(device: Device, progress: Progress) -> bytes:
    """Everything before the weights."""
    first = device.read(0, HEADER_BYTES)
    size = HEADER.unpack_from(first)[NAMES.index("payload_offset")]
    if not HEADER_BYTES <= size <= min(device.info.image_bytes, device.info.dram_bytes, MAX_HEAD_BYTES) or size % 4:
        raise HostError("the image on the device is damaged (its header): load it again with --model")
    return first + device.read(HEADER_BYTES, size - HEADER_BYTES, progress=progress,
                               label="reading the device's tokenizer")


def _cached(path: Path) -> bytes:
    """What is kept there, or nothing."""
    try:
        head = path.read_bytes()
    except OSError:
        return b""
    used(path)
    return head


def is_head(head: bytes, header_crc: int) -> bool:
    """The part of an image before its weights, whole; its first 16 bytes are not in its CRC."""
    if len(head) < HEADER_BYTES or zlib.crc32(head[CHECKED_FROM:]) != header_crc:
        return False
    values = dict(zip(NAMES, HEADER.unpack_from(head)))
    return (values["magic"], values["version"], values["header_crc"]) == (MAGIC, VERSION, header_crc)


def without_weights(head: bytes) -> bytes:
    """The same image with an empty weight stream, which a parser takes as whole."""
    values = dict(zip(NAMES, HEADER.unpack_from(head)))
    values |= {"file_bytes": len(head), "payload_bytes": 0, "payload_crc": zlib.crc32(b"")}
    data = bytearray(HEADER.pack(*values.values()).ljust(HEADER_BYTES, b"\0") + head[HEADER_BYTES:])
    offset = struct.calcsize("<" + "".join(code for _, code, _ in HEADER_FIELDS[:NAMES.index("header_crc")]))
    struct.pack_into("<I", data, offset, zlib.crc32(bytes(data[CHECKED_FROM:])))
    return bytes(data)
