"""Fetches one row of a packed tensor, the embedding of a token, over a DRAM port of its own."""
from amaranth.hdl import Array, Cat, Const, Module, Mux, ResetInserter, Signal, signed
from amaranth.lib import data, fifo, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.ports import NativeRead

QUEUE = 16          #: beats requested ahead


class EmbedFetch(wiring.Component):
    """Elements ``(code - zero) * mantissa`` of row ``token``, in order, one a cycle. Layout: spec.packing.

    Members
    -------
    start : In
        With ``token``, ``base`` (first beat of the tensor), ``words``, ``q4``, ``group64``; only while not ``busy``.
    abort : In
        Drop the row; ``busy`` until the outstanding reads have come back.
    """
    def __init__(self, *, addr_width=24, max_words):
        self.addr_width, self.max_words = addr_width, max_words
        element = data.StructLayout({"value": signed(20), "last": 1})
        super().__init__({
            "start": In(1), "token": In(18), "base": In(addr_width), "words": In(12), "q4": In(1), "group64": In(1),
            "port": Out(NativeRead(addr_width, 128)), "elements": Out(stream.Signature(element)),
            "busy": Out(1), "abort": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        aw = self.addr_width
        token, base, words, q4, group64 = Signal(18), Signal(aw), Signal(12), Signal(), Signal()
        groups, stride = Signal(12), Signal(16)
        address, left = Signal(aw), Signal(13)
        offset, superblock = Signal(aw), Signal(15)
        outstanding, credit = Signal(range(QUEUE + 1)), Signal(range(QUEUE + 1), init=QUEUE)
        drop = Signal()
        queue = fifo.SyncFIFO(width=128, depth=QUEUE)
        m.submodules.queue = ResetInserter(drop)(queue)
        m.submodules.scales = scales = memory.Memory(shape=16, depth=-(-self.max_words // 2), init=[])
        scale_write, scale_read = scales.write_port(), scales.read_port()
        port = self.port
        fire, pull, requesting = Signal(), Signal(), Signal()
        m.d.comb += [
            port.cmd_valid.eq(requesting & (credit != 0)), port.cmd_addr.eq(address), fire.eq(port.cmd_valid & port.cmd_ready),
            queue.w_en.eq(port.rdata_valid & ~drop), queue.w_data.eq(port.rdata_data), queue.r_en.eq(pull),
        ]
        m.d.sync += [outstanding.eq(outstanding + fire - port.rdata_valid), credit.eq(credit - fire + (pull & queue.r_rdy))]

        # Requests: the scale beats, then every (q8: second) beat of the row's pair --------------------------
        pair_beats = Mux(q4, words, words << 1)
        begin, jump, skip = Signal(), Signal(), Signal()
        dropping = Signal()
        m.d.comb += drop.eq(self.abort | dropping)
        m.d.sync += stride.eq(groups + Mux(q4, words << 2, words << 3))
        with m.FSM(name="request") as request:
            with m.State("IDLE"):
                with m.If(self.start):
                    m.d.sync += [token.eq(self.token), base.eq(self.base), words.eq(self.words), q4.eq(self.q4),
                                 group64.eq(self.group64),
                                 groups.eq(Mux(self.group64, (self.words + 3) >> 2, (self.words + 1) >> 1))]
                    m.next = "STRIDE"
            with m.State("STRIDE"):
                m.d.sync += [superblock.eq(token >> 3), offset.eq(0), left.eq(len(superblock))]
                m.next = "MULTIPLY"
            with m.State("MULTIPLY"):
                # superblock * stride, a bit a cycle: once a token, ahead of its turn
                m.d.sync += [offset.eq((offset << 1) + Mux(superblock[-1], stride, 0)), superblock.eq(superblock << 1),
                             left.eq(left - 1)]
                with m.If(left == 1):
                    m.next = "PAIR"
            with m.State("PAIR"):
                m.d.comb += [begin.eq(1), jump.eq(1)]
                m.d.sync += [left.eq(groups), offset.eq(Mux(token[2], pair_beats << 1, 0) + Mux(token[1], pair_beats, 0)
                                                        + (token[0] & ~q4))]
                m.next = "SCALES"
            with m.State("SCALES"):
                m.d.comb += requesting.eq(1)
                with m.If(fire):
                    m.d.sync += left.eq(left - 1)
                    with m.If(left == 1):
                        m.d.comb += jump.eq(1)
                        m.d.sync += left.eq(words)
                        m.next = "DATA"
            with m.State("DATA"):
                m.d.comb += [requesting.eq(1), skip.eq(~q4)]
                with m.If(fire):
                    m.d.sync += left.eq(left - 1)
                    with m.If(left == 1):
                        m.next = "IDLE"

        # One adder for the address: to the superblock, to the next beat or the one after it, to the pair
        with m.If(begin | fire):
            m.d.sync += address.eq((Cat(1, Mux(begin, base, address)) + Cat(~begin, Mux(jump, offset, skip)))[1:])

        # Elements --------------------------------------------------------------------------------------------
        scale_at, word, lane, beat = Signal(12), Signal(12), Signal(4), Signal(128)
        mine = Array(queue.r_data[16 * i:16 * i + 16] for i in range(8))[token[:3]]
        m.d.comb += [scale_write.addr.eq(scale_at), scale_write.data.eq(mine),
                     scale_read.addr.eq(Mux(group64, word >> 2, word >> 1))]
        byte = Array(beat[8 * i:8 * i + 8] for i in range(16))[lane]
        nibble = Mux(token[0], byte[4:], byte[:4])
        code, value = Signal(signed(9)), Signal(signed(20))
        last = Signal()
        m.d.comb += [code.eq(Mux(q4, Cat(nibble, Const(0, 1)).as_signed(), byte.as_signed())
                             - Cat(scale_read.data[12:], Const(0, 1)).as_signed()),
                     value.eq(code * Cat(scale_read.data[:12], Const(0, 1)).as_signed())]
        with m.FSM(name="element") as element:
            with m.State("IDLE"):
                m.d.sync += [scale_at.eq(0), word.eq(0), lane.eq(0)]
                with m.If(self.start):
                    m.next = "SCALES"
            with m.State("SCALES"):
                m.d.comb += [pull.eq(1), scale_write.en.eq(queue.r_rdy)]
                with m.If(queue.r_rdy):
                    m.d.sync += scale_at.eq(scale_at + 1)
                    # groups is known two cycles after start, long before the first beat
                    with m.If(scale_at == groups - 1):
                        m.next = "BEAT"
            with m.State("BEAT"):
                m.d.comb += pull.eq(1)
                m.d.sync += beat.eq(queue.r_data)
                with m.If(queue.r_rdy):
                    m.next = "SEND"
            with m.State("SEND"):
                m.d.comb += [self.elements.valid.eq(1), self.elements.payload.value.eq(value),
                             last.eq((lane == 15) & (word == words - 1)), self.elements.payload.last.eq(last)]
                with m.If(self.elements.ready):
                    m.d.sync += lane.eq(lane + 1)
                    with m.If(lane == 15):
                        m.d.sync += word.eq(word + 1)
                        m.next = "BEAT"
                    with m.If(last):
                        m.next = "IDLE"
        with m.If(drop):
            m.d.sync += credit.eq(QUEUE)
            m.d.comb += [port.cmd_valid.eq(0), self.elements.valid.eq(0)]
        m.d.sync += dropping.eq(self.abort | (dropping & (outstanding != 0)))
        m.d.comb += self.busy.eq(~request.ongoing("IDLE") | ~element.ongoing("IDLE") | (outstanding != 0) | dropping)
        return m
