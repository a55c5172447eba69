"""Images: a good one is installed as the contract says, every other is refused with the numbers that are wrong."""
import struct
import zlib
from dataclasses import replace

import pytest

from llama2_spec import image as spec_image
from llama2_spec.image import Image
from llama2_spec.model import KvFormat
from llama2_spec.protocol import (LOAD_CHUNK, MAX_LAYERS, Device as Info, Generate, Hello, Load, LoadBegin, Loaded,
                                  ModelState, Opcode, Status,
                           Subject, Verified, Verify)
from llama2_spec.registers import Model, Opcode as Op, encode
from tests.firmware import library
from tests.firmware.images import CONFIG, SEQ_LEN, VOCAB, layout, small_image
from tests.firmware.library import DRAM_BYTES, Device

OFFSETS = {}
for _name, _code, _ in spec_image.HEADER_FIELDS:
    OFFSETS[_name] = sum(struct.calcsize("<" + code) for name, code, _ in spec_image.HEADER_FIELDS[:len(OFFSETS)])


def changed(data: bytes, mend: bool = True, **fields) -> bytes:
    """The image with other header fields, and a header CRC that fits them unless not to ``mend``."""
    data = bytearray(data)
    for name, value in fields.items():
        struct.pack_into("<I", data, OFFSETS[name], value)
    return mended(data) if mend else bytes(data)


def mended(data) -> bytes:
    data = bytearray(data)
    (payload_offset,) = struct.unpack_from("<I", data, OFFSETS["payload_offset"])
    struct.pack_into("<I", data, OFFSETS["header_crc"], zlib.crc32(data[spec_image.CHECKED_FROM:payload_offset]))
    return bytes(data)


def changed_entry(data: bytes, index: int, field: str, value: int) -> bytes:
    data, at = bytearray(data), struct.unpack_from("<I", data,
                                                   OFFSETS["entries_offset"])[0] + index * spec_image.ENTRY.size
    for name, code, _ in spec_image.ENTRY_FIELDS:
        if name == field:
            struct.pack_into("<" + code, data, at, value)
        at += struct.calcsize("<" + code)
    return mended(data)


def refusal(device) -> tuple:
    info = device.ask(Opcode.HELLO, Hello())
    return ModelState(info.model_state), Status(info.model_status), Subject(info.model_error[0]), *info.model_error[1:]


@pytest.mark.parametrize("format", ["q8", "q4"])
@pytest.mark.parametrize("tied, kv", [(True, KvFormat.K16V16), (False, KvFormat.K16V8), (True, KvFormat.K8V8)])
def test_preloaded_image_is_installed(firmware, format, tied, kv):
    """Heads of 8: with three of them, half a beat of an 8-bit row is left over."""
    config = replace(CONFIG, tied=tied, kv=kv, **(dict(n_heads=6, n_kv_heads=3) if kv else {}))
    data = small_image(config, format)
    parsed, kv_base, row_beats, _ = layout(data)
    device = Device(firmware, data)
    info = device.ask(Opcode.HELLO, Hello())
    assert info.model_state == ModelState.READY
    assert (info.image_bytes, info.payload_crc, info.header_crc) == (
        len(data), parsed.header["payload_crc"], parsed.header["header_crc"])
    assert (info.vocab_size, info.seq_len, info.name, info.kv_positions) == (VOCAB, SEQ_LEN, "a small model", 0)
    assert (info.kv_base, info.kv_beats) == (kv_base, config.n_layers * SEQ_LEN * row_beats)
    words = [firmware.fake_model_word(index) for index in range(max(Model) + 1)]
    assert words[:Model.SCORE_SCALE + 1] == [config.dim, config.head_dim, config.n_heads, config.n_kv_heads,
                                         parsed.header["epsilon"], parsed.header["score_scale"]]
    assert (words[Model.POSITIONS], words[Model.KV_FORMAT]) == (SEQ_LEN, kv)
    assert [firmware.fake_rope_word(i) for i in range(config.head_dim // 2)] == list(parsed.rope)
    device.generate(ids=(1,), max_new=1)
    table = parsed.embedding
    assert device.commands()[1] == encode(Op.EMBED, fence=1, token=1, words=table.words, base=table.offset_beats,
                                          q4=format == "q4", group64=table.group == 64, exponent=table.exponent)
    assert device.commands()[-1][2] == parsed.entries[-1 if tied else -2].offset_beats


def test_empty_dram_has_no_model(firmware):
    device = Device(firmware)
    assert refusal(device)[0] == ModelState.NONE
    assert device.request(Opcode.GENERATE, Generate(ids=(1,))).status == Status.NO_MODEL


GOOD = small_image()
PARSED = layout(GOOD)[0]


@pytest.mark.parametrize("data, expected", [
    (changed(GOOD, version=2), (Status.BAD_VERSION, Subject.NONE, 2, 1)),
    (changed(GOOD, dim=48, mend=False), (Status.BAD_HEADER, Subject.NONE)),
    (GOOD[:300] + bytes([GOOD[300] ^ 1]) + GOOD[301:], (Status.BAD_HEADER, Subject.NONE)),
    (changed(GOOD, payload_bytes=PARSED.header["payload_bytes"] - 16), (Status.BAD_HEADER, Subject.LENGTH)),
    (changed(GOOD, file_bytes=DRAM_BYTES + 16), (Status.INCOMPLETE, Subject.NONE, DRAM_BYTES, DRAM_BYTES + 16)),
    (GOOD[:-1] + bytes([GOOD[-1] ^ 0x80]), (Status.BAD_PAYLOAD, Subject.NONE)),
    (changed(GOOD, dim=528), (Status.TOO_LARGE, Subject.DIM, 528, 512)),
    (changed(GOOD, n_heads=16, head_dim=64, dim=512), (Status.TOO_LARGE, Subject.DIM, 1024, 512)),
    (changed(GOOD, hidden_dim=2049), (Status.TOO_LARGE, Subject.HIDDEN_DIM, 2049, 2048)),
    (changed(GOOD, head_dim=136), (Status.TOO_LARGE, Subject.HEAD_DIM, 136, 128)),
    (changed(GOOD, n_heads=17), (Status.TOO_LARGE, Subject.HEADS, 17, 16)),
    (changed(GOOD, vocab_size=40000), (Status.TOO_LARGE, Subject.VOCAB_SIZE, 40000, 32768)),
    (changed(GOOD, seq_len=5000), (Status.TOO_LARGE, Subject.SEQ_LEN, 5000, 4096)),
    (changed(GOOD, n_layers=MAX_LAYERS + 1), (Status.TOO_LARGE, Subject.LAYERS, MAX_LAYERS + 1, MAX_LAYERS)),
    (changed(GOOD, n_layers=0), (Status.BAD_HEADER, Subject.LAYERS, 0)),
    (changed(GOOD, n_kv_heads=3), (Status.BAD_HEADER, Subject.KV_HEADS, 3, 4)),
    (changed(GOOD, kv_format=2), (Status.BAD_VALUE, Subject.KV_FORMAT, 2, 3)),
    (changed(GOOD, kv_format=4), (Status.BAD_VALUE, Subject.KV_FORMAT, 4, 3)),
    (changed(GOOD, n_layers=MAX_LAYERS, seq_len=4096),
     (Status.NO_MEMORY, Subject.NONE, layout(GOOD)[1] * 16 + MAX_LAYERS * 4096 * layout(GOOD)[2] * 16, DRAM_BYTES)),
    (changed(GOOD, entries_count=17), (Status.BAD_DIRECTORY, Subject.NONE, 17)),
    (changed(GOOD, entries_count=1 << 30), (Status.BAD_DIRECTORY, Subject.LENGTH)),
    (changed(GOOD, tied=0), (Status.BAD_DIRECTORY, Subject.NONE, 18)),
    (changed(GOOD, hidden_dim=45), (Status.BAD_DIRECTORY, Subject.NONE, 6)),
    (changed_entry(GOOD, 3, "kind", 2), (Status.BAD_DIRECTORY, Subject.NONE, 3)),
    (changed_entry(GOOD, 3, "group", 48), (Status.BAD_DIRECTORY, Subject.NONE, 3)),
    (changed_entry(GOOD, 3, "format", 2), (Status.BAD_DIRECTORY, Subject.NONE, 3)),
    (changed_entry(GOOD, 17, "beats", 1 << 27), (Status.BAD_DIRECTORY, Subject.NONE, 17)),
    (changed_entry(GOOD, 5, "offset_beats", 1 << 31), (Status.BAD_DIRECTORY, Subject.NONE, 5)),
    (changed_entry(GOOD, 5, "offset_beats", 0), (Status.BAD_DIRECTORY, Subject.NONE, 5)),
    (changed(GOOD, rope_offset=1 << 20), (Status.BAD_HEADER, Subject.LENGTH)),
    (changed(GOOD, rope_offset=PARSED.header["rope_offset"] + 2), (Status.BAD_HEADER, Subject.LENGTH)),
    (changed(GOOD, rope_offset=PARSED.header["payload_offset"]), (Status.BAD_HEADER, Subject.LENGTH)),
    (changed(GOOD, head_dim=12), (Status.BAD_HEADER, Subject.HEAD_DIM, 12, 8)),
    (changed(GOOD, dim=40), (Status.BAD_HEADER, Subject.DIM, 40, 16)),
    (changed(GOOD, n_heads=5, n_kv_heads=1), (Status.BAD_HEADER, Subject.DIM, CONFIG.dim, 16)),
    (changed(GOOD, entries_offset=PARSED.header["entries_offset"] + 2), (Status.BAD_DIRECTORY, Subject.LENGTH)),
    (changed(GOOD, entries_offset=1 << 20), (Status.BAD_DIRECTORY, Subject.LENGTH)),
    (changed(GOOD, payload_offset=16), (Status.BAD_HEADER, Subject.LENGTH)),
    (changed_entry(GOOD, 0, "kind", 99), (Status.BAD_DIRECTORY, Subject.NONE, 0)),
    (changed_entry(GOOD, 0, "words", 9), (Status.BAD_DIRECTORY, Subject.NONE, 0)),
    (changed_entry(GOOD, 0, "beats", 1), (Status.BAD_DIRECTORY, Subject.NONE, 0)),
    (changed_entry(GOOD, 3, "words", 9), (Status.BAD_DIRECTORY, Subject.NONE, 3)),
])
def test_bad_image_is_refused_with_its_numbers(firmware, data, expected):
    state, *found = refusal(Device(firmware, data))
    assert state == ModelState.REFUSED
    assert tuple(found[:len(expected)]) == expected


def upload(device, data, crc=None):
    """Upload in pieces, one after the other; returns the reply to LOAD_END."""
    received = device.ask(Opcode.LOAD_BEGIN, LoadBegin(len(data), zlib.crc32(data) if crc is None else crc)).received
    for offset in range(received, len(data), LOAD_CHUNK):
        piece = data[offset:offset + LOAD_CHUNK]
        assert device.ask(Opcode.LOAD, Load(offset, piece)).received == offset + len(piece)
    return load_end(device)


def load_end(device):
    """Ask until the check is over; the last reply. The first comes at once."""
    while (reply := device.request(Opcode.LOAD_END)).status == Status.OK and Verified.unpack(reply.payload).running:
        pass
    return reply


def test_load_end_answers_at_once_and_is_polled(firmware):
    device = Device(firmware)
    firmware.fake_crc_looks(200)        # of the header, which it waits for, and of the tensors
    assert upload(device, GOOD).status == Status.OK
    firmware.fake_crc_looks(0)
    device.ask(Opcode.LOAD_BEGIN, LoadBegin(4, 0))
    for offset in range(0, len(GOOD), LOAD_CHUNK):
        if offset == 0:
            device.ask(Opcode.LOAD_BEGIN, LoadBegin(len(GOOD), 1))
        device.ask(Opcode.LOAD, Load(offset, GOOD[offset:offset + LOAD_CHUNK]))
    assert device.ask(Opcode.LOAD_END).running == 1
    assert load_end(device).status == Status.OK
    verified = device.ask(Opcode.LOAD_END)
    assert (verified.running, verified.crc) == (0, Image.parse(GOOD).header["payload_crc"])


def test_verify_finds_what_changed_after_the_load(firmware):
    device = Device(firmware, GOOD)
    tokens = device.generate(ids=(1,), max_new=3)[0]

    def verify(first):
        reply = device.request(Opcode.VERIFY, Verify(first))
        while reply.status == Status.OK and Verified.unpack(reply.payload).running:
            reply = device.request(Opcode.VERIFY, Verify(0))
        return reply
    assert Verified.unpack(verify(1).payload).crc == Image.parse(GOOD).header["payload_crc"]
    assert device.generate(position=3, ids=tuple(tokens[-1:]), max_new=3)[1].count == 3      # the cache is kept
    firmware.fake_dram()[len(GOOD) - 100] ^= 4
    assert library.error(verify(1))[0] == Status.BAD_PAYLOAD
    assert device.ask(Opcode.HELLO, Hello()).model_state == ModelState.REFUSED
    assert device.request(Opcode.GENERATE, Generate(ids=(1,))).status == Status.NO_MODEL
    assert upload(device, GOOD).status == Status.OK
    firmware.fake_dram()[300] ^= 1
    assert library.error(verify(1))[0] == Status.BAD_HEADER


def test_uploaded_image_is_installed(firmware):
    device = Device(firmware)
    assert upload(device, GOOD).status == Status.OK
    assert device.generate(ids=(1,), max_new=3)[1].count == 3
    # LOAD_END sent again changes nothing: the cache is kept.
    assert device.request(Opcode.LOAD_END).status == Status.OK
    assert device.ask(Opcode.HELLO, Hello()).kv_positions == 3


def test_damaged_upload_is_refused(firmware):
    device = Device(firmware)
    reply = upload(device, GOOD[:-2] + b"\x55\xaa")
    assert library.error(reply)[0] == Status.BAD_PAYLOAD
    assert upload(device, GOOD).status == Status.OK


def test_interrupted_upload_goes_on(firmware):
    device = Device(firmware)
    begin = LoadBegin(len(GOOD), zlib.crc32(GOOD))
    device.ask(Opcode.LOAD_BEGIN, begin)
    for offset in range(0, 5 * LOAD_CHUNK, LOAD_CHUNK):
        device.ask(Opcode.LOAD, Load(offset, GOOD[offset:offset + LOAD_CHUNK]))
    info = device.ask(Opcode.HELLO, Hello())
    assert info.model_state == ModelState.LOADING
    assert library.error(device.request(Opcode.LOAD_END)) == (Status.INCOMPLETE, Subject.NONE, 5 * LOAD_CHUNK,
                                                              len(GOOD))
    assert device.ask(Opcode.LOAD_BEGIN, begin).received == 5 * LOAD_CHUNK
    assert upload(device, GOOD).status == Status.OK
    assert device.ask(Opcode.LOAD_BEGIN, LoadBegin(len(GOOD), 1)).received == 0


def test_window_with_a_lost_piece_goes_back(firmware):
    device = Device(firmware)
    device.ask(Opcode.LOAD_BEGIN, LoadBegin(len(GOOD), 1))
    pieces = [Load(offset, GOOD[offset:offset + LOAD_CHUNK]) for offset in range(0, 4 * LOAD_CHUNK, LOAD_CHUNK)]
    for piece in (pieces[0], pieces[2], pieces[3], pieces[1], pieces[1]):
        device.send(Opcode.LOAD, piece)
    device.poll(8)
    replies = device.frames()
    assert [frame.status for frame in replies] == [Status.OK, Status.OUT_OF_ORDER, Status.OUT_OF_ORDER, Status.OK,
                                                   Status.OK]
    assert Loaded.unpack(replies[-1].payload).received == 2 * LOAD_CHUNK


def test_pieces_beyond_the_image_are_refused(firmware):
    device = Device(firmware)
    assert device.request(Opcode.LOAD, Load(0, b"1234")).status == Status.NOT_LOADING
    device.ask(Opcode.LOAD_BEGIN, LoadBegin(100, 1))
    assert device.request(Opcode.LOAD, Load(0, bytes(104))).status == Status.BAD_VALUE
    assert device.request(Opcode.LOAD, Load(0, bytes(3))).status == Status.BAD_VALUE
    assert device.request(Opcode.LOAD, Load(0, bytes(100))).status == Status.OK


def test_image_longer_than_its_upload_is_refused(firmware):
    device = Device(firmware)
    assert library.error(upload(device, GOOD[:-64])) == (Status.INCOMPLETE, Subject.NONE, len(GOOD) - 64, len(GOOD))


def test_new_upload_drops_the_model(firmware):
    device = Device(firmware, GOOD)
    device.ask(Opcode.LOAD_BEGIN, LoadBegin(100, 1))
    assert device.request(Opcode.GENERATE, Generate(ids=(1,))).status == Status.NO_MODEL
    assert isinstance(device.ask(Opcode.HELLO, Hello()), Info)
