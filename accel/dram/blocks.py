"""Segments of DRAM cut into blocks, each in one DRAM row: even rows go to one port, odd rows to the other."""
from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.interfaces import Segment
from accel.lib.stream import HalfRate, Stage


class Blocks(wiring.Component):
    """One block every other cycle; some wait for each port. Every decision is made one cycle before it acts, in a
    register.

    Parameters
    ----------
    row_bits : int
        A DRAM row has so many address bits, in beats.
    turn_bits : int
        Of a beat's turn: it is counted modulo more than can be on its way.

    Members
    -------
    segments : In(stream of Segment)
        In order; see the interface.
    stores_done : In(8)
        See :class:`accel.interfaces.Segment`.
    blocks0, blocks1 : Out(stream of block)
        For each port: the block's beats, when it was cut, the turn of its first beat.
    order : Out(stream of data.StructLayout({'count': row_bits + 1, 'port': 1}))
        Port and number of beats of all blocks, in the order of their beats.
    turn : Out(turn_bits)
        Of the beat that follows.
    reading, busy : Out(1)
        Beats of it are yet to be cut into blocks; segments wait, too.
    """
    latency = None      #: varies

    def __init__(self, *, addr_width, row_bits, turn_bits):
        self.addr_width, self.row_bits, self.turn_bits = addr_width, row_bits, turn_bits
        self.block = data.StructLayout({"base": addr_width, "count": row_bits + 1, "age": 5, "turn": turn_bits})
        super().__init__({
            "segments": In(stream.Signature(Segment(addr_width))), "stores_done": In(8),
            "blocks0": Out(stream.Signature(self.block)), "blocks1": Out(stream.Signature(self.block)),
            "order": Out(stream.Signature(data.StructLayout({"count": row_bits + 1, "port": 1}))),
            "turn": Out(turn_bits), "reading": Out(1), "busy": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        rb, order = self.row_bits, self.order

        def registers(name, kind, shape):
            """Two: a short queue that takes no look-up tables."""
            first, second = kind(shape), kind(shape)
            m.submodules[f"{name}_1"], m.submodules[f"{name}_0"] = first, second
            wiring.connect(m, first.output, second.input)
            return first, second
        waiting, following = registers("segment", Stage, self.segments.payload.shape())
        wiring.connect(m, wiring.flipped(self.segments), waiting.input)
        into = []
        for i, sink in enumerate((self.blocks0, self.blocks1)):
            first, last = registers(f"blocks{i}", HalfRate, self.block)
            wiring.connect(m, last.output, wiring.flipped(sink))
            into.append(first)
        m.submodules.order = orders = fifo.SyncFIFO(width=order.payload.shape().size, depth=16)

        head = following.output.payload
        base = Signal(self.addr_width, reset_less=True)
        left = Signal(28)
        blocked = Signal()
        begin = Signal()
        in_row = Signal(rb + 1)
        count = Signal(rb + 1, reset_less=True)
        counted = Signal()
        age = Signal(5)
        emit = Signal()
        port, turn = base[rb], self.turn
        m.d.comb += [
            in_row.eq((1 << rb) - base[:rb]), blocked.eq(head.kv & (head.stores != self.stores_done)),
            following.output.ready.eq(begin), orders.w_en.eq(emit), orders.w_data.eq(Cat(count, port)),
            order.valid.eq(orders.r_rdy), order.payload.as_value().eq(orders.r_data), orders.r_en.eq(order.ready),
            self.reading.eq((left != 0) | following.busy), self.busy.eq(self.reading | waiting.busy),
        ]
        for i, sink in enumerate(into):
            block = sink.input.payload
            m.d.comb += [sink.input.valid.eq(emit & (port == i)), block.base.eq(base), block.count.eq(count),
                         block.age.eq(age), block.turn.eq(turn)]
        # Each of the two waits for a condition that only it can clear, so they cannot deadlock each other.
        m.d.sync += [
            count.eq(Mux(left < in_row, left, in_row)), counted.eq((left != 0) & ~emit),
            begin.eq(following.output.valid & (left == 0) & ~blocked & ~begin),
            emit.eq(counted & orders.w_rdy & ~Mux(port, into[1].busy, into[0].busy) & ~emit),
        ]
        with m.If(begin):
            m.d.sync += [base.eq(head.base), left.eq(head.beats)]
        with m.If(emit):
            m.d.sync += [base.eq(base + count), left.eq(left - count), age.eq(age + 1), turn.eq(turn + count)]
        return m
