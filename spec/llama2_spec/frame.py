"""Frames on the wire: header, payload and CRC-32, COBS-coded, each ended by a zero byte."""
# Ref: Cheshire & Baker 1999, Consistent Overhead Byte Stuffing; CRC-32 of IEEE 802.3
import struct
import zlib
from dataclasses import dataclass

from llama2_spec.wire import Structure, structure, wire

DELIMITER = 0          #: ends every frame; empty frames are ignored, so a sender may also begin with one
MAX_PAYLOAD = 1024     #: bytes, either direction


class FrameError(ValueError):
    """Bytes between two delimiters that are not a frame."""


@structure
class Header(Structure):
    """The header in front of every payload."""
    opcode: int = wire("B", "Opcode; a reply carries its request's, an event has its own")
    status: int = wire("B", "Status; 0 in requests")
    sequence: int = wire("H", "lower half of a number chosen by the host, counting up; a reply carries its request's, "
                              "an event that of its GENERATE")
    length: int = wire("H", "bytes of payload")
    sequence_high: int = wire("H", "upper half; before protocol 3 the number had 16 bits and this was 0")


MAX_FRAME = Header.FORMAT.size + MAX_PAYLOAD + 4    #: header, payload and CRC, before COBS
MAX_ENCODED = MAX_FRAME + -(-MAX_FRAME // 254) + 1  #: the same on the wire, with the delimiter


@dataclass(frozen=True)
class Frame:
    """One message: what the header says, and the payload. ``sequence`` has 32 bits: it comes again after 2**32
    requests."""
    opcode: int
    sequence: int
    payload: bytes = b""
    status: int = 0

    def encode(self) -> bytes:
        """Bytes for the wire, delimiter included."""
        if len(self.payload) > MAX_PAYLOAD:
            raise ValueError(f"A payload has at most {MAX_PAYLOAD} bytes, not {len(self.payload)}")
        header = Header(self.opcode, self.status, self.sequence & 0xffff, len(self.payload), self.sequence >> 16)
        body = header.pack() + self.payload
        return cobs_encode(body + struct.pack("<I", zlib.crc32(body))) + bytes([DELIMITER])

    @classmethod
    def decode(cls, encoded: bytes) -> "Frame":
        """The frame in the bytes between two delimiters; :class:`FrameError` says what is wrong with them."""
        body = cobs_decode(encoded)
        if len(body) < Header.FORMAT.size + 4:
            raise FrameError(f"frame of {len(body)} bytes is too short")
        if zlib.crc32(body[:-4]) != struct.unpack("<I", body[-4:])[0]:
            raise FrameError("frame is damaged (CRC)")
        header, payload = Header.unpack(body[:Header.FORMAT.size]), body[Header.FORMAT.size:-4]
        if header.length != len(payload):
            raise FrameError(f"frame says {header.length} bytes of payload and has {len(payload)}")
        return cls(header.opcode, header.sequence | header.sequence_high << 16, payload, header.status)


def cobs_encode(data: bytes) -> bytes:
    """``data`` without zero bytes: each code byte says how far the next zero (or the next code byte) is."""
    out, block = bytearray(), bytearray()
    for byte in data:
        if byte:
            block.append(byte)
            if len(block) == 254:
                out += b"\xff" + block
                block.clear()
        else:
            out += bytes([len(block) + 1]) + block
            block.clear()
    return bytes(out + bytes([len(block) + 1]) + block)


def cobs_decode(encoded: bytes) -> bytes:
    """Undo :func:`cobs_encode`; :class:`FrameError` if a code byte points past the end or is zero."""
    out, at = bytearray(), 0
    while at < len(encoded):
        code = encoded[at]
        block = encoded[at + 1:at + code]
        if code == 0 or len(block) != code - 1 or 0 in block:
            raise FrameError("frame is damaged (COBS)")
        out += block
        at += code
        if code < 0xff and at < len(encoded):
            out.append(0)
    return bytes(out)
