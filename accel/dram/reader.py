"""Sequential DRAM reads at the pin rate: two ports take alternate DRAM rows, their beats leave in order, buffered.

A LiteDRAM port stays on one bank until all it queued there was read. So even rows go through one port and odd rows
through the other, which starts on its row while the first still has ``ahead`` words to request: activates overlap.
"""
from types import SimpleNamespace

from amaranth.hdl import Cat, Module, Mux, ResetInserter, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.dram.blocks import Blocks
from accel.interfaces import Beats, Segment
from accel.lib.numeric import UNCHECKED, credits, delay
from accel.dram.ports import NativeRead
from accel.lib.pipeline import Pipeline
from accel.lib.stream import Queue


OUT = 8             # beats of each half of the buffer that are on their way out of it, five cycles long, or wait


class SegmentReader(wiring.Component):
    """Reads segments, ahead of their use as far as the buffer has room; no arithmetic. Beats are held until they are
    taken.

    Members
    -------
    segments, stores_done : In(stream of Segment), In(8)
        See :class:`accel.interfaces.Segment`.
    beats : Out(Beats(2))
        In order, up to ``buffer`` of them ahead of their use; held until taken.
    reading : Out(1)
        Beats are yet to be asked for.
    read0, read1 : Out(NativeRead)
        A DRAM has one data bus: at most one of their ``rdata_valid`` at a time, with ``read0.rdata_data``.
    abort : In(1)
        Drop everything; ``aborting`` until the outstanding reads have come back.
    busy : Out(1)
        A segment waits or beats of one are yet to leave.
    aborting : Out(1)
        Reads are outstanding that an abort has dropped.
    """
    latency = None      #: varies
    budget_lut = 866

    def __init__(self, *, addr_width=24, row_bits=7, depth=32, ahead=16, buffer=512):
        self.addr_width, self.row_bits, self.depth, self.ahead, self.buffer = addr_width, row_bits, depth, ahead, buffer
        super().__init__({
            "segments": In(stream.Signature(Segment(addr_width))), "beats": Out(Beats(2)),
            "stores_done": In(8), "busy": Out(1), "reading": Out(1), "abort": In(1), "aborting": Out(1),
            "read0": Out(NativeRead(addr_width, 128)), "read1": Out(NativeRead(addr_width, 128)),
        })

    def elaborate(self, platform):
        m = Module()
        s = SimpleNamespace()               # signals that several steps share
        self._blocks(m, s)
        self._buffer(m, s)
        self._requests(m, s)
        self._arrivals(m, s)
        self._order(m, s)
        self._leave(m, s)
        self._beats(m, s)
        return m

    def _blocks(self, m, s):
        """Segments in blocks."""
        s.rb, s.aw = self.row_bits, self.addr_width
        s.drop = Signal()
        m.d.comb += s.drop.eq(self.abort | self.aborting)

        def counter(name, bits, up, down):
            """Whether there are more than 0: a register."""
            count, some = Signal(bits, name=name), Signal(name=f"{name}_some")
            with m.If(up ^ down):
                m.d.sync += [count.eq(count + Mux(up, 1, -1)), some.eq(up | (count != 1))]
            with m.If(s.drop):
                m.d.sync += [count.eq(0), some.eq(0)]
            return some

        # A beat's turn, modulo more than can be on its way: what the buffer holds, and a block in each of ten places
        s.turn_bits = (self.buffer + (10 << s.rb)).bit_length()
        s.blocks = Blocks(addr_width=s.aw, row_bits=s.rb, turn_bits=s.turn_bits)
        m.submodules.blocks = ResetInserter(s.drop)(s.blocks)
        wiring.connect(m, wiring.flipped(self.segments), s.blocks.segments)
        m.d.comb += s.blocks.stores_done.eq(self.stores_done)
        s.order, s.next_blocks = s.blocks.order, (s.blocks.blocks0, s.blocks.blocks1)
        s.taken_turn = Signal(s.turn_bits)
        s.counter = counter

    def _buffer(self, m, s):
        """The memories, and the state of both requests."""
        # The buffer: beats take turns in its halves, so that two can leave in a cycle
        s.place_bits = (self.buffer - 1).bit_length()
        stores = [memory.Memory(shape=128, depth=self.buffer // 2, init=[], attrs=UNCHECKED) for _ in range(2)]
        s.writes, s.reads = [store.write_port() for store in stores], [store.read_port() for store in stores]
        m.submodules.buffer0, m.submodules.buffer1 = stores

        # Requests: each port walks its block; the younger waits until the older is almost requested
        s.remaining = [Signal(s.rb + 1, name=f"remaining{i}") for i in range(2)]
        # More than none, one, few enough for the younger to go on
        s.more, s.one, s.few = ([Signal(name=f"{name}{i}", init=init) for i in range(2)]
                          for name, init in (("more", 0), ("one", 0), ("few", 1)))
        s.ages = [Signal(5, name=f"age{i}") for i in range(2)]
        # room for a place, were one taken just now
        s.open_ = [Signal(name=f"open{i}") for i in range(2)]
        s.places = []
        s.move = Signal()
        s.side = Signal()
        # beats before their turn are there
        s.arrived = []
        s.younger = Signal()                                                            # port 0 is, as of one cycle ago
        m.d.sync += s.younger.eq((s.ages[1] - s.ages[0])[4])

    def _requests(self, m, s):
        """Each port walks its block."""
        for i, native in enumerate((self.read0, self.read1)):
            other = 1 - i
            address, turn = Signal(s.aw, name=f"address{i}"), Signal(s.turn_bits, name=f"turn{i}")
            # As of before, when the turn was one less at least and more was taken at most
            fits, distance = Signal(name=f"fits{i}"), Signal(s.turn_bits, name=f"distance{i}")
            s.first, fire = Signal(name=f"first{i}"), Signal(name=f"fire{i}")
            # Where what is on its way will go: a queue that is never overrun, and that a drop does not empty
            m.submodules[f"places{i}"] = s.place = Queue(s.place_bits, depth=self.depth)
            s.places.append(s.place.output)
            next_block, b = s.next_blocks[i], s.next_blocks[i].payload
            m.d.comb += [
                s.first.eq(s.few[other] | (s.younger if i else ~s.younger)), distance.eq(turn - s.taken_turn),
                native.cmd_valid.eq(s.more[i] & s.open_[i] & fits & s.first), native.cmd_addr.eq(address),
                fire.eq(native.cmd_valid & native.cmd_ready),
                s.place.write.eq(fire), s.place.data.eq(turn), s.place.output.ready.eq(native.rdata_valid),
                next_block.ready.eq(~s.more[i] | (fire & s.one[i])),
            ]
            m.d.sync += [fits.eq((distance < self.buffer - 1) & ~next_block.ready),
                         s.open_[i].eq(s.place.level < self.depth - 1)]
            s.arrived.append(s.counter(f"arrived{i}", s.place_bits + 1, native.rdata_valid, s.move & (s.side == i)))
            with m.If(fire):
                m.d.sync += [s.remaining[i].eq(s.remaining[i] - 1), address.eq(address + 1), turn.eq(turn + 1),
                             s.more[i].eq(~s.one[i]), s.one[i].eq(s.remaining[i] == 2),
                             s.few[i].eq(s.remaining[i] <= self.ahead + 1)]
            with m.If(next_block.ready & next_block.valid):
                m.d.sync += [s.remaining[i].eq(b.count), address.eq(b.base), s.ages[i].eq(b.age), turn.eq(b.turn),
                             s.more[i].eq(1), s.one[i].eq(b.count == 1), s.few[i].eq(b.count <= self.ahead)]
            with m.If(s.drop):
                m.d.sync += [s.more[i].eq(0), s.one[i].eq(0), s.few[i].eq(1), s.ages[i].eq(0)]

    def _arrivals(self, m, s):
        """Beats into the buffer."""
        arriving = Mux(self.read1.rdata_valid, s.places[1].payload, s.places[0].payload)
        # Written a cycle later: it is read three cycles after it came at the earliest
        s.place, beat = delay(m, arriving, 1, "place"), delay(m, self.read0.rdata_data, 1, "beat")
        arrives = delay(m, self.read0.rdata_valid | self.read1.rdata_valid, 1, "arrives", valid=True)
        for i, w in enumerate(s.writes):
            m.d.comb += [w.addr.eq(s.place[1:]), w.data.eq(beat), w.en.eq(arrives & (s.place[0] == i))]

    def _order(self, m, s):
        """One beat a cycle is let out of the buffer."""
        # Beats in order: one a cycle is let out of the buffer
        taking = Signal(s.rb + 1)
        s.some = Signal()
        final = Signal()
        s.into = Signal()
        m.d.comb += [
            s.move.eq(s.some & Mux(s.side, s.arrived[1], s.arrived[0])),
            s.order.ready.eq(~s.some | (s.move & final)),
        ]
        with m.If(s.move):
            m.d.sync += [taking.eq(taking - 1), s.some.eq(~final), final.eq(taking == 2)]
        with m.If(s.order.ready & s.order.valid):
            m.d.sync += [taking.eq(s.order.payload.count), s.side.eq(s.order.payload.port), s.some.eq(1),
                         final.eq(s.order.payload.count == 1)]

    def _leave(self, m, s):
        """Beats leave the halves of the buffer."""
        s.first = Signal()
        s.taken = Signal()
        s.held = []
        for i, r in enumerate(s.reads):
            get, issue = Signal(s.place_bits - 1, name=f"get{i}"), Signal(name=f"issue{i}")
            leaves = Signal(name=f"leaves{i}")
            waiting = s.counter(f"waiting{i}", s.place_bits, s.move & (s.into == i), issue)
            # Block RAM answers late and the sinks' ready arrives late: only the queue's few pointers depend on both
            m.submodules[f"out{i}"] = out = ResetInserter(s.drop)(Queue(128, depth=OUT))
            room, some_room = credits(m, OUT, issue, delay(m, leaves, 1, f"left{i}", valid=True))
            s.held.append((out.output.valid, out.output.payload))
            m.d.comb += [
                issue.eq(waiting & some_room & ~s.drop),
                leaves.eq(s.taken & ((s.first == i) | self.beats.both)), out.output.ready.eq(leaves),
            ]
            pipe = Pipeline(m)              # from the place of a beat on
            loaded = pipe.later(f"loaded{i}", pipe.read(r, pipe.enter(get)))
            pipe.drive((out.data, loaded),
                       (out.write, pipe.carry(f"read{i}", pipe.enter(issue), valid=True).beside(loaded)))
            with m.If(issue):
                m.d.sync += get.eq(get + 1)
            with m.If(s.drop):
                m.d.sync += [get.eq(0), room.eq(OUT), some_room.eq(1)]

    def _beats(self, m, s):
        """The two halves, in turn or together."""
        (valid0, beat0), (valid1, beat1) = s.held
        m.d.comb += [
            self.beats.valid.eq(Mux(self.beats.both, valid0 & valid1, Mux(s.first, valid1, valid0))),
            self.beats.payload.eq(Mux(s.first, beat1, beat0)), self.beats.second.eq(Mux(s.first, beat0, beat1)),
            s.taken.eq(self.beats.valid & self.beats.ready),
        ]
        m.d.sync += s.into.eq(s.into ^ s.move)
        # Registered: beats taken -> requests' room
        m.d.sync += s.first.eq(s.first ^ (s.taken & ~self.beats.both))
        was_taken, two_taken = delay(m, s.taken, 1, "was_taken", valid=True), delay(m, self.beats.both, 1, "two_taken")
        with m.If(was_taken):
            m.d.sync += s.taken_turn.eq((Cat(1, s.taken_turn) + Cat(1, two_taken))[1:])
        with m.If(s.drop):
            m.d.sync += [s.some.eq(0), s.into.eq(0), s.taken_turn.eq(0), s.first.eq(0)]
        flying = s.places[0].valid | s.places[1].valid
        m.d.sync += self.aborting.eq(self.abort | (self.aborting & flying))
        m.d.comb += [self.reading.eq(s.blocks.reading | s.blocks.blocks0.valid | s.blocks.blocks1.valid | s.more[0]
                                     | s.more[1]),
                     self.busy.eq(s.blocks.busy | flying | (s.blocks.turn != s.taken_turn))]
