"""A column's sixteen multipliers and their adder trees: a beat's products, summed up, a beat a cycle."""
from amaranth.hdl import Cat, Const, Module, Mux, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from accel.lib.pipeline import Pipeline

LANES = 16
SPLIT = 20          # q4: |(code - zero) * activation| <= 15 * 2**15 < 2**19, so the low row's product has 20 bits


class Lanes(wiring.Component):
    """Sixteen multipliers and two adder trees: ``low`` of the even (or only) row, ``high`` of the odd row in q4.

    Fully pipelined, ``latency`` cycles. In q4 one product p = (odd row's << 20) + even row's holds both, and so does
    the sum of two, which a DSP slice adds up itself: |even rows'| < 2**20 there, so all but the sign of it stays below
    bit 20, and what reaches bit 20 is known from the parity of the odd rows' products. The upper tree adds ``(p >>
    20)`` and one where the even rows' are negative, which is the odd rows'; the lower one adds p modulo 2**24, and what
    the odd rows put there is taken off their sum, once. Where multipliers take 18 bits, two of them have the rows
    apart.

    Parameters
    ----------
    multiplier_bits : int
        What the wider operand of a device's multiplier may have: 25 (Xilinx 7 series) or 18 (Lattice ECP5).

    Members
    -------
    beat : In(128)
        Sixteen codes, or pairs of codes of two rows in q4.
    q4 : In(1)
        Format of ``beat``.
    zeros : In(array(4, 2))
        Zero points of the even and the odd row, in q4.
    activations : In(256)
        Sixteen elements of signed 16 bits, which come with ``beat``.
    low : Out(signed(28))
        Sum of the even, or only, row's products; ``latency`` cycles later.
    high : Out(signed(24))
        Sum of the odd row's in q4; ``latency`` cycles later.
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
        pipe = Pipeline(m)
        low, high, carries = (self._packed if self.multiplier_bits == 25 else self._apart)(pipe)
        # 4: sums of two; 5: of eight; 6: of all
        low = self._tree(pipe, low, [], "low")
        if carries:
            high = self._tree(pipe, [high[0] + carries[0], *high[1:]], carries[1:], "high")
            # |low| <= 16 * 15 * 2**15 < 2**23
            taken = pipe.combine(lambda low, high: Cat(low[:SPLIT], low[SPLIT:SPLIT + 4] - high[:4])[:SPLIT + 4], low,
                                 high).as_signed()
            low = pipe.combine(Mux, pipe.carry("q4", pipe.enter(self.q4)).beside(low), taken, low)
        else:
            high = self._tree(pipe, high, [], "high")
        low, high = pipe.into(self.low, low), pipe.into(self.high, high)
        assert low.stage == high.stage == self.latency
        return m

    def _products(self, pipe, codes, zeros, bits, name):
        """Per lane: codes less the zero point, an addition that fits in front of a DSP slice's multiplier, by
        activations."""
        products = []
        attrs = {"keep": "true"} if name else {}        # beside its multiplier: not one register for two
        # each column's own
        minus = pipe.register(f"{name}minus", pipe.enter(zeros), signed(bits), attrs={"keep": "true"})
        for i, code in enumerate(codes):
            code1 = pipe.register(f"{name}codes{i}", pipe.enter(code), signed(bits))
            x = pipe.register(f"x{i}", pipe.enter(self.activations[16 * i:16 * i + 16]), signed(16))
            operand = pipe.register(f"{name}operand{i}", code1 + minus, signed(bits))
            x1 = pipe.register(f"{name}x1_{i}", x, attrs=attrs)
            products.append(pipe.register(f"{name}product{i}", operand * x1, signed(bits + 16)))
        return products

    def _twos(self, pipe, products, name):
        for i in range(0, LANES, 2):
            yield pipe.register(f"{name}two{i}", products[i + 1] + products[i], signed(len(products[i]) + 1))

    def _packed(self, pipe):
        """Sums of two of the low and of the high rows, and what to add to the latter."""
        codes, parities = [], []
        for i in range(LANES):
            byte = self.beat[8 * i:8 * i + 8]
            pair = Cat(byte[:4], Const(0, SPLIT - 4), byte[4:], Const(0, 1)).as_signed()
            codes.append(Mux(self.q4, pair, byte.as_signed()))
            parities.append((byte[4] ^ self.zeros[1][0]) & self.activations[16 * i])
        zeros = Mux(self.q4, -Cat(self.zeros[0], Const(0, SPLIT - 4), self.zeros[1]), 0)
        twos = list(self._twos(pipe, self._products(pipe, codes, zeros, 25, ""), ""))
        odd = (pipe.carry(f"parity{i}", pipe.enter(parities[2 * i] ^ parities[2 * i + 1])) for i in range(len(twos)))
        carries = [two[SPLIT] ^ parity.beside(two) for two, parity in zip(twos, odd)]
        return [two[:SPLIT + 5].as_signed() for two in twos], [two[SPLIT:].as_signed() for two in twos], carries

    def _apart(self, pipe):
        """Sums of two of the low and of the high rows, exact."""
        lows, highs = [], []
        for i in range(LANES):
            byte = self.beat[8 * i:8 * i + 8]
            lows.append(Mux(self.q4, byte[:4], byte.as_signed()))
            highs.append(byte[4:])
        low = self._products(pipe, lows, Mux(self.q4, -self.zeros[0], 0), 8, "low_")
        high = self._products(pipe, highs, -self.zeros[1], 5, "high_")
        return list(self._twos(pipe, low, "low_")), list(self._twos(pipe, high, "high_")), []

    def _tree(self, pipe, terms, carries, name):
        """Sum of eight signed terms and of as many carries as there are adders, a cycle later."""
        def add(a, b, carry):       # in one adder a bit longer
            return (Cat(1, a).as_signed() + Cat(carry, b).as_signed()) >> 1
        while len(terms) > 1:
            sums, registered = [], len(terms) == 4
            keep = pipe.register if registered else pipe.named
            for a, b in zip(terms[::2], terms[1::2]):
                value = pipe.combine(add, a, b, carries.pop()) if carries else a + b
                sums.append(keep(f"{name}_{len(terms)}_{len(sums)}", value, signed(len(a) + 1)))
            if registered:
                carries = [pipe.later(f"{name}_carry_{len(terms)}_{i}", c) for i, c in enumerate(carries)]
            terms = sums
        return terms[0]
