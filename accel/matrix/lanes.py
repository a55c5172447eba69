"""A column's sixteen multipliers and their adder trees: a beat's products, summed up, a beat a cycle."""
from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from accel.lib.numeric import delay

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
        low, high, carries = (self._packed if self.multiplier_bits == 25 else self._apart)(m)
        # 4: sums of two; 5: of eight; 6: of all
        low = self._tree(m, low, [], "low")
        if carries:
            high = self._tree(m, [high[0] + carries[0], *high[1:]], carries[1:], "high")
            # |low| <= 16 * 15 * 2**15 < 2**23
            taken = Cat(low[:SPLIT], low[SPLIT:SPLIT + 4] - high[:4])[:SPLIT + 4].as_signed()
            m.d.sync += self.low.eq(Mux(delay(m, self.q4, 5, "q4"), taken, low))
        else:
            high = self._tree(m, high, [], "high")
            m.d.sync += self.low.eq(low)
        m.d.sync += self.high.eq(high)
        return m

    def _products(self, m, codes, zeros, bits, name):
        """Per lane: codes less the zero point, an addition that fits in front of a DSP slice's multiplier, by
        activations."""
        products = []
        attrs = {"keep": "true"} if name else {}        # beside its multiplier: not one register for two
        # each column's own
        minus = Signal(signed(bits), name=f"{name}minus", reset_less=True, attrs={"keep": "true"})
        m.d.sync += minus.eq(zeros)
        for i, code in enumerate(codes):
            code1, operand = (Signal(signed(bits), name=f"{name}{part}{i}", reset_less=True)
                              for part in ("codes", "operand"))
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
        carries = [two[SPLIT] ^ delay(m, parities[2 * i] ^ parities[2 * i + 1], 4, f"parity{i}")
                   for i, two in enumerate(twos)]
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
