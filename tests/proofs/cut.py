"""Stations without the parts whose values a claim does not depend on: any values stand for them, so what is proved
holds for the real ones."""
from amaranth.hdl import Assert, Module, Value
from amaranth.lib.wiring import Flow

from accel.lib.pipeline import Pipeline
from accel.lib.stream import Queue
from tests.proofs.inside import opened
from tests.proofs.streams import any_value


def any_of(kind: type) -> type:
    """A component with the ports of ``kind``, each of whose outputs has any value in every cycle."""
    class Any(kind):
        def elaborate(self, platform):
            m = Module()
            for path, member, value in self.signature.flatten(self):
                if member.flow == Flow.Out:
                    whole = Value.cast(value)
                    m.d.comb += whole.eq(any_value(m, len(whole), "any_" + "_".join(map(str, path))))
            return m
    Any.__name__ = kind.__name__
    return Any


class AnyEntries(Queue):
    """A queue to which any data comes; when, its writer says."""
    helped = False      #: what makes a claim of the queue inductive is asserted of its registers

    def elaborate(self, platform):
        m, queue = Module(), Queue(self.shape, depth=self.depth)
        m.submodules.queue, inside = opened(queue)
        m.d.comb += [
            queue.write.eq(self.write), queue.data.eq(any_value(m, len(Value.cast(self.data)), "entry")),
            self.level.eq(queue.level), self.output.valid.eq(queue.output.valid),
            self.output.payload.eq(queue.output.payload), queue.output.ready.eq(self.output.ready),
        ]
        if self.helped:
            q = inside.elaborate
            m.d.comb += [Assert((q.newest - q.oldest - queue.level)[:len(q.newest)] == 0),
                         Assert(q.some == (queue.level != 0)), Assert(queue.level <= self.depth)]
        return m


class HelpedEntries(AnyEntries):
    """As that, with what helps."""
    helped = True


class Recorded(Pipeline):
    """A pipeline that tells what is carried in it, by name."""
    def __init__(self, m):
        super().__init__(m)
        self.carried = {}

    def carry(self, name, value, **options):
        made = self.carried[name] = super().carry(name, value, **options)
        return made


def helped_by(kind: type, helper) -> type:
    """A component as ``kind`` with what ``helper`` adds to its module, of the unit and what is inside of it."""
    class Helped(kind):
        def elaborate(self, platform):
            m, inside = opened(self, kind.elaborate)
            helper(m, self, inside)
            return m
    Helped.__name__ = kind.__name__
    return Helped
