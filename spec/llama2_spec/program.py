"""The schedule of a token: which commands in what order, with destination, phase and fence, and what each streams.

One table, from which come firmware's (``firmware/program.c``), the drivers of the tests, the order of tensors in an
image and the table in docs/registers.md. A step runs ``BEGIN``, then ``LAYER`` for each layer, then, where logits are
wanted, ``END``.
"""
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from llama2_spec.registers import Dest, Opcode, Phase, encode


class Kind(IntEnum):
    """What a directory entry is."""
    GAIN       = 0  #: RMSNorm gains times sqrt(dim), int16, 8 per beat
    WQ         = 1
    WK         = 2
    WV         = 3
    WO         = 4
    W13        = 5  #: rows (gate, up) alternate
    W2         = 6
    CLASSIFIER = 7  #: the embedding too, where they are tied
    EMBEDDING  = 8


class Per(IntEnum):
    """How often a step pushes a command."""
    STEP   = 0
    COLUMN = 1
    RUN    = 2  #: neighbouring columns of one slot


@dataclass(frozen=True)
class Item:
    """One line of the schedule.

    ``tensor`` is what it streams, if anything; ``names`` are that tensor's parts in a checkpoint, for layer {i}.
    ``fence``: it waits for the results of all before it; where it is pushed several times in a step (``per``), only the
    first one waits.
    """
    opcode: Opcode
    phase: Phase
    tensor: Kind | None = None
    dest: Dest | None = None
    fence: bool = False
    per: Per = Per.STEP
    names: tuple[str, ...] = ()


BEGIN = (
    Item(Opcode.GAIN,   Phase.OTHER, Kind.GAIN, names=("layers.0.attention_norm",)),
    Item(Opcode.EMBED,  Phase.EMBED, fence=True, per=Per.COLUMN),      # its tensor is read apart from the stream
)
LAYER = (
    Item(Opcode.MATVEC, Phase.S1_QKV,     Kind.WQ,   Dest.Q, fence=True, names=("layers.{i}.wq",)),
    Item(Opcode.MATVEC, Phase.S1_QKV,     Kind.WK,   Dest.K, names=("layers.{i}.wk",)),
    Item(Opcode.MATVEC, Phase.S1_QKV,     Kind.WV,   Dest.V, names=("layers.{i}.wv",)),
    # The first column waits for every column's query; then all are there.
    Item(Opcode.ATTEND, Phase.S2_ATTEND,  fence=True, per=Per.COLUMN),
    # Attention has the rows on chip, so no command waits for their way to DRAM.
    Item(Opcode.STORE,  Phase.S3_STORE, per=Per.RUN),
    Item(Opcode.GAIN,   Phase.OTHER,      Kind.GAIN, names=("layers.{i}.ffn_norm",)),
    Item(Opcode.MATVEC, Phase.S4_OUTPUT,  Kind.WO,   Dest.RESIDUAL, fence=True, names=("layers.{i}.wo",)),
    Item(Opcode.MATVEC, Phase.S5_GATE_UP, Kind.W13,  Dest.SWIGLU, fence=True, names=("layers.{i}.w1", "layers.{i}.w3")),
    # The next layer's norm; behind the last layer, the final one.
    Item(Opcode.GAIN,   Phase.OTHER,      Kind.GAIN, names=("layers.{next}.attention_norm",)),
    Item(Opcode.MATVEC, Phase.S5_DOWN,    Kind.W2,   Dest.RESIDUAL, fence=True, names=("layers.{i}.w2",)),
)
END = (
    Item(Opcode.MATVEC, Phase.CLASSIFY,   Kind.CLASSIFIER, Dest.LOGITS, fence=True, names=("classifier",)),
)
#: Tensors that a layer streams, and so entries of it in an image's directory.
LAYER_TENSORS = sum(item.tensor is not None for item in LAYER)


def tensors(n_layers: int, tied: bool):
    """(kind, layer, checkpoint names) of every tensor, in the order of the stream; an embedding of its own lies behind
    it."""
    for item in BEGIN:
        if item.tensor is not None:
            yield item.tensor, 0, item.names
    for i in range(n_layers):
        last = i + 1 == n_layers
        for item in LAYER:
            if item.tensor is not None:
                yield item.tensor, i, tuple("final_norm" if last and "{next}" in name else name.format(i=i, next=i + 1)
                                            for name in item.names)
    for item in END:
        yield item.tensor, 0, ("embedding",) if tied else item.names
    if not tied:
        yield Kind.EMBEDDING, 0, ("embedding",)


def runs(columns: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """First and last column of each run of (slot, position) pairs: neighbours of one slot.

    Raises ValueError unless each slot has one run, whose positions follow each other.
    """
    found: list[tuple[int, int]] = []
    for i, (slot, position) in enumerate(columns):
        if i and columns[i - 1][0] == slot:
            if columns[i - 1][1] + 1 != position:
                raise ValueError(f"slot {slot}: position {position} does not follow {columns[i - 1][1]}")
            found[-1] = (found[-1][0], i)
        else:
            if slot in [columns[first][0] for first, _ in found]:
                raise ValueError(f"slot {slot}: its columns are no neighbours")
            found.append((i, i))
    return found


def slot_beats(config, row_beats: int) -> int:
    """Beats from one slot of the cache to the next: a row for each position of each layer."""
    return config.n_layers * config.seq_len * row_beats


@dataclass(frozen=True)
class Step:
    """One pass over the weights: what :func:`commands` is given, and the fields of each command.

    Columns are (slot, position) pairs as :func:`runs` wants them; the other fields are described there.
    """
    image: Any
    tokens: Sequence[int]
    columns: Sequence[tuple[int, int]]
    kv_base: int
    row_beats: int
    last_token: bool
    results: dict[str, int]

    def pushes(self, per: Per) -> list[int]:
        """The columns for which a command is pushed: a run's first stands for the run."""
        return {Per.STEP: [0], Per.COLUMN: [*range(len(self.columns))],
                Per.RUN: [first for first, _ in runs(self.columns)]}[per]

    def rows(self, layer: int, column: int) -> tuple[int, int, int, int]:
        """The column's run, first and last; the first beat of its slot's rows of a layer; beats of those before the
        run's."""
        first, last = next(run for run in runs(self.columns) if run[0] <= column <= run[1])
        slot, position = self.columns[first]
        config = self.image.config
        base = slot * slot_beats(config, self.row_beats) + layer * config.seq_len * self.row_beats
        return first, last, self.kv_base + base, position * self.row_beats

    @staticmethod
    def matrix(entry) -> dict[str, int]:
        """Format and place of a packed matrix."""
        return dict(exponent=entry.exponent, words=entry.words, q4=entry.format.name == "Q4",
                    group64=entry.group == 64, base=entry.offset_beats)

    def tensor(self, item: Item, entry) -> dict[str, int]:
        """Fields of a command that streams a tensor."""
        streamed = dict(rows=entry.rows, words=entry.words, exponent=entry.exponent, base=entry.offset_beats,
                        beats=entry.beats)
        if item.dest is None:
            return streamed
        return {**streamed, **self.matrix(entry), "dest": item.dest,
                **(self.results if item.dest == Dest.LOGITS else {})}

    def embed(self, column: int) -> dict[str, int]:
        return dict(**self.matrix(self.image.embedding), column=column, last_token=self.last_token,
                    token=0 if self.last_token else self.tokens[column], position=self.columns[column][1])

    def attend(self, layer: int, column: int) -> dict[str, int]:
        first, _, base, before = self.rows(layer, column)
        return dict(kv=1, column=column, first=first, rows=self.columns[column][1] + 1, base=base, beats=before)

    def store(self, layer: int, column: int) -> dict[str, int]:
        first, last, base, before = self.rows(layer, column)
        return dict(first=first, column=last, base=base + before)

    def own(self, item: Item, entries, layer: int, column: int) -> dict[str, int]:
        """The fields that are the opcode's own; ``entries`` are the tensors yet to be streamed."""
        if item.tensor is not None:
            return self.tensor(item, next(entries))
        if item.opcode == Opcode.EMBED:
            return self.embed(column)
        return (self.attend if item.opcode == Opcode.ATTEND else self.store)(layer, column)


def commands(image, tokens, columns: Sequence[tuple[int, int]], *, kv_base: int, row_beats: int, last_token=False,
             classify=True, first=None, keep=False, dump=False):
    """The commands of one step, four words each, as firmware pushes them.

    ``image`` is a :class:`llama2_spec.image.Image`; ``columns`` are (slot, position) pairs as :func:`runs` wants them,
    and ``tokens`` are theirs, or with ``last_token`` any. The K/V cache begins at beat ``kv_base``, a position takes
    ``row_beats``, a slot :func:`slot_beats`. With ``classify`` there is a result of column ``first``, by default the
    last, and of each behind it.
    """
    step = Step(image, tokens, columns, kv_base, row_beats, last_token,
                dict(column=len(columns) - 1 if first is None else first, keep=keep, dump=dump))
    layers = image.config.n_layers
    schedule = [(item, 0) for item in BEGIN] + [(item, layer) for layer in range(layers) for item in LAYER]
    schedule += [(item, 0) for item in END] if classify else []
    entries = iter(image.entries)
    for item, layer in schedule:
        for column in step.pushes(item.per):
            yield encode(item.opcode, phase=item.phase, fence=item.fence and column == 0, columns=len(columns) - 1,
                         **step.own(item, entries, layer, column))
