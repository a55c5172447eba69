"""The time-shared matrix-vector engine: 16 lanes a column, q8 and q4 on the same multipliers.

Computes :meth:`spec.golden.Matrix.sums` bit for bit for ``columns`` vectors that share one pass over the weights.
"""
from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.numeric import UNCHECKED, delay
from accel.stage import Skid
from spec.numerics import WIDE

LANES = 16
SPLIT = 20          # q4: |(code - zero) * activation| <= 15 * 2**15 < 2**19, so the low row's product has 20 bits
PAIRS = 16          # row pairs in flight or waiting


def sum_layout(columns):
    """A row's sum on its way to the row scaler."""
    return data.StructLayout({"value": signed(WIDE), "column": range(max(columns, 2)), "row": 18, "odd": 1, "last": 1,
                              "dest": 3, "shift": 6})


class Lanes(wiring.Component):
    """Sixteen multipliers and two adder trees: ``low`` of the even (or only) row, ``high`` of the odd row in q4.

    Fully pipelined, ``latency`` cycles. In q4 one product p = (odd row's << 20) + even row's holds both, and so does the
    sum of two, which a DSP slice adds up itself: |even rows'| < 2**20 there, so all but the sign of it stays below bit 20,
    and what reaches bit 20 is known from the parity of the odd rows' products. The upper tree adds ``(p >> 20)`` and one
    where the even rows' are negative, which is the odd rows'; the lower one adds p modulo 2**24, and what the odd rows
    put there is taken off their sum, once. Where multipliers take 18 bits, two of them have the rows apart.

    Parameters
    ----------
    multiplier_bits : int
        What the wider operand of a device's multiplier may have: 25 (Xilinx 7 series) or 18 (Lattice ECP5).
    """
    latency = 6

    def __init__(self, *, multiplier_bits=25):
        if multiplier_bits not in (18, 25):
            raise ValueError(f"Multipliers take 18 or 25 bits, not {multiplier_bits}")
        self.multiplier_bits = multiplier_bits
        super().__init__({"beat": In(128), "q4": In(1), "zeros": In(data.ArrayLayout(4, 2)), "activations": In(256),
                          "low": Out(signed(28)), "high": Out(signed(24))})

    def elaborate(self, platform):
        m = Module()
        low, high, carries = (self._packed if self.multiplier_bits == 25 else self._apart)(m)
        # 4: sums of two; 5: of eight; 6: of all
        low = self._tree(m, low, [], "low")
        if carries:
            high = self._tree(m, [high[0] + carries[0], *high[1:]], carries[1:], "high")
            taken = Cat(low[:SPLIT], low[SPLIT:SPLIT + 4] - high[:4])[:SPLIT + 4].as_signed()   # |low| <= 16 * 15 * 2**15 < 2**23
            m.d.sync += self.low.eq(Mux(delay(m, self.q4, 5, "q4"), taken, low))
        else:
            high = self._tree(m, high, [], "high")
            m.d.sync += self.low.eq(low)
        m.d.sync += self.high.eq(high)
        return m

    def _products(self, m, codes, zeros, bits, name):
        """Per lane: codes less the zero point, an addition that fits in front of a DSP slice's multiplier, by activations."""
        products = []
        attrs = {"keep": "true"} if name else {}        # beside its multiplier: not one register for two
        minus = Signal(signed(bits), name=f"{name}minus", reset_less=True, attrs={"keep": "true"})    # each column's own
        m.d.sync += minus.eq(zeros)
        for i, code in enumerate(codes):
            code1, operand = (Signal(signed(bits), name=f"{name}{part}{i}", reset_less=True) for part in ("codes", "operand"))
            x = Signal(signed(16), name=f"x{i}", reset_less=True)
            x1 = Signal(signed(16), name=f"{name}x1_{i}", reset_less=True, attrs=attrs)
            product = Signal(signed(bits + 16), name=f"{name}product{i}", reset_less=True)
            m.d.sync += [
                code1.eq(code), x.eq(self.activations[16 * i:16 * i + 16]),
                operand.eq(code1 + minus), x1.eq(x),
                product.eq(operand * x1),
            ]
            products.append(product)
        return products

    def _twos(self, m, products, name):
        for i in range(0, LANES, 2):
            two = Signal(signed(len(products[i]) + 1), name=f"{name}two{i}", reset_less=True)
            m.d.sync += two.eq(products[i + 1] + products[i])
            yield two

    def _packed(self, m):
        """Sums of two of the low and of the high rows, and what to add to the latter."""
        codes, parities = [], []
        for i in range(LANES):
            byte = self.beat[8 * i:8 * i + 8]
            pair = Cat(byte[:4], Const(0, SPLIT - 4), byte[4:], Const(0, 1)).as_signed()
            codes.append(Mux(self.q4, pair, byte.as_signed()))
            parities.append((byte[4] ^ self.zeros[1][0]) & self.activations[16 * i])
        zeros = Mux(self.q4, -Cat(self.zeros[0], Const(0, SPLIT - 4), self.zeros[1]), 0)
        twos = list(self._twos(m, self._products(m, codes, zeros, 25, ""), ""))
        carries = [two[SPLIT] ^ delay(m, parities[2 * i] ^ parities[2 * i + 1], 4, f"parity{i}") for i, two in enumerate(twos)]
        return [two[:SPLIT + 5].as_signed() for two in twos], [two[SPLIT:].as_signed() for two in twos], carries

    def _apart(self, m):
        """Sums of two of the low and of the high rows, exact."""
        lows, highs = [], []
        for i in range(LANES):
            byte = self.beat[8 * i:8 * i + 8]
            lows.append(Mux(self.q4, byte[:4], byte.as_signed()))
            highs.append(byte[4:])
        low = self._products(m, lows, Mux(self.q4, -self.zeros[0], 0), 8, "low_")
        high = self._products(m, highs, -self.zeros[1], 5, "high_")
        return list(self._twos(m, low, "low_")), list(self._twos(m, high, "high_")), []

    def _tree(self, m, terms, carries, name):
        """Sum of eight signed terms and of as many carries as there are adders, a cycle later."""
        while len(terms) > 1:
            sums, registered = [], len(terms) == 4
            domain = m.d.sync if registered else m.d.comb
            for a, b in zip(terms[::2], terms[1::2]):
                total = Signal(signed(len(a) + 1), name=f"{name}_{len(terms)}_{len(sums)}", reset_less=True)
                # a + b + carry in one adder a bit longer
                value = (Cat(1, a).as_signed() + Cat(carries.pop(), b).as_signed()) >> 1 if carries else a + b
                domain += total.eq(value)
                sums.append(total)
            if registered:
                carries = [delay(m, c, 1, f"{name}_carry_{len(terms)}_{i}") for i, c in enumerate(carries)]
            terms = sums
        return terms[0]


class MatVec(wiring.Component):
    """One matrix times ``columns`` vectors.

    Parameters
    ----------
    columns : int
        Vectors that share the pass.
    max_groups : int
        Scale groups of the longest row.
    multiplier_bits : int
        As of :class:`Lanes`.

    Members
    -------
    start : In
        Begin with the configuration that has been there since the cycle before; only while ``ready``.
    ready : Out
        All beats of the last matrix were taken.
    busy : Out
        A sum is still on its way.
    beats : In(stream)
        The packed tensor, see spec.packing.
    second, both : In, Out
        The beat after ``beats``; whether it is taken, too, and ``beats`` so are valid only with it.
    gang : In
        One position only: columns 0 and 1 work on it together, two beats a cycle. Column 1's activations are a copy.
    address, odd_word : Out
        Activation word to read, by column 1 the odd one of its chunk with ``odd_word``; ``activations`` (columns x 16 x int16) follow one cycle later,
        ``offsets`` (right shift of its chunk, one a column) three.
    sums : Out(stream)
        For each row pair, for each active column from ``first`` on: even row, odd row.
    """
    def __init__(self, *, columns, max_groups, multiplier_bits=25):
        self.columns, self.max_groups, self.multiplier_bits = columns, max_groups, multiplier_bits
        super().__init__({
            "start": In(1), "ready": Out(1), "busy": Out(1), "abort": In(1),
            "q4": In(1), "group64": In(1), "words": In(12), "rows": In(18), "dest": In(3),
            "first": In(range(max(columns, 2))), "count": In(range(columns + 1)),
            "shifts": In(data.ArrayLayout(6, columns)),
            "beats": In(stream.Signature(128)), "second": In(128), "both": Out(1), "gang": In(1),
            "address": Out(12), "odd_word": Out(1), "activations": In(256 * columns), "offsets": In(data.ArrayLayout(6, columns)),
            "sums": Out(stream.Signature(sum_layout(columns))),
            "starved": Out(1), "stalled": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        C = self.columns

        # Front end: one beat a cycle, or two, while there is room for the row pair's sums -----------------
        # Whether the next beat may be taken is in a register: what hangs on it reaches far
        gang = Signal()
        q4, group64, steps = Signal(), Signal(), Signal(12)       # ``steps``: of a row, its words one by one or together
        # What is the same for all sums of a matrix, of the one that is read and of the one whose sums leave
        constants = data.StructLayout({"dest": 3, "first": range(max(C, 2)), "last": range(max(C, 2)), "gang": 1, "rows": 18,
                                       "shifts": data.ArrayLayout(6, C)})
        reading, leaving = Signal(constants), Signal(constants)
        waiting, drained = Signal(), Signal(init=1)     # until the sums of the matrix before have left
        left = Signal(18)                   # rows not yet begun
        last_group, group, ending = Signal(12), Signal(12), Signal()    # ``ending``: at the last group
        to_come = Signal(12)                # steps of the row, this one included; its and ``left``'s comparisons are registers
        last_word, two, final_pair = Signal(), Signal(), Signal()
        one_step, two_steps, single = Signal(), Signal(), Signal()      # a whole row has; its last step has one word
        word, pair, odd = Signal(12), Signal(2), Signal()
        room, none = Signal(range(PAIRS + 1), init=PAIRS), Signal()
        wide, full = Signal(), Signal()
        active, begin, scaling = Signal(), Signal(), Signal()
        # Of the next cycle: if no beat is taken, and if one is
        goes_on, begins, begins_then, waits, next_last = Signal(), Signal(), Signal(), Signal(), Signal()
        chunk_last, take = Signal(), Signal()
        advance, row_ends, ends = Signal(), Signal(), Signal()      # with this beat the word, the row, the superblock is done
        scale_memory = memory.Memory(shape=128, depth=1 << (self.max_groups - 1).bit_length(), init=[],
                                     attrs=UNCHECKED)
        m.submodules.scales = scale_memory
        scale_write, scale_read = scale_memory.write_port(), scale_memory.read_port()
        beat1 = delay(m, self.beats.payload, 1, "beat1")
        m.d.comb += [
            scale_write.addr.eq(delay(m, group, 1, "group")), scale_write.data.eq(beat1),
            scale_write.en.eq(delay(m, scaling & self.beats.valid, 1, "scale_valid", valid=True)),
            scale_read.addr.eq(Mux(group64, self.address >> 2, self.address >> 1)),
            # Together, in q8 the columns take the two rows of a word, in q4 the two words of a chunk
            full.eq(~(last_word & single)),
            chunk_last.eq(word[0] | last_word | wide),
            self.odd_word.eq(wide),
            take.eq(active & self.beats.valid), self.beats.ready.eq(scaling | active),
        ]
        # Whether a beat is there comes from far away, and so chooses between what is known in either case
        finished_before, none_then, none_still = Signal(), Signal(), Signal()
        m.d.comb += [
            next_last.eq(Mux(row_ends, one_step, two)),
            # In q4 both rows' chunk sums come at once and leave in two cycles: a chunk of one word waits for one.
            waits.eq(q4 & ~gang & next_last & (word[0] | last_word)),
            ends.eq(row_ends & (final_pair | (pair == 3))), begins.eq(begin), begins_then.eq(row_ends),
            none_then.eq(Mux(begin ^ finished_before, begin & (room == 1), none)), none_still.eq(none & ~finished_before),
        ]
        def two_beats(last):
            return gang & (~q4 | ~(last & single))
        with m.If(take & begin ^ finished_before):
            m.d.sync += room.eq(room + Mux(finished_before, 1, -1))
        with m.If(take):
            m.d.sync += [
                begin.eq(begins_then), none.eq(none_then), active.eq(~ends & ~(advance & waits) & ~(begins_then & none_then)),
                self.both.eq(~ends & two_beats(Mux(advance, next_last, last_word))),
                advance.eq(~advance | q4 | gang), row_ends.eq(Mux(advance, next_last & (q4 | gang), last_word)),
            ]
        with m.Else():
            m.d.sync += [
                begin.eq(begins), none.eq(none_still), active.eq(goes_on & ~(begins & none_still)),
                self.both.eq(goes_on & two_beats(last_word)),
                advance.eq(q4 | gang | odd), row_ends.eq(last_word & (q4 | gang | odd)),
            ]
        together = self.gang & self.q4 if C > 1 else 0
        all_steps, last_at, of_one, of_two, one_group, one_pair = (delay(m, value, 1, name) for value, name in (
            (Mux(together, (self.words + 1) >> 1, self.words)[:12], "all_steps"),
            (Mux(self.group64, (self.words - 1)[:12] >> 2, (self.words - 1)[:12] >> 1), "last_at"),
            (self.words <= Mux(together, 2, 1), "of_one"),
            (Mux(together, (self.words == 3) | (self.words == 4), self.words == 2), "of_two"),
            (self.words <= Mux(self.group64, 4, 2), "one_group"), (self.rows <= 2, "one_pair")))
        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.comb += [self.ready.eq(~waiting), begins.eq(1)]
                with m.If(~waiting):        # as they are when it starts: an enable that comes from here
                    m.d.sync += [
                        q4.eq(self.q4), group64.eq(self.group64), steps.eq(all_steps), left.eq(self.rows),
                        reading.dest.eq(self.dest), reading.first.eq(self.first), reading.last.eq(self.count - 1),
                        reading.rows.eq(self.rows), reading.shifts.eq(self.shifts),
                        last_group.eq(last_at), ending.eq(one_group), group.eq(0), word.eq(0), pair.eq(0), odd.eq(0),
                        to_come.eq(all_steps), last_word.eq(of_one), two.eq(of_two), one_step.eq(of_one), two_steps.eq(of_two),
                        final_pair.eq(one_pair), single.eq(self.words[0]), gang.eq(self.gang if C > 1 else 0), wide.eq(together),
                    ]
                with m.If(self.start & ~waiting):
                    m.d.sync += [waiting.eq(1), scaling.eq(1)]
                    m.next = "SCALES"
            with m.State("SCALES"):
                m.d.comb += self.starved.eq(~self.beats.valid)
                with m.If(self.beats.valid):
                    m.d.sync += [group.eq(group + 1), ending.eq(group + 1 == last_group)]
                    with m.If(ending):
                        m.d.comb += goes_on.eq(1)
                        m.d.sync += [group.eq(0), scaling.eq(0)]
                        m.next = "DATA"
            with m.State("DATA"):
                blocked = begin & none
                m.d.comb += [self.starved.eq(~self.beats.valid & ~blocked), self.stalled.eq(self.beats.valid & blocked), goes_on.eq(1)]
                with m.If(take & ends):
                    with m.If(final_pair):
                        m.next = "IDLE"
                    with m.Else():
                        m.d.sync += [scaling.eq(1), ending.eq(last_group == 0)]
                        m.next = "SCALES"
        with m.If(take & advance):              # only in DATA
            m.d.sync += [word.eq(word + Mux(wide, 2, 1)), to_come.eq(to_come - 1), last_word.eq(next_last), two.eq(to_come == 3)]
        with m.If(take & row_ends):
            m.d.sync += [word.eq(0), to_come.eq(steps), two.eq(two_steps), pair.eq(pair + 1), left.eq(left - 2), final_pair.eq(left <= 4)]
        with m.If(take):
            m.d.sync += odd.eq(~advance)

        # Tags travel beside the data -------------------------------------------------------------------
        def valid_delay(value, n, name):
            for i in range(n):
                value = delay(m, value & ~self.abort, 1, f"{name}_{i}", valid=True)
            return value
        tag = data.StructLayout({"q4": 1, "odd": 1, "chunk_first": 1, "chunk_last": 1, "row_first": 1, "row_last": 1,
                                 "gang": 1, "full": 1})
        now = Signal(tag)
        m.d.comb += [
            now.q4.eq(q4), now.odd.eq(odd), now.chunk_first.eq(~word[0]), now.chunk_last.eq(chunk_last),
            now.row_first.eq(word[1:] == 0), now.row_last.eq(last_word), now.gang.eq(gang), now.full.eq(full),
        ]
        # 0: the word's address, for the memories are far away; 1: they answer; 2: the pair's zero points chosen, 3: its mantissas,
        # of words in registers, for block RAM is slow
        m.d.sync += self.address.eq(word)
        pair2 = delay(m, pair, 3, "pair")
        beat2, second2 = delay(m, beat1, 2, "beat"), delay(m, self.second, 3, "second")
        scale2 = data.View(data.ArrayLayout(data.StructLayout({"mantissa": 12, "zero": 4}), 2), Signal(32, name="scale2"))
        scale_words = delay(m, scale_read.data, 1, "scale_words")
        m.d.comb += scale2.as_value().eq(Array(scale_words[32 * i:32 * i + 32] for i in range(4))[pair2])
        activations2 = delay(m, self.activations, 1, "activations")
        tag2 = delay(m, now, 3, "tag2")
        valid2 = valid_delay(take, 3, "valid2")
        L = Lanes.latency + 1       # the last adds what two columns have of a row
        tag_l, valid_l = delay(m, tag2, L, "tag_l"), valid_delay(valid2, L, "valid_l")
        tag_a = delay(m, tag2, L - 1, "tag_a")
        mantissas_a = delay(m, Cat(scale2[0].mantissa, scale2[1].mantissa), L - 1, "mantissas")
        offsets_a = delay(m, self.offsets, L - 2, "offsets")

        # Chunk sums leave one a cycle: the even row's, then (q4: held for a cycle) the odd row's --------
        even_out, odd_out, holding = Signal(), Signal(), Signal()
        held = Signal()
        m.d.comb += [even_out.eq(valid_l & tag_l.chunk_last & (tag_l.q4 | ~tag_l.odd)),
                     odd_out.eq(valid_l & tag_l.chunk_last & ~tag_l.q4 & tag_l.odd),
                     holding.eq(valid_l & tag_l.chunk_last & tag_l.q4 & ~tag_l.gang)]
        m.d.sync += held.eq(holding & ~self.abort)
        chunk_valid, chunk_odd = Signal(), Signal()
        chunk_tag = Signal(data.StructLayout({"row_first": 1, "row_last": 1, "gang": 1}),
                           reset_less=True)
        m.d.sync += [chunk_valid.eq((even_out | odd_out | held) & ~self.abort), chunk_odd.eq(odd_out | held)]
        with m.If(~held):
            m.d.sync += [getattr(chunk_tag, name).eq(getattr(tag_l, name)) for name, _ in chunk_tag.shape()]
        # Of an offset, a shift to the right, two bits are a shift of the mantissa to the left, less three
        offsets_l, mantissa_l, second_l = (Signal.like(value, name=name, reset_less=True) for value, name in
                                           ((self.offsets, "offsets_l"), (mantissas_a[:12], "mantissa_l"), (mantissas_a[:12], "second_l")))
        with m.If(~holding):
            m.d.sync += offsets_l.eq(offsets_a)
        m.d.sync += [
            mantissa_l.eq(Mux(holding, second_l, Mux(tag_a.odd & ~tag_a.q4, mantissas_a[12:], mantissas_a[:12]))),
            second_l.eq(mantissas_a[12:]),
        ]
        # two products, their sum, shift, accumulate: four stages
        tag_s, odd_s = delay(m, chunk_tag, 3, "tag_s"), delay(m, chunk_odd, 3, "odd_s")
        valid_s = valid_delay(chunk_valid, 3, "valid_s")
        done_valid = valid_delay(valid_s & tag_s.row_last, 1, "done_valid")
        done_tag, done_odd = delay(m, tag_s, 1, "done_tag"), delay(m, odd_s, 1, "done_odd")
        results = []
        every_lanes = [Lanes(multiplier_bits=self.multiplier_bits) for _ in range(C)]
        for c, lanes in enumerate(every_lanes):
            m.submodules[f"lanes{c}"] = lanes
            # In a gang column 0 adds up even rows and column 1 odd rows
            low, high = Signal(signed(28), name=f"low{c}", reset_less=True), Signal(signed(24), name=f"high{c}", reset_less=True)
            m.d.sync += [low.eq(lanes.low), high.eq(lanes.high)]
            if C > 1 and c < 2:
                a, b = every_lanes[:2]
                crossed = tag_a.gang & tag_a.q4
                mine, other = (a.low, b.low) if c == 0 else (Mux(crossed, a.high, b.low), b.high)
                m.d.sync += low.eq(mine + Mux(crossed & tag_a.full, other, 0))
            m.d.comb += [
                lanes.beat.eq(Mux(tag2.gang, second2, beat2) if c == 1 else beat2), lanes.q4.eq(tag2.q4), lanes.zeros[0].eq(scale2[0].zero),
                lanes.zeros[1].eq(scale2[1].zero), lanes.activations.eq(activations2[256 * c:256 * c + 256]),
            ]
            partial = [Signal(signed(28), name=f"partial{c}_{r}") for r in range(2)]    # 32 products of 2**22: 28 bits
            total = [Signal(signed(28), name=f"total{c}_{r}") for r in range(2)]
            m.d.comb += [total[0].eq(low + partial[0]), total[1].eq(partial[1] + Mux(tag_l.q4, high, low))]
            for r, mine in enumerate((tag_l.q4 | ~tag_l.odd, tag_l.q4 | tag_l.odd)):
                with m.If(self.abort | (valid_l & mine & tag_l.chunk_last)):
                    m.d.sync += partial[r].eq(0)
                with m.Elif(valid_l & mine):
                    m.d.sync += partial[r].eq(total[r])
            held_total = Signal(signed(28), name=f"held_total{c}", reset_less=True)
            chunk = Signal(signed(28), name=f"chunk{c}", reset_less=True)
            mantissa = Signal(signed(16), name=f"mantissa{c}", reset_less=True)
            low_part = Signal(signed(18 + 15), name=f"low_part{c}", reset_less=True)
            high_part = Signal(signed(11 + 15), name=f"high_part{c}", reset_less=True)
            product = Signal(signed(28 + 15), name=f"product{c}", reset_less=True)
            shifted = Signal(signed(40), name=f"shifted{c}", reset_less=True)
            coarse = delay(m, offsets_l[c][2:], 3, f"coarse{c}")
            m.d.sync += [
                held_total.eq(total[1]),
                chunk.eq(Mux(held, held_total, Mux(odd_out, total[1], total[0]))),
                mantissa.eq((Mux(tag_l.gang, second_l, mantissa_l) if c == 1 else mantissa_l) << (~offsets_l[c][:2])),
                low_part.eq(Cat(chunk[:17], Const(0, 1)).as_signed() * mantissa), high_part.eq(chunk[17:].as_signed() * mantissa),
                product.eq(low_part + (high_part << 17)),
                shifted.eq(product.as_signed()[3:].as_signed() >> Cat(Const(0, 2), coarse)),
            ]
            sums = [Signal(signed(WIDE), name=f"sum{c}_{r}", reset_less=True) for r in range(2)]
            result = Signal(signed(WIDE), name=f"result{c}", reset_less=True)
            now_sum = Signal(signed(WIDE), name=f"now_sum{c}")
            m.d.comb += now_sum.eq(shifted + Mux(tag_s.row_first, 0, Mux(odd_s, sums[1], sums[0])))
            m.d.sync += result.eq(now_sum)
            for r in range(2):
                with m.If(valid_s & (odd_s == r)):
                    m.d.sync += sums[r].eq(now_sum)
            results.append(result)

        # Row pairs wait in a memory and leave column by column; a gang's columns are its rows -----------------
        kept = data.StructLayout({"sums": data.ArrayLayout(signed(WIDE), C)})
        m.submodules.pairs = pairs = memory.Memory(shape=kept, depth=2 * PAIRS, init=[])
        pair_in, pair_out = pairs.write_port(), pairs.read_port(domain="comb")
        write_pair, read_pair = Signal(range(PAIRS)), Signal(range(PAIRS))
        complete, some = Signal(range(PAIRS + 1)), Signal()         # pairs that are complete; whether there are any
        some_then, leaves = Signal(), Signal()                      # ``leaves``: and they are of the matrix that leaves
        completed, finished = Signal(), Signal()
        column, second, row, rows_left = Signal(range(max(C, 2))), Signal(), Signal(17), Signal(18)
        out_single, out_final = Signal(), Signal()      # of the pair that leaves: has no odd row, is the last
        half, pick, closes = Signal(), Signal.like(column), Signal()        # where the sum that leaves lies; it is its pair's last
        m.d.comb += [
            pair_in.addr.eq(Cat(done_odd, write_pair)), pair_in.en.eq(done_valid),
            *(pair_in.data.sums[c].eq(results[c]) for c in range(C)),
            completed.eq(done_valid & (done_odd | done_tag.gang)), pair_out.addr.eq(Cat(half, read_pair)),
        ]
        m.submodules.out = stage = Skid(sum_layout(C))
        wiring.connect(m, stage.output, wiring.flipped(self.sums))
        leave, out = Signal(), stage.input.payload
        m.d.comb += [
            stage.input.valid.eq(leaves), leave.eq(stage.input.valid & stage.input.ready),
            out.value.eq(pair_out.data.sums[pick]),
            out.shift.eq(leaving.shifts[column]), out.row.eq(Cat(second, row)), out.dest.eq(leaving.dest),
            out.column.eq(column), out.odd.eq(second), out.last.eq(out_final & (second | out_single)),
        ]
        with m.If(completed):
            m.d.sync += write_pair.eq(write_pair + 1)
        with m.If(finished):
            m.d.sync += read_pair.eq(read_pair + 1)
        with m.If(completed ^ finished):
            m.d.sync += complete.eq(complete + Mux(completed, 1, -1))
        more = completed | (complete != 1)
        m.d.comb += some_then.eq(Mux(finished, more, completed | some))
        m.d.sync += [some.eq(some_then), leaves.eq(~drained & Mux(finished, more & ~out_final, completed | some))]
        next_column = Mux(column == leaving.last, leaving.first, column + 1)
        m.d.comb += finished.eq(leave & closes)
        with m.If(leave):
            with m.If(~second & ~out_single):
                m.d.sync += [second.eq(1), half.eq(~leaving.gang), pick.eq(Mux(leaving.gang, 1, column) if C > 1 else 0),
                             closes.eq(column == leaving.last)]
            with m.Else():
                m.d.sync += [second.eq(0), half.eq(0), column.eq(next_column), pick.eq(Mux(leaving.gang, 0, next_column) if C > 1 else 0),
                             closes.eq(Mux(closes, rows_left == 3, out_single) & (next_column == leaving.last))]
        with m.If(finished):
            m.d.sync += [row.eq(row + 1), rows_left.eq(rows_left - 2), out_final.eq(rows_left <= 4), out_single.eq(rows_left == 3)]
            with m.If(out_final):
                m.d.sync += drained.eq(1)
        m.d.sync += finished_before.eq(finished & ~self.abort)
        with m.If(waiting & drained):
            m.d.sync += [leaving.eq(reading), leaving.gang.eq(gang), column.eq(reading.first), row.eq(0), rows_left.eq(reading.rows),
                         pick.eq(Mux(gang, 0, reading.first) if C > 1 else 0), out_final.eq(reading.rows <= 2), out_single.eq(reading.rows == 1),
                         closes.eq((reading.rows == 1) & (reading.first == reading.last)), waiting.eq(0), drained.eq(0), leaves.eq(some_then)]
        with m.If(self.abort):
            m.d.sync += [second.eq(0), room.eq(PAIRS), none.eq(0), half.eq(0), complete.eq(0), some.eq(0), leaves.eq(0), waiting.eq(0), drained.eq(1)]
        m.d.comb += self.busy.eq(~fsm.ongoing("IDLE") | (room != PAIRS) | stage.busy)
        return m
