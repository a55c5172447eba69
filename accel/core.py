"""The decoder core: four DRAM ports, a Wishbone window, registers; everything between the weights and the next token."""
from amaranth.hdl import Cat, Module, Mux, ResetInserter, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from accel.activations import Activations
from accel.attention import Attention
from accel.crc import Crc32
from accel.embed_fetch import EmbedFetch
from accel.kv_rows import KvRows
from accel.lanes import LANES
from accel.logits import LogitUnit
from accel.matvec import MatVec
from accel.numeric import delay
from accel.ports import NativeRead, NativeWrite
from accel.quantiser import Quantiser, wide_layout
from accel.reader import SegmentReader
from accel.residual import Residual
from accel.rope import Rope
from accel.row_scale import EMBEDDING, RowScale, To
from accel.sequencer import Sequencer
from accel.stage import Skid
from accel.swiglu import SwiGlu
from accel.window import Window, WishboneSignature
from llama2_spec.maxima import MAX_VOCAB_SIZE
from llama2_spec.numerics import MAX_DIM, MAX_HEAD_DIM, MAX_ROW, MAX_SEQ_LEN, WORD
from llama2_spec.registers import MAX_CANDIDATES, REGISTERS, VERSION, Dest

OUTPUT = 7          #: dest of attention output in the quantiser, beside llama2_spec.registers.Dest


def csr_members():
    """One member per register field: rw fields come in, ro fields go out."""
    return {f"csr__{r.name}__{f.name}": In(f.size) if r.access == "rw" else Out(f.size)
            for r in REGISTERS for f in r.fields}


class Core(wiring.Component):
    """The whole decoder.

    ``reset``, of ten cycles or more, takes the place of the clock domain's, which would go to every flip-flop by way of a gate
    with its unit's abort: what hardware is made of this has none (:mod:`soc.amaranth`).

    Parameters
    ----------
    columns : int
        Positions that share one pass over the weights.
    max_dim, max_hidden_dim, max_kv_dim, max_heads : int
        Largest shapes; a model may have any within them.
    multiplier_bits : int
        What the wider operand of the device's multipliers may have, 25 or 18. Changes no result.
    """
    def __init__(self, *, columns=1, max_dim=2048, max_hidden_dim=5632, max_kv_dim=1024, max_heads=64, addr_width=24,
                 multiplier_bits=25):
        if max_dim > MAX_DIM or max_hidden_dim > MAX_ROW:
            raise ValueError(f"max_dim {max_dim} and max_hidden_dim {max_hidden_dim}: indices of 13 bits end at {MAX_DIM}, "
                             f"row sums of 48 bits at {MAX_ROW} columns")
        self.columns, self.max_dim, self.max_hidden_dim = columns, max_dim, max_hidden_dim
        self.max_kv_dim, self.max_heads, self.addr_width = max_kv_dim, max_heads, addr_width
        self.multiplier_bits = multiplier_bits
        super().__init__({
            "read0": Out(NativeRead(addr_width, 128)), "read1": Out(NativeRead(addr_width, 128)),
            "embed": Out(NativeRead(addr_width, 128)), "write": Out(NativeWrite(addr_width, 128)),
            "reset": In(1), "bus": In(WishboneSignature()), "irq": Out(1), "watch": Out(7), **csr_members(),
        })

    def elaborate(self, platform):
        m = Module()
        C, aw = self.columns, self.addr_width
        bits = max(C, 2)

        reader = SegmentReader(addr_width=aw)
        sequencer = Sequencer(columns=C, addr_width=aw)
        embed = EmbedFetch(addr_width=aw, max_words=self.max_dim // WORD)
        matvec = MatVec(columns=C, max_groups=max(self.max_dim, self.max_hidden_dim) // 32,
                        multiplier_bits=self.multiplier_bits)
        activations = Activations(columns=C, max_dim=self.max_dim, max_hidden_dim=self.max_hidden_dim)
        scale, rope = RowScale(columns=C), Rope(columns=C)
        residual, swiglu = Residual(columns=C, max_dim=self.max_dim), SwiGlu(columns=C)
        quantiser = Quantiser(columns=C)
        attention = Attention(columns=C, max_heads=self.max_heads, max_dim=self.max_dim,
                              multiplier_bits=self.multiplier_bits)
        kv = KvRows(columns=C, max_kv_dim=self.max_kv_dim, max_heads=self.max_heads, addr_width=aw)
        logits, crc, window = LogitUnit(columns=C, candidates=MAX_CANDIDATES, multiplier_bits=self.multiplier_bits), Crc32(), Window()
        # Units lie far apart: none reaches through another, nor through where sources meet or part
        to_quantiser = Skid(wide_layout(C))
        wiring.connect(m, to_quantiser.output, quantiser.values)
        # An abort waits for a K/V row that is being written, then everything is dropped while reads drain.
        wanted, aborting = Signal(), Signal()
        store_start = delay(m, sequencer.store_start, 1, "store_start", valid=True)     # for who stores is far away
        m.d.comb += aborting.eq(wanted & ~kv.storing & ~sequencer.store_start & ~store_start)

        def abort_of(name):
            """A register for each, so that it lies near what it resets."""
            abort = Signal(name=f"abort_{name}", attrs={"keep": "true"})
            m.d.sync += abort.eq(self.reset | aborting & ~abort)
            return abort

        resets = [self.reset]

        def reset_of(name):
            """One after the other, lest they be taken for the same register."""
            reset = Signal(name=f"reset_{name}", attrs={"keep": "true"})
            m.d.sync += reset.eq(resets[-1])
            resets.append(reset)
            return reset
        abort, reset = abort_of("core"), reset_of("core")
        with m.If(self.csr__control__abort):
            m.d.sync += wanted.eq(1)
        with m.Elif(abort):
            m.d.sync += wanted.eq(0)
        # These drain or keep something that an abort must not lose; the others go back to idle at once.
        for name, unit in (("reader", reader), ("embed_fetch", embed), ("window", window)):
            m.submodules[name] = ResetInserter(reset_of(name))(unit)
            m.d.comb += unit.abort.eq(abort_of(name))
        m.submodules.activations = ResetInserter(reset_of("activations"))(activations)
        for name, unit in (("sequencer", sequencer), ("matvec", matvec), ("row_scale", scale), ("rope", rope),
                           ("residual", residual), ("swiglu", swiglu), ("quantiser", quantiser),
                           ("attention", attention), ("kv", kv), ("logits", logits), ("crc", crc),
                           ("to_quantiser", to_quantiser)):
            m.submodules[name] = ResetInserter(abort_of(name))(unit)
        for port, unit in ((self.read0, reader.read0), (self.read1, reader.read1), (self.embed, embed.port),
                           (self.write, kv.port)):
            wiring.connect(m, wiring.flipped(port), unit)
        wiring.connect(m, wiring.flipped(self.bus), window.bus)

        # Model constants -------------------------------------------------------------------------------------
        command, p = sequencer.command, window
        score_scale = delay(m, p.model__score_scale, 1, "score_scale")
        m.d.comb += [
            residual.dim.eq(p.model__dim), residual.epsilon.eq(p.model__epsilon), rope.head_dim.eq(p.model__head_dim),
            kv.n_kv_heads.eq(p.model__n_kv_heads), kv.slots.eq(attention.slots),
            *(unit.narrow.eq(p.model__kv_format[:2]) for unit in (quantiser, kv, attention)),
            attention.n_heads.eq(p.model__n_heads), attention.n_kv_heads.eq(p.model__n_kv_heads),
            attention.head_dim.eq(p.model__head_dim),
            attention.score_mantissa.eq(score_scale[:16]), attention.score_exponent.eq(score_scale[16:24]),
            logits.scale_mantissa.eq(p.model__logit_scale[:16]), logits.scale_exponent.eq(p.model__logit_scale[16:24]),
            window.rope_index.eq(rope.frequency_index), rope.frequency.eq(window.rope_frequency),
            rope.position.eq(sequencer.position),
        ]

        # Commands and beats ----------------------------------------------------------------------------------
        wiring.connect(m, window.ahead, sequencer.ahead)
        wiring.connect(m, window.commands, sequencer.commands)
        wiring.connect(m, sequencer.segments, reader.segments)
        beats = reader.beats
        m.d.comb += [
            reader.stores_done.eq(sequencer.stores_done),
            sequencer.beat_valid.eq(beats.valid),
            residual.gain_start.eq(sequencer.gain_start), crc.clear.eq(sequencer.crc_start), sequencer.crc_busy.eq(crc.busy),
            sequencer.matvec_ready.eq(matvec.ready), matvec.start.eq(sequencer.matvec_start),
            matvec.q4.eq(command.q4), matvec.group64.eq(command.group64), matvec.words.eq(command.words),
            matvec.rows.eq(command.rows), matvec.dest.eq(command.dest), matvec.shifts.eq(sequencer.shifts),
            matvec.first.eq(Mux((command.dest == Dest.LOGITS) & ~command.argmax, command.columns, 0)),
            matvec.count.eq(sequencer.columns_active), matvec.gang.eq(sequencer.gang),
            matvec.second.eq(reader.second), reader.both.eq(matvec.both),
        ]
        # Every sink sees the beats, one is told that they are valid: what nobody looks at needs no gate.
        rows_beats = attention.rows_beats
        m.d.comb += [sink.payload.eq(beats.payload) for sink in (residual.gains, matvec.beats, crc.beats, rows_beats)]
        turns = ((sequencer.to_gain, residual.gains), (sequencer.to_crc, crc.beats), (sequencer.to_attend, rows_beats))
        m.d.comb += [
            matvec.beats.valid.eq(beats.valid), *(sink.valid.eq(beats.valid & turn) for turn, sink in turns),
            # Gains and CRC are ready only when they are asked
            sequencer.beat_ready.eq(residual.gains.ready | crc.beats.ready | (sequencer.to_attend & rows_beats.ready)),
            beats.ready.eq(sequencer.beat_ready | matvec.beats.ready),
        ]
        wiring.connect(m, kv.beats, attention.newest)
        # Both a cycle later: attention is far away
        attend_start = delay(m, sequencer.attend_start, 1, "attend_start", valid=True)
        was_local = Signal()
        m.d.sync += [attention.local.eq(sequencer.local), was_local.eq(attention.local)]

        # Embedding and matrix rows share the scaler -------------------------------------------------------------
        argmax = Signal(18)
        embed_column = Signal(range(bits))
        element = Signal(13)
        sums, elements = scale.sums, embed.elements
        with m.If(sequencer.embed_start):
            m.d.sync += [embed_column.eq(command.column), element.eq(0)]
        with m.Elif(elements.valid & elements.ready):
            m.d.sync += element.eq(element + 1)
        embed_shift = Signal(6)
        with m.If(sequencer.embed_start):
            m.d.sync += embed_shift.eq(sequencer.shifts[0])
        m.d.comb += [
            embed.start.eq(sequencer.embed_start), embed.token.eq(Mux(command.argmax, argmax, command.rows)),
            embed.base.eq(command.base), embed.words.eq(command.words), embed.q4.eq(command.q4),
            embed.group64.eq(command.group64),
        ]
        embedding = Signal()
        with m.If(~sums.valid):
            m.d.sync += embedding.eq(elements.valid)
        with m.If(embedding):
            m.d.comb += [sums.valid.eq(elements.valid), elements.ready.eq(sums.ready), sums.payload.value.eq(elements.payload.value),
                         sums.payload.column.eq(embed_column), sums.payload.row.eq(element), sums.payload.odd.eq(element[0]),
                         sums.payload.last.eq(elements.payload.last), sums.payload.dest.eq(EMBEDDING),
                         sums.payload.shift.eq(embed_shift)]
        with m.Else():
            m.d.comb += [sums.valid.eq(matvec.sums.valid), matvec.sums.ready.eq(sums.ready),
                         sums.payload.eq(matvec.sums.payload)]
        m.d.comb += [scale.factors.eq(residual.factors), sequencer.halves.eq(residual.halves)]

        rows = scale.rows
        with m.Switch(rows.payload.to):
            for to, sink in ((To.ROPE, rope.rows), (To.SWIGLU, swiglu.rows), (To.LOGITS, logits.logits), (To.RESIDUAL, residual.rows)):
                with m.Case(to):
                    m.d.comb += [sink.valid.eq(rows.valid), rows.ready.eq(sink.ready)]
        m.d.comb += [rope.rows.payload.eq(rows.payload), swiglu.rows.payload.eq(rows.payload),
                     residual.rows.payload.eq(rows.payload), logits.logits.payload.value.eq(rows.payload.value),
                     logits.logits.payload.column.eq(rows.payload.column), logits.logits.payload.row.eq(rows.payload.row),
                     logits.logits.payload.last.eq(rows.payload.last)]

        # Everything wide goes through the one quantiser; a source keeps it while it has values ---------------------
        output = attention.output
        column = Signal(range(bits))
        place = Signal(13)
        with m.If(attend_start):
            m.d.sync += [place.eq(0), column.eq(command.column)]
        with m.Elif(output.valid & output.ready):
            m.d.sync += place.eq(place + 1)
        values = to_quantiser.input
        sources = (rope.values, residual.values, swiglu.values, output)
        source = Signal(range(len(sources)))        # encoded, so that a bit of the payload is one look-up table
        next_source = Signal.like(source)
        m.d.sync += next_source.eq(Mux(rope.values.valid, 0, Mux(residual.values.valid, 1, Mux(swiglu.values.valid, 2, 3))))
        with m.If(~values.valid):
            m.d.sync += source.eq(next_source)
        with m.Switch(source):
            for i, each in enumerate(sources[:3]):
                with m.Case(i):
                    m.d.comb += [values.valid.eq(each.valid), each.ready.eq(values.ready), values.payload.eq(each.payload)]
            with m.Default():
                m.d.comb += [
                    values.valid.eq(output.valid), output.ready.eq(values.ready),
                    values.payload.value.eq(output.payload.value), values.payload.column.eq(column),
                    values.payload.index.eq(place), values.payload.dest.eq(OUTPUT),
                    values.payload.end.eq((place[:5] == 31) | output.payload.last),
                ]

        # And to its place -------------------------------------------------------------------------------------
        # Two registers: whose it is, then an enable for each
        what = {"column": range(bits), "dest": 3, "index": 13, "mantissa": signed(16), "exponent": 6}
        first = Signal(data.StructLayout({"write": 1, "exponent_write": 1, **what}))
        q = Signal(data.StructLayout({**what, "head": 7}))
        m.d.sync += [*(getattr(first, name).eq(getattr(quantiser, name)) for name, _ in first.shape()),
                     *(getattr(q, name).eq(getattr(first, name)) for name in what)]
        rows_enable, query_enable, activations_enable = enables = [Signal(2, name=f"{name}_enable") for name in (
            "rows", "query", "activations")]
        to_rows, to_query = (first.dest == Dest.K) | (first.dest == Dest.V), first.dest == Dest.Q
        for enable, mine in zip(enables, (to_rows, to_query, ~to_rows & ~to_query)):
            m.d.sync += enable.eq(Mux(mine & ~abort, Cat(first.write, first.exponent_write), 0))
        with m.If(abort):
            m.d.sync += [first.write.eq(0), first.exponent_write.eq(0)]
        begins = Signal(13)                 # index of the head whose exponent came last
        with m.If(first.exponent_write):
            m.d.sync += [begins.eq(first.index), q.head.eq(Mux(first.index == 0, 0, q.head + (first.index != begins)))]
        m.d.comb += [
            kv.write.eq(rows_enable[0]), kv.exponent_write.eq(rows_enable[1]), kv.dest.eq(q.dest), kv.head.eq(q.head),
            kv.column.eq(q.column), kv.index.eq(q.index), kv.mantissa.eq(q.mantissa), kv.exponent.eq(q.exponent),
            activations.write.eq(activations_enable[0]), activations.exponent_write.eq(activations_enable[1]),
            activations.buffer.eq((q.dest == OUTPUT) | (q.dest == Dest.SWIGLU)), activations.column.eq(q.column),
            activations.index.eq(q.index), activations.mantissa.eq(q.mantissa), activations.exponent.eq(q.exponent),
            activations.clear.eq(sequencer.clear), activations.clear_buffer.eq(sequencer.clear_buffer),
            activations.both.eq(sequencer.both), activations.address.eq(matvec.address),
            activations.odd_word.eq(matvec.odd_word), activations.read_buffer.eq(sequencer.read_buffer),
            matvec.activations.eq(activations.words), matvec.offsets.eq(activations.offsets),
            sequencer.largest.eq(activations.largest),
        ]
        m.d.comb += [
            attention.q_write.en.eq(query_enable[0]), attention.q_write.column.eq(q.column),
            attention.q_write.address.eq(q.index), attention.q_write.data.eq(q.mantissa),
            attention.q_exponent_write.en.eq(query_enable[1]), attention.q_exponent_write.column.eq(q.column),
            attention.q_exponent_write.head.eq(q.head), attention.q_exponent_write.data.eq(q.exponent),
        ]

        # Attention and the cache --------------------------------------------------------------------------------
        m.d.comb += [
            attention.start.eq(attend_start), attention.column.eq(command.column),
            attention.rows.eq(command.rows + command.column + 1),
            sequencer.attend_done.eq(attention.done),
            kv.read_start.eq(attention.local & ~was_local), kv.read_rows.eq(command.column + 1),
            kv.store_start.eq(store_start), kv.store_rows.eq(sequencer.columns_active), kv.base.eq(command.base),
            sequencer.storing.eq(kv.storing), sequencer.stored.eq(kv.stored),
        ]

        # Logits, results, candidates ------------------------------------------------------------------------------
        m.d.comb += [
            logits.first.eq(matvec.first), logits.last.eq(command.columns),
            logits.start.eq(sequencer.logits_start), logits.keep.eq(command.keep), logits.dump.eq(command.dump),
            logits.cycles.eq(self.csr__cycles__value),
            # Attention waits for its queries, and they for all that came before
            attention.guest.eq(logits.busy), attention.guest_index.eq(logits.exp2_index), attention.guest_t.eq(logits.exp2_t),
            logits.exp2_value.eq(attention.guest_value),
            window.dump_valid.eq(logits.dump_valid), window.dump_data.eq(logits.dump_data),
            logits.candidate_index.eq(window.candidate_index),
            window.candidate_token.eq(logits.candidate_token), window.candidate_logit.eq(logits.candidate_logit),
        ]
        m.d.sync += logits.dump_take.eq(window.dump_take)
        wiring.connect(m, logits.result, window.results)
        with m.If(logits.result.valid & logits.result.ready):
            m.d.sync += argmax.eq(logits.result.payload.token)

        # State, errors, counters -----------------------------------------------------------------------------------
        busy_units = Cat(matvec.busy, scale.busy, rope.busy, residual.busy, swiglu.busy, quantiser.busy, attention.busy,
                         kv.busy, embed.busy, logits.busy, crc.busy, to_quantiser.busy,
                         first.write, first.exponent_write, *enables)
        # As of one cycle ago: a command reaches its fence no earlier than two cycles after the one before was dispatched
        m.d.sync += [sequencer.idle.eq(~busy_units.any()), sequencer.embed_busy.eq(embed.busy)]
        errors = {"residual_saturated": residual.saturated, "row_saturated": scale.saturated,
                  "hidden_saturated": swiglu.saturated, "shift_clamped": sequencer.shift_clamped,
                  "bad_command": sequencer.bad_command, "queue_overflow": window.queue_overflow}
        for name, raised in errors.items():
            flag, seen = getattr(self, f"csr__errors__{name}"), Signal(name=f"{name}_seen")
            m.d.sync += seen.eq(raised)
            with m.If(seen):
                m.d.sync += flag.eq(1)
            with m.Elif(self.csr__control__clear_errors | reset):
                m.d.sync += flag.eq(0)
        # A command counts until two cycles after the sequencer took it, so that nothing shows between
        busy = delay(m, Cat(sequencer.busy, reader.busy, ~sequencer.idle, store_start, kv.storing), 1, "busy", valid=True)
        m.d.sync += [self.csr__cycles__value.eq(self.csr__cycles__value + 1),
                     self.csr__status__busy.eq(window.queue_busy | busy.any())]
        with m.If(kv.port.wdata_valid & kv.port.wdata_ready):
            m.d.sync += self.csr__stores__value.eq(self.csr__stores__value + 1)
        with m.If(reset):
            m.d.sync += [self.csr__cycles__value.eq(0), self.csr__stores__value.eq(0)]
        m.d.comb += [
            self.csr__status__result_valid.eq(window.result_valid), self.csr__status__logit_valid.eq(logits.dump_valid),
            self.csr__status__aborting.eq(wanted | reader.aborting | embed.busy & wanted),
            self.csr__status__queue_free.eq(window.queue_free),
            self.csr__crc__value.eq(crc.value),
            self.csr__geometry__version.eq(VERSION), self.csr__geometry__columns.eq(C),
            self.csr__geometry__lanes.eq(LANES), self.csr__geometry__candidates.eq(MAX_CANDIDATES),
            self.csr__max_dim__value.eq(self.max_dim), self.csr__max_hidden_dim__value.eq(self.max_hidden_dim),
            self.csr__max_head_dim__value.eq(MAX_HEAD_DIM), self.csr__max_kv_dim__value.eq(self.max_kv_dim),
            self.csr__max_heads__value.eq(self.max_heads), self.csr__max_vocab_size__value.eq(MAX_VOCAB_SIZE),
            self.csr__max_seq_len__value.eq(MAX_SEQ_LEN),
            # For who watches from outside (soc/sim/stream_watch.py): nothing in the core reads it
            self.watch.eq(Cat(command.phase, sequencer.executing, sequencer.fenced, reader.reading)),
            self.irq.eq(window.result_valid & self.csr__control__irq_enable),
            window.clear.eq(self.csr__control__clear_counters),
        ]
        m.d.sync += [
            window.phase.eq(command.phase), window.count_cycle.eq(sequencer.executing),
            window.count_beat.eq(Mux(beats.valid & beats.ready, 1 + reader.both, 0)),
            window.count_starved.eq(matvec.starved | sequencer.waiting_beat), window.count_fenced.eq(sequencer.fenced),
            window.count_stalled.eq(matvec.stalled),
        ]
        return m
