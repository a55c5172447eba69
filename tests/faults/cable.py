"""A cable that damages what it carries, by a plan that a seed draws."""
import math
import random
from collections import Counter, deque

TO_DEVICE, TO_HOST = 0, 1
KINDS = {"drop": 6, "flip": 6, "duplicate": 3, "insert": 3, "zero": 1, "truncate": 2, "burst": 2, "delay": 0.5,
         "outage": 0.2}     #: how often, among each other
DELAYS_S = (0.01, 0.1, 1.0, 2.5, 5.0)
OUTAGES_S = (0.02, 0.2, 1.0, 3.0)
PLAN_BYTES = 2_000_000      #: so far a plan reaches; no trial carries more in one direction


def plan(rng: random.Random, rate: float) -> list[deque]:
    """Per direction, (byte, kind, number) at a mean of ``rate`` faults per byte."""
    directions = []
    for _ in (TO_DEVICE, TO_HOST):
        faults: deque = deque()
        at = 0
        while rate > 0:
            at += 1 + int(math.log(max(rng.random(), 1e-300)) / math.log1p(-rate))
            if at >= PLAN_BYTES:
                break
            faults.append((at, rng.choices(list(KINDS), list(KINDS.values()))[0], rng.getrandbits(32)))
        directions.append(faults)
    return directions


class Cable:
    """``carry`` returns what becomes of bytes: pieces, each with the seconds by which it is late."""

    def __init__(self, faults: list[deque]):
        self.faults = faults
        self.counts: Counter = Counter()    #: faults by kind
        self.bytes = [0, 0]                 #: carried, per direction
        self.spared: set[str] = set()       #: why it damages nothing for now
        self.out_until = 0.0                #: an outage

    def carry(self, direction: int, data: bytes, now: float) -> list[tuple[float, bytes]]:
        start, faults = self.bytes[direction], self.faults[direction]
        self.bytes[direction] += len(data)
        due = []
        while faults and faults[0][0] < self.bytes[direction]:
            at, kind, number = faults.popleft()
            due.append((at - start, kind, number))
        if self.spared:
            return [(0.0, data)]
        if now < self.out_until:
            return []
        return self._damage(data, due, now)

    def _damage(self, data, due, now):
        pieces, out, at, late = [], bytearray(), 0, 0.0
        for index, kind, number in due:
            if index < at:
                continue                    # an earlier fault took this byte
            out += data[at:index]
            at = index
            self.counts[kind] += 1
            if kind == "delay":
                pieces.append((late, bytes(out)))
                out, late = bytearray(), DELAYS_S[number % len(DELAYS_S)]
            elif kind == "outage":
                self.out_until = now + OUTAGES_S[number % len(OUTAGES_S)]
                return [*pieces, (late, bytes(out))]
            else:
                more, taken = damaged(kind, data[index], number)
                out += more
                at += taken
        return [*pieces, (late, bytes(out + data[at:]))]


def damaged(kind: str, byte: int, number: int) -> tuple[bytes, int]:
    """What stands where ``byte`` was, and how many bytes it replaces."""
    if kind == "drop":
        return b"", 1
    if kind == "flip":
        return bytes([byte ^ 1 << number % 8]), 1
    if kind == "duplicate":
        return bytes([byte, byte]), 1
    if kind == "insert":
        return bytes([number & 255]), 0
    if kind == "zero":
        return b"\0", 1
    if kind == "truncate":
        return b"", 2 + number % 64
    if kind == "burst":
        size = 2 + number % 32
        return random.Random(number).randbytes(size), size
    raise ValueError(f"unknown kind of fault {kind!r}")
