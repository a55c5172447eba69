"""The value side of attention: weighted sums of V rows, 48 bits each, shifted down when a head's reference rises."""
from types import SimpleNamespace

from amaranth.hdl import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.lib.numeric import UNCHECKED, delay
from accel.attention.dots import SHAPE, ring_depth
from accel.attention.scores import WEIGHT, weight_layout
from llama2_spec.numerics import WIDE

#: A pass shifts by one of these; a larger shift takes several passes over its slot. With three of them and zero, a bit
#: of a sum is one look-up table of six inputs with its carry.
STEPS = (0, 1, 4)


class AttentionValues(wiring.Component):
    """The weighted sums of :func:`llama2_spec.golden.attend`. One (beat, query head) per cycle, loaded only when all
    weights of its K/V head are there; nothing behind the load stalls.

    A slot rests for two cycles while its sums are on their way back to memory: between the passes of a large shift, and
    always where a row has no more than two slots of all heads.

    Members
    -------
    weight_write, weight_last, weight : In(1), In(1), In(weight_layout)
        In order of rows and heads, the last one of its K/V head, which begin together; ``release`` tells that they were
        used.
    values : In(stream of 128)
        V beats; each is held for as many cycles as query heads share it.
    ending : Out(1)
        All weights were there: the scores have nothing on its way any more. Comes before ``busy`` falls.
    reading, read_slot, read_lane : In(1), In(range(max_dim // 8)), In(3)
        While not ``busy``: ``sum`` of that lane of that slot, three cycles later.
    shape : In(SHAPE)
        What the model's shape means to attention; constant while rows come.
    start : In(1)
        A new set of rows begins; valid with ``rows``.
    rows : In(17)
        How many rows; valid with ``start``.
    busy : Out(1)
        Sums are on their way.
    release : Out(1)
        Pulses when a K/V head's weights were used: as many may follow.
    sum : Out(signed(WIDE))
        Three cycles after ``read_slot`` and ``read_lane``, while ``reading``.
    """
    latency = 4         #: from a load to the sums' way back to memory

    def __init__(self, *, max_heads, max_dim):
        self.max_heads, self.max_dim = max_heads, max_dim
        super().__init__({
            "shape": In(SHAPE), "start": In(1), "rows": In(17), "busy": Out(1), "ending": Out(1),
            "values": In(stream.Signature(128)),
            "weight_write": In(1), "weight_last": In(1), "weight": In(weight_layout()), "release": Out(1),
            "reading": In(1), "read_slot": In(range(max_dim // 8)), "read_lane": In(3), "sum": Out(signed(WIDE)),
        })

    def elaborate(self, platform):
        m = Module()
        s = SimpleNamespace()               # signals that several steps share
        self._memories(m, s)
        self._walk_registers(m, s)
        self._walk(m, s)
        self._pass(m, s)
        self._operands(m, s)
        self._lanes(m, s)
        self._end(m, s)
        return m

    def _memories(self, m, s):
        """Weights and sums."""
        s.shape, s.values = self.shape, self.values
        s.ring = ring_depth(self.max_heads)
        entry = data.StructLayout({**weight_layout().members, "several": 1})
        m.submodules.weights = weights = memory.Memory(shape=entry, depth=s.ring, init=[])
        s.w_in, s.w_out = weights.write_port(), weights.read_port(domain="comb")
        # What is read while it is written belongs to a slot that is not passed over
        m.submodules.sums = sums = memory.Memory(shape=data.ArrayLayout(signed(WIDE), 8), depth=self.max_dim // 8,
                                                 init=[], attrs=UNCHECKED)
        s.s_in, s.s_out = sums.write_port(), sums.read_port()

    def _walk_registers(self, m, s):
        """Where the walk is."""
        # Next (beat, query head): heads fastest, then slots, then K/V heads, as in the scores; what a comparison says
        # is known a cycle ahead, and so is whether all weights of a K/V head are there, and whether a slot may be
        # loaded
        s.pointer, s.base, s.at = (Signal(range(s.ring), name=name) for name in ("pointer", "base", "at"))
        s.slot, s.rep, s.group = Signal(4), Signal(6), Signal(6)
        s.address, s.slot_address = Signal(range(self.max_dim // 8)), Signal(range(self.max_dim // 8), init=1)
        s.left, s.more, s.final_row, s.first_row = Signal(17), Signal(), Signal(), Signal()
        s.last_slot, s.last_rep, s.last_group, s.load, s.used = Signal(), Signal(), Signal(), Signal(), Signal()
        s.one_slot, s.one_rep, s.one_group, s.small, s.stride = Signal(), Signal(), Signal(), Signal(), Signal(5)
        s.next_rep, s.next_slot, s.both = Signal(), Signal(), Signal()        # ``both``: last_rep and last_slot
        s.groups, s.there, s.free, s.open_ = Signal(range(s.ring)), Signal(), Signal(init=1), Signal()
        s.next_there, s.next_free = Signal(), Signal()      # ``open_`` is both ``there`` and ``free``
        m.d.sync += [s.one_slot.eq(s.shape.last_slot == 0), s.one_rep.eq(s.shape.last_rep == 0),
                     s.one_group.eq(s.shape.last_kv_head == 0), s.stride.eq(s.shape.last_slot + 1),
                     s.small.eq((s.shape.last_head == 0) & (s.shape.last_slot <= 1) | (s.shape.last_head == 1)
                                & (s.shape.last_slot == 0))]
        m.d.comb += [
            s.w_in.addr.eq(s.pointer), s.w_in.data.weight.eq(self.weight.weight),
            s.w_in.data.shift.eq(self.weight.shift), s.w_in.en.eq(self.weight_write),
            s.w_in.data.several.eq(~Cat(self.weight.shift == n for n in STEPS).any()), s.w_out.addr.eq(s.at),
            s.load.eq(s.values.valid & s.open_), s.values.ready.eq(s.load & s.last_rep), s.used.eq(s.load & s.both),
            s.next_rep.eq(Mux(s.last_rep, s.one_rep, s.rep + 1 == s.shape.last_rep)),
            s.next_slot.eq(Mux(s.last_rep, Mux(s.last_slot, s.one_slot, s.slot + 1 == s.shape.last_slot), s.last_slot)),
        ]

    def _walk(self, m, s):
        """The next (beat, query head)."""
        complete = self.weight_write & self.weight_last
        m.d.sync += [self.release.eq(s.used), s.pointer.eq(s.pointer + self.weight_write),
                     s.groups.eq(s.groups + complete - s.used),
                     s.there.eq(s.next_there), s.free.eq(s.next_free), s.open_.eq(s.next_there & s.next_free)]
        m.d.comb += s.next_there.eq(complete | Mux(s.used, s.groups > 1, s.groups != 0))
        with m.If(s.load):
            m.d.sync += [s.last_rep.eq(s.next_rep), s.last_slot.eq(s.next_slot), s.both.eq(s.next_rep & s.next_slot),
                         s.rep.eq(s.rep + 1), s.at.eq(s.at + 1), s.address.eq(s.address + s.stride)]
            with m.If(s.last_rep):
                m.d.sync += [s.rep.eq(0), s.at.eq(s.base), s.slot.eq(s.slot + 1), s.address.eq(s.slot_address),
                             s.slot_address.eq(s.slot_address + 1)]
                with m.If(s.both):
                    m.d.sync += [s.slot.eq(0), s.group.eq(s.group + 1), s.address.eq(s.address + 1),
                                 s.slot_address.eq(s.address + 2), s.base.eq(s.at + 1), s.at.eq(s.at + 1),
                                 s.last_group.eq(Mux(s.last_group, s.one_group, s.group + 1 == s.shape.last_kv_head))]
                    with m.If(s.last_group):
                        m.d.sync += [s.group.eq(0), s.address.eq(0), s.slot_address.eq(1), s.first_row.eq(0),
                                     s.left.eq(s.left - 1), s.more.eq(~s.final_row), s.final_row.eq(s.left == 2)]
        with m.If(self.start):
            m.d.sync += [s.first_row.eq(1), s.left.eq(self.rows), s.more.eq(1), s.final_row.eq(self.rows == 1),
                         s.last_rep.eq(s.one_rep), s.last_slot.eq(s.one_slot), s.both.eq(s.one_rep & s.one_slot),
                         s.last_group.eq(s.one_group)]

    def _pass(self, m, s):
        """A pass over the slot."""
        # 0: a pass over the slot it belongs to
        s.place, s.beat = Signal.like(s.address), Signal(128, reset_less=True)
        s.weight, shift, s.fresh = Signal(WEIGHT, reset_less=True), Signal(6, reset_less=True), Signal(reset_less=True)
        s.held, s.again1, s.again2, blocking, rested = Signal(), Signal(), Signal(), Signal(), Signal()
        s.step, s.last_pass, done = Signal(2), Signal(), Signal()
        with m.If(shift >= 4):
            m.d.comb += s.step.eq(2)
        with m.Elif(shift >= 1):
            m.d.comb += s.step.eq(1)
        m.d.comb += [s.last_pass.eq(Cat(shift == n for n in STEPS).any()), done.eq(s.held & s.last_pass & blocking)]
        m.d.sync += [
            s.again1.eq(s.held & ~s.last_pass), s.again2.eq(s.again1), s.held.eq(s.load | s.again2),
            rested.eq(done & s.small),
        ]
        m.d.comb += s.next_free.eq(Mux(s.load, ~(s.w_out.data.several | s.small), s.free | (done & ~s.small) | rested))
        with m.If(s.load):
            m.d.sync += [s.place.eq(s.address), s.beat.eq(s.values.payload), s.weight.eq(s.w_out.data.weight),
                         shift.eq(s.w_out.data.shift), s.fresh.eq(s.first_row),
                         blocking.eq(s.w_out.data.several | s.small)]
        with m.Elif(s.held):
            m.d.sync += shift.eq(shift - Array(STEPS)[s.step])

    def _operands(self, m, s):
        """What the lanes share."""
        # 1: operands, each beside its multiplier; 2: sums read, products; 3: again; then shifted, added and
        # written back
        read_place1, step1 = Signal.like(s.place, reset_less=True), Signal(2, reset_less=True)
        fresh1 = Signal(reset_less=True)
        s.choice2 = Signal(2, reset_less=True)        # 0: nothing was there; otherwise a step, plus one
        s.valid1 = delay(m, s.held, 1, "valid1", valid=True)
        m.d.sync += [read_place1.eq(Mux(self.reading, self.read_slot, s.place)), step1.eq(s.step), fresh1.eq(s.fresh),
                     s.choice2.eq(Mux(fresh1, 0, step1 + 1))]
        m.d.comb += [s.s_out.addr.eq(read_place1), s.s_in.addr.eq(delay(m, s.place, 3, "place")),
                     s.s_in.en.eq(delay(m, s.valid1, 2, "valid3", valid=True))]

    def _lanes(self, m, s):
        """Products, shifted sums, their way back."""
        add2 = delay(m, s.last_pass, 2, "add")
        read_lane1, olds = delay(m, self.read_lane, 1, "read_lane"), []
        for i in range(8):
            # a copy for this lane: a pass drives eight lanes across the die
            own = dict(reset_less=True, attrs={"keep": 1})
            product2 = Signal(signed(WEIGHT + 16), name=f"product{i}", reset_less=True)
            product3 = Signal(signed(WEIGHT + 16), name=f"addend{i}", reset_less=True)
            old3 = Signal(signed(WIDE), name=f"old{i}", reset_less=True)
            v1, weight1 = Signal(signed(16), name=f"v{i}", reset_less=True), Signal(WEIGHT, name=f"weight{i}", **own)
            choice3, mute2 = Signal(2, name=f"choice{i}", **own), Signal(name=f"mute{i}", reset_less=True)
            m.d.sync += [
                v1.eq(s.beat[16 * i:16 * i + 16]), weight1.eq(s.weight), choice3.eq(s.choice2),
                product2.eq(v1 * Cat(weight1, 0).as_signed()),
                product3.eq(Mux(add2, product2, 0)),
                mute2.eq(self.reading & (read_lane1 != i)),
                old3.eq(Mux(mute2, 0, s.s_out.data[i])),      # of registers that are reset, one is chosen
            ]
            olds.append(old3)
            m.d.comb += s.s_in.data[i].eq(product3 + Array([0, *(old3 >> n for n in STEPS)])[choice3])
        while len(olds) > 1:
            olds = [a | b for a, b in zip(olds[::2], olds[1::2])]
        m.d.comb += self.sum.eq(olds[0])

    def _end(self, m, s):
        """When all is done."""
        # A reader comes later than the write of the last sums
        m.d.sync += [self.ending.eq(s.load & s.final_row & s.last_group),
                     self.busy.eq(self.start | s.more | s.held | s.again1 | s.again2 | s.valid1)]
