"""What firmware sees of the core: state, sticky errors, counts, geometry; and when an abort acts."""
from amaranth.hdl import Mux, Module, Signal, Cat
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from accel.interfaces import Activity, Csr, ErrorFlags, Execution, QueueState
from accel.matrix.lanes import LANES
from llama2_spec.maxima import MAX_VOCAB_SIZE
from llama2_spec.numerics import MAX_HEAD_DIM, MAX_SEQ_LEN
from llama2_spec.registers import MAX_CANDIDATES, VERSION


class Status(wiring.Component):
    """Drives the read-only registers, the interrupt and the counters' inputs. No abort resets it.

    Parameters
    ----------
    columns, candidate_sets : int
        As of the core.
    units : int
        Bits of ``units``.
    maxima : dict
        {register whose name begins with ``max_``: what it reads}, as far as the core's parameters decide it.

    Members
    -------
    csr : Out(Csr)
        The registers.
    irq : Out(1)
        A result waits, and ``control.irq_enable`` is set.
    reset : In(1)
        Clear errors and counts.
    abort : In(1)
        The abort has acted.
    aborting : Out(1)
        The abort acts: it was asked for, and no K/V row is on its way to DRAM, which would be left half written.
    units : In(units)
        A bit for each unit, set while it is busy.
    idle : Out(1)
        No unit is busy. As of one cycle ago: a command reaches its fence no earlier than two cycles after the one
        before was dispatched.
    execution : In(Execution)
        Of the sequencer.
    queue : In(QueueState)
        Of the command queue.
    reader_busy : In(1)
        The reader has work.
    storing, store_next, store_start : In(1)
        K/V rows are on their way to DRAM; will be in two cycles; in one.
    embed_busy, read_aborting : In(1)
        Reads of the embedding's row, of the reader are outstanding.
    errors : In(ErrorFlags)
        Raised by the units.
    beat_stored : In(1)
        A beat of K/V was written.
    result_valid, logit_valid, crc : In(1), In(1), In(32)
        Values of registers.
    starved, stalled : In(1)
        Of the matrix engine: see :class:`llama2_spec.registers.Counter`.
    beat_valid, beat_ready, both : In(1)
        Of the weight stream: a beat is there; it is taken; so is a second one.
    activity : Out(Activity)
        To the counters.
    """
    latency = 1

    def __init__(self, *, columns, units, maxima, candidate_sets=1):
        self.columns, self.candidate_sets, self.maxima = columns, candidate_sets, maxima
        super().__init__({
            "csr": Out(Csr()), "irq": Out(1), "reset": In(1), "abort": In(1), "aborting": Out(1), "units": In(units),
            "idle": Out(1),
            **{name: In(1) for name in (
                "reader_busy", "storing", "store_next", "store_start", "embed_busy", "read_aborting", "beat_stored",
                "result_valid", "logit_valid", "starved", "stalled", "beat_valid", "beat_ready", "both")},
            "execution": In(Execution()), "queue": In(QueueState()), "errors": In(ErrorFlags()), "crc": In(32),
            "activity": Out(Activity()),
        })

    def elaborate(self, platform):
        m = Module()
        self._abort(m)
        self._errors(m)
        self._busy(m)
        self._counts(m)
        self._geometry(m)
        return m

    def _abort(self, m):
        wanted = Signal()
        m.d.comb += [
            self.aborting.eq(wanted & ~self.storing & ~self.store_next & ~self.store_start),
            self.csr.status.aborting.eq(wanted | self.read_aborting | self.embed_busy & wanted),
        ]
        with m.If(self.csr.control.abort):
            m.d.sync += wanted.eq(1)
        with m.Elif(self.abort):
            m.d.sync += wanted.eq(0)

    def _errors(self, m):
        for name in self.errors.signature.members:
            flag, seen = getattr(self.csr.errors, name), Signal(name=f"{name}_seen")
            m.d.sync += seen.eq(getattr(self.errors, name))
            with m.If(seen):
                m.d.sync += flag.eq(1)
            with m.Elif(self.csr.control.clear_errors | self.reset):
                m.d.sync += flag.eq(0)

    def _busy(self, m):
        # A command counts until two cycles after the sequencer took it, so that nothing shows between
        busy = Signal(5, attrs={"shreg_extract": "no"})
        m.d.sync += [
            self.idle.eq(~self.units.any()),
            busy.eq(Cat(self.execution.executing, self.reader_busy, ~self.idle, self.store_start, self.storing)),
            self.csr.status.busy.eq(self.queue.busy | busy.any()),
        ]
        m.d.comb += [
            self.csr.status.result_valid.eq(self.result_valid), self.csr.status.logit_valid.eq(self.logit_valid),
            self.csr.status.queue_free.eq(self.queue.free), self.csr.crc.value.eq(self.crc),
            self.irq.eq(self.result_valid & self.csr.control.irq_enable),
        ]

    def _counts(self, m):
        csr, activity, execution = self.csr, self.activity, self.execution
        m.d.sync += csr.cycles.value.eq(csr.cycles.value + 1)
        with m.If(self.beat_stored):
            m.d.sync += csr.stores.value.eq(csr.stores.value + 1)
        with m.If(self.reset):
            m.d.sync += [csr.cycles.value.eq(0), csr.stores.value.eq(0)]
        m.d.sync += [
            activity.phase.eq(execution.phase), activity.cycle.eq(execution.executing),
            activity.beat.eq(Mux(self.beat_valid & self.beat_ready, 1 + self.both, 0)),
            activity.starved.eq(self.starved | execution.waiting_beat), activity.fenced.eq(execution.fenced),
            activity.stalled.eq(self.stalled),
        ]

    def _geometry(self, m):
        geometry = self.csr.geometry
        m.d.comb += [
            geometry.version.eq(VERSION), geometry.columns.eq(self.columns), geometry.lanes.eq(LANES),
            geometry.candidates.eq(MAX_CANDIDATES), geometry.candidate_sets.eq(self.candidate_sets),
            self.csr.max_head_dim.value.eq(MAX_HEAD_DIM),
            self.csr.max_vocab_size.value.eq(MAX_VOCAB_SIZE), self.csr.max_seq_len.value.eq(MAX_SEQ_LEN),
            *(getattr(self.csr, name).value.eq(value) for name, value in self.maxima.items()),
        ]
