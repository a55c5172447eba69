"""The schedule of a token: which commands in what order, with destination, phase and fence, and what each streams.

One table, from which come firmware's (``firmware/program.c``), the drivers of the tests, the order of tensors in an
image and the table in docs/registers.md. A step runs ``BEGIN``, then ``LAYER`` for each layer, then, where logits are
wanted, ``END``.
"""
from dataclasses import dataclass
from enum import IntEnum

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


@dataclass(frozen=True)
class Item:
    """One line of the schedule.

    ``tensor`` is what it streams, if anything; ``names`` are that tensor's parts in a checkpoint, for layer {i}.
    ``fence``: it waits for the results of all before it; where it is pushed once per column (``per_column``), only the
    first one waits.
    """
    opcode: Opcode
    phase: Phase
    tensor: Kind | None = None
    dest: Dest | None = None
    fence: bool = False
    per_column: bool = False
    names: tuple[str, ...] = ()


BEGIN = (
    Item(Opcode.GAIN,   Phase.OTHER, Kind.GAIN, names=("layers.0.attention_norm",)),
    Item(Opcode.EMBED,  Phase.EMBED, fence=True, per_column=True),      # its tensor is read apart from the stream
)
LAYER = (
    Item(Opcode.MATVEC, Phase.S1_QKV,     Kind.WQ,   Dest.Q, fence=True, names=("layers.{i}.wq",)),
    Item(Opcode.MATVEC, Phase.S1_QKV,     Kind.WK,   Dest.K, names=("layers.{i}.wk",)),
    Item(Opcode.MATVEC, Phase.S1_QKV,     Kind.WV,   Dest.V, names=("layers.{i}.wv",)),
    # The first column waits for every column's query; then all are there.
    Item(Opcode.ATTEND, Phase.S2_ATTEND,  fence=True, per_column=True),
    # Attention has the rows on chip, so no command waits for their way to DRAM.
    Item(Opcode.STORE,  Phase.S3_STORE),
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


def commands(image, tokens, position: int, *, kv_base: int, row_beats: int, last_token=False, awaited=False,
             classify=True, every=False, keep=False, dump=False):
    """The commands of one step, four words each, as firmware pushes them.

    ``image`` is a :class:`llama2_spec.image.Image`; ``tokens`` are those of consecutive positions from ``position`` on,
    one a column, or with ``last_token`` or ``awaited`` so many whose values do not matter; the K/V cache begins at beat
    ``kv_base`` and a position takes ``row_beats``.
    """
    columns, entries = len(tokens), iter(image.entries)

    def fields(entry):
        return dict(exponent=entry.exponent, words=entry.words, q4=entry.format.name == "Q4", group64=entry.group == 64,
                    base=entry.offset_beats)

    def one(item, column, segment):
        given = dict(phase=item.phase, fence=item.fence and column == 0, columns=columns - 1)
        if item.per_column:
            given["column"] = column
        if item.dest is not None:
            given["dest"] = item.dest
        if item.tensor is not None:
            entry = next(entries)
            given.update(fields(entry), rows=entry.rows, beats=entry.beats)
        if item.opcode == Opcode.EMBED:
            given.update(fields(image.embedding), last_token=last_token, awaited=awaited,
                         token=0 if last_token or awaited else tokens[column], position=position)
        if item.opcode == Opcode.ATTEND:
            given.update(kv=1, positions=position, base=segment, beats=position * row_beats)
        if item.opcode == Opcode.STORE:
            given.update(base=segment + position * row_beats)
        if item.dest == Dest.LOGITS:
            given.update(every=every, keep=keep, dump=dump)
        return encode(item.opcode, **given)

    def run(items, segment=0):
        for item in items:
            for column in range(columns if item.per_column else 1):
                yield one(item, column, segment)
    yield from run(BEGIN)
    for layer in range(image.config.n_layers):
        yield from run(LAYER, kv_base + layer * image.config.seq_len * row_beats)
    if classify:
        yield from run(END)
