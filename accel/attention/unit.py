"""Attention of one position over a stream of K/V rows. Computes :func:`llama2_spec.golden.attend`, bit for bit.

Ref: Milakov & Gimelshein 2018 (online softmax).
"""
from types import SimpleNamespace

from amaranth.hdl import Module, Mux, ResetInserter, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from accel.attention.lanes import check_lanes
from accel.attention.output import AttentionOutput
from accel.attention.scores import AttentionScores
from accel.attention.splitter import RowSplitter
from accel.attention.values import AttentionValues
from accel.attention.walker import SHAPE
from accel.interfaces import AttendJob, AttentionElement, Beats, Exp2Read, ModelConstants, Quantised
from accel.lib.numeric import delay


class Attention(wiring.Component):
    """Scores of row t + 1 overlap the values of row t: each side does one (word, query head) per cycle. Rows are taken
    only while the queues have room; the output is held until taken.

    A word is eight elements of a K/V head for each eight lanes. So n_rep query heads follow the memory, which brings a
    K or V beat a cycle, half of them K's, with 4 * n_rep lanes and 16-bit elements, twice as many and 8-bit ones.

    Parameters
    ----------
    columns, max_heads, max_dim : int
        Queries kept; largest n_heads, and n_heads * head_dim.
    lanes : int
        Multipliers of each side: 8, 16, 32. Changes no result.
    pipes : int
        Scores per cycle: 1, 2. Two only with 16 lanes or more, and where heads are so short that they fill half of the
        lanes at most, and have an even number for each K/V head. Changes no result.
    k_buffer, v_buffer : int
        K beats and V beats that may wait, with 8 more a power of two. Affect the speed only; by default, half a row's K
        beats with 8 lanes and heads of 24 beats, with more lanes 56, and 56 V beats, with more lanes 120.
    multiplier_bits : int
        What the wider operand of the device's multipliers may have, 25 or 18.

    Members
    -------
    slots : Out(10)
        n_kv_heads * head_dim / 8: of K or of V in a row.
    newest : In(stream of 128)
        Rows as they lie in DRAM: exponents, K heads, V heads; the newest, while ``local`` and nothing comes from DRAM,
        from the chip. There are ``newest`` only then.
    output : Out(stream of AttentionElement)
        n_heads * head_dim elements, 33 fraction bits. ``done`` pulses in the cycle after the last was taken.
    abort : In(1)
        Drop everything; ``busy`` for one more cycle. The query stays.
    guest : In(Exp2Read)
        While not ``busy``: the table of EXP2 answers another unit.
    model : In(ModelConstants)
        Constants of the model, see the interface.
    query : In(Quantised)
        A column's query. Written while no keys of that column are read.
    job : In(AttendJob)
        Taken only while not ``busy``.
    busy : Out(1)
        From a cycle after ``job.start`` until the last element was taken.
    beats : In(Beats)
        Rows as they lie in DRAM: exponents, K heads, V heads. None while ``job.local``.
    """
    latency = None      #: varies
    budget_lut = 3061

    def __init__(self, *, columns=1, max_heads=64, max_dim=2048, lanes=8, pipes=1, k_buffer=None, v_buffer=None,
                 multiplier_bits=25):
        if max_heads > 64 or max_dim % 8:
            raise ValueError(f"At most 64 heads and a multiple of 8 elements, not {max_heads} and {max_dim}")
        check_lanes(lanes, pipes)
        self.columns, self.max_heads, self.max_dim, self.lanes, self.pipes = columns, max_heads, max_dim, lanes, pipes
        self.k_buffer = k_buffer or (24 if lanes == 8 else 56)
        self.v_buffer = v_buffer or (56 if lanes == 8 else 120)
        self.multiplier_bits = multiplier_bits
        super().__init__({
            "model": In(ModelConstants()), "slots": Out(10), "query": In(Quantised(columns, routed=True)),
            "job": In(AttendJob(columns)), "abort": In(1), "busy": Out(1),
            "beats": In(Beats()), "newest": In(stream.Signature(128)),
            "output": Out(stream.Signature(AttentionElement())), "guest": In(Exp2Read()),
        })

    def elaborate(self, platform):
        m = Module()
        s = SimpleNamespace()               # signals that several steps share
        self._shape(m, s)
        self._parts(m, s)
        self._connect(m, s)
        self._states(m, s)
        return m

    def _shape(self, m, s):
        """What the shape means."""
        s.shape = Signal(SHAPE)
        s.model = self.model
        s.job = self.job
        s.query = self.query
        # n_rep - 1 and n_kv_heads * head_dim / 8 by repeated addition, over and over: constants of the model
        n_heads, n_kv_heads, head_dim = (delay(m, value, 1, name) for value, name in (
            (s.model.n_heads, "n_heads"), (s.model.n_kv_heads, "n_kv_heads"), (s.model.head_dim, "head_dim")))
        sum_ = Signal(8)
        count = Signal(7)
        reps = Signal(6)
        m.d.sync += [sum_.eq(sum_ + n_kv_heads), count.eq(count + 1)]
        with m.If(sum_ + n_kv_heads >= n_heads):
            m.d.sync += [sum_.eq(0), count.eq(0), reps.eq(count)]
        beats = Signal(10)
        kv_heads = Signal(7)
        m.d.sync += [beats.eq(beats + head_dim[3:]), kv_heads.eq(kv_heads + 1)]
        with m.If(kv_heads >= s.shape.last_kv_head):
            m.d.sync += [beats.eq(0), kv_heads.eq(0), self.slots.eq(beats + head_dim[3:])]
        self._words(m, s, n_heads, reps)
        m.d.sync += [
            s.shape.last_kv_head.eq(n_kv_heads - 1),
            s.shape.last_slot.eq((head_dim >> 3) - 1), s.shape.last_header.eq(((2 * n_kv_heads + 15) >> 4) - 1),
            s.shape.last_beat.eq(self.slots - 1),
        ]

    def _words(self, m, s, n_heads, reps):
        """How many slots of how many heads are a word; ``reps`` is n_rep - 1."""
        bits, last_slot = (self.lanes // 8 - 1).bit_length(), s.shape.last_slot
        s.paired = Signal()
        s.last_head = Signal(6)
        if self.pipes > 1:
            m.d.sync += s.paired.eq(reps[0] & (last_slot < self.lanes // 16))
        m.d.sync += [
            s.last_head.eq(n_heads - 1),
            s.shape.last_head.eq(Mux(s.paired, s.last_head >> 1, s.last_head)),
            s.shape.last_rep.eq(Mux(s.paired, reps >> 1, reps)), s.shape.last_word.eq(last_slot >> bits),
            s.shape.pad.eq(Mux(s.paired, ~last_slot[:max(bits - 1, 0)], ~last_slot[:bits]) if bits else 0),
        ]

    def _parts(self, m, s):
        """Splitter, scores, values, output."""
        sizes = dict(max_heads=self.max_heads, max_dim=self.max_dim, lanes=self.lanes)
        s.splitter = RowSplitter(max_heads=self.max_heads, k_buffer=self.k_buffer, v_buffer=self.v_buffer,
                                 lanes=self.lanes)
        s.scores = AttentionScores(columns=self.columns, multiplier_bits=self.multiplier_bits, pipes=self.pipes,
                                   **sizes)
        s.values = AttentionValues(pipes=self.pipes, **sizes)
        s.output = AttentionOutput(**sizes)
        for name, unit in (("splitter", s.splitter), ("scores", s.scores), ("values", s.values), ("output", s.output)):
            # A register each, so that it lies near what it resets
            s.aborting = Signal(name=f"abort_{name}", attrs={"keep": "true"})
            m.d.sync += s.aborting.eq(self.abort)
            m.submodules[name] = ResetInserter(s.aborting)(unit)
            own = Signal(SHAPE, name=f"shape_{name}", attrs={"keep": "true"})
            m.d.sync += own.eq(s.shape)
            m.d.comb += unit.shape.eq(own)
        wiring.connect(m, s.splitter.keys, s.scores.keys)
        wiring.connect(m, wiring.flipped(self.guest), s.scores.guest)
        wiring.connect(m, s.splitter.values, s.values.values)

    def _connect(self, m, s):
        """What flows between them."""
        s.begin, rows = delay(m, s.job.start, 1, "begin", valid=True), delay(m, s.job.rows, 1, "rows")
        with m.If(s.job.start):
            m.d.sync += s.scores.column.eq(s.job.column)
        m.d.comb += [
            s.splitter.start.eq(s.job.start), s.splitter.rows.eq(rows), s.scores.start.eq(s.begin),
            s.values.start.eq(s.begin), s.values.rows.eq(rows),
            s.splitter.narrow.eq(s.model.narrow), s.splitter.local.eq(s.job.local), s.splitter.abort.eq(self.abort),
            *(signal for ours, its in ((self.beats, s.splitter.beats), (self.newest, s.splitter.newest))
              for signal in (its.valid.eq(ours.valid), its.payload.eq(ours.payload), ours.ready.eq(its.ready))),
            s.scores.score_mantissa.eq(delay(m, s.model.score_mantissa, 1, "score_mantissa")),
            s.scores.score_exponent.eq(delay(m, s.model.score_exponent, 1, "score_exponent")),
            s.scores.q_write.en.eq(s.query.write), s.scores.q_write.column.eq(s.query.column),
            s.scores.q_write.head.eq(s.query.head), s.scores.q_write.address.eq(s.query.index),
            s.scores.q_write.data.eq(s.query.mantissa), s.scores.q_exponent_write.en.eq(s.query.exponent_write),
            s.scores.q_exponent_write.column.eq(s.query.column), s.scores.q_exponent_write.head.eq(s.query.head),
            s.scores.q_exponent_write.data.eq(s.query.exponent),
            s.values.weight_write.eq(s.scores.weight_write), s.values.weight_last.eq(s.scores.weight_last),
            s.values.weights.eq(s.scores.weights), s.scores.release.eq(s.values.release),
            s.scores.read_head.eq(s.output.head), s.output.mass.eq(s.scores.mass), s.output.top.eq(s.scores.top),
            *(unit.paired.eq(s.paired) for unit in (s.splitter, s.scores, s.values)), s.output.heads.eq(s.last_head),
            s.values.read_word.eq(s.output.word), s.values.read_lane.eq(s.output.lane), s.output.sum.eq(s.values.sum),
            self.output.valid.eq(s.output.elements.valid & ~s.aborting),
            self.output.payload.eq(s.output.elements.payload), s.output.elements.ready.eq(self.output.ready),
        ]

    def _states(self, m, s):
        """Rows, then the output."""
        with m.FSM() as fsm:
            with m.State("IDLE"):
                with m.If(s.begin & ~self.abort):
                    m.next = "ROWS"
            with m.State("ROWS"):
                with m.If(self.abort):
                    m.next = "IDLE"
                with m.Elif(s.values.ending):
                    m.d.comb += [s.output.start.eq(1), s.scores.reading.eq(1)]
                    m.next = "LAST-SUMS"
            with m.State("LAST-SUMS"):
                m.d.comb += s.scores.reading.eq(1)
                with m.If(self.abort):
                    m.next = "IDLE"
                with m.Elif(~s.values.busy):
                    m.next = "OUTPUT"
            with m.State("OUTPUT"):
                m.d.comb += [s.values.reading.eq(1), s.output.summed.eq(1), s.scores.reading.eq(1)]
                with m.If(self.abort):
                    m.next = "IDLE"
                with m.Elif(self.output.valid & self.output.ready & self.output.payload.last):
                    m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += s.job.done.eq(~self.abort)
                m.next = "IDLE"
        m.d.comb += self.busy.eq(s.begin | ~fsm.ongoing("IDLE") | s.aborting)
