"""The score side of attention: K words to softmax weights, with each head's maximum, V exponent and mass."""
from amaranth.hdl import Module, Mux, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.attention.dots import AttentionDots, key_layout, query_members
from accel.attention.softmax import MASS, SoftmaxPipe, weight_layout
from accel.attention.walker import SHAPE
from accel.interfaces import Exp2Read
from accel.lib.numeric import delay


class AttentionScores(wiring.Component):
    """Dot products, and a softmax pipe for each that may end in a cycle. One (word, query head) per cycle; a key is
    taken only while the weights it leads to have places, so nothing behind the issue stalls.

    Members
    -------
    keys : In(stream of key_layout)
        Held for as many cycles as query heads share it.
    weight_write, weight_last : Out(1)
        ``weights`` of the next head, in order of rows and heads; the last one of its K/V head.
    release : In(1)
        A K/V head's weights were used: as many more may be produced.
    column : In(column)
        Whose query it is; held while keys are.
    paired : In(1)
        See :class:`~accel.attention.dots.AttentionDots`.
    reading, read_head : In(1), In(6)
        When no keys are on their way: head whose ``mass`` and ``top`` (the largest V exponent) are shown, a cycle
        later.
    guest : In(Exp2Read)
        As long as no keys are on their way: the table of EXP2 answers another unit, see
        :class:`accel.interfaces.Exp2Read`.
    shape : In(SHAPE)
        What the model's shape means to attention; constant while rows come.
    score_mantissa : In(16)
        Of the score scale; constant while keys come.
    score_exponent : In(signed(8))
        Of the score scale; constant while keys come.
    start : In(1)
        A new set of rows begins; no key is on its way.
    weights : Out(array of weight_layout by pipe)
        Valid with ``weight_write``; all but the first only while ``paired``.
    mass : Out(MASS)
        Of ``read_head``, a cycle later, while ``reading``.
    top : Out(6)
        Of ``read_head``, a cycle later, while ``reading``.
    q_write : In(struct of en 1, column, head, address, data signed 16)
        See :class:`~accel.attention.dots.AttentionDots`.
    q_exponent_write : In(struct of en 1, column, head, data 6)
        See :class:`~accel.attention.dots.AttentionDots`.
    """

    def __init__(self, *, columns, max_heads, max_dim, multiplier_bits=25, lanes=8, pipes=1):
        self.columns, self.max_heads, self.max_dim, self.multiplier_bits = columns, max_heads, max_dim, multiplier_bits
        self.lanes, self.pipes = lanes, pipes
        self.dots = AttentionDots(columns=columns, max_heads=max_heads, max_dim=max_dim, lanes=lanes, pipes=pipes)
        super().__init__({
            "shape": In(SHAPE), "score_mantissa": In(16), "score_exponent": In(signed(8)), "paired": In(1),
            **query_members(columns, max_heads, max_dim),
            "start": In(1), "keys": In(stream.Signature(key_layout(lanes))), "release": In(1),
            "weight_write": Out(1), "weight_last": Out(1), "weights": Out(data.ArrayLayout(weight_layout(), pipes)),
            "reading": In(1), "read_head": In(6), "mass": Out(MASS), "top": Out(6), "guest": In(Exp2Read()),
        })

    @property
    def latency(self):
        """Cycles from a row's last word of a K/V head to its weight."""
        return self.dots.latency + SoftmaxPipe.latency

    def elaborate(self, platform):
        m = Module()
        m.submodules.dots = dots = self.dots
        wiring.connect(m, wiring.flipped(self.keys), dots.keys)
        m.d.comb += [getattr(dots, name).eq(getattr(self, name))
                     for name in ("shape", "paired", "q_write", "q_exponent_write", "column", "start", "release")]
        pipes = [SoftmaxPipe(max_heads=self.max_heads, multiplier_bits=self.multiplier_bits)
                 for _ in range(self.pipes)]
        for i, pipe in enumerate(pipes):
            m.submodules[f"pipe{i}"] = pipe
            m.d.comb += [
                *(getattr(pipe, name).eq(getattr(self, name)) for name in ("score_mantissa", "score_exponent",
                                                                           "reading")),
                pipe.dot.eq(dots.dots[i]), pipe.tag.eq(dots.tag), pipe.exponent.eq(dots.exponents[i]),
                pipe.valid.eq(dots.valid), self.weights[i].eq(pipe.weight),
                pipe.read_head.eq(Mux(self.paired, self.read_head >> 1, self.read_head)
                                  if self.pipes > 1 else self.read_head),
            ]
        first, last = pipes[0], pipes[-1]
        odd = delay(m, self.paired & self.read_head[0], 1, "odd") if self.pipes > 1 else 0
        wiring.connect(m, wiring.flipped(self.guest), first.guest)
        m.d.comb += [self.weight_write.eq(first.weight_write), self.weight_last.eq(first.weight_last),
                     self.mass.eq(Mux(odd, last.mass, first.mass)), self.top.eq(Mux(odd, last.top, first.top))]
        return m
