"""Sequential DRAM reads at the pin rate: two ports take alternate DRAM rows, their beats leave in order, buffered.

A LiteDRAM port stays on one bank until all it queued there was read. So even rows go through one port and odd rows
through the other, which starts on its row while the first still has ``ahead`` words to request: activates overlap.
"""
from amaranth.hdl import Cat, Module, Mux, ResetInserter, Signal
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.ports import NativeRead
from accel.stage import Stage

SEGMENTS = 32       #: queued; several hundred beats, more than the buffer holds


class SegmentReader(wiring.Component):
    """Reads a queue of segments, run ahead of their use as far as the buffer has room.

    Members
    -------
    segments : In(stream)
        First beat and number of beats; ``kv``: not before ``stores_done`` equals ``stores``.
    beats : Out(stream)
    second, second_valid, both : Out, Out, In
        The beat after it; with ``both``, ``beats.ready`` takes the two.
    reading : Out
        Beats are yet to be asked for.
    abort : In
        Drop everything; ``aborting`` until the outstanding reads have come back.
    """
    def __init__(self, *, addr_width=24, row_bits=7, depth=32, ahead=16, buffer=512):
        self.addr_width, self.row_bits, self.depth, self.ahead, self.buffer = addr_width, row_bits, depth, ahead, buffer
        self.segment = data.StructLayout({"base": addr_width, "beats": 28, "kv": 1, "stores": 8})
        super().__init__({
            "segments": In(stream.Signature(self.segment)), "beats": Out(stream.Signature(128)),
            "second": Out(128), "second_valid": Out(1), "both": In(1),
            "stores_done": In(8), "busy": Out(1), "reading": Out(1), "abort": In(1), "aborting": Out(1),
            "read0": Out(NativeRead(addr_width, 128)), "read1": Out(NativeRead(addr_width, 128)),
        })

    def elaborate(self, platform):
        m = Module()
        rb, aw = self.row_bits, self.addr_width
        drop = Signal()
        m.d.comb += drop.eq(self.abort | self.aborting)

        def queue(name, width, depth, buffered=False):
            q = (fifo.SyncFIFOBuffered if buffered else fifo.SyncFIFO)(width=width, depth=depth)
            m.submodules[name] = ResetInserter(drop)(q)
            return q

        # Segments to blocks: a block lies in one DRAM row ------------------------------------------------
        segments = queue("segments", self.segment.size, SEGMENTS, True)
        m.d.comb += [segments.w_en.eq(self.segments.valid), self.segments.ready.eq(segments.w_rdy),
                     segments.w_data.eq(self.segments.payload)]
        following = Stage(self.segment)     # block RAM is slow to answer
        m.submodules.following = ResetInserter(drop)(following)
        head = following.output.payload
        m.d.comb += [following.input.valid.eq(segments.r_rdy), following.input.payload.eq(segments.r_data),
                     segments.r_en.eq(following.input.ready)]
        base, left, blocked = Signal(aw), Signal(28), Signal()
        in_row, count = Signal(rb + 1), Signal(rb + 1)
        block = data.StructLayout({"base": aw, "count": rb + 1, "age": 5})
        blocks = [queue(f"blocks{i}", block.size, 4) for i in range(2)]
        order = queue("order", rb + 2, 16)
        age, emit = Signal(5), Signal()
        port = base[rb]
        m.d.comb += [
            in_row.eq((1 << rb) - base[:rb]), count.eq(Mux(left < in_row, left, in_row)),
            emit.eq((left != 0) & order.w_rdy & Mux(port, blocks[1].w_rdy, blocks[0].w_rdy)),
            order.w_en.eq(emit), order.w_data.eq(Cat(count, port)),
            blocked.eq(head.kv & (head.stores != self.stores_done)),
            following.output.ready.eq((left == 0) & ~blocked),
        ]
        for i in range(2):
            m.d.comb += [blocks[i].w_en.eq(emit & (port == i)), blocks[i].w_data.eq(Cat(base, count, age))]
        with m.If(following.output.ready & following.output.valid):
            m.d.sync += [base.eq(head.base), left.eq(head.beats)]
        with m.If(emit):
            m.d.sync += [base.eq(base + count), left.eq(left - count), age.eq(age + 1)]

        # Requests: each port walks its block; the younger waits until the older is almost requested --------
        outs = []
        remaining = [Signal(rb + 1, name=f"remaining{i}") for i in range(2)]
        ages = [Signal(5, name=f"age{i}") for i in range(2)]
        outstanding = [Signal(range(self.depth + 1), name=f"outstanding{i}") for i in range(2)]
        for i, native in enumerate((self.read0, self.read1)):
            other = 1 - i
            address = Signal(aw, name=f"address{i}")
            credit = Signal(range(self.depth + 1), init=self.depth, name=f"credit{i}")
            out = queue(f"out{i}", 128, self.depth)
            outs.append(out)
            younger, turn, fire = Signal(name=f"younger{i}"), Signal(name=f"turn{i}"), Signal(name=f"fire{i}")
            b = data.View(block, blocks[i].r_data)
            m.d.comb += [
                younger.eq(~(ages[i] - ages[other])[4] & (ages[i] != ages[other])),
                turn.eq((remaining[other] <= self.ahead) | ~younger),
                native.cmd_valid.eq((remaining[i] != 0) & (credit != 0) & turn), native.cmd_addr.eq(address),
                fire.eq(native.cmd_valid & native.cmd_ready),
                out.w_en.eq(native.rdata_valid & ~drop), out.w_data.eq(native.rdata_data),
                blocks[i].r_en.eq((remaining[i] == 0) | (fire & (remaining[i] == 1))),
            ]
            with m.If(fire):
                m.d.sync += [remaining[i].eq(remaining[i] - 1), address.eq(address + 1)]
            with m.If(blocks[i].r_en & blocks[i].r_rdy):
                m.d.sync += [remaining[i].eq(b.count), address.eq(b.base), ages[i].eq(b.age)]
            m.d.sync += [credit.eq(credit - fire + (out.r_en & out.r_rdy)),
                         outstanding[i].eq(outstanding[i] + fire - native.rdata_valid)]
            with m.If(drop):
                m.d.sync += [remaining[i].eq(0), credit.eq(self.depth), ages[i].eq(0)]

        # Beats in order; they take turns in the halves of the buffer, so that two can leave in a cycle -----------
        halves = [queue(f"buffer{i}", 128, self.buffer // 2, True) for i in range(2)]
        taking, side = Signal(rb + 1), Signal()
        move = Signal()
        into, first, taken, taken_both = Signal(), Signal(), Signal(), Signal()
        full = Mux(into, ~halves[1].w_rdy, ~halves[0].w_rdy)
        for i, half in enumerate(halves):
            m.d.comb += [half.w_en.eq(move & (into == i)), half.w_data.eq(Mux(side, outs[1].r_data, outs[0].r_data)),
                         half.r_en.eq(taken & ((first == i) | taken_both))]
        m.d.sync += [into.eq((into ^ move) & ~drop), first.eq((first ^ (taken & ~taken_both)) & ~drop)]
        m.d.comb += [
            move.eq((taking != 0) & ~full & Mux(side, outs[1].r_rdy, outs[0].r_rdy)),
            outs[0].r_en.eq(move & ~side), outs[1].r_en.eq(move & side),
            order.r_en.eq((taking == 0) | (move & (taking == 1))),
            self.beats.valid.eq(Mux(first, halves[1].r_rdy, halves[0].r_rdy) & ~drop),
            self.beats.payload.eq(Mux(first, halves[1].r_data, halves[0].r_data)),
            self.second_valid.eq(halves[0].r_rdy & halves[1].r_rdy & ~drop),
            self.second.eq(Mux(first, halves[0].r_data, halves[1].r_data)),
            taken.eq(self.beats.valid & self.beats.ready), taken_both.eq(self.both),
        ]
        with m.If(move):
            m.d.sync += taking.eq(taking - 1)
        with m.If(order.r_en & order.r_rdy):
            m.d.sync += [taking.eq(order.r_data[:rb + 1]), side.eq(order.r_data[-1])]
        with m.If(drop):
            m.d.sync += [left.eq(0), taking.eq(0), age.eq(0)]
        flying = (outstanding[0] != 0) | (outstanding[1] != 0)
        m.d.sync += self.aborting.eq(self.abort | (self.aborting & flying))
        m.d.comb += self.reading.eq((left != 0) | following.output.valid | blocks[0].r_rdy | blocks[1].r_rdy
                                    | (remaining[0] != 0) | (remaining[1] != 0))
        m.d.comb += self.busy.eq((segments.level != 0) | following.busy | (left != 0) | (remaining[0] != 0) | (remaining[1] != 0) | flying
                                 | order.r_rdy | (taking != 0) | (halves[0].level != 0) | (halves[1].level != 0) | blocks[0].r_rdy | blocks[1].r_rdy)
        return m
