"""Attention of one position over a stream of K/V rows. Computes :func:`spec.golden.attend`, bit for bit.

Ref: Milakov & Gimelshein 2018 (online softmax).
"""
from amaranth.hdl import Cat, Module, Mux, ResetInserter, Signal, signed
from amaranth.lib import data, fifo, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.attention_output import AttentionOutput
from accel.attention_scores import SHAPE, AttentionScores, exp2_members, key_layout, query_members
from accel.attention_values import AttentionValues
from spec.numerics import WIDE

KEY_BUFFER = 16     # beats: keeps the scores busy while a V row with n_rep >= 2 passes


class RowSplitter(wiring.Component):
    """K/V rows to slots of K, each with its head's exponents, and slots of V, each in a FIFO of its own.

    A slot is eight elements of 16 bits: a beat as it is, or one half after the other of a beat of 8-bit elements. There is
    one a cycle, so an 8-bit row takes as many cycles as its 16-bit one, less the header, and half of the memory.

    Members
    -------
    narrow : In
        Elements of 8 bits, of V (bit 0) and of K (bit 1).
    beats, newest, local : In(stream), In(stream), In
        Rows from DRAM; while ``local``, rows held on chip.
    """

    def __init__(self, *, max_heads, v_buffer):
        self.max_heads, self.v_buffer = max_heads, v_buffer
        super().__init__({
            "shape": In(SHAPE), "start": In(1), "rows": In(17), "narrow": In(2),
            "beats": In(stream.Signature(128)), "newest": In(stream.Signature(128)), "local": In(1),
            "keys": Out(stream.Signature(key_layout())), "values": Out(stream.Signature(128)),
        })

    def elaborate(self, platform):
        m = Module()
        shape = self.shape
        valid, ready, raw = Signal(), Signal(), Signal(128)
        m.d.comb += [
            valid.eq(Mux(self.local, self.newest.valid, self.beats.valid)), self.beats.ready.eq(ready & ~self.local),
            raw.eq(Mux(self.local, self.newest.payload, self.beats.payload)), self.newest.ready.eq(ready & self.local),
        ]
        # Exponents have six bits; the row being split is the only one whose header is kept.
        m.submodules.header = header = memory.Memory(shape=data.ArrayLayout(6, 16), depth=-(-2 * self.max_heads // 16), init=[])
        write = header.write_port()
        m.submodules.keys = keys = fifo.SyncFIFO(width=key_layout().size, depth=KEY_BUFFER)
        m.submodules.values = values = fifo.SyncFIFOBuffered(width=128, depth=self.v_buffer)
        left, beat, slot = Signal(17), Signal(10), Signal(4)
        bytes_at = [Signal(7, name=f"{name}_byte") for name in "kv"]
        entry = Signal(key_layout())
        # One choice per byte, in one look-up table with that of the source; see spec.image.row_elements
        unpacked, narrow, second = Signal(128), Signal(), Signal()
        for i in range(0, 128, 16):
            low = Signal(8, name=f"low{i}")
            m.d.comb += [low.eq(Mux(second, raw[i + 8:i + 16], raw[i:i + 8])),
                         unpacked[i:i + 16].eq(Cat(low, Mux(narrow, low[7].replicate(8), raw[i + 8:i + 16])))]
        for at, exponent in zip(bytes_at, (entry.k_exponent, entry.v_exponent)):
            read = header.read_port(domain="comb")
            m.d.comb += [read.addr.eq(at >> 4), exponent.eq(read.data[at[:4]])]
        m.d.comb += [
            write.addr.eq(beat), entry.beat.eq(unpacked), second.eq(narrow & beat[0]),
            *(write.data[i].eq(unpacked[8 * i:8 * i + 6]) for i in range(16)),     # as it is: a header is not narrow
            keys.w_data.eq(entry), values.w_data.eq(unpacked),
            self.keys.valid.eq(keys.r_rdy), self.keys.payload.eq(keys.r_data), keys.r_en.eq(self.keys.ready),
            self.values.valid.eq(values.r_rdy), self.values.payload.eq(values.r_data), values.r_en.eq(self.values.ready),
        ]
        room, take, last = Signal(), Signal(), Signal()
        m.d.comb += [take.eq(valid & room), last.eq(beat == shape.last_beat), ready.eq(room & (~narrow | beat[0] | last))]
        with m.If(take):
            m.d.sync += beat.eq(beat + 1)
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [left.eq(self.rows), beat.eq(0)]
                with m.If(self.start):
                    m.next = "HEADER"
            with m.State("HEADER"):
                m.d.comb += [room.eq(1), write.en.eq(take)]
                m.d.sync += [bytes_at[0].eq(0), bytes_at[1].eq(shape.last_kv_head + 1), slot.eq(0)]
                with m.If(take & (beat == shape.last_header)):
                    m.d.sync += beat.eq(0)
                    m.next = "KEYS"
            with m.State("KEYS"):
                m.d.comb += [room.eq(keys.w_rdy), keys.w_en.eq(take), narrow.eq(self.narrow[1])]
                with m.If(take):
                    m.d.sync += slot.eq(slot + 1)
                    with m.If(slot == shape.last_slot):
                        m.d.sync += [slot.eq(0), *(at.eq(at + 1) for at in bytes_at)]
                    with m.If(last):
                        m.d.sync += beat.eq(0)
                        m.next = "VALUES"
            with m.State("VALUES"):
                m.d.comb += [room.eq(values.w_rdy), values.w_en.eq(take), narrow.eq(self.narrow[0])]
                with m.If(take & last):
                    m.d.sync += [beat.eq(0), left.eq(left - 1)]
                    m.next = "HEADER"
                    with m.If(left == 1):
                        m.next = "IDLE"
        return m


class Attention(wiring.Component):
    """Scores of row t + 1 overlap the values of row t: a (beat, query head) a cycle each.

    Parameters
    ----------
    columns, max_heads, max_dim : int
        Queries kept; largest n_heads, and n_heads * head_dim.
    v_buffer : int
        V beats that may wait for their weights. Affects the speed only.
    multiplier_bits : int
        What the wider operand of the device's multipliers may have, 25 or 18.

    Members
    -------
    n_heads, n_kv_heads, head_dim : In
        Constants of the model, head_dim a multiple of 8; what is derived from them settles in ``3 * max_heads`` cycles.
    slots : Out
        n_kv_heads * head_dim / 8: of K or of V in a row.
    narrow : In
        A constant of the model, see :class:`RowSplitter`.
    start : In
        Consume ``rows`` rows (at least one) with the query written before for ``column``; only while not ``busy``.
    rows_beats, newest, local : In(stream), In(stream), In
        Rows as they lie in DRAM: exponents, K heads, V heads; the newest, while ``local``, from the chip.
    output : Out(stream)
        n_heads * head_dim elements, 33 fraction bits. ``done`` pulses when the last is taken.
    abort : In
        Drop everything; ``busy`` for one more cycle. The query stays.
    guest : In
        While not ``busy``: the table of EXP2 answers another unit.
    """
    def __init__(self, *, columns=1, max_heads=64, max_dim=2048, v_buffer=64, multiplier_bits=25):
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
        sum_, count = Signal(8), Signal(7)
        m.d.sync += [sum_.eq(sum_ + self.n_kv_heads), count.eq(count + 1)]
        with m.If(sum_ + self.n_kv_heads >= self.n_heads):
            m.d.sync += [sum_.eq(0), count.eq(0), shape.last_rep.eq(count)]
        beats, kv_heads = Signal(10), Signal(7)
        m.d.sync += [beats.eq(beats + self.head_dim[3:]), kv_heads.eq(kv_heads + 1)]
        with m.If(kv_heads >= shape.last_kv_head):
            m.d.sync += [beats.eq(0), kv_heads.eq(0), self.slots.eq(beats + self.head_dim[3:])]
        m.d.sync += [
            shape.last_head.eq(self.n_heads - 1), shape.last_kv_head.eq(self.n_kv_heads - 1),
            shape.last_slot.eq((self.head_dim >> 3) - 1), shape.last_header.eq(((2 * self.n_kv_heads + 15) >> 4) - 1),
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
            m.d.comb += unit.shape.eq(shape)
        wiring.connect(m, splitter.keys, scores.keys)
        wiring.connect(m, splitter.values, values.values)
        begin = Signal()
        with m.If(begin):
            m.d.sync += scores.column.eq(self.column)
        m.d.comb += [
            begin.eq(self.start & ~self.busy),
            splitter.start.eq(begin), splitter.rows.eq(self.rows), scores.start.eq(begin),
            values.start.eq(begin), values.rows.eq(self.rows),
            splitter.narrow.eq(self.narrow), splitter.local.eq(self.local),
            *(signal for ours, its in ((self.rows_beats, splitter.beats), (self.newest, splitter.newest))
              for signal in (its.valid.eq(ours.valid), its.payload.eq(ours.payload), ours.ready.eq(its.ready & ~aborting))),
            scores.score_mantissa.eq(self.score_mantissa), scores.score_exponent.eq(self.score_exponent),
            scores.guest.eq(self.guest), scores.guest_index.eq(self.guest_index), scores.guest_t.eq(self.guest_t),
            self.guest_value.eq(scores.guest_value), scores.q_write.eq(self.q_write), scores.q_exponent_write.eq(self.q_exponent_write),
            values.weight_write.eq(scores.weight_write), values.weight.eq(scores.weight), scores.release.eq(values.release),
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
                with m.Elif(~values.busy):
                    m.d.comb += output.start.eq(1)
                    m.next = "OUTPUT"
            with m.State("OUTPUT"):
                m.d.comb += [values.reading.eq(1), scores.reading.eq(1)]
                last = self.output.valid & self.output.ready & self.output.payload.last
                m.d.comb += self.done.eq(last & ~self.abort)
                with m.If(last | self.abort):
                    m.next = "IDLE"
        m.d.comb += self.busy.eq(~fsm.ongoing("IDLE") | aborting)
        return m
