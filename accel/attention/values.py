"""The value side of attention: weighted sums of V rows, 48 bits each, shifted down when a head's reference rises."""
from types import SimpleNamespace

from amaranth.hdl import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.attention.softmax import WEIGHT, weight_layout
from accel.attention.walker import SHAPE, Walker, word_depth
from accel.attention.dots import ring_depth
from accel.lib.numeric import UNCHECKED
from accel.lib.pipeline import Pipeline
from llama2_spec.numerics import WIDE

#: With 8 lanes a pass shifts by one of these; a larger shift takes several passes over its word. With three of them and
#: zero, a bit of a sum is one look-up table of six inputs with its carry.
STEPS = (0, 1, 4)
#: With more lanes one pass shifts by the sum of one step of each stage, the first where a sum is added to: any shift up
#: to 47, which leaves the sign alone. A look-up table of six inputs for each bit and stage.
STAGES = ((0, 1, 2), (0, 3, 6, 9), (0, 12, 24, 36))


#: For each 6-bit shift, which step of each stage it is: two bits a stage, the first stage's lowest.
DIGITS = [n % 3 | n // 3 % 4 << 2 | n // 12 << 4 for n in (min(n, WIDE - 1) for n in range(64))]


class AttentionValues(wiring.Component):
    """The weighted sums of :func:`llama2_spec.golden.attend`. One (word, query head) per cycle, loaded only when all
    weights of its K/V head are there; nothing behind the load stalls.

    A word rests while its sums are on their way back to memory, for two cycles or, with more than 8 lanes, three:
    between the passes of a large shift, and always where a row has no more words than that of all heads.

    Parameters
    ----------
    lanes : int
        Multipliers: 8, 16, 32, eight for each slot of a word. With more than 8, any shift takes one pass.
    pipes : int
        Weights that come in a cycle.

    Members
    -------
    weight_write, weight_last, weights : In(1), In(1), In(array of weight_layout)
        In order of rows and heads, the last one of its K/V head, which begin together; ``release`` tells that they were
        used.
    values : In(stream of 16 * lanes)
        V words; each is held for as many cycles as query heads share it.
    paired : In(1)
        The second half of the lanes has the second weight, see :class:`~accel.attention.dots.AttentionDots`.
    ending : Out(1)
        All weights were there: the scores have nothing on its way any more. Comes before ``busy`` falls.
    reading, read_word, read_lane : In(1), In(range(words)), In(range(lanes))
        While not ``busy``: ``sum`` of that lane of that word, three cycles later.
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
        Three cycles after ``read_word`` and ``read_lane``, while ``reading``.
    """
    latency = 4         #: from a load to the sums' way back to memory with 8 lanes; otherwise a cycle more

    def __init__(self, *, max_heads, max_dim, lanes=8, pipes=1):
        self.max_heads, self.max_dim, self.lanes, self.pipes = max_heads, max_dim, lanes, pipes
        self.whole = lanes > 8                              # a shift takes one pass
        self.latency = type(self).latency + self.whole
        self.depth = word_depth(lanes, max_heads, max_dim)
        super().__init__({
            "shape": In(SHAPE), "paired": In(1), "start": In(1), "rows": In(17), "busy": Out(1), "ending": Out(1),
            "values": In(stream.Signature(16 * lanes)),
            "weight_write": In(1), "weight_last": In(1), "weights": In(data.ArrayLayout(weight_layout(), pipes)),
            "release": Out(1),
            "reading": In(1), "read_word": In(range(self.depth)), "read_lane": In(range(lanes)),
            "sum": Out(signed(WIDE)),
        })

    def elaborate(self, platform):
        m = Module()
        s = SimpleNamespace()               # signals that several steps share
        self._weights(m, s)
        self._there(m, s)
        self._walk(m, s)
        self._hold(m, s)
        if self.whole:
            self._one_pass(m, s)
        else:
            self._passes(m, s)
        self._operands(m, s)
        self._lanes(m, s)
        self._end(m, s)
        return m

    def _weights(self, m, s):
        """Weights wait in a ring."""
        s.ring = ring_depth(self.max_heads)
        entry = data.StructLayout({"weight": data.ArrayLayout(WEIGHT, self.pipes),
                                   "shift": data.ArrayLayout(6, self.pipes), "several": 1})
        m.submodules.weights = weights = memory.Memory(shape=entry, depth=s.ring, init=[])
        write, read = weights.write_port(), weights.read_port(domain="comb")
        pointer = Signal(range(s.ring))
        s.w_out = read.data
        s.walk = Walker(depth=self.depth, turns=s.ring, endless=True)
        m.submodules.walker = s.walk
        m.d.sync += pointer.eq(pointer + self.weight_write)
        m.d.comb += [write.addr.eq(pointer), write.en.eq(self.weight_write), read.addr.eq(s.walk.turn)]
        for i, weight in enumerate(self.weights):
            m.d.comb += [write.data.weight[i].eq(weight.weight),
                         write.data.shift[i].eq(Array(DIGITS)[weight.shift] if self.whole else weight.shift)]
        if not self.whole:
            m.d.comb += write.data.several.eq(~Cat(self.weights[0].shift == n for n in STEPS).any())

    def _there(self, m, s):
        """Whether all weights of the next K/V head are there, and whether its word may be loaded; a cycle ahead."""
        groups = Signal(range(s.ring))
        there = Signal()
        s.next_there = Signal()
        # ``open_`` is both ``there`` and ``free``.
        s.free = Signal(init=1)
        s.next_free = Signal()
        s.open_ = Signal()
        s.load = Signal()
        used = Signal()
        complete = self.weight_write & self.weight_last
        m.d.comb += [s.load.eq(self.values.valid & s.open_), self.values.ready.eq(s.load & s.walk.last_rep),
                     used.eq(s.load & s.walk.ends),
                     s.next_there.eq(complete | Mux(used, groups > 1, groups != 0))]
        m.d.sync += [self.release.eq(used), groups.eq(groups + complete - used), there.eq(s.next_there),
                     s.free.eq(s.next_free), s.open_.eq(s.next_there & s.next_free)]

    def _walk(self, m, s):
        """The next (word, query head), and how many rows are left."""
        left = Signal(17)
        s.more = Signal()
        s.final_row = Signal()
        m.d.comb += [s.walk.shape.eq(self.shape), s.walk.start.eq(self.start), s.walk.step.eq(s.load)]
        with m.If(s.load & s.walk.ends & s.walk.last_group):
            m.d.sync += [left.eq(left - 1), s.more.eq(~s.final_row), s.final_row.eq(left == 2)]
        with m.If(self.start):
            m.d.sync += [left.eq(self.rows), s.more.eq(1), s.final_row.eq(self.rows == 1)]

    def _hold(self, m, s):
        """What was loaded; whether the next may be loaded."""
        # Words of all heads that make up a row so small that the first comes again before its sums are back
        rest, shape = self.latency - 2, self.shape
        s.small = Signal()
        s.done = Signal()
        s.held = Signal()
        blocking = Signal()
        m.d.sync += s.small.eq(Cat((shape.last_head == h) & (shape.last_word <= rest // (h + 1) - 1)
                                   for h in range(rest)).any())
        s.place = Signal.like(s.walk.address)
        s.word = Signal(16 * self.lanes, reset_less=True)
        s.weight = Signal(data.ArrayLayout(WEIGHT, self.pipes), reset_less=True)
        s.fresh = Signal(reset_less=True)
        s.last_pass = Signal()
        several = s.w_out.several
        s.pipe = Pipeline(m)                # from a word that was loaded on
        rested = s.pipe.later("rested", s.pipe.enter(s.done & blocking & s.small), rest - 1, valid=True).plain
        m.d.comb += s.next_free.eq(Mux(s.load, ~(several | s.small),
                                       s.free | (s.done & blocking & ~s.small) | rested))
        with m.If(s.load):
            m.d.sync += [s.place.eq(s.walk.address), s.word.eq(self.values.payload), s.weight.eq(s.w_out.weight),
                         s.fresh.eq(s.walk.first_row), blocking.eq(several | s.small)]

    def _passes(self, m, s):
        """Passes over the word, until its sums are shifted."""
        # 0: a pass over the word it belongs to
        shift = Signal(6, reset_less=True)
        again1 = Signal()
        again2 = Signal()
        step = Signal(2)
        with m.If(shift >= 4):
            m.d.comb += step.eq(2)
        with m.Elif(shift >= 1):
            m.d.comb += step.eq(1)
        m.d.comb += [s.last_pass.eq(Cat(shift == n for n in STEPS).any()), s.done.eq(s.held & s.last_pass)]
        m.d.sync += [again1.eq(s.held & ~s.last_pass), again2.eq(again1), s.held.eq(s.load | again2)]
        with m.If(s.load):
            m.d.sync += shift.eq(s.w_out.shift[0])
        with m.Elif(s.held):
            m.d.sync += shift.eq(shift - Array(STEPS)[step])
        s.steps, s.working = STEPS, again1 | again2
        s.chosen = [s.pipe.register("chosen", s.pipe.enter(step), reset_less=False)]

    def _one_pass(self, m, s):
        """The only pass over the word: which step each stage takes."""
        m.d.comb += [s.last_pass.eq(1), s.done.eq(s.held)]
        m.d.sync += s.held.eq(s.load)
        codes = Signal(data.ArrayLayout(6, self.pipes), reset_less=True)
        # Nothing shifts what is read at the end
        m.d.sync += [code.eq(Mux(s.load, loaded, 0)) for code, loaded in zip(codes, s.w_out.shift)]
        s.steps, s.working = STAGES[0], 0
        s.chosen = [s.pipe.later(f"code{i}", s.pipe.enter(code)) for i, code in enumerate(codes)]

    def _operands(self, m, s):
        """What the lanes share."""
        # 1: operands, each beside its multiplier; 2: sums read, products; 3: again; with stages, 4: shifted again; then
        # shifted, added and written back
        pipe = s.pipe
        s.address = pipe.register("address", pipe.enter(Mux(self.reading, self.read_word, s.place)), s.place.shape())
        fresh = pipe.register("fresh_word", pipe.enter(s.fresh))
        # 0: nothing was there; otherwise a step, plus one
        s.choices = [pipe.register(f"choice{i}", pipe.combine(Mux, fresh, 0, chosen[:2] + 1), 2, reset_less=False)
                     for i, chosen in enumerate(s.chosen)]
        s.valid = pipe.carry("valid", pipe.enter(s.held), valid=True)
        s.written, s.add = pipe.carry("place", pipe.enter(s.place)), pipe.carry("add", pipe.enter(s.last_pass))
        s.read_lane = pipe.carry("read_lane", pipe.enter(self.read_lane))

    def _lanes(self, m, s):
        """Sums of each slot of a word, and the one that is read."""
        # What is read while it is written belongs to a word that is not passed over
        pipe, olds = s.pipe, []
        for g in range(self.lanes // 8):
            sums = memory.Memory(shape=data.ArrayLayout(signed(WIDE), 8), depth=self.depth, init=[], attrs=UNCHECKED)
            m.submodules[f"sums{g}" if g else "sums"] = sums
            write, stored = sums.write_port(), pipe.read(sums.read_port(), s.address)
            lanes = [self._lane(s, 8 * g + i, stored[i]) for i in range(8)]
            new = lanes[0][0]
            back = pipe.drive((write.addr, s.written.beside(new)), (write.en, s.valid.beside(new)),
                              *((write.data[i], new) for i, (new, _) in enumerate(lanes)))
            assert back == self.latency - 1         # a load is a stage before
            olds.extend(old for _, old in lanes)
        while len(olds) > 1:
            olds = [a | b for a, b in zip(olds[::2], olds[1::2])]
        pipe.drive((self.sum, olds[0]))

    def _lane(self, s, i, stored):
        """Product and shifted sum of lane ``i``: what goes back to memory, and ``stored`` if it is to be read, else
        0."""
        # a copy for this lane: a pass drives all lanes across the die
        pipe, own = s.pipe, {"attrs": {"keep": 1}}
        second = (Mux(self.paired, len(s.chosen) - 1, 0) if i >= self.lanes // 2 else 0) if self.pipes > 1 else 0

        def mine(*each):
            return Array(each)[second]
        v = pipe.register(f"v{i}", pipe.enter(s.word[16 * i:16 * i + 16]), signed(16))
        weight = pipe.register(f"weight{i}", pipe.enter(Array(s.weight)[second]), WEIGHT, **own)
        choice = pipe.register(f"choice{i}", pipe.combine(mine, *s.choices), 2, **own)
        product = pipe.register(f"product{i}", v * pipe.combine(lambda x: Cat(x, 0).as_signed(), weight),
                                signed(WEIGHT + 16))
        addend = pipe.register(f"addend{i}", pipe.combine(Mux, s.add.beside(product), product, 0), signed(WEIGHT + 16))
        mute = pipe.register(f"mute{i}", pipe.combine(lambda lane: self.reading & (lane != i),
                                                      s.read_lane.beside(s.address)))
        if self.whole:
            code = pipe.combine(mine, *(pipe.later(f"code{i}_{n}", code) for n, code in enumerate(s.chosen)))
            stored = pipe.combine(lambda x, by: Array([x >> n for n in STAGES[2]])[by], stored, code[4:6])
            middle = pipe.later(f"middle{i}", code[2:4])
        # of registers that are reset, one is chosen
        old = last = pipe.register(f"old{i}", pipe.combine(Mux, mute, 0, stored), signed(WIDE))
        if self.whole:
            last = pipe.later(f"shifted{i}", pipe.combine(lambda x, by: Array([x >> n for n in STAGES[1]])[by],
                                                          old, middle))
            addend, choice = pipe.later(f"late{i}", addend), pipe.later(f"late_choice{i}", choice)
        shifted = pipe.combine(lambda x, by: Array([0, *(x >> n for n in s.steps)])[by], last, choice)
        return addend + shifted, old

    def _end(self, m, s):
        """When all is done."""
        # A reader comes later than the write of the last sums
        m.d.sync += [self.ending.eq(s.load & s.final_row & s.walk.last_group),
                     self.busy.eq(self.start | s.more | s.held | s.working | s.valid.beside(s.address).plain)]
