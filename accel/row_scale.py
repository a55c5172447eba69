"""Row sums to 32-bit fixed point: times 1/rms, right shift, saturate. Computes :func:`spec.golden.scale_rows`."""
from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.matvec import sum_layout
from accel.numeric import coarse_shift, fine_shift, product_of
from spec.numerics import WIDE
from spec.registers import Dest

EMBEDDING = 6       #: dest of embedding rows, beside spec.registers.Dest


def row_layout(columns):
    """A scaled row."""
    return data.StructLayout({"value": signed(32), "column": range(max(columns, 2)), "row": 18, "odd": 1, "last": 1,
                              "dest": 3})


class RowScale(wiring.Component):
    """``rows = saturate32(round_shift(sums * factor[column], shift))``, one a cycle, six deep.

    RESIDUAL and embedding rows take the factor 2**15 instead of 1/rms.
    """
    def __init__(self, *, columns):
        self.columns = columns
        super().__init__({
            "factors": In(data.ArrayLayout(17, columns)), "abort": In(1),
            "sums": In(stream.Signature(sum_layout(columns))), "rows": Out(stream.Signature(row_layout(columns))),
            "busy": Out(1), "saturated": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        sums, rows = self.sums, self.rows
        advance = Signal()
        m.d.comb += [advance.eq(~rows.valid | rows.ready), sums.ready.eq(advance)]
        valid = sums.valid
        valids = []
        tag = Cat(sums.payload.column, sums.payload.row, sums.payload.odd, sums.payload.last, sums.payload.dest)
        shift = sums.payload.shift
        dest = sums.payload.dest
        fixed = (dest == Dest.RESIDUAL) | (dest == EMBEDDING)
        # 1: sum and factor; 2, 3: product; 4: coarsely shifted; 5: finely; 6: rounded and clamped
        value = Signal(signed(WIDE), reset_less=True)
        factor = Signal(17, reset_less=True)
        coarse = Signal(signed(32 + 18), reset_less=True)
        tags, shifts = [tag], [shift]
        for i in range(6):
            v = Signal(name=f"valid{i}")
            t, s = Signal(len(tag), name=f"tag{i}"), Signal(6, name=f"shift{i}")
            with m.If(advance):
                m.d.sync += [v.eq(valid), t.eq(tags[-1]), s.eq(shifts[-1])]
            with m.If(self.abort):
                m.d.sync += v.eq(0)
            valids.append(v)
            tags.append(t)
            shifts.append(s)
            valid = v
        p = rows.payload
        product = product_of(m, value, factor, "product", enable=advance)
        fine = Signal.like(coarse, reset_less=True)
        narrow, flag = fine_shift(m, fine, Const(0, 4), 32)
        with m.If(advance):
            m.d.sync += [
                value.eq(sums.payload.value),
                factor.eq(Mux(fixed, 1 << 15, Array(self.factors)[sums.payload.column])),
                coarse.eq(coarse_shift(m, product, shifts[3], 32)),
                fine.eq(coarse >> shifts[4][:4]), p.value.eq(narrow),
            ]
        m.d.comb += [
            Cat(p.column, p.row, p.odd, p.last, p.dest).eq(tags[6]),
            rows.valid.eq(valids[5]), self.busy.eq(Cat(*valids).any()),
            self.saturated.eq(advance & valids[4] & flag),
        ]
        return m
