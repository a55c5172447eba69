"""The decoder core: its stations and what joins them. Nothing is computed here."""
from amaranth.hdl import Cat, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from accel.dram.ports import NativeRead, NativeWrite
from accel.interfaces import Csr, Wishbone
from accel.lib.reset import Resets
from accel.stations import add_stations, connect_all, make_stations
from llama2_spec.maxima import check_build


class Core(wiring.Component):
    """The whole decoder. Computes :class:`llama2_spec.golden.Golden`, bit for bit.

    Parameters
    ----------
    columns, candidate_sets : int
        Positions that share one pass over the weights; how many of them may be sampled in it, 1 or all.
    max_dim, max_hidden_dim, max_kv_dim, max_heads : int
        Largest shapes; a model may have any within them.
    addr_width : int
        Bits of a DRAM address, in beats.
    multiplier_bits, attention_lanes, softmax_pipes : int
        Of the device's multipliers and of :class:`accel.attention.unit.Attention`, see there. Change no result.

    Members
    -------
    read0, read1, embed : Out(NativeRead)
        The weight stream's two ports, the embedding's.
    write : Out(NativeWrite)
        The K/V cache's.
    reset : In(1)
        Lasts ten cycles or more. Replaces the clock domain's reset: see :class:`accel.lib.reset.Resets`.
    bus : In(Wishbone)
        The window, see :class:`llama2_spec.registers.Window`.
    irq : Out(1)
        A result waits, and firmware wants to know.
    watch : Out(7)
        For an observer outside (soc/sim/stream_watch.py): phase (4 bits), executing, fenced, reading.
    csr : Out(Csr)
        The registers.
    """
    latency = None      #: varies
    budget_lut = 216

    def __init__(self, *, columns=1, max_dim=2048, max_hidden_dim=5632, max_kv_dim=1024, max_heads=64, addr_width=24,
                 multiplier_bits=25, attention_lanes=8, softmax_pipes=1, candidate_sets=1):
        check_build(max_dim=max_dim, max_hidden_dim=max_hidden_dim, max_kv_dim=max_kv_dim, max_heads=max_heads)
        self.columns, self.candidate_sets, self.max_dim = columns, candidate_sets, max_dim
        self.max_hidden_dim, self.max_kv_dim, self.max_heads = max_hidden_dim, max_kv_dim, max_heads
        self.addr_width, self.multiplier_bits = addr_width, multiplier_bits
        self.attention_lanes, self.softmax_pipes = attention_lanes, softmax_pipes
        read = NativeRead(addr_width, 128)
        super().__init__({"read0": Out(read), "read1": Out(read), "embed": Out(read),
                          "write": Out(NativeWrite(addr_width, 128)),
                          "reset": In(1), "bus": In(Wishbone()), "irq": Out(1), "watch": Out(7), "csr": Out(Csr())})

    def elaborate(self, platform):
        m = Module()
        u = make_stations(self)
        add_stations(m, u, Resets(m, self.reset, u.status.aborting))
        self._control(m, u)
        self._status(m, u)
        self._weights(m, u)
        self._rows(m, u)
        return m

    def _control(self, m, u):
        window, sequencer, logits = u.window, u.sequencer, u.logits
        models = (unit.model for unit in (u.rope, u.residual, u.quantiser, u.attention, u.kv))
        connect_all(m, (wiring.flipped(self.bus), window.bus), (window.model, *models), (window.ahead, sequencer.ahead),
                    (window.commands, sequencer.commands), (window.tokens, sequencer.tokens),
                    (u.rope.frequencies, window.frequencies), (window.scales, logits.scales),
                    (window.candidates, logits.candidate), (logits.result, window.results), (logits.dump, window.dump))
        m.d.comb += [window.clear.eq(self.csr.control.clear_counters), logits.cycles.eq(self.csr.cycles.value),
                     sequencer.last_token.eq(logits.last_token)]

    def _status(self, m, u):
        status, errors, sequencer, store, reader = u.status, u.status.errors, u.sequencer, u.sequencer.store, u.reader
        connect_all(m, (wiring.flipped(self.csr), status.csr), (status.activity, u.window.activity),
                    (u.window.queue, status.queue), (sequencer.execution, status.execution))
        m.d.comb += [
            status.units.eq(Cat(*(unit.busy for unit in (
                u.matvec, u.row_scale, u.rope, u.residual, u.swiglu, u.quantiser, u.attention, u.kv, u.embed_fetch,
                u.logits, u.crc, u.to_quantiser)), u.router.in_flight)),
            sequencer.idle.eq(status.idle), status.result_valid.eq(u.window.result_valid), status.crc.eq(u.crc.value),
            status.storing.eq(store.storing), status.store_next.eq(store.next), status.store_start.eq(store.start),
            status.beat_stored.eq(u.kv.beat_stored), status.embed_busy.eq(u.embed_fetch.busy),
            status.reader_busy.eq(reader.busy), status.read_aborting.eq(reader.aborting),
            status.beat_valid.eq(reader.beats.valid), status.beat_ready.eq(reader.beats.ready),
            status.both.eq(reader.beats.both), status.logit_valid.eq(u.logits.dump.valid),
            status.starved.eq(u.matvec.starved), status.stalled.eq(u.matvec.stalled), self.irq.eq(status.irq),
            errors.residual_saturated.eq(u.residual.saturated), errors.hidden_saturated.eq(u.swiglu.saturated),
            errors.row_saturated.eq(u.row_scale.saturated), errors.shift_clamped.eq(sequencer.shift_clamped),
            errors.bad_command.eq(sequencer.bad_command), errors.queue_overflow.eq(u.window.queue.overflow),
            self.watch.eq(Cat(sequencer.execution.phase, sequencer.execution.executing, sequencer.execution.fenced,
                              reader.reading)),
        ]

    def _weights(self, m, u):
        sequencer, reader, beats = u.sequencer, u.reader, u.beats
        connect_all(m, (wiring.flipped(self.read0), reader.read0), (wiring.flipped(self.read1), reader.read1),
                    (wiring.flipped(self.embed), u.embed_fetch.port), (wiring.flipped(self.write), u.kv.port),
                    (sequencer.segments, reader.segments), (reader.beats, beats.beats), (sequencer.turns, beats.turns),
                    (beats.matrix, u.matvec.beats), (beats.gains, u.residual.gains), (beats.crc, u.crc.beats),
                    (beats.rows, u.attention.beats), (u.matvec.activations, u.activations.read))
        m.d.comb += [reader.stores_done.eq(sequencer.stores_done), sequencer.embed_busy.eq(u.embed_fetch.busy),
                     u.residual.gain_start.eq(sequencer.gain_start), u.crc.clear.eq(sequencer.crc_start),
                     sequencer.crc_busy.eq(u.crc.busy)]

    def _rows(self, m, u):
        sequencer, attention, kv, wide, dispatch, router = u.sequencer, u.attention, u.kv, u.wide, u.dispatch, u.router
        connect_all(
            m, (sequencer.matrix, u.matvec.job), (sequencer.activations, u.activations.control),
            (sequencer.store, kv.store),
            (sequencer.attend, attention.job), (sequencer.newest, kv.newest), (sequencer.logits, u.logits.job),
            (sequencer.embed, u.embed_fetch.job, u.intake.job), (u.residual.norms, u.row_scale.norms, sequencer.norms),
            (u.embed_fetch.elements, u.intake.elements), (u.matvec.sums, u.intake.matrix),
            (u.intake.sums, u.row_scale.sums),
            (u.row_scale.rows, dispatch.rows), (dispatch.rope, u.rope.rows), (dispatch.swiglu, u.swiglu.rows),
            (dispatch.residual, u.residual.rows), (dispatch.logits, u.logits.logits), (u.rope.values, wide.rope),
            (u.swiglu.values, wide.swiglu), (u.residual.values, wide.residual), (attention.output, wide.attention),
            (wide.values, u.to_quantiser.input), (u.to_quantiser.output, u.quantiser.values),
            (u.quantiser.quantised, router.quantised), (router.rows, kv.elements), (router.query, attention.query),
            (router.activations, u.activations.elements), (kv.beats, attention.newest),
            (u.logits.exp2, attention.guest))
        m.d.comb += [u.rope.positions.eq(sequencer.positions), kv.slots.eq(attention.slots),
                     wide.start.eq(sequencer.attend.start), wide.column.eq(sequencer.attend.column)]
