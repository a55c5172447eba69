"""Values that know their stage in a pipeline: combining two of different stages raises, so no delay is counted by hand.

With a count beside each signal, as in ``delay(m, tag, 5, ...)``, one register more in a path makes every count beside
it wrong without a word. Here a path is written once, and what travels beside it asks to be where the path is.
"""
from amaranth.hdl import Signal, Value, ValueCastable

from accel.lib.numeric import PRODUCT_LATENCY, delay, product_of


class StageError(ValueError):
    """Values of different stages were combined."""


class Staged:
    """A value of ``stage`` of ``pipe``: so many cycles after what it was made from entered.

    Operators of :class:`amaranth.hdl.Value` take staged values of the same stage, and anything that belongs to no
    pipeline, which is to be constant while the pipeline holds something. Fields and slices have the stage of the whole.
    ``plain`` is the value itself, for statements.
    """
    def __init__(self, pipe, stage, value):
        self.pipe, self.stage, self.plain = pipe, stage, value

    def __repr__(self):
        return f"(stage {self.stage}: {self.plain!r})"

    def __getattr__(self, name):
        inner = getattr(self.plain, name)
        if callable(inner) and not isinstance(inner, (Value, ValueCastable)):
            return lambda *args: self.pipe.combine(inner, *args, stage=self.stage)
        return Staged(self.pipe, self.stage, inner)

    def __getitem__(self, key):
        return Staged(self.pipe, self.stage, self.plain[key])

    def __len__(self):
        return len(self.plain)

    def __invert__(self):
        return Staged(self.pipe, self.stage, ~self.plain)

    def __neg__(self):
        return Staged(self.pipe, self.stage, -self.plain)


def _operator(name):
    return lambda self, other: self.pipe.combine(getattr(self.plain, name), other, stage=self.stage)


for _name in ("add", "radd", "sub", "rsub", "mul", "rmul", "and", "rand", "or", "ror", "xor", "rxor", "lshift",
              "rshift", "eq", "ne", "lt", "le", "gt", "ge"):
    setattr(Staged, f"__{_name}__", _operator(f"__{_name}__"))


class Carried:
    """A value on its way beside a path; its registers are made when they are asked for, each once."""
    def __init__(self, pipe, name, value, valid, shift_register):
        self.pipe, self.name, self.valid, self.first, self.values = pipe, name, valid, value.stage, [value]
        self.shift_register = shift_register

    def beside(self, other: Staged) -> Staged:
        """The value as of the stage of ``other``; StageError if it is not known by then."""
        return self.at(other.stage)

    def at(self, stage: int) -> Staged:
        """The value as of ``stage``; StageError if it is not known by then."""
        if stage < self.first:
            raise StageError(f"{self.name} is known at stage {self.first}, and needed at stage {stage}")
        while stage - self.first >= len(self.values):
            self.pipe.always(self.name)
            last = self.values[-1]
            name = f"{self.name}_{last.stage + 1}"
            if self.shift_register:
                self.values.append(self.pipe.register(name, last, reset_less=not self.valid))
            else:
                later = delay(self.pipe.m, last.plain, 1, name, valid=self.valid)
                self.values.append(Staged(self.pipe, last.stage + 1, later))
        return self.values[stage - self.first]

    def until(self, other: Staged) -> list:
        """The value as of each stage up to that of ``other``, as signals: what is on its way is in one of them."""
        return [self.at(stage).plain for stage in range(self.first, other.stage + 1)]


class Pipeline:
    """The registers of one pipeline in the module ``m``; it advances in every cycle."""
    def __init__(self, m):
        self.m = m

    def always(self, name):
        """Raises StageError under a condition: registers made there, be it that they are asked for there for the first
        time, would not advance in every cycle."""
        if self.m.d._depth:     # Amaranth has no public name for it
            raise StageError(f"{name} is made under a condition: ask for it before")

    def enter(self, value, stage=0) -> Staged:
        """``value``, which belongs to ``stage``."""
        return Staged(self, stage, value)

    def combine(self, function, *values, latency=0, stage=None) -> Staged:
        """What ``function`` makes of ``values``, which are all of one stage, ``latency`` cycles later.

        Raises StageError if they are not, or not of ``stage`` where one is given. Of several results each is staged.
        """
        staged = [value for value in values if isinstance(value, Staged)]
        if any(value.pipe is not self for value in staged):
            raise StageError(f"values of two pipelines: {staged}")
        stages = {value.stage for value in staged} | ({stage} if stage is not None else set())
        if len(stages) != 1:
            raise StageError(f"values of stages {sorted(stages)} meet: {staged}")
        made = function(*(value.plain if isinstance(value, Staged) else value for value in values))
        at, = stages
        if isinstance(made, tuple):
            return tuple(Staged(self, at + latency, each) for each in made)
        return Staged(self, at + latency, made)

    def drive(self, *pairs) -> int:
        """Statements (target, value) whose values are all of one stage, which it returns."""
        return self.combine(lambda *values: self._drive(pairs, values), *(value for _, value in pairs)).stage

    def _drive(self, pairs, values):
        self.m.d.comb += [target.eq(value) for (target, _), value in zip(pairs, values)]

    def named(self, name, value: Staged, shape=None) -> Staged:
        """``value`` in a signal of ``shape`` (without one, of its own), of the same stage: a name to be seen."""
        shown = Signal(value.plain.shape() if shape is None else shape, name=name)
        return self.enter(shown, self.drive((shown, value)))

    def into(self, kept, value: Staged, *, when=None) -> Staged:
        """``value`` in the register ``kept``, a port or what has other users: a stage later.

        With ``when`` it keeps what it has in the cycles in which ``when`` is 0: a value of the same stage, or one of no
        pipeline. What it has then is of an earlier one that entered, and the caller sees to it that it belongs here.
        """
        self.always(kept.name if isinstance(kept, Signal) else "a register")
        if when is None:
            self.m.d.sync += kept.eq(value.plain)
        else:
            held, = self.combine(lambda _, when: (when,), value, when)
            with self.m.If(held.plain):
                self.m.d.sync += kept.eq(value.plain)
        return Staged(self, value.stage + 1, kept)

    def register(self, name, value: Staged, shape=None, *, when=None, **options) -> Staged:
        """``value`` in a register of ``shape`` (without one, of its own): a stage later. ``when`` is that of
        :meth:`into`, ``options`` are those of a Signal."""
        kept = Signal(value.plain.shape() if shape is None else shape, name=name, **{"reset_less": True, **options})
        return self.into(kept, value, when=when)

    def read(self, port, address: Staged) -> Staged:
        """What a memory's read ``port`` answers: a stage later, or of the same if it is asynchronous."""
        stage = self.drive((port.addr, address))
        return self.enter(port.data, stage + (port.domain != "comb"))

    def write(self, port, address, data, enable):
        """Writes to a memory; all that its ``port`` gets is of one stage."""
        self.drive((port.addr, address), (port.data, data), (port.en, enable))

    def product(self, name, a, b) -> Staged:
        """:func:`accel.lib.numeric.product_of`, as many stages later as it takes; either may belong to no pipeline."""
        return self.combine(lambda a, b: product_of(self.m, a, b, name), a, b, latency=PRODUCT_LATENCY)

    def later(self, name, value: Staged, cycles=1, *, valid=False) -> Staged:
        """``value``, ``cycles`` stages later, in registers of its own shape that no synthesis turns into a shift
        register; with ``valid`` they are reset."""
        return self.carry(name, value, valid=valid).at(value.stage + cycles)

    def carry(self, name, value: Staged, *, valid=False, shift_register=False) -> Carried:
        """``value``, to be asked for at later stages; with ``valid`` its registers are reset, with ``shift_register``
        synthesis may make one of them in look-up tables."""
        return Carried(self, name, value, valid, shift_register)
