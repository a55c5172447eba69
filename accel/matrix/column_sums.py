"""A column's way from sums of a beat's products to sums of rows: chunk by chunk, times the group's scale, shifted,
added up."""
from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from accel.lib.pipeline import Pipeline
from accel.matrix.walk import TAG
from llama2_spec.numerics import WIDE

#: A chunk's sum leaves: the even row's, q8's odd row's, or q4's odd row's, which was held for a cycle.
LEAVING = data.StructLayout({"even": 1, "odd": 1, "held": 1})


class ColumnSums(wiring.Component):
    """One column's part of :meth:`llama2_spec.golden.Matrix.sums`. One beat per cycle; never stalled.

    Members
    -------
    low, high, tag, valid : In(signed(28)), In(signed(24)), In(TAG), In(1)
        A beat's sums of products: of the even row, or of q8's only one; of q4's odd row.
    leaving : In(LEAVING)
        Whether its chunk ends with it; ``held`` a cycle later.
    mantissa, offset : In(12), In(6)
        Scale of the chunk that leaves, and its shift to the right.
    sum_valid, sum_odd, sum_first : In(1)
        Four cycles later: a chunk that left, its row, and whether it is the row's first.
    result : Out(signed(WIDE))
        Five cycles later: the row so far.
    """
    latency = 5         #: from the sum of a chunk's last beat to the row so far
    scaled = latency - 1    #: from there to the chunk's part of the row, with which ``sum_valid`` comes

    def __init__(self):
        super().__init__({
            "low": In(signed(28)), "high": In(signed(24)), "tag": In(TAG), "valid": In(1), "leaving": In(LEAVING),
            "mantissa": In(12), "offset": In(6), "sum_valid": In(1), "sum_odd": In(1), "sum_first": In(1),
            "result": Out(signed(WIDE)),
        })

    def elaborate(self, platform):
        m = Module()
        tag, leaving = self.tag, self.leaving
        partial = [Signal(signed(28), name=f"partial{r}") for r in range(2)]        # 32 products of 2**22: 28 bits
        total = [Signal(signed(28), name=f"total{r}") for r in range(2)]
        m.d.comb += [total[0].eq(self.low + partial[0]), total[1].eq(partial[1] + Mux(tag.q4, self.high, self.low))]
        for r, mine in enumerate((tag.q4 | ~tag.odd, tag.q4 | tag.odd)):
            with m.If(self.valid & mine & tag.chunk_last):      # a reset, which takes no look-up tables
                m.d.sync += partial[r].eq(0)
            with m.Elif(self.valid & mine):
                m.d.sync += partial[r].eq(total[r])

        # Two products, their sum, shift, accumulate. Of an offset, two bits are a shift of the mantissa to the left,
        # less three
        pipe = Pipeline(m)
        offset = pipe.enter(self.offset)
        held_total = Signal(signed(28), reset_less=True)
        m.d.sync += held_total.eq(total[1])
        chunk = pipe.register("chunk", pipe.enter(Mux(leaving.held, held_total, Mux(leaving.odd, total[1], total[0]))),
                              signed(28))
        mantissa = pipe.register("mantissa", pipe.enter(self.mantissa) << ~offset[:2], signed(16))
        low = pipe.register("low_part", pipe.combine(lambda x, by: Cat(x[:17], Const(0, 1)).as_signed() * by,
                                                     chunk, mantissa), signed(18 + 15))
        high = pipe.register("high_part", chunk[17:].as_signed() * mantissa, signed(11 + 15))
        product = pipe.register("product", low + (high << 17), signed(28 + 15))
        coarse = pipe.carry("coarse", offset[2:]).beside(product)
        shifted = pipe.register("shifted", pipe.combine(lambda x, by: x[3:].as_signed() >> Cat(Const(0, 2), by),
                                                        product, coarse), signed(40))
        assert shifted.stage == self.scaled
        sums = [Signal(signed(WIDE), name=f"sum{r}", reset_less=True) for r in range(2)]
        so_far = pipe.enter(Mux(self.sum_first, 0, Mux(self.sum_odd, sums[1], sums[0])), self.scaled)
        now = pipe.named("now", shifted + so_far, signed(WIDE))
        for r in range(2):
            with m.If(self.sum_valid & (self.sum_odd == r)):
                m.d.sync += sums[r].eq(now.plain)
        assert pipe.drive((self.result, pipe.later("result", now))) == self.latency
        return m
