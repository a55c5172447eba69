"""What a pipeline combines is of one cycle, and what is carried beside a path arrives with it; a valid is reset."""
from amaranth.hdl import Assert, Elaboratable, Module, Mux, ResetInserter, Signal
from amaranth.lib import memory

from tests.proofs.streams import WIDTH, any_value


class _Paths:
    """A path of three registers, the second of them behind a unit that takes a cycle, with values beside it."""
    def __init__(self, pipeline, value, tag, valid):
        self.pipeline, self.value, self.tag, self.valid = pipeline, value, tag, valid

    def module(self):
        m = Module()
        pipe = self.pipeline(m)
        value, tag = pipe.enter(self.value), pipe.carry("tag", pipe.enter(self.tag))
        valid = pipe.carry("valid", pipe.enter(self.valid), valid=True)
        changed = pipe.register("changed", value + 1, WIDTH)
        unit = Signal(WIDTH, name="unit")
        m.d.sync += unit.eq(changed.plain ^ tag.beside(changed).plain)      # it answers a cycle later
        answer = pipe.combine(lambda x, y: unit, changed, tag.beside(changed), latency=1)
        self.late = pipe.later("late", pipe.combine(Mux, answer == 0, tag.beside(answer), answer), 2)
        self.again, self.ends = tag.beside(self.late), valid.beside(self.late)
        self.first = valid.at(1)
        # known from a stage on that is not the first, and two results at once
        late_tag = pipe.carry("late_tag", changed)
        both = pipe.combine(lambda x, y: (x, y), late_tag.at(1), tag.at(0 + late_tag.first))
        self.changed, self.pair = late_tag.beside(answer), both[1]
        halves = pipe.combine(lambda x: (x[0], unit[0]), changed, latency=1)
        self.half = pipe.later("half", halves[1], 2)
        self.held = pipe.register("held", value, when=pipe.enter(self.valid))
        m.submodules.table = table = memory.Memory(shape=WIDTH, depth=1 << WIDTH,
                                                    init=[i ^ 1 for i in range(1 << WIDTH)])
        self.at_once = pipe.read(table.read_port(domain="comb"), changed)
        self.read = pipe.read(table.read_port(), changed)
        return m


class PipelineProof(Elaboratable):
    """Compares the end of each path with what entered so many cycles before."""
    def __init__(self, pipeline):
        self.pipeline = pipeline

    def elaborate(self, platform):
        m = Module()
        value, tag = any_value(m, WIDTH, "value"), any_value(m, WIDTH, "tag")
        valid, back = any_value(m, 1, "valid"), any_value(m, 1, "back")
        paths = _Paths(self.pipeline, value, tag, valid)
        inner = paths.module()
        m.submodules.paths = ResetInserter(back)(inner)
        ends = (paths.late, paths.again, paths.ends, paths.first, paths.changed, paths.pair, paths.half,
                paths.held, paths.at_once, paths.read)
        assert [one.stage for one in ends] == [4, 4, 4, 1, 2, 1, 4, 1, 1, 2]
        values, tags, valids = [value], [tag], [valid]
        for _ in range(4):
            for line, shape in ((values, WIDTH), (tags, WIDTH)):
                line.append(Signal(shape))
                m.d.sync += line[-1].eq(line[-2])
            valids.append(Signal())
            m.d.sync += valids[-1].eq(valids[-2] & ~back)
        age = Signal(range(6))                                  # cycles since a reset, which a unit's answer suffers
        m.d.sync += age.eq(Mux(back, 0, Mux(age == 5, 5, age + 1)))
        old = Signal(range(5))                                  # registers that are not reset begin with zeros
        m.d.sync += old.eq(Mux(old == 4, 4, old + 1))
        answer, held = Signal(WIDTH), Signal(WIDTH, reset_less=True)     # as the pipeline's
        with m.If(valid):
            m.d.sync += held.eq(value)
        m.d.comb += answer.eq((values[4] + 1)[:WIDTH] ^ tags[4])
        m.d.comb += [
            Assert((age < 4) | (paths.late.plain == Mux(answer == 0, tags[4], answer))),
            Assert((age < 4) | (paths.half.plain == answer[0])),
            Assert((old < 4) | (paths.changed.plain == (values[2] + 1)[:WIDTH])),
            Assert((old < 4) | (paths.pair.plain == tags[1])), Assert((old < 4) | (paths.again.plain == tags[4])),
            Assert(paths.held.plain == held),
            Assert((old < 4) | (paths.at_once.plain == ((values[1] + 1)[:WIDTH] ^ 1))),
            Assert((age < 4) | (paths.read.plain == ((values[2] + 1)[:WIDTH] ^ 1))),
            Assert(paths.ends.plain == valids[4]), Assert(paths.first.plain == valids[1]),
        ]
        return m
