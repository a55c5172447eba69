"""The time-shared matrix-vector engine: 16 lanes a column, q8 and q4 on the same multipliers.

Computes :meth:`llama2_spec.golden.Matrix.sums` bit for bit for ``columns`` vectors that share one pass over the
weights.
"""
from types import SimpleNamespace

from amaranth.hdl import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.interfaces import ActivationRead, Beats, MatrixJob, RowSum
from accel.lib.numeric import UNCHECKED
from accel.lib.pipeline import Pipeline
from accel.matrix.column_sums import LEAVING, ColumnSums
from accel.matrix.lanes import Lanes
from accel.matrix.walk import MatrixWalk
from accel.matrix.row_pairs import RowPairs, matrix_layout

#: Scales of a pair's two rows.
SCALES = data.ArrayLayout(data.StructLayout({"mantissa": 12, "zero": 4}), 2)
#: What is known of a chunk's sum: whether it is its row's first, its last; whether two columns work for one position.
CHUNK = data.StructLayout({"row_first": 1, "row_last": 1, "gang": 1})


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
        self._lanes(m, s)
        self._chunks(m, s)
        self._scales(m, s)
        self._sums(m, s)
        return m

    def _walk(self, m, s):
        """Beats of the matrix, what it is."""
        s.C, job, s.read, s.pipe = self.columns, self.job, self.activations, Pipeline(m)
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
        # 0: a beat is taken; 1: its word's address, registered: walk -> activation memories; 2: they answer; 3: the
        # pair's scales chosen, of words in registers, for block RAM is slow
        pipe, walk = s.pipe, s.walk
        m.submodules.scales = scales = memory.Memory(shape=128, depth=1 << (self.max_groups - 1).bit_length(), init=[],
                                                     attrs=UNCHECKED)
        scale_write, scale_read = scales.write_port(), scales.read_port()
        address = pipe.into(s.read.address, pipe.enter(walk.word))
        beat = pipe.carry("beat", pipe.enter(self.beats.payload))
        pipe.write(scale_write, pipe.later("group", pipe.enter(walk.group)), beat.beside(address),
                   pipe.later("scale_valid", pipe.enter(walk.scaling & self.beats.valid), valid=True))
        words = pipe.later("scale_words", pipe.read(
            scale_read, pipe.combine(lambda word: Mux(walk.of64, word >> 2, word >> 1), address)))
        s.scale = pipe.named("scale", pipe.combine(
            lambda words, pair: Array(words[32 * i:32 * i + 32] for i in range(4))[pair],
            words, pipe.carry("pair", pipe.enter(walk.pair)).beside(words)), SCALES)
        s.beat, s.second = beat.beside(words), pipe.carry("second", pipe.enter(self.beats.second)).beside(words)
        s.words = pipe.later("activations", pipe.enter(s.read.words, address.stage + ActivationRead.words_latency))
        s.tag, s.valid = pipe.carry("tag", pipe.enter(walk.tag)), pipe.carry("valid", pipe.enter(walk.take), valid=True)
        # The other tag's registers are those of the row sums
        s.lanes_tag = pipe.carry("lanes_tag", s.tag.beside(words))
        s.mantissas = pipe.carry("mantissas", pipe.combine(Cat, s.scale[0].mantissa, s.scale[1].mantissa))
        s.offsets = pipe.carry("offsets", pipe.enter(s.read.offsets, address.stage + ActivationRead.offsets_latency))

    def _lanes(self, m, s):
        """Each column's products of a beat, added up."""
        pipe, tag, every = s.pipe, s.tag.beside(s.words), []
        for c in range(s.C):
            m.submodules[f"lanes{c}"] = lanes = Lanes(multiplier_bits=self.multiplier_bits)
            stage = pipe.drive(
                (lanes.beat, pipe.combine(Mux, tag.gang, s.second, s.beat) if c == 1 else s.beat), (lanes.q4, tag.q4),
                (lanes.zeros[0], s.scale[0].zero), (lanes.zeros[1], s.scale[1].zero), (lanes.activations, s.words[c]))
            every.append([pipe.enter(total, stage + lanes.latency) for total in (lanes.low, lanes.high)])
        s.lanes_tag = tag = s.lanes_tag.beside(every[0][0])
        crossed = tag.gang & tag.q4
        s.low, s.high = [], []
        for c, (low, high) in enumerate(every):
            if s.C > 1 and c < 2:       # in a gang column 0 adds up even rows and column 1 odd rows
                mine = low if c == 0 else pipe.combine(Mux, crossed, every[0][1], low)
                low = mine + pipe.combine(Mux, crossed & tag.full, every[1][c], 0)
            s.low.append(pipe.register(f"low{c}", low, signed(28)))
            s.high.append(pipe.register(f"high{c}", high, signed(24)))

    def _chunks(self, m, s):
        """Which chunk sums leave."""
        # Chunk sums leave one a cycle: the even row's, then (q4: held for a cycle) the odd row's
        pipe, tag = s.pipe, s.tag.beside(s.low[0])
        last = pipe.named("last", s.valid.beside(tag) & tag.chunk_last)
        leaving = Signal(LEAVING)
        s.holding = pipe.named("holding", last & tag.q4 & ~tag.gang)
        pipe.drive((leaving.even, last & (tag.q4 | ~tag.odd)), (leaving.odd, last & ~tag.q4 & tag.odd))
        m.d.sync += leaving.held.eq(s.holding.plain)
        s.leaving = pipe.enter(leaving, tag.stage)          # what was held leaves as if it were of the next beat
        valid = pipe.register("chunk_valid", s.leaving.as_value().any(), reset_less=False)
        odd = pipe.register("chunk_odd", s.leaving.odd | s.leaving.held, reset_less=False)
        chunk = pipe.register("chunk_tag", pipe.combine(Cat, *(getattr(tag, name) for name, _ in CHUNK)), CHUNK,
                              when=~s.leaving.held)
        s.chunk_valid = pipe.carry("chunk_valid", valid, valid=True)
        s.chunk_odd, s.chunk_tag = pipe.carry("chunk_odd", odd), pipe.carry("chunk_tag", chunk)

    def _scales(self, m, s):
        """Mantissa and offset of the chunk sum that leaves."""
        pipe, tag = s.pipe, s.lanes_tag
        # Of the next beat's. While the odd row's sum is held: of that, which the beat before had
        holding, mantissas = s.holding.plain, s.mantissas.beside(tag)
        s.offsets = pipe.register("offset", s.offsets.beside(tag), when=~holding)
        s.second_mantissa = pipe.register("second_mantissa", mantissas[12:])
        own = pipe.combine(Mux, tag.odd & ~tag.q4, mantissas[12:], mantissas[:12])
        held = s.second_mantissa.plain
        s.mantissa = pipe.register("mantissa", pipe.combine(lambda own: Mux(holding, held, own), own))

    def _sums(self, m, s):
        """The chunk sums of each column, added up to rows."""
        pipe, tag, valid = s.pipe, s.tag.beside(s.leaving), s.valid.beside(s.leaving)
        scaled = s.leaving.stage + ColumnSums.scaled
        chunk, chunk_valid, chunk_odd = s.chunk_tag.at(scaled), s.chunk_valid.at(scaled), s.chunk_odd.at(scaled)
        results = []
        for c in range(s.C):
            m.submodules[f"sums{c}"] = sums = ColumnSums()
            mantissa = pipe.combine(Mux, tag.gang, s.second_mantissa, s.mantissa) if c == 1 else s.mantissa
            stage = pipe.drive((sums.low, s.low[c]), (sums.high, s.high[c]), (sums.tag, tag), (sums.valid, valid),
                               (sums.leaving, s.leaving), (sums.mantissa, mantissa), (sums.offset, s.offsets[c]))
            pipe.drive((sums.sum_valid, chunk_valid), (sums.sum_odd, chunk_odd), (sums.sum_first, chunk.row_first))
            results.append((s.pairs.results[c], pipe.enter(sums.result, stage + sums.latency)))
        done = pipe.drive((s.pairs.write, pipe.later("done_valid", chunk_valid & chunk.row_last, valid=True)),
                          (s.pairs.odd, pipe.later("done_odd", chunk_odd)),
                          (s.pairs.gang, pipe.later("done_gang", chunk.gang)), *results)
        assert done == self.latency
