"""What the row scaler takes: the sums of a matrix, or the elements of an embedding row as if they were sums."""
from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from accel.dram.embed_fetch import ELEMENT
from accel.interfaces import EmbedJob, RowSum, column_shape
from llama2_spec.registers import Dest


class SumIntake(wiring.Component):
    """One sum per cycle, no latency. The source is chosen by a register, which changes only while no sum is offered: so
    what is offered stays until it is taken.

    Members
    -------
    job : In(EmbedJob)
        Describes the elements that come next.
    elements : In(stream of ELEMENT)
        From the embedding's row.
    matrix : In(stream of RowSum)
        From the engine.
    sums : Out(stream of RowSum)
        To the scaler.
    """
    latency = 0

    def __init__(self, *, columns, addr_width):
        self.columns = columns
        super().__init__({"job": In(EmbedJob(columns, addr_width)), "elements": In(stream.Signature(ELEMENT)),
                          "matrix": In(stream.Signature(RowSum(columns))),
                          "sums": Out(stream.Signature(RowSum(columns)))})

    def elaborate(self, platform):
        m = Module()
        job, elements, matrix, sums = self.job, self.elements, self.matrix, self.sums
        column = Signal(column_shape(self.columns))
        element = Signal(13)
        shift = Signal(6)
        with m.If(job.start):
            m.d.sync += [column.eq(job.column), element.eq(0)]
        with m.Elif(elements.valid & elements.ready):
            m.d.sync += element.eq(element + 1)
        with m.If(job.start):
            m.d.sync += shift.eq(job.shift)
        embedding = Signal()
        with m.If(~sums.valid):
            m.d.sync += embedding.eq(elements.valid)
        with m.If(embedding):
            p = sums.payload
            m.d.comb += [sums.valid.eq(elements.valid), elements.ready.eq(sums.ready),
                         p.value.eq(elements.payload.value),
                         p.column.eq(column), p.row.eq(element), p.odd.eq(element[0]), p.last.eq(elements.payload.last),
                         p.dest.eq(Dest.EMBEDDING), p.shift.eq(shift)]
        with m.Else():
            m.d.comb += [sums.valid.eq(matrix.valid), matrix.ready.eq(sums.ready), sums.payload.eq(matrix.payload)]
        return m
