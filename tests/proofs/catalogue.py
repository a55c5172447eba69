"""What is proved: for each unit, which properties, in which size. `make prove` also refutes the unit's mutants."""
from collections.abc import Callable
from dataclasses import dataclass, field

from amaranth.hdl import Elaboratable

from accel.control.command_queue import CommandQueue
from accel.lib.numeric import credits
from accel.attention.splitter import Waiting
from accel.lib.stream import HalfRate, Queue, Skid, Stage
from bench.mutation import with_constants
from tests.proofs.commands import CommandQueueProof
from tests.proofs.queues import Credited, WaitingProof
from tests.proofs.streams import WIDTH, StreamProof

STREAM  = "keeps order, loses and invents nothing, holds an offer until it is taken, goes on; busy while it holds " \
          "something"
COUNTED = "as above, with the places that credits counts: never more in the queue, on the way and free than there are"
LATE    = "keeps order and loses nothing if no more than {} entries follow after there was no more room"
COMMANDS = "a FIFO at both readers; free and overflow are true; nothing is executed that was not looked at; both " \
           "readers go on"


@dataclass
class Proof:
    """One property of one unit.

    Attributes
    ----------
    unit : type or function
        What is proved, and mutated.
    make : callable
        From the unit, or a mutant of it, the module with the assertions.
    constants : dict
        Of the unit's module, for a size that a search can cover.
    equivalent : tuple of str
        Mutants, by :attr:`bench.mutation.Mutant.change`, that do the same: read by a person. Each names one mutant of
        the unit.
    """
    name: str
    unit: type
    properties: str
    make: Callable[[type], Elaboratable]
    constants: dict = field(default_factory=dict)
    equivalent: tuple[str, ...] = ()

    def top(self) -> Elaboratable:
        return self.make(with_constants(self.unit, **self.constants))


PROOFS = (
    Proof("Stage", Stage, STREAM, lambda unit: StreamProof(unit(WIDTH), places=1)),
    Proof("Skid", Skid, STREAM, lambda unit: StreamProof(unit(WIDTH), places=2)),
    Proof("HalfRate", HalfRate, STREAM, lambda unit: StreamProof(unit(WIDTH), places=1)),
    *(Proof(f"Queue of {depth}", Queue, COUNTED,
            lambda unit, depth=depth: StreamProof(Credited(unit, credits, depth=depth, cycles=3, width=WIDTH),
                                                  places=depth, wait_cycles=3),
            # Of one bit, a pointer that counts down is one that counts up; the queue of 4 tells them apart.
            equivalent=("newest + 1 -> newest - 1", "oldest + 1 -> oldest - 1") if depth == 2 else ())
      for depth in (2, 4)),
    Proof("credits", credits, COUNTED,
          lambda unit: StreamProof(Credited(Queue, unit, depth=2, cycles=3, width=WIDTH), places=2, wait_cycles=3)),
    Proof("Waiting", Waiting, LATE.format("ON_THEIR_WAY - 1"),
          lambda unit: WaitingProof(unit(WIDTH, limit=2), places=5, late=1),
          constants={"ON_THEIR_WAY": 2},
          # twice the memory it needs
          equivalent=("self.limit + ON_THEIR_WAY - 1 -> self.limit + ON_THEIR_WAY + 1",)),
    Proof("CommandQueue", CommandQueue, COMMANDS, lambda unit: CommandQueueProof(unit(), depth=1),
          constants={"QUEUE_DEPTH": 1},
          # Of one bit, a counter that goes down is one that goes up.
          equivalent=("newest + kept -> newest - kept", "free - kept + freed -> free - kept - freed",
                      "free - kept -> free + kept", "seen + 1 -> seen - 1",
                      "oldest + execute -> oldest - execute")),
)
