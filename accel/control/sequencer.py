"""Runs the command queue: hands segments to the reader at once, executes commands in order, fences, counts phases."""
from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.interfaces import (
    ActivationControl, Ahead, AttendJob, BeatTurns, Command, EmbedJob, LogitsJob, MatrixJob, NewestJob, Norms, Segment, StoreJob)
from accel.lib.numeric import delay
from spec.numerics import HIDDEN_FRACTION, OUTPUT_FRACTION, RESIDUAL_FRACTION, ROW_FRACTION
from spec.registers import Dest, Opcode


class Sequencer(wiring.Component):
    """Control of the core; every datapath unit has a start and a busy here.

    Members
    -------
    ahead, commands : In(stream)
        From the queue, see :class:`accel.control.command_queue.CommandQueue`.
    segments : Out(stream)
        To the reader, in order, ahead of execution.
    idle : In
        No unit has work in flight; what a fence waits for.
    gang, both : Out
        The command, the step is for one position: columns 0 and 1 may share its work, and so hold the same.
    to_gain, to_crc, to_attend : Out
        Whose the stream's beats are; the matrix engine knows itself.
    """
    def __init__(self, *, columns, addr_width=24):
        self.columns, self.addr_width = columns, addr_width
        super().__init__({
            "ahead": In(stream.Signature(Ahead())), "commands": In(stream.Signature(128)),
            "segments": Out(stream.Signature(Segment(addr_width))), "stores_done": Out(8), "turns": Out(BeatTurns()),
            "idle": In(1), "busy": Out(1), "bad_command": Out(1), "shift_clamped": Out(1),
            "embed": Out(EmbedJob(columns, addr_width)), "embed_busy": In(1), "last_token": In(18), "position": Out(17),
            "matrix": Out(MatrixJob(columns)), "activations": Out(ActivationControl(columns)), "norms": In(Norms(columns)),
            "attend": Out(AttendJob(columns)), "newest": Out(NewestJob(columns)), "store": Out(StoreJob(columns, addr_width)),
            "logits": Out(LogitsJob(columns)), "gain_start": Out(1), "crc_start": Out(1), "crc_busy": In(1),
            "phase": Out(4), "executing": Out(1), "fenced": Out(1), "waiting_beat": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        C = self.columns

        # Ahead of its turn a command hands its segment to the reader --------------------------------------
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

        # Right shifts of the row scaler: minus the exponent of sums * factor, minus the fraction kept --------
        command = Signal(Command())
        following = data.View(Command(), self.commands.payload)      # what will be ``command``
        gain_exponent, attended = Signal(signed(8)), Signal()
        base, from_largest, from_halves = Signal(signed(12)), Signal(), Signal()    # known with the command
        reading_buffer, to_hidden, to_logits = Signal(), Signal(), Signal()
        clamped, below = Signal(C), Signal(C)
        shifts = Signal(data.ArrayLayout(6, C))
        for c in range(C):
            change, wide = Signal(signed(7), name=f"change{c}"), Signal(signed(12), name=f"wide_shift{c}")
            m.d.comb += [change.eq(Mux(from_halves, self.norms.halves[c], 0) - Mux(from_largest, self.activations.largest[c], 0)),
                         below[c].eq(wide < 0)]
            m.d.sync += [wide.eq(base + change), clamped[c].eq(below[c]), shifts[c].eq(Mux(below[c], 0, Mux(wide > 63, 63, wide)))]
        m.d.comb += [self.matrix.shifts.eq(shifts), self.activations.read_buffer.eq(reading_buffer)]
        m.d.sync += [to_hidden.eq(command.dest == Dest.SWIGLU), to_logits.eq(command.dest == Dest.LOGITS)]

        # Execution -----------------------------------------------------------------------------------------
        is_a = {opcode: Signal(name=f"is_{opcode.name.lower()}") for opcode in Opcode}     # known while the shifts settle
        m.d.sync += [signal.eq(command.opcode == opcode) for opcode, signal in is_a.items()]
        left, more, final = Signal(28), Signal(), Signal()
        beat = self.turns.valid & self.turns.taken_ready
        columns = Signal(range(C + 1))
        m.d.comb += columns.eq(command.columns + 1)
        start_attend, start_store, local, embed_busy = self._jobs(m, command, columns)
        with m.If(beat):
            m.d.sync += [left.eq(left - 1), final.eq(left == 2)]
        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.comb += self.commands.ready.eq(1)
                fixed = Mux(attended, OUTPUT_FRACTION + 15 - RESIDUAL_FRACTION, HIDDEN_FRACTION + 15 - RESIDUAL_FRACTION)
                embeds, adds = following.opcode == Opcode.EMBED, following.dest == Dest.RESIDUAL
                source = Mux(embeds, 15 - RESIDUAL_FRACTION, Mux(adds, fixed, 15 - ROW_FRACTION - gain_exponent))
                m.d.sync += [from_largest.eq(~embeds), from_halves.eq(~embeds & ~adds), base.eq(source - following.exponent),
                             command.eq(following), self.matrix.gang.eq(following.columns == 0),
                             reading_buffer.eq(following.dest == Dest.RESIDUAL)]
                with m.If(self.commands.valid):
                    m.next = "FENCE"
            with m.State("FENCE"):
                m.d.sync += [left.eq(command.beats), more.eq(command.beats != 0), final.eq(command.beats == 1)]
                # Only what needs the K/V rows waits for their way to DRAM
                of_rows = (command.opcode == Opcode.ATTEND) | (command.opcode == Opcode.STORE) | (
                    (command.opcode == Opcode.MATVEC) & ((command.dest == Dest.K) | (command.dest == Dest.V)))
                hold = ((command.fence & ~self.idle) | ((command.opcode == Opcode.EMBED) & embed_busy)
                        | (of_rows & self.store.storing))
                m.d.comb += self.fenced.eq(hold)
                with m.If(~hold):
                    m.next = "SHIFTS"
            with m.State("SHIFTS"):     # two cycles after all exponents are known the shifts are
                m.next = "DISPATCH"
            with m.State("DISPATCH"):
                m.d.sync += self.activations.both.eq(self.matrix.gang)
                with m.If(is_a[Opcode.NOP]):
                    m.next = "IDLE"
                with m.If(is_a[Opcode.GAIN]):
                    m.d.comb += self.gain_start.eq(1)
                    m.d.sync += [gain_exponent.eq(command.exponent), self.turns.gain.eq(more)]
                    m.next = "TAKE"
                with m.If(is_a[Opcode.EMBED]):
                    m.d.comb += [self.activations.clear.eq(1 << command.column), self.activations.clear_buffer.eq(0), self.embed.start.eq(1),
                                 self.shift_clamped.eq(clamped[0])]
                    m.d.sync += self.position.eq(command.beats)
                    m.next = "IDLE"
                with m.If(is_a[Opcode.MATVEC]):
                    m.d.comb += [self.matrix.start.eq(1), self.logits.start.eq(to_logits),
                                 self.shift_clamped.eq((clamped & ((1 << columns) - 1)).any())]
                    with m.If(reading_buffer):
                        m.d.comb += [self.activations.clear.eq(-1), self.activations.clear_buffer.eq(0)]
                    with m.If(to_hidden):
                        m.d.comb += [self.activations.clear.eq(-1), self.activations.clear_buffer.eq(1)]
                        m.d.sync += attended.eq(0)
                    m.next = "MATVEC"
                with m.If(is_a[Opcode.ATTEND]):
                    m.d.comb += [self.activations.clear.eq(1 << command.column), self.activations.clear_buffer.eq(1), start_attend.eq(1)]
                    m.d.sync += [attended.eq(1), self.turns.attend.eq(more)]
                    m.next = "ATTEND"
                with m.If(is_a[Opcode.STORE]):
                    m.d.comb += start_store.eq(1)
                    m.next = "IDLE"
                with m.If(is_a[Opcode.CRC]):
                    m.d.comb += self.crc_start.eq(1)
                    m.d.sync += self.turns.crc.eq(more)
                    m.next = "TAKE"
                with m.If(~Cat(*is_a.values()).any()):
                    m.d.comb += self.bad_command.eq(1)
                    m.next = "IDLE"
            with m.State("TAKE"):
                m.d.comb += self.waiting_beat.eq(~self.turns.valid)
                with m.If((beat & final) | ~more):
                    m.d.sync += [self.turns.gain.eq(0), self.turns.crc.eq(0)]
                    m.next = "SETTLE"
            with m.State("SETTLE"):
                with m.If(~self.crc_busy):
                    m.next = "IDLE"
            with m.State("MATVEC"):
                with m.If(self.matrix.ready):
                    m.next = "IDLE"
            with m.State("ATTEND"):
                with m.If(self.turns.attend):
                    m.d.comb += self.waiting_beat.eq(~self.turns.valid)
                with m.Else():
                    m.d.comb += local.eq(1)
                with m.If(beat & final):
                    m.d.sync += self.turns.attend.eq(0)
                with m.If(self.attend.done):
                    m.next = "IDLE"
        m.d.comb += [self.executing.eq(~fsm.ongoing("IDLE")), self.busy.eq(self.executing)]
        return m

    def _jobs(self, m, command, columns):
        """What the command says to each station; (start of ATTEND, of STORE, rows come from the chip, the embedding's fetch is busy).

        Registers of their own, which an abort leaves alone: the sequencer is far from attention, the K/V rows and the embedding's fetch.
        """
        embed, matrix, attend, newest, store, logits = self.embed, self.matrix, self.attend, self.newest, self.store, self.logits
        start_attend, start_store, rows_local = Signal(), Signal(), Signal()
        local, was_local, embed_busy = (Signal(name=name, reset_less=True) for name in ("local", "was_local", "embed_busy"))
        m.d.sync += [local.eq(rows_local), was_local.eq(local), embed_busy.eq(self.embed_busy)]
        m.d.comb += [
            self.phase.eq(command.phase),
            embed.token.eq(Mux(command.argmax, self.last_token, command.rows)), embed.base.eq(command.base), embed.words.eq(command.words),
            embed.q4.eq(command.q4), embed.group64.eq(command.group64), embed.column.eq(command.column), embed.shift.eq(matrix.shifts[0]),
            matrix.q4.eq(command.q4), matrix.group64.eq(command.group64), matrix.words.eq(command.words), matrix.rows.eq(command.rows),
            matrix.dest.eq(command.dest), matrix.first.eq(Mux((command.dest == Dest.LOGITS) & ~command.argmax, command.columns, 0)),
            matrix.count.eq(columns),
            attend.start.eq(delay(m, start_attend, 1, "attend_start")), attend.column.eq(command.column),
            attend.rows.eq(command.rows + command.column + 1), attend.local.eq(local),
            newest.start.eq(local & ~was_local), newest.rows.eq(command.column + 1),
            store.next.eq(start_store), store.start.eq(delay(m, start_store, 1, "store_start")), store.rows.eq(columns),
            store.base.eq(command.base),
            logits.first.eq(matrix.first), logits.last.eq(command.columns), logits.keep.eq(command.keep), logits.dump.eq(command.dump),
        ]
        return start_attend, start_store, rows_local, embed_busy
