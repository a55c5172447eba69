"""The roundings of llama2_spec.numerics in gateware: one name, one rounding."""
from amaranth.hdl import Cat, Const, Mux, Signal, signed

#: Attributes of a memory whose read data is ignored in a cycle that writes the same address: Yosys need not keep the
#: old word.
UNCHECKED = {"no_rw_check": 1}

PRODUCT_LATENCY = 2     #: cycles that :func:`product_of` takes


def floor_shift(m, x, shift, *, name="floored"):
    """``x >> shift`` for signed ``x``; any shift of at least the width gives the sign. Combinational."""
    out = Signal(signed(len(x)), name=name)
    bits = (len(x) - 1).bit_length()
    large = shift[bits:].any() if len(shift) > bits else Const(0, 1)
    m.d.comb += out.eq(Mux(large, x.as_signed() >> (len(x) - 1), x.as_signed() >> shift[:bits]))
    return out


def round_shift(m, x, shift, *, name="rounded"):
    """``x / 2**shift`` to nearest, ties upwards, for signed ``x`` and unsigned ``shift``. Combinational."""
    doubled = Cat(Const(0, 1), x).as_signed()
    wide = floor_shift(m, doubled, shift, name=name + "_doubled")
    out = Signal(signed(len(x) + 1), name=name)
    m.d.comb += out.eq((wide >> 1) + wide[0])
    return out


def saturate(m, x, bits, *, name="saturated"):
    """Clamp signed ``x`` to ``bits``; returns (value, flag). Combinational."""
    out, flag = Signal(signed(bits), name=name), Signal(name=name + "_flag")
    top = x[bits - 1:]
    m.d.comb += [
        flag.eq(top.any() & ~top.all()),
        out.eq(Mux(flag, Cat((~x[-1]).replicate(bits - 1), x[-1]).as_signed(), x[:bits].as_signed())),
    ]
    return out, flag


def coarse_shift(m, x, shift, bits, *, name="coarse"):
    """First half of ``saturate(round_shift(x, shift), bits)``, for signed ``x`` and six bits of ``shift``.
    Combinational.

    A register may hold what it returns; :func:`fine_shift` goes on with it and the lower four bits of ``shift``.
    """
    keep = bits + 17                        # twice the rounded value and its sign, with up to 15 bits to be shifted out
    out = Signal(signed(keep + 1), name=name)
    sign = x[-1]
    doubled = Cat(Const(0, 1), x, sign.replicate(max(keep - len(x), 1)))
    with m.Switch(shift[4:6]):
        for i in range(4):
            moved = Cat(doubled[16 * i:], sign.replicate(16 * i))
            far = (moved[keep - 1:] ^ sign.replicate(len(moved) - keep + 1)).any()
            with m.Case(i):
                m.d.comb += out.eq(Cat(moved[:keep - 1], sign ^ far, sign))     # too far out for any fine shift
    return out


def fine_shift(m, x, shift, bits, *, name="fine"):
    """Second half: ``x`` of :func:`coarse_shift`, shifted by four bits of ``shift``; (value, whether it was
    clamped)."""
    moved = Signal.like(x, name=name + "_moved")
    m.d.comb += moved.eq(x >> shift[:4])
    return round_saturate(m, moved, x[-1], bits, name=name)


def round_saturate(m, moved, sign, bits, *, name="fine"):
    """What is left of :func:`fine_shift` when the shift is done: halve to nearest, clamp; (value, whether it was
    clamped)."""
    near = Signal(signed(bits + 2), name=name + "_near")
    m.d.comb += near.eq((moved[:bits + 2].as_signed() >> 1) + moved[0])
    out, flag = Signal(signed(bits), name=name), Signal(name=name + "_flag")
    top, above = moved[bits + 1:], near[bits - 1:]
    m.d.comb += [
        flag.eq((top.any() & ~top.all()) | (above.any() & ~above.all())),
        out.eq(Mux(flag, Cat((~sign).replicate(bits - 1), sign).as_signed(), near[:bits].as_signed())),
    ]
    return out, flag


def shift_right(m, x, shift, *, name="shifted"):
    """Signed ``x`` shifted right by unsigned ``shift``: by two bits of it after the other, a look-up table of six
    inputs each."""
    x = x.as_signed()
    for at in reversed(range(0, len(shift), 2)):
        moved = Signal(signed(len(x)), name=f"{name}_{at}")
        with m.Switch(shift[at:at + 2]):
            for i in range(1 << len(shift[at:at + 2])):
                with m.Case(i):
                    m.d.comb += moved.eq(x >> (i << at))
        x = moved
    return x


def bit_length(m, x, *, name="bits"):
    """Number of significant bits of unsigned ``x``. Combinational priority encoder."""
    out = Signal(range(len(x) + 1), name=name)
    with m.If(0):
        pass
    for i in reversed(range(len(x))):
        with m.Elif(x[i]):
            m.d.comb += out.eq(i + 1)
    return out


def delay(m, value, n, name, *, valid=False):
    """``value``, ``n`` cycles later; only a ``valid`` is reset. Flip-flops, not look-up tables as shift registers:
    those are scarce."""
    for i in range(n):
        later = Signal.like(value, name=f"{name}_{i}", reset_less=not valid, attrs={"shreg_extract": "no"})
        m.d.sync += later.eq(value)
        value = later
    return value


def credits(m, depth, take, given):
    """How many of ``depth`` places are free, and whether there are any, in a register; one is taken or given back in a
    cycle."""
    room, some = Signal(range(depth + 1), init=depth, name="room"), Signal(init=1, name="some_room")
    with m.If(take ^ given):
        m.d.sync += [room.eq(room + Mux(given, 1, -1)), some.eq(given | (room != 1))]
    return room, some


def product_of(m, a, b, name):
    """``a * b`` for signed ``a`` and ``b`` of at most 18 bits, :data:`PRODUCT_LATENCY` cycles later; each partial
    product in a register.

    ``a`` of up to 35 bits takes two multipliers of 18 x 18; a longer one takes three and an unsigned ``b``, or two of
    25 x 18 (which an ECP5 does not have).
    """
    def unsigned(x):
        return Cat(x, Const(0, 1)).as_signed()
    product = Signal(signed(len(a) + len(b)), name=name, reset_less=True)
    cut = 17 if len(a) <= 35 or not b.shape().signed else 24
    low = Signal(signed(cut + 1 + 18), name=name + "_low", reset_less=True)
    high = Signal(signed(len(a) - cut + 18), name=name + "_high", reset_less=True)
    factor = b if b.shape().signed else unsigned(b)
    m.d.sync += low.eq(unsigned(a[:cut]) * factor)
    if len(a) <= 35 or b.shape().signed:
        # Without the bits that only ``low`` has, the sum fits a DSP slice
        m.d.sync += [high.eq(a[cut:].as_signed() * factor),
                     product.eq(Cat(low[:cut], (high + (low >> cut))[:len(product) - cut]))]
    else:
        middle = Signal(signed(18 + 18), name=name + "_middle", reset_less=True)
        m.d.sync += [middle.eq(unsigned(a[17:34]) * factor), high.eq(a[34:].as_signed() * factor),
                     # low < 2**34: one adder
                     product.eq(Cat(low[:17], (middle + Cat(low[17:34], high).as_signed())[:len(product) - 17]))]
    return product
