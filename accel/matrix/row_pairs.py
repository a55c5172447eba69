"""Where the matrix engine's row sums wait, two rows together, and leave column by column."""
from types import SimpleNamespace

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.interfaces import RowSum
from accel.lib.stream import Skid
from accel.matrix.walk import PAIRS
from llama2_spec.numerics import WIDE


def matrix_layout(columns):
    """What is the same for all sums of a matrix."""
    column = range(max(columns, 2))
    return data.StructLayout({"dest": 3, "first": column, "last": column, "gang": 1, "rows": 18,
                              "shifts": data.ArrayLayout(6, columns)})


class RowPairs(wiring.Component):
    """Puts sums into the order of :class:`~accel.interfaces.RowSum`; no arithmetic. One sum leaves per cycle. Sums are
    never refused: :class:`~accel.matrix.walk.MatrixWalk` counts the pairs and takes no beat without a place.

    Members
    -------
    matrix, begin, hold : In(matrix_layout), In(1), Out(1)
        Describes the matrix whose sums come next. Sampled at ``begin``; must stay stable while ``hold`` is high, which
        is until the previous matrix's sums have left.
    write, odd, gang, results : In(1), In(1), In(1), In(array(signed(WIDE), columns))
        A row's sums, one a column; with ``gang`` a pair's, column 0's of the even row and column 1's of the odd one.
    sums : Out(stream of RowSum)
        For each pair, for each column: even row, odd row.
    freed : Out(1)
        A pair has left.
    busy : Out(1)
        A sum is on its way out; those that wait are not counted.
    """
    latency = None      #: varies

    def __init__(self, *, columns):
        self.columns = columns
        super().__init__({
            "matrix": In(matrix_layout(columns)), "begin": In(1), "hold": Out(1),
            "write": In(1), "odd": In(1), "gang": In(1), "results": In(data.ArrayLayout(signed(WIDE), columns)),
            "sums": Out(stream.Signature(RowSum(columns))), "freed": Out(1), "busy": Out(1),
        })

    def elaborate(self, platform):
        m, s = Module(), SimpleNamespace(C=self.columns)
        self._signals(s)
        self._memory(m, s)
        self._counts(m, s)
        self._leave(m, s)
        self._begin(m, s)
        return m

    def _signals(self, s):
        """Pairs that are complete, and the sum that leaves."""
        s.write_pair = Signal(range(PAIRS))
        s.read_pair = Signal(range(PAIRS))
        # Pairs that are complete; whether there are any.
        s.complete = Signal(range(PAIRS + 1))
        s.some = Signal()
        # Of the matrix that leaves there are; one does.
        s.leaves = Signal()
        s.leave = Signal()
        s.completed = Signal()
        s.finished = Signal()
        s.more = Signal()
        s.leaving = Signal(matrix_layout(s.C))
        s.drained = Signal(init=1)
        # Of the sum that leaves: its column, pair and row; its pair has no odd row, is the last; it is its pair's last.
        s.column = Signal(range(max(s.C, 2)))
        s.row = Signal(17)
        s.second = Signal()
        s.rows_left = Signal(18)
        s.single = Signal()
        s.final = Signal()
        s.closes = Signal()
        # Where it lies.
        s.half = Signal()
        s.pick = Signal.like(s.column)

    def _memory(self, m, s):
        """Results come in, sums go out."""
        m.submodules.pairs = pairs = memory.Memory(shape=data.ArrayLayout(signed(WIDE), s.C), depth=2 * PAIRS, init=[])
        pair_in, pair_out = pairs.write_port(), pairs.read_port(domain="comb")
        m.submodules.out = stage = Skid(RowSum(s.C))
        wiring.connect(m, stage.output, wiring.flipped(self.sums))
        out = stage.input.payload
        m.d.comb += [
            pair_in.addr.eq(Cat(self.odd, s.write_pair)), pair_in.en.eq(self.write), pair_in.data.eq(self.results),
            pair_out.addr.eq(Cat(s.half, s.read_pair)), stage.input.valid.eq(s.leaves),
            s.leave.eq(s.leaves & stage.input.ready), self.busy.eq(stage.busy),
            out.value.eq(pair_out.data[s.pick]), out.shift.eq(s.leaving.shifts[s.column]),
            out.row.eq(Cat(s.second, s.row)), out.dest.eq(s.leaving.dest), out.column.eq(s.column),
            out.odd.eq(s.second), out.last.eq(s.final & (s.second | s.single)),
        ]

    def _counts(self, m, s):
        """Pairs become complete, and are read."""
        m.d.comb += [
            s.completed.eq(self.write & (self.odd | self.gang)), s.finished.eq(s.leave & s.closes),
            s.more.eq(Mux(s.finished, s.completed | (s.complete != 1), s.completed | s.some)),
        ]
        m.d.sync += [s.some.eq(s.more), s.leaves.eq(~s.drained & s.more & ~(s.finished & s.final)),
                     self.freed.eq(s.finished)]
        with m.If(s.completed):
            m.d.sync += s.write_pair.eq(s.write_pair + 1)
        with m.If(s.completed ^ s.finished):
            m.d.sync += s.complete.eq(s.complete + Mux(s.completed, 1, -1))

    def _leave(self, m, s):
        """The sums of a pair leave: every column's first row, then their second."""
        next_column = Mux(s.column == s.leaving.last, s.leaving.first, s.column + 1)
        with m.If(s.leave):
            with m.If(~s.second & ~s.single):
                m.d.sync += [s.second.eq(1), s.half.eq(~s.leaving.gang),
                             s.pick.eq(Mux(s.leaving.gang, 1, s.column) if s.C > 1 else 0),
                             s.closes.eq(s.column == s.leaving.last)]
            with m.Else():
                m.d.sync += [s.second.eq(0), s.half.eq(0), s.column.eq(next_column),
                             s.pick.eq(Mux(s.leaving.gang, 0, next_column) if s.C > 1 else 0),
                             s.closes.eq(Mux(s.closes, s.rows_left == 3, s.single) & (next_column == s.leaving.last))]
        with m.If(s.finished):
            m.d.sync += [s.read_pair.eq(s.read_pair + 1), s.row.eq(s.row + 1),
                         s.rows_left.eq(s.rows_left - 2), s.final.eq(s.rows_left <= 4), s.single.eq(s.rows_left == 3)]
            with m.If(s.final):
                m.d.sync += s.drained.eq(1)

    def _begin(self, m, s):
        """The next matrix, once the sums of the one before have left."""
        with m.If(self.begin):
            m.d.sync += self.hold.eq(1)
        with m.If(self.hold & s.drained):
            next_ = self.matrix
            m.d.sync += [
                s.leaving.eq(next_), s.column.eq(next_.first),
                s.pick.eq(Mux(next_.gang, 0, next_.first) if s.C > 1 else 0),
                s.row.eq(0), s.rows_left.eq(next_.rows), s.final.eq(next_.rows <= 2), s.single.eq(next_.rows == 1),
                s.closes.eq((next_.rows == 1) & (next_.first == next_.last)),
                self.hold.eq(0), s.drained.eq(0), s.leaves.eq(s.more),
            ]
