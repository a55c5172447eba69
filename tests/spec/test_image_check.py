"""Images whose CRCs are right and whose contents are not: each ends in one line, and reads or allocates nothing
first."""
import struct
import tracemalloc
import zlib
from dataclasses import replace

import pytest

from llama2_spec.image import (CHECKED_FROM, ENTRY, ENTRY_FIELDS, HEADER, HEADER_BYTES, HEADER_FIELDS, Image,
                               ImageError, build)
from tests.host.generated import random_tensors
from tests.host.tiny import CONFIG

NAMES = [name for name, _, _ in HEADER_FIELDS]
WHOLE = build(CONFIG, random_tensors(CONFIG), tokenizer=b"tokenizer", template="plain", provenance="here")


def header():
    return dict(zip(NAMES, HEADER.unpack_from(WHOLE)))


def changed(data=WHOLE, **fields):
    """The image with other header fields, and the CRCs of what it then is."""
    values = dict(zip(NAMES, HEADER.unpack_from(data))) | fields
    data = bytearray(HEADER.pack(*values.values()).ljust(HEADER_BYTES, b"\0") + data[HEADER_BYTES:])
    if "payload_crc" not in fields:
        struct.pack_into("<I", data, struct.calcsize("<4s5I"), zlib.crc32(data[values["payload_offset"]:]))
    struct.pack_into("<I", data, 12, zlib.crc32(data[CHECKED_FROM:values["payload_offset"]]))
    return bytes(data)


def with_entry(number, **fields):
    """The image with other fields of a directory entry."""
    at = header()["entries_offset"] + number * ENTRY.size
    values = dict(zip((name for name, _, _ in ENTRY_FIELDS), ENTRY.unpack_from(WHOLE, at))) | fields
    return changed(WHOLE[:at] + ENTRY.pack(*values.values()) + WHOLE[at + ENTRY.size:])


def refused(data):
    tracemalloc.start()
    try:
        with pytest.raises(ImageError) as error:
            Image.parse(data)
        assert tracemalloc.get_traced_memory()[1] < 10 * len(WHOLE)
    finally:
        tracemalloc.stop()
    assert "\n" not in str(error.value) and len(str(error.value)) < 400
    return str(error.value)


def test_the_whole_one_is_read():
    assert Image.parse(changed()).provenance == "here"


@pytest.mark.parametrize("name",
                         [name for name in NAMES if name not in ("magic", "header_crc", "payload_crc", "norm_epsilon",
                                                                 "rope_theta",
                                                                 "epsilon", "score_scale", "payload_offset")])
@pytest.mark.parametrize("value", [0xffffffff, 0x80000000, 0x7fffffff, 1 << 20])
def test_no_number_is_believed(name, value):
    refused(changed(**{name: value}))


@pytest.mark.parametrize("fields, what", [
    ({"n_layers": 2}, "tensors, 2 layers need"), ({"entries_count": 0}, "tensors"),
    ({"seq_len": 65537}, "at most 65536"),
    ({"head_dim": 0}, "head_dim"), ({"n_kv_heads": 0}, "n_kv_heads"), ({"tied": 2}, "tied"),
    ({"vocab_size": 260}, "not what the decoder"),
    ({"norm_epsilon": float("nan")}, "norm_epsilon"), ({"rope_theta": float("inf")}, "rope_theta"),
    ({"rope_theta": -1.0}, "rope_theta"),
    ({"rope_offset": 0}, "rope lies at"), ({"tokenizer_bytes": 1 << 30}, "tokenizer lies at"),
    ({"payload_bytes": 16}, "header says"),
    ({"entries_offset": len(WHOLE)}, "entries lies at"), ({"kv_format": 2}, "K/V format 2")])
def test_what_is_wrong_is_named(fields, what):
    assert what in refused(changed(**fields))


@pytest.mark.parametrize("fields", [{"kind": 9}, {"format": 2}, {"group": 0}, {"group": 16}, {"layer": 1}, {"words": 0},
                                    {"words": 0xffff},
                                    {"rows": 0xffffffff}, {"offset_beats": 0}, {"offset_beats": 0xffffffff},
                                    {"beats": 0xffffffff},
                                    {"beats": 0}, {"kind": 2}, {"format": 1}])
@pytest.mark.parametrize("number", [1, -1])
def test_no_tensor_is_believed(fields, number):
    count = header()["entries_count"]
    assert "tensor number" in refused(with_entry(number % count, **fields))


@pytest.mark.parametrize("name", ["template", "provenance"])
def test_texts_are_texts(name):
    at = header()[f"{name}_offset"]
    assert f"{name} is no text" in refused(changed(WHOLE[:at] + b"\xff" + WHOLE[at + 1:]))


def test_a_context_changes_the_header_only():
    image = Image.parse(WHOLE)
    for seq_len, kv in ((7, 0), (32, 3), (65536, 1)):
        kv = type(image.config.kv)(kv)
        head = image.header_with(seq_len=seq_len, kv=kv)
        data = head + WHOLE[HEADER_BYTES:]
        assert len(head) == HEADER_BYTES
        other = image.replaced(data, seq_len, kv)
        parsed = Image.parse(data)
        assert (parsed.config, parsed.header, parsed.entries) == (other.config, other.header, other.entries)
        assert data == build(replace(CONFIG, seq_len=seq_len, kv=kv), random_tensors(CONFIG), tokenizer=b"tokenizer",
                             template="plain",
                             provenance="here")


def test_weights_lie_where_the_header_says():
    at, size = header()["payload_offset"], header()["payload_bytes"]
    assert "no multiple of" in refused(changed(payload_offset=at + 4, payload_bytes=size - 4))
    assert f"{size} bytes of weights, its header says {size - 16}" in refused(changed(payload_bytes=size - 16))
