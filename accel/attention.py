"""Attention of one position over a stream of K/V rows. Computes :func:`llama2_spec.golden.attend`, bit for bit.

Ref: Milakov & Gimelshein 2018 (online softmax).
"""
from amaranth.hdl import Module, ResetInserter, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.attention_output import AttentionOutput
from accel.attention_dots import SHAPE, query_members
from accel.attention_scores import AttentionScores, exp2_members
from accel.attention_values import AttentionValues
from accel.numeric import delay
from accel.row_splitter import RowSplitter
from llama2_spec.numerics import WIDE


class Attention(wiring.Component):
    """Scores of row t + 1 overlap the values of row t: a (beat, query head) a cycle each.

    Parameters
    ----------
    columns, max_heads, max_dim : int
        Queries kept; largest n_heads, and n_heads * head_dim.
    v_buffer : int
        V beats that may wait for their weights, with 8 more a power of two. Affects the speed only.
    multiplier_bits : int
        What the wider operand of the device's multipliers may have, 25 or 18.

    Members
    -------
    n_heads, n_kv_heads, head_dim : In
        Constants of the model, head_dim a multiple of 8; what is derived from them settles in ``3 * max_heads`` cycles.
    slots : Out
        n_kv_heads * head_dim / 8: of K or of V in a row.
    narrow : In
        A constant of the model, see :class:`~accel.row_splitter.RowSplitter`.
    start : In
        Consume ``rows`` rows (at least one) with the query written before for ``column``, from the next cycle on; only while not ``busy``.
    rows_beats, newest, local : In(stream), In(stream), In
        Rows as they lie in DRAM: exponents, K heads, V heads; the newest, while ``local`` and nothing comes from DRAM, from the chip.
        There are ``newest`` only then.
    output : Out(stream)
        n_heads * head_dim elements, 33 fraction bits. ``done`` pulses in the cycle after the last was taken.
    abort : In
        Drop everything; ``busy`` for one more cycle. The query stays.
    guest : In
        While not ``busy``: the table of EXP2 answers another unit.
    """
    def __init__(self, *, columns=1, max_heads=64, max_dim=2048, v_buffer=56, multiplier_bits=25):
        if max_heads > 64 or max_dim % 8:
            raise ValueError(f"At most 64 heads and a multiple of 8 elements, not {max_heads} and {max_dim}")
        self.columns, self.max_heads, self.max_dim, self.v_buffer = columns, max_heads, max_dim, v_buffer
        self.multiplier_bits = multiplier_bits
        element = data.StructLayout({"value": signed(WIDE), "last": 1})
        super().__init__({
            "n_heads": In(7), "n_kv_heads": In(7), "head_dim": In(8),
            "slots": Out(10), "narrow": In(2), "score_mantissa": In(16), "score_exponent": In(signed(8)),
            **query_members(columns, max_heads, max_dim),
            "start": In(1), "rows": In(17), "abort": In(1), "busy": Out(1), "done": Out(1),
            "rows_beats": In(stream.Signature(128)), "newest": In(stream.Signature(128)), "local": In(1),
            "output": Out(stream.Signature(element)), **exp2_members(),
        })

    def elaborate(self, platform):
        m = Module()
        shape = Signal(SHAPE)
        # n_rep and n_kv_heads * head_dim / 8 by repeated addition, over and over: constants of the model
        n_heads, n_kv_heads, head_dim = (delay(m, value, 1, name) for value, name in (
            (self.n_heads, "n_heads"), (self.n_kv_heads, "n_kv_heads"), (self.head_dim, "head_dim")))
        sum_, count = Signal(8), Signal(7)
        m.d.sync += [sum_.eq(sum_ + n_kv_heads), count.eq(count + 1)]
        with m.If(sum_ + n_kv_heads >= n_heads):
            m.d.sync += [sum_.eq(0), count.eq(0), shape.last_rep.eq(count)]
        beats, kv_heads = Signal(10), Signal(7)
        m.d.sync += [beats.eq(beats + head_dim[3:]), kv_heads.eq(kv_heads + 1)]
        with m.If(kv_heads >= shape.last_kv_head):
            m.d.sync += [beats.eq(0), kv_heads.eq(0), self.slots.eq(beats + head_dim[3:])]
        m.d.sync += [
            shape.last_head.eq(n_heads - 1), shape.last_kv_head.eq(n_kv_heads - 1),
            shape.last_slot.eq((head_dim >> 3) - 1), shape.last_header.eq(((2 * n_kv_heads + 15) >> 4) - 1),
            shape.last_beat.eq(self.slots - 1),
        ]
        splitter = RowSplitter(max_heads=self.max_heads, v_buffer=self.v_buffer)
        scores = AttentionScores(columns=self.columns, max_heads=self.max_heads, max_dim=self.max_dim,
                                 multiplier_bits=self.multiplier_bits)
        values = AttentionValues(max_heads=self.max_heads, max_dim=self.max_dim)
        output = AttentionOutput(max_heads=self.max_heads, max_dim=self.max_dim)
        for name, unit in (("splitter", splitter), ("scores", scores), ("values", values), ("output", output)):
            # A register each, so that it lies near what it resets
            aborting = Signal(name=f"abort_{name}", attrs={"keep": "true"})
            m.d.sync += aborting.eq(self.abort)
            m.submodules[name] = ResetInserter(aborting)(unit)
            own = Signal(SHAPE, name=f"shape_{name}", attrs={"keep": "true"})
            m.d.sync += own.eq(shape)
            m.d.comb += unit.shape.eq(own)
        wiring.connect(m, splitter.keys, scores.keys)
        wiring.connect(m, splitter.values, values.values)
        begin, rows = delay(m, self.start, 1, "begin", valid=True), delay(m, self.rows, 1, "rows")
        with m.If(self.start):
            m.d.sync += scores.column.eq(self.column)
        m.d.comb += [
            splitter.start.eq(self.start), splitter.rows.eq(rows), scores.start.eq(begin), values.start.eq(begin), values.rows.eq(rows),
            splitter.narrow.eq(self.narrow), splitter.local.eq(self.local), splitter.abort.eq(self.abort),
            *(signal for ours, its in ((self.rows_beats, splitter.beats), (self.newest, splitter.newest))
              for signal in (its.valid.eq(ours.valid), its.payload.eq(ours.payload), ours.ready.eq(its.ready))),
            scores.score_mantissa.eq(self.score_mantissa), scores.score_exponent.eq(self.score_exponent),
            scores.guest.eq(self.guest), scores.guest_index.eq(self.guest_index), scores.guest_t.eq(self.guest_t),
            self.guest_value.eq(scores.guest_value), scores.q_write.eq(self.q_write), scores.q_exponent_write.eq(self.q_exponent_write),
            values.weight_write.eq(scores.weight_write), values.weight_last.eq(scores.weight_last), values.weight.eq(scores.weight),
            scores.release.eq(values.release),
            scores.read_head.eq(output.head), output.mass.eq(scores.mass), output.top.eq(scores.top),
            values.read_slot.eq(output.slot), values.read_lane.eq(output.lane), output.sum.eq(values.sum),
            self.output.valid.eq(output.elements.valid & ~aborting), self.output.payload.eq(output.elements.payload),
            output.elements.ready.eq(self.output.ready),
        ]
        with m.FSM() as fsm:
            with m.State("IDLE"):
                with m.If(begin & ~self.abort):
                    m.next = "ROWS"
            with m.State("ROWS"):
                with m.If(self.abort):
                    m.next = "IDLE"
                with m.Elif(values.ending):
                    m.d.comb += [output.start.eq(1), scores.reading.eq(1)]
                    m.next = "LAST-SUMS"
            with m.State("LAST-SUMS"):
                m.d.comb += scores.reading.eq(1)
                with m.If(self.abort):
                    m.next = "IDLE"
                with m.Elif(~values.busy):
                    m.next = "OUTPUT"
            with m.State("OUTPUT"):
                m.d.comb += [values.reading.eq(1), output.summed.eq(1), scores.reading.eq(1)]
                with m.If(self.abort):
                    m.next = "IDLE"
                with m.Elif(self.output.valid & self.output.ready & self.output.payload.last):
                    m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.done.eq(~self.abort)
                m.next = "IDLE"
        m.d.comb += self.busy.eq(begin | ~fsm.ongoing("IDLE") | aborting)
        return m
