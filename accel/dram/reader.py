"""Sequential DRAM reads at the pin rate: two ports take alternate DRAM rows, their beats leave in order, buffered.

A LiteDRAM port stays on one bank until all it queued there was read. So even rows go through one port and odd rows
through the other, which starts on its row while the first still has ``ahead`` words to request: activates overlap.
"""
from amaranth.hdl import Cat, Module, Mux, ResetInserter, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.dram.blocks import Blocks
from accel.interfaces import Beats, Segment
from accel.lib.numeric import UNCHECKED, credits, delay
from accel.dram.ports import NativeRead
from accel.lib.stream import Queue


OUT = 8             # beats of each half of the buffer that are on their way out of it, five cycles long, or wait


class SegmentReader(wiring.Component):
    """Reads segments, run ahead of their use as far as the buffer has room.

    Members
    -------
    segments, stores_done : In(stream), In
        See :class:`accel.interfaces.Segment`.
    beats : Out(stream)
    second, both : Out, In
        The beat after it; with ``both``, ``beats`` are valid when both are there, and the two are taken.
    reading : Out
        Beats are yet to be asked for.
    read0, read1 : Out
        A DRAM has one data bus: at most one of their ``rdata_valid`` at a time, with ``read0.rdata_data``.
    abort : In
        Drop everything; ``aborting`` until the outstanding reads have come back.
    """
    def __init__(self, *, addr_width=24, row_bits=7, depth=32, ahead=16, buffer=512):
        self.addr_width, self.row_bits, self.depth, self.ahead, self.buffer = addr_width, row_bits, depth, ahead, buffer
        super().__init__({
            "segments": In(stream.Signature(Segment(addr_width))), "beats": Out(Beats(2)),
            "stores_done": In(8), "busy": Out(1), "reading": Out(1), "abort": In(1), "aborting": Out(1),
            "read0": Out(NativeRead(addr_width, 128)), "read1": Out(NativeRead(addr_width, 128)),
        })

    def elaborate(self, platform):
        m = Module()
        rb, aw = self.row_bits, self.addr_width
        drop = Signal()
        m.d.comb += drop.eq(self.abort | self.aborting)

        def counter(name, bits, up, down):
            """Whether there are more than 0: a register."""
            count, some = Signal(bits, name=name), Signal(name=f"{name}_some")
            with m.If(up ^ down):
                m.d.sync += [count.eq(count + Mux(up, 1, -1)), some.eq(up | (count != 1))]
            with m.If(drop):
                m.d.sync += [count.eq(0), some.eq(0)]
            return some

        # A beat's turn, modulo more than can be on its way: what the buffer holds, and a block in each of ten places
        turn_bits = (self.buffer + (10 << rb)).bit_length()
        blocks = Blocks(addr_width=aw, row_bits=rb, turn_bits=turn_bits)
        m.submodules.blocks = ResetInserter(drop)(blocks)
        wiring.connect(m, wiring.flipped(self.segments), blocks.segments)
        m.d.comb += blocks.stores_done.eq(self.stores_done)
        order, next_blocks = blocks.order, (blocks.blocks0, blocks.blocks1)
        taken_turn = Signal(turn_bits)

        # The buffer: beats take turns in its halves, so that two can leave in a cycle -----------------------
        place_bits = (self.buffer - 1).bit_length()
        stores = [memory.Memory(shape=128, depth=self.buffer // 2, init=[], attrs=UNCHECKED) for _ in range(2)]
        writes, reads = [store.write_port() for store in stores], [store.read_port() for store in stores]
        m.submodules.buffer0, m.submodules.buffer1 = stores

        # Requests: each port walks its block; the younger waits until the older is almost requested --------
        remaining = [Signal(rb + 1, name=f"remaining{i}") for i in range(2)]
        # More than none, one, few enough for the younger to go on
        more, one, few = ([Signal(name=f"{name}{i}", init=init) for i in range(2)]
                          for name, init in (("more", 0), ("one", 0), ("few", 1)))
        ages = [Signal(5, name=f"age{i}") for i in range(2)]
        open_ = [Signal(name=f"open{i}") for i in range(2)]                             # room for a place, were one taken just now
        places, move, side = [], Signal(), Signal()
        arrived = []                                                                  # beats before their turn are there
        younger = Signal()                                                            # port 0 is, as of one cycle ago
        m.d.sync += younger.eq((ages[1] - ages[0])[4])
        for i, native in enumerate((self.read0, self.read1)):
            other = 1 - i
            address, turn = Signal(aw, name=f"address{i}"), Signal(turn_bits, name=f"turn{i}")
            # As of before, when the turn was one less at least and more was taken at most
            fits, distance = Signal(name=f"fits{i}"), Signal(turn_bits, name=f"distance{i}")
            first, fire = Signal(name=f"first{i}"), Signal(name=f"fire{i}")
            # Where what is on its way will go: a queue that is never overrun, and that a drop does not empty
            m.submodules[f"places{i}"] = place = Queue(place_bits, depth=self.depth)
            places.append(place.output)
            next_block, b = next_blocks[i], next_blocks[i].payload
            m.d.comb += [
                first.eq(few[other] | (younger if i else ~younger)), distance.eq(turn - taken_turn),
                native.cmd_valid.eq(more[i] & open_[i] & fits & first), native.cmd_addr.eq(address),
                fire.eq(native.cmd_valid & native.cmd_ready),
                place.write.eq(fire), place.data.eq(turn), place.output.ready.eq(native.rdata_valid),
                next_block.ready.eq(~more[i] | (fire & one[i])),
            ]
            m.d.sync += [fits.eq((distance < self.buffer - 1) & ~next_block.ready), open_[i].eq(place.level < self.depth - 1)]
            arrived.append(counter(f"arrived{i}", place_bits + 1, native.rdata_valid, move & (side == i)))
            with m.If(fire):
                m.d.sync += [remaining[i].eq(remaining[i] - 1), address.eq(address + 1), turn.eq(turn + 1),
                             more[i].eq(~one[i]), one[i].eq(remaining[i] == 2), few[i].eq(remaining[i] <= self.ahead + 1)]
            with m.If(next_block.ready & next_block.valid):
                m.d.sync += [remaining[i].eq(b.count), address.eq(b.base), ages[i].eq(b.age), turn.eq(b.turn),
                             more[i].eq(1), one[i].eq(b.count == 1), few[i].eq(b.count <= self.ahead)]
            with m.If(drop):
                m.d.sync += [more[i].eq(0), one[i].eq(0), few[i].eq(1), ages[i].eq(0)]
        arriving = Mux(self.read1.rdata_valid, places[1].payload, places[0].payload)
        # Written a cycle later: it is read three cycles after it came at the earliest
        place, beat = delay(m, arriving, 1, "place"), delay(m, self.read0.rdata_data, 1, "beat")
        arrives = delay(m, self.read0.rdata_valid | self.read1.rdata_valid, 1, "arrives", valid=True)
        for i, w in enumerate(writes):
            m.d.comb += [w.addr.eq(place[1:]), w.data.eq(beat), w.en.eq(arrives & (place[0] == i))]

        # Beats in order: one a cycle is let out of the buffer ------------------------------------------------
        taking, some, final, into = Signal(rb + 1), Signal(), Signal(), Signal()
        m.d.comb += [
            move.eq(some & Mux(side, arrived[1], arrived[0])),
            order.ready.eq(~some | (move & final)),
        ]
        with m.If(move):
            m.d.sync += [taking.eq(taking - 1), some.eq(~final), final.eq(taking == 2)]
        with m.If(order.ready & order.valid):
            m.d.sync += [taking.eq(order.payload.count), side.eq(order.payload.port), some.eq(1), final.eq(order.payload.count == 1)]
        first, taken = Signal(), Signal()
        held = []
        for i, r in enumerate(reads):
            get, issue, leaves = Signal(place_bits - 1, name=f"get{i}"), Signal(name=f"issue{i}"), Signal(name=f"leaves{i}")
            waiting = counter(f"waiting{i}", place_bits, move & (into == i), issue)
            # Block RAM is slow to answer, and who takes the beats is far away: all that depends on him are a few pointers
            m.submodules[f"out{i}"] = out = ResetInserter(drop)(Queue(128, depth=OUT))
            room, some_room = credits(m, OUT, issue, delay(m, leaves, 1, f"left{i}", valid=True))
            held.append((out.output.valid, out.output.payload))
            m.d.comb += [
                r.addr.eq(get), issue.eq(waiting & some_room & ~drop),
                out.data.eq(delay(m, r.data, 1, f"loaded{i}")), out.write.eq(delay(m, issue, 2, f"read{i}", valid=True)),
                leaves.eq(taken & ((first == i) | self.beats.both)), out.output.ready.eq(leaves),
            ]
            with m.If(issue):
                m.d.sync += get.eq(get + 1)
            with m.If(drop):
                m.d.sync += [get.eq(0), room.eq(OUT), some_room.eq(1)]
        (valid0, beat0), (valid1, beat1) = held
        m.d.comb += [
            self.beats.valid.eq(Mux(self.beats.both, valid0 & valid1, Mux(first, valid1, valid0))),
            self.beats.payload.eq(Mux(first, beat1, beat0)), self.beats.second.eq(Mux(first, beat0, beat1)),
            taken.eq(self.beats.valid & self.beats.ready),
        ]
        m.d.sync += into.eq(into ^ move)
        # Told the requests a cycle later, as they are far away
        m.d.sync += first.eq(first ^ (taken & ~self.beats.both))
        was_taken, two_taken = delay(m, taken, 1, "was_taken", valid=True), delay(m, self.beats.both, 1, "two_taken")
        with m.If(was_taken):
            m.d.sync += taken_turn.eq((Cat(1, taken_turn) + Cat(1, two_taken))[1:])
        with m.If(drop):
            m.d.sync += [some.eq(0), into.eq(0), taken_turn.eq(0), first.eq(0)]
        flying = places[0].valid | places[1].valid
        m.d.sync += self.aborting.eq(self.abort | (self.aborting & flying))
        m.d.comb += [self.reading.eq(blocks.reading | blocks.blocks0.valid | blocks.blocks1.valid | more[0] | more[1]),
                     self.busy.eq(blocks.busy | flying | (blocks.turn != taken_turn))]
        return m
