"""The time-shared matrix-vector engine: 16 lanes a column, q8 and q4 on the same multipliers.

Computes :meth:`llama2_spec.golden.Matrix.sums` bit for bit for ``columns`` vectors that share one pass over the weights.
"""
from amaranth.hdl import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.column_sums import LEAVING, ColumnSums
from accel.lanes import Lanes
from accel.matrix_walk import MatrixWalk
from accel.numeric import UNCHECKED, delay
from accel.row_pairs import RowPairs, matrix_layout, sum_layout


class MatVec(wiring.Component):
    """One matrix times ``columns`` vectors.

    Parameters
    ----------
    columns : int
        Vectors that share the pass.
    max_groups : int
        Scale groups of the longest row.
    multiplier_bits : int
        As of :class:`~accel.lanes.Lanes`.

    Members
    -------
    start : In
        Begin with the configuration that has been there since the cycle before; only while ``ready``.
    ready : Out
        All beats of the last matrix were taken.
    busy : Out
        A sum is still on its way.
    beats : In(stream)
        The packed tensor, see llama2_spec.packing.
    second, both : In, Out
        The beat after ``beats``; whether it is taken, too, and ``beats`` so are valid only with it.
    gang : In
        One position only: columns 0 and 1 work on it together, two beats a cycle. Column 1's activations are a copy.
    address, odd_word : Out
        Activation word to read, by column 1 the odd one of its chunk with ``odd_word``; ``activations`` (columns x 16 x int16)
        follow one cycle later, ``offsets`` (right shift of its chunk, one a column) three.
    sums : Out(stream)
        For each row pair, for each active column from ``first`` on: even row, odd row.
    """
    def __init__(self, *, columns, max_groups, multiplier_bits=25):
        self.columns, self.max_groups, self.multiplier_bits = columns, max_groups, multiplier_bits
        super().__init__({
            "start": In(1), "ready": Out(1), "busy": Out(1),
            "q4": In(1), "group64": In(1), "words": In(12), "rows": In(18), "dest": In(3),
            "first": In(range(max(columns, 2))), "count": In(range(columns + 1)),
            "shifts": In(data.ArrayLayout(6, columns)),
            "beats": In(stream.Signature(128)), "second": In(128), "both": Out(1), "gang": In(1),
            "address": Out(12), "odd_word": Out(1), "activations": In(256 * columns), "offsets": In(data.ArrayLayout(6, columns)),
            "sums": Out(stream.Signature(sum_layout(columns))),
            "starved": Out(1), "stalled": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        C = self.columns
        m.submodules.walk = walk = MatrixWalk()
        m.submodules.pairs = pairs = RowPairs(columns=C)
        wiring.connect(m, pairs.sums, wiring.flipped(self.sums))
        matrix = Signal(matrix_layout(C))       # of the one that is read; of the one whose sums leave, its pairs know
        m.d.comb += [
            walk.q4.eq(self.q4), walk.group64.eq(self.group64), walk.words.eq(self.words), walk.rows.eq(self.rows),
            walk.gang.eq(self.gang if C > 1 else 0), walk.start.eq(self.start), walk.hold.eq(pairs.hold), self.ready.eq(walk.ready),
            walk.beat_valid.eq(self.beats.valid), self.beats.ready.eq(walk.beat_ready), self.both.eq(walk.both),
            walk.freed.eq(pairs.freed), self.odd_word.eq(walk.wide), self.starved.eq(walk.starved), self.stalled.eq(walk.stalled),
            pairs.matrix.eq(matrix), pairs.begin.eq(self.start & walk.ready), self.busy.eq(walk.busy | pairs.busy),
        ]
        with m.If(walk.loading):
            m.d.sync += [matrix.dest.eq(self.dest), matrix.first.eq(self.first), matrix.last.eq(self.count - 1),
                         matrix.gang.eq(walk.gang), matrix.rows.eq(self.rows), matrix.shifts.eq(self.shifts)]

        # 0: the word's address, for the memories are far away; 1: they answer; 2: the pair's zero points chosen, 3: its mantissas,
        # of words in registers, for block RAM is slow
        m.submodules.scales = scales = memory.Memory(shape=128, depth=1 << (self.max_groups - 1).bit_length(), init=[],
                                                     attrs=UNCHECKED)
        scale_write, scale_read = scales.write_port(), scales.read_port()
        beat1 = delay(m, self.beats.payload, 1, "beat1")
        m.d.sync += self.address.eq(walk.word)
        m.d.comb += [
            scale_write.addr.eq(delay(m, walk.group, 1, "group")), scale_write.data.eq(beat1),
            scale_write.en.eq(delay(m, walk.scaling & self.beats.valid, 1, "scale_valid", valid=True)),
            scale_read.addr.eq(Mux(walk.of64, self.address >> 2, self.address >> 1)),
        ]
        pair2 = delay(m, walk.pair, 3, "pair")
        beat2, second2 = delay(m, beat1, 2, "beat"), delay(m, self.second, 3, "second")
        scale2 = data.View(data.ArrayLayout(data.StructLayout({"mantissa": 12, "zero": 4}), 2), Signal(32, name="scale2"))
        scale_words = delay(m, scale_read.data, 1, "scale_words")
        m.d.comb += scale2.as_value().eq(Array(scale_words[32 * i:32 * i + 32] for i in range(4))[pair2])
        activations2 = delay(m, self.activations, 1, "activations")
        tag2, valid2 = delay(m, walk.tag, 3, "tag2"), delay(m, walk.take, 3, "valid2", valid=True)

        # Beside the lanes, the last stage of which adds up what two columns have of a row; ``_a``: a cycle before that
        L = Lanes.latency + 1
        tag_l, valid_l = delay(m, tag2, L, "tag_l"), delay(m, valid2, L, "valid_l", valid=True)
        tag_a = delay(m, tag2, L - 1, "tag_a")
        mantissas_a = delay(m, Cat(scale2[0].mantissa, scale2[1].mantissa), L - 1, "mantissas")
        offsets_a = delay(m, self.offsets, L - 2, "offsets")

        # Chunk sums leave one a cycle: the even row's, then (q4: held for a cycle) the odd row's
        leaving, holding, last = Signal(LEAVING), Signal(), Signal()
        m.d.comb += [
            last.eq(valid_l & tag_l.chunk_last), leaving.even.eq(last & (tag_l.q4 | ~tag_l.odd)),
            leaving.odd.eq(last & ~tag_l.q4 & tag_l.odd), holding.eq(last & tag_l.q4 & ~tag_l.gang),
        ]
        m.d.sync += leaving.held.eq(holding)
        chunk_valid, chunk_odd = Signal(), Signal()
        chunk_tag = Signal(data.StructLayout({"row_first": 1, "row_last": 1, "gang": 1}), reset_less=True)
        m.d.sync += [chunk_valid.eq(leaving.as_value().any()), chunk_odd.eq(leaving.odd | leaving.held)]
        with m.If(~leaving.held):
            m.d.sync += [getattr(chunk_tag, name).eq(getattr(tag_l, name)) for name, _ in chunk_tag.shape()]
        offsets_l, mantissa_l, second_l = (Signal.like(value, name=name, reset_less=True) for value, name in (
            (self.offsets, "offsets_l"), (mantissas_a[:12], "mantissa_l"), (mantissas_a[:12], "second_l")))
        with m.If(~holding):
            m.d.sync += offsets_l.eq(offsets_a)
        m.d.sync += [
            mantissa_l.eq(Mux(holding, second_l, Mux(tag_a.odd & ~tag_a.q4, mantissas_a[12:], mantissas_a[:12]))),
            second_l.eq(mantissas_a[12:]),
        ]
        tag_s, odd_s = delay(m, chunk_tag, 3, "tag_s"), delay(m, chunk_odd, 3, "odd_s")
        valid_s = delay(m, chunk_valid, 3, "valid_s", valid=True)
        m.d.comb += [
            pairs.write.eq(delay(m, valid_s & tag_s.row_last, 1, "done_valid", valid=True)),
            pairs.odd.eq(delay(m, odd_s, 1, "done_odd")), pairs.gang.eq(delay(m, tag_s.gang, 1, "done_gang")),
        ]

        every_lanes = [Lanes(multiplier_bits=self.multiplier_bits) for _ in range(C)]
        for c, lanes in enumerate(every_lanes):
            m.submodules[f"lanes{c}"] = lanes
            m.submodules[f"sums{c}"] = sums = ColumnSums()
            # In a gang column 0 adds up even rows and column 1 odd rows
            low, high = Signal(signed(28), name=f"low{c}", reset_less=True), Signal(signed(24), name=f"high{c}", reset_less=True)
            m.d.sync += [low.eq(lanes.low), high.eq(lanes.high)]
            if C > 1 and c < 2:
                a, b = every_lanes[:2]
                crossed = tag_a.gang & tag_a.q4
                mine, other = (a.low, b.low) if c == 0 else (Mux(crossed, a.high, b.low), b.high)
                m.d.sync += low.eq(mine + Mux(crossed & tag_a.full, other, 0))
            m.d.comb += [
                lanes.beat.eq(Mux(tag2.gang, second2, beat2) if c == 1 else beat2), lanes.q4.eq(tag2.q4),
                lanes.zeros[0].eq(scale2[0].zero), lanes.zeros[1].eq(scale2[1].zero),
                lanes.activations.eq(activations2[256 * c:256 * c + 256]),
                sums.low.eq(low), sums.high.eq(high), sums.tag.eq(tag_l), sums.valid.eq(valid_l), sums.leaving.eq(leaving),
                sums.mantissa.eq(Mux(tag_l.gang, second_l, mantissa_l) if c == 1 else mantissa_l), sums.offset.eq(offsets_l[c]),
                sums.sum_valid.eq(valid_s), sums.sum_odd.eq(odd_s), sums.sum_first.eq(tag_s.row_first),
                pairs.results[c].eq(sums.result),
            ]
        return m
