"""Hands the beats of the stream to the station whose turn it is."""
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from accel.interfaces import Beats, BeatTurns


class BeatSplit(wiring.Component):
    """Combinational. Every sink sees the payload and only the one whose turn it is sees ``valid``, so no gate stands
    before the payload.

    The engine sees every beat: it takes one only while it works on a matrix, and no other sink has a turn then. Gains
    and CRC are ready only in the cycle in which they have found a beat that is theirs, so their ``ready`` needs no
    turn.

    Members
    -------
    beats : In(Beats(2))
        From the reader.
    matrix, gains, crc, rows : Out(Beats(2)), Out(Beats), Out(Beats), Out(Beats)
        To the engine (two words), the residual, the CRC, attention.
    turns : In(BeatTurns)
        From the sequencer.
    """
    latency = 0

    def __init__(self):
        super().__init__({"beats": In(Beats(2)), "matrix": Out(Beats(2)), "gains": Out(Beats()), "crc": Out(Beats()),
                          "rows": Out(Beats()), "turns": In(BeatTurns())})

    def elaborate(self, platform):
        m = Module()
        beats, turns, matrix = self.beats, self.turns, self.matrix
        m.d.comb += [sink.payload.eq(beats.payload) for sink in (self.gains, matrix, self.crc, self.rows)]
        m.d.comb += [
            matrix.second.eq(beats.second), beats.both.eq(matrix.both), matrix.valid.eq(beats.valid),
            turns.valid.eq(beats.valid), *(sink.valid.eq(beats.valid & turn)
              for turn, sink in ((turns.gain, self.gains), (turns.crc, self.crc), (turns.attend, self.rows))),
            turns.taken_ready.eq(self.gains.ready | self.crc.ready | (turns.attend & self.rows.ready)),
            beats.ready.eq(turns.taken_ready | matrix.ready),
        ]
        return m
