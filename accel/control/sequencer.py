"""Runs the command queue: hands segments to the reader at once, executes commands in order, fences, counts phases."""
from types import SimpleNamespace

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.interfaces import (
    ActivationControl, Ahead, AttendJob, BeatTurns, Command, EmbedJob, Execution, LogitsJob, MatrixJob, NewestJob,
    Norms, Segment, StoreJob, TokenWrite)
from accel.lib.numeric import delay
from llama2_spec.numerics import HIDDEN_FRACTION, OUTPUT_FRACTION, RESIDUAL_FRACTION, ROW_FRACTION
from llama2_spec.registers import Dest, Opcode


class Sequencer(wiring.Component):
    """Executes commands in order and hands their segments to the reader ahead of time. Every station gets a job from
    here, described in :mod:`accel.interfaces`; the shifts are those of :class:`llama2_spec.golden.Golden`.

    Members
    -------
    ahead, commands : In(stream of Ahead), In(stream of 128)
        From the queue, see :class:`accel.control.command_queue.CommandQueue`.
    segments : Out(stream of Segment)
        To the reader, in order, ahead of execution.
    idle : In(1)
        No unit has work in flight; what a fence waits for.
    stores_done : Out(8)
        STORE commands whose rows have landed in DRAM, modulo 2**8.
    turns : Out(BeatTurns)
        Whose the stream's beats are.
    bad_command : Out(1)
        Pulses when the opcode is unknown; the command is skipped.
    shift_clamped : Out(1)
        Pulses when a scale asks for a shift to the left; the shift is then 0.
    embed : Out(EmbedJob)
        To the embedding's fetch and to the scaler's intake.
    embed_busy : In(1)
        The fetch is at work; EMBED waits.
    last_token : In(18)
        The last argmax, which EMBED takes with ``last_token``.
    tokens : In(TokenWrite)
        Tokens that EMBED takes with ``awaited``, each once.
    positions : Out(array of 17 by column)
        Position of each column, from its EMBED on.
    matrix : Out(MatrixJob)
        To the matrix engine.
    activations : Out(ActivationControl)
        To the activations.
    norms : In(Norms)
        Its ``halves`` are needed two cycles after a fence.
    attend : Out(AttendJob)
        To attention.
    newest : Out(NewestJob)
        To the K/V rows: attention is to have the newest.
    store : Out(StoreJob)
        To the K/V rows.
    logits : Out(LogitsJob)
        To the logit unit.
    gain_start : Out(1)
        Gains come, from the first on.
    crc_start : Out(1)
        Begin a new CRC.
    crc_busy : In(1)
        A beat is still being added.
    execution : Out(Execution)
        What it does in this cycle.
    """
    latency = None      #: varies
    budget_lut = 228

    def __init__(self, *, columns, addr_width=24):
        self.columns, self.addr_width = columns, addr_width
        super().__init__({
            "ahead": In(stream.Signature(Ahead())), "commands": In(stream.Signature(128)),
            "segments": Out(stream.Signature(Segment(addr_width))), "stores_done": Out(8), "turns": Out(BeatTurns()),
            "idle": In(1), "bad_command": Out(1), "shift_clamped": Out(1),
            "embed": Out(EmbedJob(columns, addr_width)), "embed_busy": In(1), "last_token": In(18),
            "tokens": In(TokenWrite()), "positions": Out(data.ArrayLayout(17, columns)),
            "matrix": Out(MatrixJob(columns)), "activations": Out(ActivationControl(columns)),
            "norms": In(Norms(columns)),
            "attend": Out(AttendJob(columns)), "newest": Out(NewestJob(columns)),
            "store": Out(StoreJob(columns, addr_width)),
            "logits": Out(LogitsJob(columns)), "gain_start": Out(1), "crc_start": Out(1), "crc_busy": In(1),
            "execution": Out(Execution()),
        })

    def elaborate(self, platform):
        m = Module()
        s = SimpleNamespace()               # signals that several steps share
        self._ahead(m, s)
        self._shifts(m, s)
        self._tokens(m, s)
        self._beats(m, s)
        self._execute(m, s)
        return m

    def _ahead(self, m, s):
        """Segments, ahead of execution."""
        s.C = self.columns

        # Ahead of its turn a command hands its segment to the reader
        ahead, segment = self.ahead, self.segments.payload
        opcode = ahead.payload.opcode
        has_segment = Signal()
        stores_pushed = Signal(8)
        m.d.comb += [
            has_segment.eq((ahead.payload.beats != 0) & ((opcode == Opcode.GAIN) | (opcode == Opcode.MATVEC)
                           | (opcode == Opcode.ATTEND) | (opcode == Opcode.CRC))),
            segment.base.eq(ahead.payload.base), segment.beats.eq(ahead.payload.beats), segment.kv.eq(ahead.payload.kv),
            segment.stores.eq(stores_pushed),
            self.segments.valid.eq(ahead.valid & has_segment), ahead.ready.eq(~has_segment | self.segments.ready),
        ]
        with m.If(ahead.valid & (opcode == Opcode.STORE)):
            m.d.sync += stores_pushed.eq(stores_pushed + 1)
        with m.If(self.store.stored):
            m.d.sync += self.stores_done.eq(self.stores_done + 1)

    def _shifts(self, m, s):
        """Right shifts of the row scaler."""
        # Right shifts of the row scaler: minus the exponent of sums * factor, minus the fraction kept
        s.command = Signal(Command())
        s.following = data.View(Command(), self.commands.payload)      # what will be ``command``
        s.gain_exponent = Signal(signed(8))
        s.attended = Signal()
        # Known with the command.
        s.base = Signal(signed(12))
        s.from_largest = Signal()
        s.from_halves = Signal()
        s.reading_buffer = Signal()
        s.to_hidden = Signal()
        s.to_logits = Signal()
        s.clamped = Signal(s.C)
        below = Signal(s.C)
        shifts = Signal(data.ArrayLayout(6, s.C))
        for c in range(s.C):
            change, wide = Signal(signed(7), name=f"change{c}"), Signal(signed(12), name=f"wide_shift{c}")
            m.d.comb += [change.eq(Mux(s.from_halves, self.norms.halves[c], 0)
                                   - Mux(s.from_largest, self.activations.largest[c], 0)),
                         below[c].eq(wide < 0)]
            m.d.sync += [wide.eq(s.base + change), s.clamped[c].eq(below[c]),
                         shifts[c].eq(Mux(below[c], 0, Mux(wide > 63, 63, wide)))]
        m.d.comb += [self.matrix.shifts.eq(shifts), self.activations.read_buffer.eq(s.reading_buffer)]
        m.d.sync += [s.to_hidden.eq(s.command.dest == Dest.SWIGLU), s.to_logits.eq(s.command.dest == Dest.LOGITS)]

    def _tokens(self, m, s):
        """Tokens that EMBED waits for. What is written for a column stays until its EMBED is executed."""
        depth = max(s.C, 2)
        m.submodules.written = written = memory.Memory(shape=18, depth=depth, init=[])
        write, read = written.write_port(), written.read_port(domain="comb")
        there = Signal(depth)
        column = Signal(range(depth))
        embeds = Signal()
        s.token = Mux(s.command.awaited, read.data, s.command.token)
        s.awaits = Signal()
        m.d.comb += [
            write.addr.eq(self.tokens.column), write.data.eq(self.tokens.token), write.en.eq(self.tokens.write),
            column.eq(self._column(s.command.column)), read.addr.eq(column),
            embeds.eq((s.command.opcode == Opcode.EMBED) & s.command.awaited),
            s.awaits.eq(embeds & ~there.bit_select(column, 1)),
        ]
        with m.If(self.embed.start & s.command.awaited):
            m.d.sync += there.bit_select(column, 1).eq(0)
        with m.If(self.tokens.write):
            m.d.sync += there.bit_select(self.tokens.column[:len(column)], 1).eq(1)

    def _beats(self, m, s):
        """Beats that are left, opcodes decoded."""
        # Execution
        # known while the shifts settle
        s.is_a = {opcode: Signal(name=f"is_{opcode.name.lower()}") for opcode in Opcode}
        m.d.sync += [signal.eq(s.command.opcode == opcode) for opcode, signal in s.is_a.items()]
        s.left = Signal(28)
        s.more = Signal()
        s.final = Signal()
        s.beat = self.turns.valid & self.turns.taken_ready
        s.columns = Signal(range(s.C + 1))
        m.d.comb += s.columns.eq(s.command.columns + 1)
        s.column = self._column(s.command.column)
        s.start_attend, s.start_store, s.local, s.embed_busy = self._jobs(m, s.command, s.token, s.columns)
        with m.If(s.beat):
            m.d.sync += [s.left.eq(s.left - 1), s.final.eq(s.left == 2)]

    def _execute(self, m, s):
        """Commands, one after the other."""
        with m.FSM() as fsm:
            with m.State("IDLE"):
                self._accept(m, s)
            with m.State("FENCE"):
                self._fence(m, s)
            with m.State("SHIFTS"):     # two cycles after all exponents are known the shifts are
                m.next = "DISPATCH"
            with m.State("DISPATCH"):
                self._dispatch(m, s)
            with m.State("TAKE"):
                m.d.comb += self.execution.waiting_beat.eq(~self.turns.valid)
                with m.If((s.beat & s.final) | ~s.more):
                    m.d.sync += [self.turns.gain.eq(0), self.turns.crc.eq(0)]
                    m.next = "SETTLE"
            with m.State("SETTLE"):
                with m.If(~self.crc_busy):
                    m.next = "IDLE"
            with m.State("MATVEC"):
                with m.If(self.matrix.ready):
                    m.next = "IDLE"
            with m.State("ATTEND"):
                self._attend(m, s)
        m.d.comb += self.execution.executing.eq(~fsm.ongoing("IDLE"))

    def _accept(self, m, s):
        """The next command; what its shifts depend on."""
        m.d.comb += self.commands.ready.eq(1)
        fixed = Mux(s.attended, OUTPUT_FRACTION + 15 - RESIDUAL_FRACTION, HIDDEN_FRACTION + 15 - RESIDUAL_FRACTION)
        embeds, adds = s.following.opcode == Opcode.EMBED, s.following.dest == Dest.RESIDUAL
        source = Mux(embeds, 15 - RESIDUAL_FRACTION, Mux(adds, fixed, 15 - ROW_FRACTION - s.gain_exponent))
        m.d.sync += [s.from_largest.eq(~embeds), s.from_halves.eq(~embeds & ~adds),
                     s.base.eq(source - s.following.exponent),
                     s.command.eq(s.following), self.matrix.gang.eq(s.following.columns == 0),
                     s.reading_buffer.eq(s.following.dest == Dest.RESIDUAL)]
        with m.If(self.commands.valid):
            m.next = "FENCE"

    def _fence(self, m, s):
        """Wait for what the command needs."""
        m.d.sync += [s.left.eq(s.command.beats), s.more.eq(s.command.beats != 0), s.final.eq(s.command.beats == 1)]
        # Only what needs the K/V rows waits for their way to DRAM
        of_rows = (s.command.opcode == Opcode.ATTEND) | (
            (s.command.opcode == Opcode.MATVEC) & ((s.command.dest == Dest.K) | (s.command.dest == Dest.V)))
        stores = s.command.opcode == Opcode.STORE
        hold = ((s.command.fence & ~self.idle) | s.awaits | ((s.command.opcode == Opcode.EMBED) & s.embed_busy)
                | (of_rows & self.store.storing) | (stores & ~self.store.room))
        m.d.comb += self.execution.fenced.eq(hold)
        with m.If(~hold):
            m.next = "SHIFTS"

    def _dispatch(self, m, s):
        """Start the station that executes it."""
        m.d.sync += self.activations.both.eq(self.matrix.gang)
        with m.If(s.is_a[Opcode.NOP]):
            m.next = "IDLE"
        with m.If(s.is_a[Opcode.GAIN]):
            m.d.comb += self.gain_start.eq(1)
            m.d.sync += [s.gain_exponent.eq(s.command.exponent), self.turns.gain.eq(s.more)]
            m.next = "TAKE"
        with m.If(s.is_a[Opcode.EMBED]):
            m.d.comb += [self.activations.clear.eq(1 << s.column), self.activations.clear_buffer.eq(0),
                         self.embed.start.eq(1), self.shift_clamped.eq(s.clamped[0])]
            m.d.sync += self.positions[s.column].eq(s.command.position)
            m.next = "IDLE"
        with m.If(s.is_a[Opcode.MATVEC]):
            m.d.comb += [self.matrix.start.eq(1), self.logits.start.eq(s.to_logits),
                         self.shift_clamped.eq((s.clamped & ((1 << s.columns) - 1)).any())]
            with m.If(s.reading_buffer):
                m.d.comb += [self.activations.clear.eq(-1), self.activations.clear_buffer.eq(0)]
            with m.If(s.to_hidden):
                m.d.comb += [self.activations.clear.eq(-1), self.activations.clear_buffer.eq(1)]
                m.d.sync += s.attended.eq(0)
            m.next = "MATVEC"
        with m.If(s.is_a[Opcode.ATTEND]):
            m.d.comb += [self.activations.clear.eq(1 << s.column), self.activations.clear_buffer.eq(1),
                         s.start_attend.eq(1)]
            m.d.sync += [s.attended.eq(1), self.turns.attend.eq(s.more)]
            m.next = "ATTEND"
        with m.If(s.is_a[Opcode.STORE]):
            m.d.comb += s.start_store.eq(1)
            m.next = "IDLE"
        with m.If(s.is_a[Opcode.CRC]):
            m.d.comb += self.crc_start.eq(1)
            m.d.sync += self.turns.crc.eq(s.more)
            m.next = "TAKE"
        with m.If(~Cat(*s.is_a.values()).any()):
            m.d.comb += self.bad_command.eq(1)
            m.next = "IDLE"

    def _attend(self, m, s):
        """Rows from DRAM, then those on chip."""
        with m.If(self.turns.attend):
            m.d.comb += self.execution.waiting_beat.eq(~self.turns.valid)
        with m.Else():
            m.d.comb += s.local.eq(1)
        with m.If(s.beat & s.final):
            m.d.sync += self.turns.attend.eq(0)
        with m.If(self.attend.done):
            m.next = "IDLE"

    def _column(self, number):
        """A column that the command names: 0 where the core has no other."""
        return number if self.columns > 1 else 0

    def _jobs(self, m, command, token, columns):
        """What the command says to each station; (start of ATTEND, of STORE, rows come from the chip, the embedding's
        fetch is busy).

        The registers here end the paths from the sequencer to attention, the K/V rows and the embedding's fetch. An
        abort resets those that start a job: it may come in the very cycle that does.
        """
        embed, matrix, attend, newest, store = self.embed, self.matrix, self.attend, self.newest, self.store
        logits, column, first = self.logits, self._column(command.column), self._column(command.first)
        start_attend = Signal()
        start_store = Signal()
        rows_local = Signal()
        local = Signal()
        was_local = Signal()
        embed_busy = Signal(reset_less=True)
        m.d.sync += [local.eq(rows_local), was_local.eq(local), embed_busy.eq(self.embed_busy)]
        m.d.comb += [
            self.execution.phase.eq(command.phase),
            embed.token.eq(Mux(command.last_token, self.last_token, token)), embed.base.eq(command.base),
            embed.words.eq(command.words),
            embed.q4.eq(command.q4), embed.group64.eq(command.group64), embed.column.eq(column),
            embed.shift.eq(matrix.shifts[0]),
            matrix.q4.eq(command.q4), matrix.group64.eq(command.group64), matrix.words.eq(command.words),
            matrix.rows.eq(command.rows),
            matrix.dest.eq(command.dest),
            matrix.first.eq(column),
            matrix.count.eq(columns),
            attend.start.eq(delay(m, start_attend, 1, "attend_start", valid=True)), attend.column.eq(column),
            attend.rows.eq(command.rows), attend.local.eq(local),
            newest.start.eq(local & ~was_local), newest.first.eq(first), newest.last.eq(column),
            store.next.eq(start_store), store.start.eq(delay(m, start_store, 1, "store_start", valid=True)),
            store.first.eq(first), store.last.eq(column), store.base.eq(command.base),
            logits.first.eq(matrix.first), logits.last.eq(command.columns), logits.keep.eq(command.keep),
            logits.dump.eq(command.dump),
        ]
        return start_attend, start_store, rows_local, embed_busy
