"""The decoder core: its stations and what joins them. Nothing is computed here."""
from amaranth.hdl import Cat, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from accel.dram.ports import NativeRead, NativeWrite
from accel.interfaces import Csr, Wishbone
from accel.lib.reset import Resets
from accel.stations import add_stations, make_stations
from spec.numerics import MAX_DIM, MAX_ROW


class Core(wiring.Component):
    """The whole decoder. Computes :class:`spec.golden.Golden`, bit for bit.

    Parameters
    ----------
    columns : int
        Positions that share one pass over the weights.
    max_dim, max_hidden_dim, max_kv_dim, max_heads : int
        Largest shapes; a model may have any within them.
    addr_width : int
        Bits of a DRAM address, in beats.
    multiplier_bits : int
        What the wider operand of the device's multipliers may have, 25 or 18. Changes no result.

    Members
    -------
    read0, read1, embed : Out(NativeRead)
        The weight stream's two ports, the embedding's.
    write : Out(NativeWrite)
        The K/V cache's.
    reset : In(1)
        Lasts ten cycles or more. Replaces the clock domain's reset: see :class:`accel.lib.reset.Resets`, :mod:`soc.amaranth`.
    bus : In(Wishbone)
        The window, see :class:`spec.registers.Window`.
    irq : Out(1)
        A result waits, and firmware wants to know.
    watch : Out(7)
        Phase (4 bits), executing, fenced, reading, for an observer outside (soc/sim/stream_watch.py); the core does not read it.
    csr : Out(Csr)
        The registers.
    """
    latency = None      #: varies

    def __init__(self, *, columns=1, max_dim=2048, max_hidden_dim=5632, max_kv_dim=1024, max_heads=64, addr_width=24,
                 multiplier_bits=25):
        if max_dim > MAX_DIM or max_hidden_dim > MAX_ROW:
            raise ValueError(f"max_dim {max_dim} and max_hidden_dim {max_hidden_dim}: indices of 13 bits end at {MAX_DIM}, "
                             f"row sums of 48 bits at {MAX_ROW} columns")
        self.columns, self.max_dim, self.max_hidden_dim = columns, max_dim, max_hidden_dim
        self.max_kv_dim, self.max_heads, self.addr_width = max_kv_dim, max_heads, addr_width
        self.multiplier_bits = multiplier_bits
        read = NativeRead(addr_width, 128)
        super().__init__({"read0": Out(read), "read1": Out(read), "embed": Out(read), "write": Out(NativeWrite(addr_width, 128)),
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
        connect, window, sequencer = wiring.connect, u.window, u.sequencer
        connect(m, wiring.flipped(self.bus), window.bus)
        connect(m, window.ahead, sequencer.ahead)
        connect(m, window.commands, sequencer.commands)
        connect(m, window.model, *(unit.model for unit in (u.rope, u.residual, u.quantiser, u.attention, u.kv, u.logits)))
        connect(m, u.rope.frequencies, window.frequencies)
        connect(m, u.logits.result, window.results)
        connect(m, u.logits.dump, window.dump)
        connect(m, window.candidates, u.logits.candidate)
        connect(m, sequencer.logits, u.logits.job)
        m.d.comb += [window.clear.eq(self.csr.control.clear_counters), u.logits.cycles.eq(self.csr.cycles.value),
                     sequencer.last_token.eq(u.logits.last_token)]

    def _status(self, m, u):
        status, sequencer, window, matvec, store = u.status, u.sequencer, u.window, u.matvec, u.sequencer.store
        wiring.connect(m, wiring.flipped(self.csr), status.csr)
        wiring.connect(m, status.activity, window.activity)
        m.d.comb += [
            status.units.eq(Cat(*(unit.busy for unit in (
                matvec, u.row_scale, u.rope, u.residual, u.swiglu, u.quantiser, u.attention, u.kv, u.embed_fetch, u.logits, u.crc,
                u.to_quantiser)), u.router.in_flight)),
            sequencer.idle.eq(status.idle), status.sequencer.eq(sequencer.busy), status.reader.eq(u.reader.busy),
            status.queue.eq(window.queue_busy), status.queue_free.eq(window.queue_free), status.result_valid.eq(window.result_valid),
            status.storing.eq(store.storing), status.store_next.eq(store.next), status.store_start.eq(store.start),
            status.beat_stored.eq(u.kv.beat_stored), status.embed_busy.eq(u.embed_fetch.busy), status.read_aborting.eq(u.reader.aborting),
            status.logit_valid.eq(u.logits.dump.valid), status.crc.eq(u.crc.value), status.phase.eq(sequencer.phase),
            status.executing.eq(sequencer.executing), status.fenced.eq(sequencer.fenced), status.stalled.eq(matvec.stalled),
            status.starved.eq(matvec.starved | sequencer.waiting_beat), status.both.eq(u.reader.beats.both),
            status.taken.eq(u.reader.beats.valid & u.reader.beats.ready),
            status.errors.residual_saturated.eq(u.residual.saturated), status.errors.row_saturated.eq(u.row_scale.saturated),
            status.errors.hidden_saturated.eq(u.swiglu.saturated), status.errors.shift_clamped.eq(sequencer.shift_clamped),
            status.errors.bad_command.eq(sequencer.bad_command), status.errors.queue_overflow.eq(window.queue_overflow),
            self.irq.eq(status.irq), self.watch.eq(Cat(sequencer.phase, sequencer.executing, sequencer.fenced, u.reader.reading)),
        ]

    def _weights(self, m, u):
        connect, sequencer, beats = wiring.connect, u.sequencer, u.beats
        for port, own in ((self.read0, u.reader.read0), (self.read1, u.reader.read1), (self.embed, u.embed_fetch.port), (self.write, u.kv.port)):
            connect(m, wiring.flipped(port), own)
        connect(m, sequencer.segments, u.reader.segments)
        connect(m, u.reader.beats, beats.beats)
        connect(m, sequencer.turns, beats.turns)
        for source, sink in ((beats.matrix, u.matvec.beats), (beats.gains, u.residual.gains), (beats.crc, u.crc.beats), (beats.rows, u.attention.beats)):
            connect(m, source, sink)
        connect(m, sequencer.embed, u.embed_fetch.job, u.intake.job)
        connect(m, sequencer.matrix, u.matvec.job)
        connect(m, sequencer.activations, u.activations.control)
        connect(m, u.matvec.activations, u.activations.read)
        m.d.comb += [u.reader.stores_done.eq(sequencer.stores_done), sequencer.embed_busy.eq(u.embed_fetch.busy),
                     u.residual.gain_start.eq(sequencer.gain_start), u.crc.clear.eq(sequencer.crc_start), sequencer.crc_busy.eq(u.crc.busy)]

    def _rows(self, m, u):
        connect, sequencer = wiring.connect, u.sequencer
        for source, sink in (
                (u.embed_fetch.elements, u.intake.elements), (u.matvec.sums, u.intake.matrix), (u.intake.sums, u.row_scale.sums),
                (u.row_scale.rows, u.dispatch.rows), (u.dispatch.rope, u.rope.rows), (u.dispatch.swiglu, u.swiglu.rows),
                (u.dispatch.residual, u.residual.rows), (u.dispatch.logits, u.logits.logits), (u.rope.values, u.wide.rope),
                (u.swiglu.values, u.wide.swiglu), (u.residual.values, u.wide.residual), (u.attention.output, u.wide.attention),
                (u.wide.values, u.to_quantiser.input), (u.to_quantiser.output, u.quantiser.values), (u.quantiser.quantised, u.router.quantised),
                (u.router.rows, u.kv.elements), (u.router.query, u.attention.query), (u.router.activations, u.activations.elements),
                (u.kv.beats, u.attention.newest), (sequencer.attend, u.attention.job), (sequencer.newest, u.kv.newest),
                (sequencer.store, u.kv.store), (u.logits.exp2, u.attention.guest)):
            connect(m, source, sink)
        connect(m, u.residual.norms, u.row_scale.norms, sequencer.norms)
        m.d.comb += [u.rope.position.eq(sequencer.position), u.kv.slots.eq(u.attention.slots),
                     u.wide.start.eq(sequencer.attend.start), u.wide.column.eq(sequencer.attend.column)]
