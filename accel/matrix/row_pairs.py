"""Where the matrix engine's row sums wait, two rows together, and leave column by column."""
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
        m = Module()
        C = self.columns
        m.submodules.pairs = pairs = memory.Memory(shape=data.ArrayLayout(signed(WIDE), C), depth=2 * PAIRS, init=[])
        pair_in, pair_out = pairs.write_port(), pairs.read_port(domain="comb")
        m.submodules.out = stage = Skid(RowSum(C))
        wiring.connect(m, stage.output, wiring.flipped(self.sums))
        write_pair, read_pair = Signal(range(PAIRS)), Signal(range(PAIRS))
        complete, some = Signal(range(PAIRS + 1)), Signal()         # pairs that are complete; whether there are any
        leaves, leave = Signal(), Signal()                          # of the matrix that leaves there are; one does
        completed, finished, more = Signal(), Signal(), Signal()
        leaving, drained = Signal(matrix_layout(C)), Signal(init=1)
        # Of the sum that leaves: its column, pair and row; its pair has no odd row, is the last; it is its pair's last
        column, row, second, rows_left = Signal(range(max(C, 2))), Signal(17), Signal(), Signal(18)
        single, final, closes = Signal(), Signal(), Signal()
        half, pick = Signal(), Signal.like(column)          # where it lies
        next_column = Mux(column == leaving.last, leaving.first, column + 1)
        out = stage.input.payload
        m.d.comb += [
            pair_in.addr.eq(Cat(self.odd, write_pair)), pair_in.en.eq(self.write), pair_in.data.eq(self.results),
            completed.eq(self.write & (self.odd | self.gang)), pair_out.addr.eq(Cat(half, read_pair)),
            stage.input.valid.eq(leaves), leave.eq(leaves & stage.input.ready), finished.eq(leave & closes),
            out.value.eq(pair_out.data[pick]), out.shift.eq(leaving.shifts[column]), out.row.eq(Cat(second, row)),
            out.dest.eq(leaving.dest), out.column.eq(column), out.odd.eq(second),
            out.last.eq(final & (second | single)),
            more.eq(Mux(finished, completed | (complete != 1), completed | some)),
            self.busy.eq(stage.busy),
        ]
        m.d.sync += [some.eq(more), leaves.eq(~drained & more & ~(finished & final)), self.freed.eq(finished)]
        with m.If(completed):
            m.d.sync += write_pair.eq(write_pair + 1)
        with m.If(completed ^ finished):
            m.d.sync += complete.eq(complete + Mux(completed, 1, -1))
        with m.If(leave):
            with m.If(~second & ~single):
                m.d.sync += [second.eq(1), half.eq(~leaving.gang),
                             pick.eq(Mux(leaving.gang, 1, column) if C > 1 else 0), closes.eq(column == leaving.last)]
            with m.Else():
                m.d.sync += [second.eq(0), half.eq(0), column.eq(next_column),
                             pick.eq(Mux(leaving.gang, 0, next_column) if C > 1 else 0),
                             closes.eq(Mux(closes, rows_left == 3, single) & (next_column == leaving.last))]
        with m.If(finished):
            m.d.sync += [read_pair.eq(read_pair + 1), row.eq(row + 1),
                         rows_left.eq(rows_left - 2), final.eq(rows_left <= 4), single.eq(rows_left == 3)]
            with m.If(final):
                m.d.sync += drained.eq(1)
        with m.If(self.begin):
            m.d.sync += self.hold.eq(1)
        with m.If(self.hold & drained):
            next_ = self.matrix
            m.d.sync += [
                leaving.eq(next_), column.eq(next_.first), pick.eq(Mux(next_.gang, 0, next_.first) if C > 1 else 0),
                row.eq(0), rows_left.eq(next_.rows), final.eq(next_.rows <= 2), single.eq(next_.rows == 1),
                closes.eq((next_.rows == 1) & (next_.first == next_.last)),
                self.hold.eq(0), drained.eq(0), leaves.eq(more),
            ]
        return m
