"""Fetches one row of a packed tensor, the embedding of a token, over a DRAM port of its own."""
from amaranth.hdl import Array, Cat, Const, Module, Mux, ResetInserter, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.numeric import UNCHECKED
from accel.ports import NativeRead

AHEAD = 6           #: beats requested ahead: as many registers, which take no LUTs as a memory would
ELEMENT = data.StructLayout({"value": signed(20), "last": 1})


class EmbedFetch(wiring.Component):
    """Elements ``(code - zero) * mantissa`` of row ``token``, in order, one a cycle. Layout: llama2_spec.packing.

    Members
    -------
    start : In
        With ``token``, ``base`` (first beat of the tensor), ``words``, ``q4``, ``group64``; only while not ``busy``.
    abort : In
        Drop the row; ``busy`` until the outstanding reads have come back.
    """
    def __init__(self, *, addr_width=24, max_words):
        self.addr_width, self.max_words = addr_width, max_words
        super().__init__({
            "start": In(1), "token": In(18), "base": In(addr_width), "words": In(12), "q4": In(1), "group64": In(1),
            "port": Out(NativeRead(addr_width, 128)), "elements": Out(stream.Signature(ELEMENT)),
            "busy": Out(1), "abort": In(1),
        })

    def elaborate(self, platform):
        m, row = Module(), Module()
        port = self.port
        drop, dropping, outstanding = Signal(), Signal(), Signal(range(AHEAD + 1))
        fire = port.cmd_valid & port.cmd_ready
        m.d.comb += drop.eq(self.abort | dropping)
        m.submodules.row = ResetInserter(drop)(row)
        working = self._row(row, fire, drop)
        m.d.sync += [outstanding.eq(outstanding + fire - port.rdata_valid),
                     dropping.eq(self.abort | (dropping & (outstanding != 0)))]
        m.d.comb += self.busy.eq(working | (outstanding != 0) | dropping)
        return m

    def _row(self, m, fire, drop):
        """What a dropped row leaves nothing of; returns whether it is at work."""
        port, out = self.port, self.elements
        token, words, q4, group64 = Signal(18), Signal(12), Signal(), Signal()
        groups, stride = Signal(12), Signal(16)
        room, pull, requesting = Signal(range(AHEAD + 1), init=AHEAD), Signal(), Signal()
        m.d.comb += port.cmd_valid.eq(requesting & (room != 0) & ~drop)
        m.d.sync += room.eq(room - fire + pull)

        # Requests: the scale beats, then every (q8: second) beat of the row's pair --------------------------
        # One adder: the address is the sum of what ``addend`` was, of its multiples by powers of two where a bit is set.
        address, addend, add, double = Signal(self.addr_width), Signal(self.addr_width), Signal(), Signal()
        left, bits = Signal(12), Signal(15)
        m.d.comb += port.cmd_addr.eq(address)
        with m.If(add):
            m.d.sync += address.eq(address + addend)
        with m.If(double):
            m.d.sync += addend.eq(addend << 1)
        m.d.sync += stride.eq(groups + Mux(q4, words << 2, words << 3))
        with m.FSM() as request:
            with m.State("IDLE"):
                m.d.sync += [address.eq(0), addend.eq(self.base)]
                with m.If(self.start):
                    m.d.sync += [token.eq(self.token), words.eq(self.words), q4.eq(self.q4), group64.eq(self.group64),
                                 groups.eq(Mux(self.group64, (self.words + 3) >> 2, (self.words + 1) >> 1))]
                    m.next = "BASE"
            with m.State("BASE"):
                m.d.comb += add.eq(1)
                m.d.sync += [bits.eq(token[3:]), left.eq(len(bits))]
                m.next = "STRIDE"
            with m.State("STRIDE"):
                m.d.sync += addend.eq(stride)
                m.next = "SUPERBLOCK"
            with m.State("SUPERBLOCK"):     # times stride, a bit a cycle: once a token, ahead of its turn
                m.d.comb += [add.eq(bits[0]), double.eq(1)]
                m.d.sync += [bits.eq(bits >> 1), left.eq(left - 1)]
                with m.If(left == 1):
                    m.d.sync += [addend.eq(1), left.eq(groups)]
                    m.next = "SCALES"
            with m.State("SCALES"):
                m.d.comb += [requesting.eq(1), add.eq(fire)]
                with m.If(fire):
                    m.d.sync += left.eq(left - 1)
                    with m.If(left == 1):
                        m.next = "ROW"
            with m.State("ROW"):
                m.d.comb += add.eq(token[0] & ~q4)
                m.d.sync += addend.eq(Mux(q4, words, words << 1))
                m.next = "PAIR"
            with m.State("PAIR"):
                m.d.comb += [add.eq(token[1]), double.eq(1)]
                m.next = "PAIR-2"
            with m.State("PAIR-2"):
                m.d.comb += add.eq(token[2])
                m.d.sync += [addend.eq(Mux(q4, 1, 2)), left.eq(words)]
                m.next = "DATA"
            with m.State("DATA"):
                m.d.comb += [requesting.eq(1), add.eq(fire)]
                with m.If(fire):
                    m.d.sync += left.eq(left - 1)
                    with m.If(left == 1):
                        m.next = "IDLE"

        # Beats move up through registers -----------------------------------------------------------------------
        beats = [Signal(128, name=f"beat{i}", reset_less=True) for i in range(AHEAD)]
        held = [Signal(name=f"held{i}") for i in range(AHEAD)]
        for i in range(AHEAD):
            arrives, value = (held[i + 1], beats[i + 1]) if i + 1 < AHEAD else (port.rdata_valid, port.rdata_data)
            # None the cycle in which the first is done with: nothing reaches through
            with m.If(~Cat(held[:i + 1]).all()):
                m.d.sync += [held[i].eq(arrives), beats[i].eq(value)]
        beat, there = beats[0], held[0]
        with m.If(pull):
            m.d.sync += there.eq(0)

        # Elements: 1: byte and scale; 2: code; 3: value ----------------------------------------------------------
        m.submodules.scales = scales = memory.Memory(shape=16, depth=-(-self.max_words // 2), init=[],
                                                        attrs=UNCHECKED)
        scale_write, scale_read = scales.write_port(), scales.read_port()
        scale_at, word, lane = Signal(12), Signal(12), Signal(4)
        last_scale, last_word = Signal(12), Signal(12)      # known two cycles after start, long before the first beat
        at_last = Signal()                  # at the last word, whose lanes take longer than to find out
        m.d.sync += [last_scale.eq(groups - 1), last_word.eq(words - 1), at_last.eq(word == last_word)]
        loading, sending, issue, last = Signal(), Signal(), Signal(), Signal()
        valids = [Signal(name=f"valid{i}") for i in range(1, 4)]
        lasts = [Signal(name=f"last{i}") for i in range(1, 4)]
        advance = ~out.valid | out.ready
        pick = Signal(3)                # of a beat's eight halves of a word: the row's scale, or a lane's
        half = Array(beat[16 * i:16 * i + 16] for i in range(8))[pick]
        m.d.comb += [scale_write.addr.eq(scale_at), scale_write.data.eq(half), scale_write.en.eq(loading & there),
                     scale_read.addr.eq(Mux(group64, word >> 2, word >> 1)), scale_read.en.eq(advance),
                     issue.eq(sending & there & advance), last.eq((lane == 15) & at_last),
                     pull.eq(there & (loading | (issue & (lane == 15))))]
        byte1, scale2, code2 = Signal(8), Signal(12), Signal(signed(9))
        nibble1 = Mux(token[0], byte1[4:], byte1[:4])
        with m.If(advance):
            m.d.sync += [
                Cat(*valids).eq(Cat(issue, *valids)), Cat(*lasts).eq(Cat(last, *lasts)),
                byte1.eq(Mux(lane[0], half[8:], half[:8])),
                code2.eq(Mux(q4, Cat(nibble1, Const(0, 1)).as_signed(), byte1.as_signed())
                         - Cat(scale_read.data[12:], Const(0, 1)).as_signed()),
                scale2.eq(scale_read.data),
                out.payload.value.eq(code2 * Cat(scale2, Const(0, 1)).as_signed()),
            ]
        m.d.comb += [out.valid.eq(valids[2]), out.payload.last.eq(lasts[2])]
        with m.FSM() as element:
            with m.State("IDLE"):
                m.d.sync += [scale_at.eq(0), word.eq(0), lane.eq(0)]
                with m.If(self.start):
                    m.next = "SCALES"
            with m.State("SCALES"):
                m.d.comb += loading.eq(1)
                m.d.sync += pick.eq(token)      # known long before the first beat
                with m.If(there):
                    m.d.sync += scale_at.eq(scale_at + 1)
                    with m.If(scale_at == last_scale):
                        m.d.sync += pick.eq(0)
                        m.next = "SEND"
            with m.State("SEND"):
                m.d.comb += sending.eq(1)
                with m.If(issue):
                    m.d.sync += [lane.eq(lane + 1), pick.eq((lane + 1)[1:])]
                    with m.If(lane == 15):
                        m.d.sync += word.eq(word + 1)
                    with m.If(last):
                        m.next = "IDLE"
        return ~request.ongoing("IDLE") | ~element.ongoing("IDLE") | Cat(*valids).any()
