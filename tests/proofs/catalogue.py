"""What is proved: for each unit, which properties, in which size. `make prove` also refutes the unit's mutants."""
from accel.attention.splitter import Waiting
from accel.control.command_queue import CommandQueue
from accel.control.window import Window
from accel.dram.blocks import Blocks
from accel.dram.kv_rows import KvRows
from accel.dram.reader import SegmentReader
from accel.lib.numeric import credits
from accel.lib.pipeline import Carried, Pipeline
from accel.lib.stream import HalfRate, Queue, Skid, Stage
from tests.proofs.commands import CommandQueueProof
from tests.proofs.independence import INDEPENDENCE
from tests.proofs.kv_rows import NewestProof, StoreProof
from tests.proofs.pipelines import PipelineProof
from tests.proofs.proof import Proof
from tests.proofs.queues import Credited, WaitingProof
from tests.proofs.reader import BlocksProof, ReaderProof
from tests.proofs.reader_state import ReaderStateProof
from tests.proofs.stations import DOOR_PROOFS
from tests.proofs.streams import WIDTH, StreamProof
from tests.proofs.window import ResultsProof

BITS = f"payloads of {WIDTH} bits"
#: The K/V rows of two columns, of up to six beats each.
KV = dict(columns=2, max_kv_dim=16, max_heads=16, addr_width=4)
KV_SIZE = "2 columns, rows of 3 to 6 beats in every format, 4 bits of address"

STREAM  = "keeps order, loses and invents nothing, holds an offer until it is taken, goes on; busy while it holds " \
          "something"
COUNTED = "as above, with the places that credits counts: never more in the queue, on the way and free than there are"
LATE    = "keeps order and loses nothing if no more than {} entries follow after there was no more room"
COMMANDS = "a FIFO at both readers; free and overflow are true; nothing is executed that was not looked at; both " \
           "readers go on"
PIPES   = "what is combined is of one cycle; what is carried beside a path arrives with it; a valid is reset"
STORES  = "each command's address is the next of its run, its data is there when it is fetched, each beat goes once; " \
          "`stored` once a run, when all of it is gone, and always in the end"
NEWEST  = "attention gets the rows that it asks for, each beat once; each element is what was written last to its " \
          "place; in the end idle"
CUT     = "segments cut at the ends of DRAM rows, in order, none before its stores are done; each block once in the " \
          "order and at its port"
BEATS   = "beats in the order of the segments for any latency; never more asked for than the buffer and a port " \
          "hold; busy while a beat is to come; an abort drains, and nothing of before leaves after it; goes on"
SET_BACK = "after an abort as after a reset; the younger block waits until the older is almost requested; what is " \
           "asked for has a place in the buffer; none waits for a place that is free; what both halves hold is offered"
RESULTS = "every result that is taken is read whole, as the oldest, until it is removed; none is shown before all of " \
          "its words are there; an abort drops all"


def _registers_of_a_reader(unit):
    """Of a reader whose buffer is soon full, and whose younger block waits after a beat."""
    return ReaderStateProof(unit(addr_width=4, row_bits=1, depth=4, ahead=1, buffer=4))


PROOFS = (
    Proof("Stage", Stage, STREAM, lambda unit: StreamProof(unit(WIDTH), places=1), size=BITS),
    Proof("Skid", Skid, STREAM, lambda unit: StreamProof(unit(WIDTH), places=2), size=BITS),
    Proof("HalfRate", HalfRate, STREAM, lambda unit: StreamProof(unit(WIDTH), places=1), size=BITS),
    *(Proof(f"Queue of {depth}", Queue, COUNTED,
            lambda unit, depth=depth: StreamProof(Credited(unit, credits, depth=depth, cycles=3, width=WIDTH),
                                                  places=depth, wait_cycles=3),
            size=BITS + ", a pipeline of 3",
            # Of one bit, a pointer that counts down is one that counts up; the queue of 4 tells them apart.
            equivalent=("newest + 1 -> newest - 1", "oldest + 1 -> oldest - 1") if depth == 2 else ())
      for depth in (2, 4)),
    Proof("credits", credits, COUNTED,
          lambda unit: StreamProof(Credited(Queue, unit, depth=2, cycles=3, width=WIDTH), places=2, wait_cycles=3),
          size=BITS + ", a pipeline of 3"),
    Proof("Pipeline", Pipeline, PIPES, PipelineProof, size="four stages"),
    Proof("Carried", Carried, PIPES, lambda unit: PipelineProof(unit.at.__globals__["Pipeline"]),
          size="four stages",
          # registers that nothing asks for
          equivalent=("stage - self.first -> stage + self.first",)),
    Proof("Waiting", Waiting, LATE.format("ON_THEIR_WAY - 1"),
          lambda unit: WaitingProof(unit(WIDTH, limit=2), places=5, late=1),
          constants={"ON_THEIR_WAY": 2}, size=BITS,
          # twice the memory it needs
          equivalent=("self.limit + ON_THEIR_WAY - 1 -> self.limit + ON_THEIR_WAY + 1",)),
    Proof("CommandQueue", CommandQueue, COMMANDS, lambda unit: CommandQueueProof(unit(), depth=1),
          constants={"QUEUE_DEPTH": 1}, size="one command, one bit for a word",
          # Of one bit, a counter that goes down is one that goes up.
          equivalent=("newest + kept -> newest - kept", "free - kept + freed -> free - kept - freed",
                      "free - kept -> free + kept", "seen + 1 -> seen - 1",
                      "oldest + execute -> oldest - execute")),
    Proof("KvRows, store", KvRows, STORES, lambda unit: StoreProof(unit(**KV), slots=2, helped=False),
          helped=lambda unit: StoreProof(unit(**KV), slots=2), size=KV_SIZE,
          # what goes to attention is the next lines' claim
          also=(lambda unit: NewestProof(unit(**KV), slots=2, helped=False, lanes=range(1)),),
          steps=("_read", "_runs", "_walk", "_dram"), sample=16, limit_s=25,
          # of a core of one column; and a core of two as if it were one: no run waits, and the claim holds
          equivalent=("~s.store.storing -> +s.store.storing", "self.columns == 1 -> self.columns != 1")),
    *(Proof(f"KvRows, {name}", KvRows, NEWEST,
            lambda unit, options=options: NewestProof(unit(**KV), slots=2, helped=False, **options),
            helped=lambda unit, options=options: NewestProof(unit(**KV), slots=2, **options), size=KV_SIZE,
            steps=("_memories", "_write", "_read", "_walk"), sample=4, quick=False)
      for name, options in (("elements, lanes 0-3", dict(lanes=range(4))),
                            ("elements, lanes 4-7", dict(lanes=range(4, 8))),
                            ("exponents", dict(lanes=range(16), exponents=True)))),
    Proof("Blocks", Blocks, CUT, lambda unit: BlocksProof(unit(addr_width=4, row_bits=1, turn_bits=4), beats=4),
          size="DRAM rows of 2 beats, segments of up to 4", quick=False, depth=18, sample=8, limit_s=60,
          missing="which blocks the queue of the order holds, against those that wait at the ports"),
    Proof("SegmentReader", SegmentReader, BEATS,
          lambda unit: ReaderProof(unit(addr_width=4, row_bits=1, depth=4, ahead=2, buffer=8), beats=4),
          also=(_registers_of_a_reader,), constants={"OUT": 2},
          size="DRAM rows of 2 beats, segments of up to 4, a buffer of 8, 4 answers a port", quick=False, depth=20,
          sample=8, limit_s=60,
          # a bit more for a place than the buffer has places: no memory sees it
          equivalent=("_buffer: self.buffer - 1 -> self.buffer + 1",),
          missing="the turn of each beat in the buffer, at its port and on its way, against the order"),
    Proof("SegmentReader, registers", SegmentReader, SET_BACK, _registers_of_a_reader,
          constants={"OUT": 2}, size="DRAM rows of 2 beats, a buffer of 4, 4 answers a port", quick=False, limit_s=60,
          only=("~s.younger -> +s.younger", "_requests: self.buffer - 1 -> self.buffer + 1",
                "distance < self.buffer - 1 -> distance <= self.buffer - 1", "some_room.eq(1) -> (dropped)",
                "some_room.eq(1) -> some_room.eq(0)", "room.eq(OUT) -> (dropped)", "get.eq(0) -> (dropped)",
                "s.taken_turn.eq(0) -> (dropped)", "s.first.eq(0) -> (dropped)", "s.into.eq(0) -> (dropped)",
                "s.few[i].eq(1) -> (dropped)", "s.ages[i].eq(0) -> (dropped)")),
    Proof("Window, results", Window, RESULTS, lambda unit: ResultsProof(unit(candidate_sets=2), depth=2),
          constants={"RESULT_DEPTH": 2}, size="2 results, one bit for a word", quick=False, depth=30,
          steps=("_results",), sample=4,
          missing="the words of a result in the memory, against the place of the next"),
    *DOOR_PROOFS,
    INDEPENDENCE,
)
