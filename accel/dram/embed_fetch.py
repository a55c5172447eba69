"""Fetches one row of a packed tensor, the embedding of a token, over a DRAM port of its own."""
from types import SimpleNamespace

from amaranth.hdl import Array, Cat, Const, Module, Mux, ResetInserter, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.interfaces import EmbedJob
from accel.lib.numeric import UNCHECKED
from accel.dram.ports import NativeRead

AHEAD = 6           #: beats requested ahead: as many registers, which take no LUTs as a memory would
ELEMENT = data.StructLayout({"value": signed(20), "last": 1})


class EmbedFetch(wiring.Component):
    """Elements ``(code - zero) * mantissa`` of row ``token``, in order, one per cycle, held until taken: the rows that
    :class:`llama2_spec.golden.Golden` embeds. Layout: llama2_spec.packing.

    Members
    -------
    abort : In(1)
        Drop the row; ``busy`` until the outstanding reads have come back.
    job : In(EmbedJob)
        Taken only while not ``busy``.
    port : Out(NativeRead)
        To DRAM.
    elements : Out(stream of ELEMENT)
        Of the row, in order; held until taken.
    busy : Out(1)
        Work is in flight; a fence waits for its end.
    """
    latency = None      #: varies
    budget_lut = 353

    def __init__(self, *, columns=1, addr_width=24, max_words):
        self.columns, self.addr_width, self.max_words = columns, addr_width, max_words
        super().__init__({
            "job": In(EmbedJob(columns, addr_width)),
            "port": Out(NativeRead(addr_width, 128)), "elements": Out(stream.Signature(ELEMENT)),
            "busy": Out(1), "abort": In(1),
        })

    def elaborate(self, platform):
        m, row = Module(), Module()
        port = self.port
        drop = Signal()
        dropping = Signal()
        outstanding = Signal(range(AHEAD + 1))
        fire = port.cmd_valid & port.cmd_ready
        m.d.comb += drop.eq(self.abort | dropping)
        m.submodules.row = ResetInserter(drop)(row)
        working = self._row(row, fire, drop)
        m.d.sync += [outstanding.eq(outstanding + fire - port.rdata_valid),
                     dropping.eq(self.abort | (dropping & (outstanding != 0)))]
        m.d.comb += self.busy.eq(working | (outstanding != 0) | dropping)
        return m

    def _row(self, m, fire, drop):
        """Fetches a row, or discards it on ``drop``. Returns a signal that is high while a row is in flight."""
        s = SimpleNamespace(drop=drop, fire=fire)     # signals that several steps share
        self._registers(m, s)
        self._address(m, s)
        self._requests(m, s)
        self._beats(m, s)
        self._scales(m, s)
        self._elements(m, s)
        self._order(m, s)
        return ~s.request.ongoing("IDLE") | ~s.element.ongoing("IDLE") | Cat(*s.valids).any()

    def _registers(self, m, s):
        """What the row is."""
        s.port, s.out = self.port, self.elements
        s.token = Signal(18)
        s.words = Signal(12)
        s.q4 = Signal()
        s.group64 = Signal()
        s.groups = Signal(12)
        s.stride = Signal(16)
        room = Signal(range(AHEAD + 1), init=AHEAD)
        s.pull = Signal()
        s.requesting = Signal()
        m.d.comb += s.port.cmd_valid.eq(s.requesting & (room != 0) & ~s.drop)
        m.d.sync += [room.eq(room - s.fire + s.pull),
                     s.stride.eq(s.groups + Mux(s.q4, s.words << 2, s.words << 3))]

    def _address(self, m, s):
        """One adder: the address is the sum of what ``addend`` was, of its multiples by powers of two where a bit is
        set."""
        s.address = Signal(self.addr_width)
        s.addend = Signal(self.addr_width)
        s.add = Signal()
        s.double = Signal()
        m.d.comb += s.port.cmd_addr.eq(s.address)
        with m.If(s.add):
            m.d.sync += s.address.eq(s.address + s.addend)
        with m.If(s.double):
            m.d.sync += s.addend.eq(s.addend << 1)

    def _requests(self, m, s):
        """The scale beats, then every (q8: second) beat of the row's pair, one after the other."""
        address, addend, add, double = s.address, s.addend, s.add, s.double
        left = Signal(12)
        bits = Signal(15)
        with m.FSM() as s.request:
            with m.State("IDLE"):
                m.d.sync += [address.eq(0), addend.eq(self.job.base)]
                with m.If(self.job.start):
                    m.d.sync += [s.token.eq(self.job.token), s.words.eq(self.job.words), s.q4.eq(self.job.q4),
                                 s.group64.eq(self.job.group64),
                                 s.groups.eq(Mux(self.job.group64, (self.job.words + 3) >> 2,
                                                 (self.job.words + 1) >> 1))]
                    m.next = "BASE"
            with m.State("BASE"):
                m.d.comb += add.eq(1)
                m.d.sync += [bits.eq(s.token[3:]), left.eq(len(bits))]
                m.next = "STRIDE"
            with m.State("STRIDE"):
                m.d.sync += addend.eq(s.stride)
                m.next = "SUPERBLOCK"
            with m.State("SUPERBLOCK"):     # times stride, a bit a cycle: once a token, ahead of its turn
                m.d.comb += [add.eq(bits[0]), double.eq(1)]
                m.d.sync += [bits.eq(bits >> 1), left.eq(left - 1)]
                with m.If(left == 1):
                    m.d.sync += [addend.eq(1), left.eq(s.groups)]
                    m.next = "SCALES"
            with m.State("SCALES"):
                m.d.comb += [s.requesting.eq(1), add.eq(s.fire)]
                with m.If(s.fire):
                    m.d.sync += left.eq(left - 1)
                    with m.If(left == 1):
                        m.next = "ROW"
            with m.State("ROW"):
                m.d.comb += add.eq(s.token[0] & ~s.q4)
                m.d.sync += addend.eq(Mux(s.q4, s.words, s.words << 1))
                m.next = "PAIR"
            with m.State("PAIR"):
                m.d.comb += [add.eq(s.token[1]), double.eq(1)]
                m.next = "PAIR-2"
            with m.State("PAIR-2"):
                m.d.comb += add.eq(s.token[2])
                m.d.sync += [addend.eq(Mux(s.q4, 1, 2)), left.eq(s.words)]
                m.next = "DATA"
            with m.State("DATA"):
                m.d.comb += [s.requesting.eq(1), add.eq(s.fire)]
                with m.If(s.fire):
                    m.d.sync += left.eq(left - 1)
                    with m.If(left == 1):
                        m.next = "IDLE"

    def _beats(self, m, s):
        """Beats move up through registers."""
        # Beats move up through registers
        beats = [Signal(128, name=f"beat{i}", reset_less=True) for i in range(AHEAD)]
        held = [Signal(name=f"held{i}") for i in range(AHEAD)]
        for i in range(AHEAD):
            arrives, value = (held[i + 1], beats[i + 1]) if i + 1 < AHEAD else (s.port.rdata_valid, s.port.rdata_data)
            # None the cycle in which the first is done with: nothing reaches through
            with m.If(~Cat(held[:i + 1]).all()):
                m.d.sync += [held[i].eq(arrives), beats[i].eq(value)]
        s.beat, s.there = beats[0], held[0]
        with m.If(s.pull):
            m.d.sync += s.there.eq(0)

    def _scales(self, m, s):
        """Where the scales wait, and which lane is next."""
        # Elements: 1: byte and scale; 2: code; 3: value
        m.submodules.scales = scales = memory.Memory(shape=16, depth=-(-self.max_words // 2), init=[],
                                                        attrs=UNCHECKED)
        scale_write, s.scale_read = scales.write_port(), scales.read_port()
        s.scale_at = Signal(12)
        s.word = Signal(12)
        s.lane = Signal(4)
        # Known two cycles after start, long before the first beat.
        s.last_scale = Signal(12)
        last_word = Signal(12)
        at_last = Signal()                  # at the last word, whose lanes take longer than to find out
        m.d.sync += [s.last_scale.eq(s.groups - 1), last_word.eq(s.words - 1), at_last.eq(s.word == last_word)]
        s.loading = Signal()
        s.sending = Signal()
        s.issue = Signal()
        s.last = Signal()
        s.valids = [Signal(name=f"valid{i}") for i in range(1, 4)]
        s.lasts = [Signal(name=f"last{i}") for i in range(1, 4)]
        s.advance = ~s.out.valid | s.out.ready
        s.pick = Signal(3)                # of a beat's eight halves of a word: the row's scale, or a lane's
        s.half = Array(s.beat[16 * i:16 * i + 16] for i in range(8))[s.pick]
        m.d.comb += [scale_write.addr.eq(s.scale_at), scale_write.data.eq(s.half),
                     scale_write.en.eq(s.loading & s.there),
                     s.scale_read.addr.eq(Mux(s.group64, s.word >> 2, s.word >> 1)), s.scale_read.en.eq(s.advance),
                     s.issue.eq(s.sending & s.there & s.advance), s.last.eq((s.lane == 15) & at_last),
                     s.pull.eq(s.there & (s.loading | (s.issue & (s.lane == 15))))]

    def _elements(self, m, s):
        """Code less zero point, times scale."""
        byte1 = Signal(8)
        scale2 = Signal(12)
        code2 = Signal(signed(9))
        nibble1 = Mux(s.token[0], byte1[4:], byte1[:4])
        with m.If(s.advance):
            m.d.sync += [
                Cat(*s.valids).eq(Cat(s.issue, *s.valids)), Cat(*s.lasts).eq(Cat(s.last, *s.lasts)),
                byte1.eq(Mux(s.lane[0], s.half[8:], s.half[:8])),
                code2.eq(Mux(s.q4, Cat(nibble1, Const(0, 1)).as_signed(), byte1.as_signed())
                         - Cat(s.scale_read.data[12:], Const(0, 1)).as_signed()),
                scale2.eq(s.scale_read.data),
                s.out.payload.value.eq(code2 * Cat(scale2, Const(0, 1)).as_signed()),
            ]
        m.d.comb += [s.out.valid.eq(s.valids[2]), s.out.payload.last.eq(s.lasts[2])]

    def _order(self, m, s):
        """Scales, then elements."""
        with m.FSM() as s.element:
            with m.State("IDLE"):
                m.d.sync += [s.scale_at.eq(0), s.word.eq(0), s.lane.eq(0)]
                with m.If(self.job.start):
                    m.next = "SCALES"
            with m.State("SCALES"):
                m.d.comb += s.loading.eq(1)
                m.d.sync += s.pick.eq(s.token)      # known long before the first beat
                with m.If(s.there):
                    m.d.sync += s.scale_at.eq(s.scale_at + 1)
                    with m.If(s.scale_at == s.last_scale):
                        m.d.sync += s.pick.eq(0)
                        m.next = "SEND"
            with m.State("SEND"):
                m.d.comb += s.sending.eq(1)
                with m.If(s.issue):
                    m.d.sync += [s.lane.eq(s.lane + 1), s.pick.eq((s.lane + 1)[1:])]
                    with m.If(s.lane == 15):
                        m.d.sync += s.word.eq(s.word + 1)
                    with m.If(s.last):
                        m.next = "IDLE"
