"""CRC-32 (IEEE 802.3, as zlib.crc32) of beats, 32 bits a cycle."""
from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from accel.interfaces import Beats
from llama2_spec.registers import CRC_CYCLES

POLYNOMIAL = 0xedb88320     # reflected


class Crc32(wiring.Component):
    """``value`` is the CRC of all beats, lowest byte first, since ``clear``; four cycles a beat. ``ready`` only when a
    beat is there.

    Members
    -------
    beats : In(Beats)
        Taken in four cycles each; ``ready`` only when one is there.
    clear : In(1)
        Begin anew.
    value : Out(32)
        The CRC so far, valid while not ``busy``.
    busy : Out(1)
        Work is in flight; a fence waits for its end.
    """
    latency = None      #: varies
    budget_lut = 271

    def __init__(self):
        super().__init__({"beats": In(Beats()), "clear": In(1), "value": Out(32), "busy": Out(1)})

    def elaborate(self, platform):
        m = Module()
        state = Signal(32, init=0xffffffff)
        beat = Signal(128)
        left = Signal(3)
        rest = state ^ beat[:32]
        # The register after 32 steps is linear in its 32 bits: one XOR of some of them for each
        rows = [0] * 32
        for i in range(32):
            crc = 1 << i
            for _ in range(32):
                crc = crc >> 1 ^ (POLYNOMIAL if crc & 1 else 0)
            for j in range(32):
                rows[j] |= (crc >> j & 1) << i
        ready = Signal()                            # registered: crc -> ready of the stream
        m.d.comb += [self.value.eq(~state), self.busy.eq(left != 0), self.beats.ready.eq(ready)]
        m.d.sync += ready.eq(self.beats.valid & ~ready & (left <= 2))
        with m.If(left != 0):
            for j in range(32):
                m.d.sync += state[j].eq((rest & rows[j]).xor())
            m.d.sync += [beat.eq(beat >> 32), left.eq(left - 1)]
        with m.If(ready):
            m.d.sync += [beat.eq(self.beats.payload), left.eq(CRC_CYCLES)]
        with m.If(self.clear):
            m.d.sync += [state.eq(0xffffffff), left.eq(0)]
        return m
