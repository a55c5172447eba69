"""Runs the command queue: hands segments to the reader at once, executes commands in order, fences, counts phases."""
from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.blocks import segment_layout
from accel.command_queue import AHEAD, command_layout
from llama2_spec.numerics import HIDDEN_FRACTION, OUTPUT_FRACTION, RESIDUAL_FRACTION, ROW_FRACTION
from llama2_spec.registers import Dest, Opcode


class Sequencer(wiring.Component):
    """Control of the core; every datapath unit has a start and a busy here.

    Members
    -------
    ahead, commands : In(stream)
        From the queue, see :class:`accel.command_queue.CommandQueue`.
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
            "ahead": In(stream.Signature(AHEAD)), "commands": In(stream.Signature(128)),
            "segments": Out(stream.Signature(segment_layout(addr_width))),
            "idle": In(1), "busy": Out(1), "bad_command": Out(1), "shift_clamped": Out(1),
            "command": Out(command_layout()), "to_gain": Out(1), "to_crc": Out(1), "to_attend": Out(1),
            "columns_active": Out(range(columns + 1)), "gang": Out(1), "both": Out(1),
            "beat_valid": In(1), "beat_ready": In(1),
            "matvec_start": Out(1), "matvec_ready": In(1), "shifts": Out(data.ArrayLayout(6, columns)),
            "largest": In(data.ArrayLayout(6, columns)), "halves": In(data.ArrayLayout(6, columns)),
            "read_buffer": Out(1), "clear": Out(columns), "clear_buffer": Out(1),
            "gain_start": Out(1), "embed_start": Out(1), "embed_busy": In(1), "position": Out(17),
            "attend_start": Out(1), "attend_done": In(1), "local": Out(1),
            "store_start": Out(1), "storing": In(1), "stored": In(1), "stores_done": Out(8),
            "logits_start": Out(1), "crc_start": Out(1), "crc_busy": In(1),
            "executing": Out(1), "fenced": Out(1), "waiting_beat": Out(1),
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
        with m.If(self.stored):
            m.d.sync += self.stores_done.eq(self.stores_done + 1)

        # Right shifts of the row scaler: minus the exponent of sums * factor, minus the fraction kept --------
        command = self.command
        following = data.View(command_layout(), self.commands.payload)      # what will be ``command``
        gain_exponent, attended = Signal(signed(8)), Signal()
        base, from_largest, from_halves = Signal(signed(12)), Signal(), Signal()    # known with the command
        reading_buffer, to_hidden, to_logits = Signal(), Signal(), Signal()
        clamped, below = Signal(C), Signal(C)
        shifts = Signal(data.ArrayLayout(6, C))
        for c in range(C):
            change, wide = Signal(signed(7), name=f"change{c}"), Signal(signed(12), name=f"wide_shift{c}")
            m.d.comb += [change.eq(Mux(from_halves, self.halves[c], 0) - Mux(from_largest, self.largest[c], 0)),
                         below[c].eq(wide < 0)]
            m.d.sync += [wide.eq(base + change), clamped[c].eq(below[c]), shifts[c].eq(Mux(below[c], 0, Mux(wide > 63, 63, wide)))]
        m.d.comb += [self.shifts.eq(shifts), self.read_buffer.eq(reading_buffer)]
        m.d.sync += [to_hidden.eq(command.dest == Dest.SWIGLU), to_logits.eq(command.dest == Dest.LOGITS)]

        # Execution -----------------------------------------------------------------------------------------
        is_a = {opcode: Signal(name=f"is_{opcode.name.lower()}") for opcode in Opcode}     # known while the shifts settle
        m.d.sync += [signal.eq(command.opcode == opcode) for opcode, signal in is_a.items()]
        left, more, final = Signal(28), Signal(), Signal()
        beat = self.beat_valid & self.beat_ready
        columns = Signal(range(C + 1))
        m.d.comb += [self.columns_active.eq(columns), columns.eq(command.columns + 1)]
        with m.If(beat):
            m.d.sync += [left.eq(left - 1), final.eq(left == 2)]
        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.comb += self.commands.ready.eq(1)
                fixed = Mux(attended, OUTPUT_FRACTION + 15 - RESIDUAL_FRACTION, HIDDEN_FRACTION + 15 - RESIDUAL_FRACTION)
                embeds, adds = following.opcode == Opcode.EMBED, following.dest == Dest.RESIDUAL
                source = Mux(embeds, 15 - RESIDUAL_FRACTION, Mux(adds, fixed, 15 - ROW_FRACTION - gain_exponent))
                m.d.sync += [from_largest.eq(~embeds), from_halves.eq(~embeds & ~adds), base.eq(source - following.exponent),
                             command.eq(following), self.gang.eq(following.columns == 0),
                             reading_buffer.eq(following.dest == Dest.RESIDUAL)]
                with m.If(self.commands.valid):
                    m.next = "FENCE"
            with m.State("FENCE"):
                m.d.sync += [left.eq(command.beats), more.eq(command.beats != 0), final.eq(command.beats == 1)]
                # Only what needs the K/V rows waits for their way to DRAM
                of_rows = (command.opcode == Opcode.ATTEND) | (command.opcode == Opcode.STORE) | (
                    (command.opcode == Opcode.MATVEC) & ((command.dest == Dest.K) | (command.dest == Dest.V)))
                hold = ((command.fence & ~self.idle) | ((command.opcode == Opcode.EMBED) & self.embed_busy)
                        | (of_rows & self.storing))
                m.d.comb += self.fenced.eq(hold)
                with m.If(~hold):
                    m.next = "SHIFTS"
            with m.State("SHIFTS"):     # two cycles after all exponents are known the shifts are
                m.next = "DISPATCH"
            with m.State("DISPATCH"):
                m.d.sync += self.both.eq(self.gang)
                with m.If(is_a[Opcode.NOP]):
                    m.next = "IDLE"
                with m.If(is_a[Opcode.GAIN]):
                    m.d.comb += self.gain_start.eq(1)
                    m.d.sync += [gain_exponent.eq(command.exponent), self.to_gain.eq(more)]
                    m.next = "TAKE"
                with m.If(is_a[Opcode.EMBED]):
                    m.d.comb += [self.clear.eq(1 << command.column), self.clear_buffer.eq(0), self.embed_start.eq(1),
                                 self.shift_clamped.eq(clamped[0])]
                    m.d.sync += self.position.eq(command.beats)
                    m.next = "IDLE"
                with m.If(is_a[Opcode.MATVEC]):
                    m.d.comb += [self.matvec_start.eq(1), self.logits_start.eq(to_logits),
                                 self.shift_clamped.eq((clamped & ((1 << columns) - 1)).any())]
                    with m.If(reading_buffer):
                        m.d.comb += [self.clear.eq(-1), self.clear_buffer.eq(0)]
                    with m.If(to_hidden):
                        m.d.comb += [self.clear.eq(-1), self.clear_buffer.eq(1)]
                        m.d.sync += attended.eq(0)
                    m.next = "MATVEC"
                with m.If(is_a[Opcode.ATTEND]):
                    m.d.comb += [self.clear.eq(1 << command.column), self.clear_buffer.eq(1), self.attend_start.eq(1)]
                    m.d.sync += [attended.eq(1), self.to_attend.eq(more)]
                    m.next = "ATTEND"
                with m.If(is_a[Opcode.STORE]):
                    m.d.comb += self.store_start.eq(1)
                    m.next = "IDLE"
                with m.If(is_a[Opcode.CRC]):
                    m.d.comb += self.crc_start.eq(1)
                    m.d.sync += self.to_crc.eq(more)
                    m.next = "TAKE"
                with m.If(~Cat(*is_a.values()).any()):
                    m.d.comb += self.bad_command.eq(1)
                    m.next = "IDLE"
            with m.State("TAKE"):
                m.d.comb += self.waiting_beat.eq(~self.beat_valid)
                with m.If((beat & final) | ~more):
                    m.d.sync += [self.to_gain.eq(0), self.to_crc.eq(0)]
                    m.next = "SETTLE"
            with m.State("SETTLE"):
                with m.If(~self.crc_busy):
                    m.next = "IDLE"
            with m.State("MATVEC"):
                with m.If(self.matvec_ready):
                    m.next = "IDLE"
            with m.State("ATTEND"):
                with m.If(self.to_attend):
                    m.d.comb += self.waiting_beat.eq(~self.beat_valid)
                with m.Else():
                    m.d.comb += self.local.eq(1)
                with m.If(beat & final):
                    m.d.sync += self.to_attend.eq(0)
                with m.If(self.attend_done):
                    m.next = "IDLE"
        m.d.comb += [self.executing.eq(~fsm.ongoing("IDLE")), self.busy.eq(self.executing)]
        return m
