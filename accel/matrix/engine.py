"""The time-shared matrix-vector engine: 16 lanes a column, q8 and q4 on the same multipliers.

Computes :meth:`llama2_spec.golden.Matrix.sums` bit for bit for ``columns`` vectors that share one pass over the
weights.
"""
from types import SimpleNamespace

from amaranth.hdl import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.interfaces import ActivationRead, Beats, MatrixJob, RowSum
from accel.lib.numeric import UNCHECKED, delay
from accel.matrix.column_sums import LEAVING, ColumnSums
from accel.matrix.lanes import Lanes
from accel.matrix.walk import MatrixWalk
from accel.matrix.row_pairs import RowPairs, matrix_layout


class MatVec(wiring.Component):
    """One matrix times ``columns`` vectors. Computes :meth:`llama2_spec.golden.Matrix.sums`. A beat is taken only while
    the row pairs behind the pipe have room for its row's sums, so the pipe never stops.

    Parameters
    ----------
    columns : int
        Vectors that share the pass.
    max_groups : int
        Scale groups of the longest row.
    multiplier_bits : int
        As of :class:`~accel.matrix.lanes.Lanes`.

    Members
    -------
    busy : Out(1)
        A sum is still on its way.
    beats : In(Beats(2))
        The packed tensor, see llama2_spec.packing.
    sums : Out(stream of RowSum)
        For each row pair, for each active column from ``first`` on: even row, odd row.
    job : In(MatrixJob)
        Its configuration has been there since the cycle before ``start``; only while ``ready``.
    activations : Out(ActivationRead)
        In a gang column 1's words are a copy of column 0's.
    starved : Out(1)
        A beat is wanted and none is there.
    stalled : Out(1)
        A beat is there and no room for its row pair's sums.
    """
    latency = 15        #: from a row's last beat to its sum among the row pairs; in q4 one more for the odd row
    budget_lut = 1986

    def __init__(self, *, columns, max_groups, multiplier_bits=25):
        self.columns, self.max_groups, self.multiplier_bits = columns, max_groups, multiplier_bits
        super().__init__({
            "job": In(MatrixJob(columns)), "busy": Out(1), "beats": In(Beats(2)),
            "activations": Out(ActivationRead(columns)), "sums": Out(stream.Signature(RowSum(columns))),
            "starved": Out(1), "stalled": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        s = SimpleNamespace()               # signals that several steps share
        self._walk(m, s)
        self._operands(m, s)
        self._beside(m, s)
        self._chunks(m, s)
        self._columns(m, s)
        return m

    def _walk(self, m, s):
        """Beats of the matrix, what it is."""
        s.C, job, s.read = self.columns, self.job, self.activations
        m.submodules.walk = s.walk = MatrixWalk()
        m.submodules.pairs = s.pairs = RowPairs(columns=s.C)
        wiring.connect(m, s.pairs.sums, wiring.flipped(self.sums))
        matrix = Signal(matrix_layout(s.C))       # of the one that is read; of the one whose sums leave, its pairs know
        m.d.comb += [
            s.walk.q4.eq(job.q4), s.walk.group64.eq(job.group64), s.walk.words.eq(job.words), s.walk.rows.eq(job.rows),
            s.walk.gang.eq(job.gang if s.C > 1 else 0), s.walk.start.eq(job.start), s.walk.hold.eq(s.pairs.hold),
            job.ready.eq(s.walk.ready),
            s.walk.beat_valid.eq(self.beats.valid), self.beats.ready.eq(s.walk.beat_ready),
            self.beats.both.eq(s.walk.both),
            s.walk.freed.eq(s.pairs.freed), s.read.odd_word.eq(s.walk.wide), self.starved.eq(s.walk.starved),
            self.stalled.eq(s.walk.stalled),
            s.pairs.matrix.eq(matrix), s.pairs.begin.eq(job.start & s.walk.ready),
            self.busy.eq(s.walk.busy | s.pairs.busy),
        ]
        with m.If(s.walk.loading):
            m.d.sync += [matrix.dest.eq(job.dest), matrix.first.eq(job.first), matrix.last.eq(job.count - 1),
                         matrix.gang.eq(s.walk.gang), matrix.rows.eq(job.rows), matrix.shifts.eq(job.shifts)]

    def _operands(self, m, s):
        """Beat, scale and activations meet."""
        # 0: the word's address, registered: walk -> activation memories; 1: they answer; 2: the pair's zero points
        # chosen, 3: its mantissas, of words in registers, for block RAM is slow
        m.submodules.scales = scales = memory.Memory(shape=128, depth=1 << (self.max_groups - 1).bit_length(), init=[],
                                                     attrs=UNCHECKED)
        scale_write, scale_read = scales.write_port(), scales.read_port()
        beat1 = delay(m, self.beats.payload, 1, "beat1")
        m.d.sync += s.read.address.eq(s.walk.word)
        m.d.comb += [
            scale_write.addr.eq(delay(m, s.walk.group, 1, "group")), scale_write.data.eq(beat1),
            scale_write.en.eq(delay(m, s.walk.scaling & self.beats.valid, 1, "scale_valid", valid=True)),
            scale_read.addr.eq(Mux(s.walk.of64, s.read.address >> 2, s.read.address >> 1)),
        ]
        pair2 = delay(m, s.walk.pair, 3, "pair")
        s.beat2, s.second2 = delay(m, beat1, 2, "beat"), delay(m, self.beats.second, 3, "second")
        s.scale2 = data.View(data.ArrayLayout(data.StructLayout({"mantissa": 12, "zero": 4}), 2),
                             Signal(32, name="scale2"))
        scale_words = delay(m, scale_read.data, 1, "scale_words")
        m.d.comb += s.scale2.as_value().eq(Array(scale_words[32 * i:32 * i + 32] for i in range(4))[pair2])
        s.activations2 = delay(m, s.read.words, 1, "activations")
        s.tag2, s.valid2 = delay(m, s.walk.tag, 3, "tag2"), delay(m, s.walk.take, 3, "valid2", valid=True)

    def _beside(self, m, s):
        """Tags and scales beside the lanes."""
        # Beside the lanes, the last stage of which adds up what two columns have of a row; ``_a``: a cycle before that
        L = Lanes.latency + 1
        s.tag_l, s.valid_l = delay(m, s.tag2, L, "tag_l"), delay(m, s.valid2, L, "valid_l", valid=True)
        s.tag_a = delay(m, s.tag2, L - 1, "tag_a")
        s.mantissas_a = delay(m, Cat(s.scale2[0].mantissa, s.scale2[1].mantissa), L - 1, "mantissas")
        s.offsets_a = delay(m, s.read.offsets, L - 2, "offsets")

    def _chunks(self, m, s):
        """Which chunk sums leave."""
        # Chunk sums leave one a cycle: the even row's, then (q4: held for a cycle) the odd row's
        s.leaving = Signal(LEAVING)
        holding = Signal()
        last = Signal()
        m.d.comb += [
            last.eq(s.valid_l & s.tag_l.chunk_last), s.leaving.even.eq(last & (s.tag_l.q4 | ~s.tag_l.odd)),
            s.leaving.odd.eq(last & ~s.tag_l.q4 & s.tag_l.odd), holding.eq(last & s.tag_l.q4 & ~s.tag_l.gang),
        ]
        m.d.sync += s.leaving.held.eq(holding)
        chunk_valid = Signal()
        chunk_odd = Signal()
        chunk_tag = Signal(data.StructLayout({"row_first": 1, "row_last": 1, "gang": 1}), reset_less=True)
        m.d.sync += [chunk_valid.eq(s.leaving.as_value().any()), chunk_odd.eq(s.leaving.odd | s.leaving.held)]
        with m.If(~s.leaving.held):
            m.d.sync += [getattr(chunk_tag, name).eq(getattr(s.tag_l, name)) for name, _ in chunk_tag.shape()]
        s.offsets_l, s.mantissa_l, s.second_l = (Signal.like(value, name=name, reset_less=True) for value, name in (
            (s.read.offsets, "offsets_l"), (s.mantissas_a[:12], "mantissa_l"), (s.mantissas_a[:12], "second_l")))
        with m.If(~holding):
            m.d.sync += s.offsets_l.eq(s.offsets_a)
        m.d.sync += [
            s.mantissa_l.eq(Mux(holding, s.second_l,
                                Mux(s.tag_a.odd & ~s.tag_a.q4, s.mantissas_a[12:], s.mantissas_a[:12]))),
            s.second_l.eq(s.mantissas_a[12:]),
        ]
        s.tag_s, s.odd_s = delay(m, chunk_tag, 3, "tag_s"), delay(m, chunk_odd, 3, "odd_s")
        s.valid_s = delay(m, chunk_valid, 3, "valid_s", valid=True)
        m.d.comb += [
            s.pairs.write.eq(delay(m, s.valid_s & s.tag_s.row_last, 1, "done_valid", valid=True)),
            s.pairs.odd.eq(delay(m, s.odd_s, 1, "done_odd")), s.pairs.gang.eq(delay(m, s.tag_s.gang, 1, "done_gang")),
        ]

    def _columns(self, m, s):
        """Lanes and sums of each column."""
        every_lanes = [Lanes(multiplier_bits=self.multiplier_bits) for _ in range(s.C)]
        for c, lanes in enumerate(every_lanes):
            m.submodules[f"lanes{c}"] = lanes
            m.submodules[f"sums{c}"] = sums = ColumnSums()
            # In a gang column 0 adds up even rows and column 1 odd rows
            low = Signal(signed(28), name=f"low{c}", reset_less=True)
            high = Signal(signed(24), name=f"high{c}", reset_less=True)
            m.d.sync += [low.eq(lanes.low), high.eq(lanes.high)]
            if s.C > 1 and c < 2:
                a, b = every_lanes[:2]
                crossed = s.tag_a.gang & s.tag_a.q4
                mine, other = (a.low, b.low) if c == 0 else (Mux(crossed, a.high, b.low), b.high)
                m.d.sync += low.eq(mine + Mux(crossed & s.tag_a.full, other, 0))
            m.d.comb += [
                lanes.beat.eq(Mux(s.tag2.gang, s.second2, s.beat2) if c == 1 else s.beat2), lanes.q4.eq(s.tag2.q4),
                lanes.zeros[0].eq(s.scale2[0].zero), lanes.zeros[1].eq(s.scale2[1].zero),
                lanes.activations.eq(s.activations2[c]),
                sums.low.eq(low), sums.high.eq(high), sums.tag.eq(s.tag_l), sums.valid.eq(s.valid_l),
                sums.leaving.eq(s.leaving),
                sums.mantissa.eq(Mux(s.tag_l.gang, s.second_l, s.mantissa_l) if c == 1 else s.mantissa_l),
                sums.offset.eq(s.offsets_l[c]),
                sums.sum_valid.eq(s.valid_s), sums.sum_odd.eq(s.odd_s), sums.sum_first.eq(s.tag_s.row_first),
                s.pairs.results[c].eq(sums.result),
            ]
