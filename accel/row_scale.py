"""Row sums to 32-bit fixed point: times 1/rms, right shift, saturate. Computes :func:`llama2_spec.golden.scale_rows`."""
import enum

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.numeric import coarse_shift, credits, delay, fine_shift, product_of
from accel.row_pairs import sum_layout
from accel.stage import Queue, Skid
from llama2_spec.numerics import WIDE
from llama2_spec.registers import Dest

DEPTH     = 16      # rows on their way; the pipe is 6 deep
EMBEDDING = 6       #: dest of embedding rows, beside llama2_spec.registers.Dest


class To(enum.IntEnum):
    """The unit that takes a row."""
    ROPE, SWIGLU, LOGITS, RESIDUAL = range(4)


def row_layout(columns):
    """A scaled row."""
    return data.StructLayout({"value": signed(32), "column": range(max(columns, 2)), "row": 18, "odd": 1, "last": 1,
                              "dest": 3, "to": 2})


class RowScale(wiring.Component):
    """``rows = saturate32(round_shift(sums * factor[column], shift))``, one a cycle; they wait in a FIFO that is never overrun.

    RESIDUAL and embedding rows take the factor 2**15 instead of 1/rms.
    """
    def __init__(self, *, columns):
        self.columns = columns
        super().__init__({
            "factors": In(data.ArrayLayout(17, columns)), "sums": In(stream.Signature(sum_layout(columns))),
            "rows": Out(stream.Signature(row_layout(columns))), "busy": Out(1), "saturated": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        layout = row_layout(self.columns)
        m.submodules.results = results = Queue(layout.size, depth=DEPTH)
        m.submodules.out = out = Skid(layout)       # who takes them is far away
        wiring.connect(m, out.output, wiring.flipped(self.rows))
        sums, p = self.sums, self.sums.payload
        take, given = Signal(), delay(m, self.rows.valid & self.rows.ready, 1, "given", valid=True)
        room, some_room = credits(m, DEPTH, take, given)
        m.d.comb += [sums.ready.eq(some_room), take.eq(sums.valid & sums.ready)]

        # 1: sum and factor; 2, 3: product; 4: coarsely shifted; 5: finely; 6: rounded and clamped
        fixed = (p.dest == Dest.RESIDUAL) | (p.dest == EMBEDDING)
        value, factor = Signal(signed(WIDE), reset_less=True), Signal(17, reset_less=True)
        product = product_of(m, value, factor, "product")
        shift3 = delay(m, p.shift, 3, "shift")
        shift4 = delay(m, shift3, 1, "shift4")
        coarse = Signal(signed(32 + 18), reset_less=True)
        fine, scaled = Signal.like(coarse, reset_less=True), Signal(signed(32), reset_less=True)
        narrow, flag = fine_shift(m, fine, Const(0, 4), 32)
        m.d.sync += [
            value.eq(p.value), factor.eq(Mux(fixed, 1 << 15, Array(self.factors)[p.column])),
            coarse.eq(coarse_shift(m, product, shift3, 32)), fine.eq(coarse >> shift4[:4]), scaled.eq(narrow),
        ]
        valid5 = delay(m, take, 5, "valid", valid=True)
        m.d.sync += self.saturated.eq(valid5 & flag)
        valid6 = delay(m, valid5, 1, "valid6", valid=True)
        to = Signal(2, init=To.RESIDUAL)
        with m.Switch(p.dest):
            with m.Case(Dest.Q, Dest.K, Dest.V):
                m.d.comb += to.eq(To.ROPE)
            with m.Case(Dest.SWIGLU):
                m.d.comb += to.eq(To.SWIGLU)
            with m.Case(Dest.LOGITS):
                m.d.comb += to.eq(To.LOGITS)
        tag6 = delay(m, Cat(p.column, p.row, p.odd, p.last, p.dest, to), 6, "tag")
        m.d.comb += [
            results.write.eq(valid6), results.data.eq(Cat(scaled, tag6)),
            out.input.valid.eq(results.output.valid), out.input.payload.as_value().eq(results.output.payload),
            results.output.ready.eq(out.input.ready),
            self.busy.eq(room != DEPTH),
        ]
        return m
