"""The core's registers, its Wishbone window and its commands, in tables that hardware, firmware and docs share."""
from dataclasses import dataclass, replace
from enum import IntEnum

# CSRs ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Field:
    """Bits of a register, from bit 0 upwards in the order of the table."""
    name: str
    size: int = 1
    doc: str = ""
    pulse: bool = False


@dataclass(frozen=True)
class Register:
    """One CSR: ``rw`` is written by firmware, ``ro`` is driven by the core."""
    name: str
    access: str
    fields: tuple[Field, ...]
    doc: str = ""


CRC_CYCLES = 4      #: that the core takes for the CRC of a beat, 32 bits each

REGISTERS = (
    Register("control", "rw", (
        Field("abort", pulse=True, doc="Drop all queued commands, drain outstanding reads, return to idle."),
        Field("clear_errors", pulse=True, doc="Clear the sticky error flags."),
        Field("clear_counters", pulse=True, doc="Set all phase counters to zero."),
        Field("irq_enable", doc="Raise the interrupt while a result waits."),
    ), "Commands that take effect at once."),
    Register("status", "ro", (
        Field("busy", doc="A command is queued or executing, or a read is outstanding."),
        Field("result_valid", doc="The result FIFO holds an entry."),
        Field("logit_valid", doc="A logit waits in the dump register."),
        Field("aborting", doc="An abort is draining reads; push nothing until it is 0."),
        Field("queue_free", 8, doc="Commands that may be pushed now."),
    ), "State of the command queue."),
    Register("errors", "ro", (
        Field("residual_saturated", doc="A residual value left Q16.16."),
        Field("row_saturated", doc="A matrix row's sum left its 32-bit fixed point."),
        Field("hidden_saturated", doc="SiLU(gate) * up left 48 bits."),
        Field("shift_clamped", doc="A scale asked for a left shift; the result was clamped."),
        Field("bad_command", doc="A command was not understood."),
        Field("queue_overflow", doc="A command was pushed while the queue was full."),
    ), "Sticky flags; clear with control.clear_errors."),
    Register("crc", "ro", (Field("value", 32, "CRC-32 (IEEE 802.3) of the last CRC command's beats."),)),
    Register("cycles", "ro", (Field("value", 32, "Free-running clock cycles since reset, modulo 2**32."),)),
    Register("stores", "ro", (Field("value", 32, "K/V beats written to DRAM since reset."),)),
    Register("geometry", "ro", (
        Field("version", 8, "Version of this interface."),
        Field("columns", 4, "Columns of a step: positions, of one sequence or of several, that share one pass."),
        Field("lanes", 8, "Multipliers per column."),
        Field("candidates", 8, "Logits kept for sampling."),
        Field("candidate_sets", 4, "1: of one column in a pass; as many as columns: of every column."),
    ), "What the core was built with."),
    Register("max_dim", "ro", (Field("value", 32, "Largest dim and n_heads * head_dim."),)),
    Register("max_hidden_dim", "ro", (Field("value", 32, "Largest hidden_dim."),)),
    Register("max_head_dim", "ro", (Field("value", 32, "Largest head_dim."),)),
    Register("max_kv_dim", "ro", (Field("value", 32, "Largest n_kv_heads * head_dim."),)),
    Register("max_heads", "ro", (Field("value", 32, "Largest n_heads."),)),
    Register("max_vocab_size", "ro", (Field("value", 32, "Largest vocabulary."),)),
    Register("max_seq_len", "ro", (Field("value", 32, "Longest context the accumulators can hold, in positions."),)),
)
VERSION = 3

# Wishbone window ----------------------------------------------------------------------------------


class Window(IntEnum):
    """Byte offsets in the core's Wishbone slave; every access is one 32-bit word."""
    COMMAND    = 0x000  #: write words 0..3 of a command; word 3 pushes it
    MODEL      = 0x100  #: write the model's constants, see :class:`Model`
    ROPE       = 0x200  #: write the RoPE frequencies: head_dim/2 words, turns per position as a fraction of 2**32
    TOKEN      = 0x300  #: write word i: the token of column i, for one EMBED with ``awaited``; an abort drops it
    RESULT     = 0x400  #: read the oldest result, see :class:`Result`; writing word 0 removes it
    LOGIT      = 0x440  #: read the logit that waits (dump mode); writing removes it
    COUNTERS   = 0x800  #: read phase counters: word 8 * phase + counter
    CANDIDATES = 0xc00  #: read the candidate at place i, in no order: words 2i (token id) and 2i+1 (logit, signed
                        #: Q14.18); write word 0: the column whose candidates are read from then on, here and at
                        #: ``NEXT``, in a core that has them of every column
    NEXT       = 0xe00  #: read the largest candidate that was not read here before: its place in bits 21:16, its
                        #: weight in 15:0 (2**14 is 1.0), 0 behind the last one; a read may wait for 100 cycles
WINDOW_SIZE = 0x1000


class Model(IntEnum):
    """Words at ``Window.MODEL``: constants of the model being run."""
    DIM             = 0   #: dim
    HEAD_DIM        = 1   #: head_dim
    N_HEADS         = 2   #: query heads
    N_KV_HEADS      = 3   #: key/value heads
    EPSILON         = 4   #: round(dim * norm_epsilon * 2**32)
    SCORE_SCALE     = 5   #: log2(e)/sqrt(head_dim): mantissa in bits 15:0, signed exponent in 23:16
    POSITIONS       = 7   #: longest context, in positions
    KV_FORMAT       = 8   #: KvFormat: bit 0, V's elements have 8 bits; bit 1, K's too
    LOGIT_SCALE     = 16  #: log2(e)/temperature, same encoding; word 16 + i is column i's in a core that has candidates
                          #: of every column


class Result(IntEnum):
    """Words at ``Window.RESULT``: what one classifier pass yields of a column; the results of several columns come in
    their order."""
    TOKEN    = 0   #: argmax of the logits; the lowest id on a tie
    LOGIT    = 1   #: its logit, signed Q14.18
    CYCLES   = 2   #: cycle counter when the last logit was taken
    MAXIMUM  = 3   #: reference exponent of the mass (signed)
    MASS_LO  = 4   #: sum of 2**(logit * LOGIT_SCALE - MAXIMUM), 2**14 is 1.0
    MASS_HI  = 5   #: its upper 32 bits
    KEPT     = 6   #: candidates kept, in bits 7:0; the column, in bits 10:8
    TOTAL    = 7   #: sum of their weights


class Counter(IntEnum):
    """Counters of one phase."""
    CYCLES     = 0  #: cycles in which a command of this phase was the oldest one executing
    BEATS      = 1  #: beats it took from the stream
    STARVED    = 2  #: cycles it was ready for a beat and none had arrived (DRAM)
    FENCED     = 3  #: cycles it waited for the results of earlier commands
    STALLED    = 4  #: cycles it had a beat but its results' consumer was not ready


class Phase(IntEnum):
    """Where a command's cycles are counted; a field of every command."""
    EMBED      = 0
    S1_QKV     = 1
    S2_ATTEND  = 2  #: scores and values (S2 and S3 share one pass over the cache)
    S3_STORE   = 3  #: K/V row to DRAM
    S4_OUTPUT  = 4
    S5_GATE_UP = 5
    S5_DOWN    = 6
    CLASSIFY   = 7
    OTHER      = 8

# Commands -----------------------------------------------------------------------------------------


class Opcode(IntEnum):
    """What a command does. GAIN, MATVEC, ATTEND and CRC take ``beats`` beats at ``base`` from the stream.

    A step is up to ``geometry.columns`` columns, each a token at a position of a slot; a slot is a region of the K/V
    cache. Columns of the same slot are neighbours, and their positions follow each other: they are a run.
    """
    NOP    = 0
    GAIN   = 1  #: load RMSNorm gains (16-bit words, 8 per beat) with their exponent
    EMBED  = 2  #: x[column] = embedding[token], at ``position``
    MATVEC = 3  #: matrix times the vectors of all active columns, rows go to ``dest``
    ATTEND = 4  #: attention of one column: rows of its slot from the stream, then those of its run, held on chip
    STORE  = 5  #: write the K/V rows of a run to DRAM from ``base``, beside the commands that follow
    CRC    = 6  #: CRC-32 of ``beats`` beats


class Dest(IntEnum):
    """Where MATVEC's rows go, and so which vector they multiply."""
    Q        = 0  #: x^ times 1/rms, RoPE, query memory
    K        = 1  #: x^ times 1/rms, RoPE, K row
    V        = 2  #: x^ times 1/rms, V row
    RESIDUAL = 3  #: attention output or hidden vector, added to the residual
    SWIGLU   = 4  #: x^ times 1/rms, row pairs (gate, up), hidden vector
    LOGITS   = 5  #: x^ times 1/rms, logit unit
    EMBEDDING = 6  #: not in a command: an embedding row, begins the residual
    OUTPUT   = 7  #: not in a command: attention's output, which RESIDUAL's matrix multiplies


@dataclass(frozen=True)
class Bits:
    """A field of the 128-bit command: ``word`` 0..3, ``low`` bit, ``size`` bits."""
    name: str
    word: int
    low: int
    size: int
    doc: str
    signed: bool = False


# Fields that several commands have
_BASE = Bits("base", 2, 0, 28, "first beat of the segment")
_BEATS = Bits("beats", 3, 0, 28, "beats of the segment")
_COLUMN = Bits("column", 0, 11, 3, "the column it is for")
_FIRST = Bits("first", 1, 18, 3, "the first column of the run")
_ROWS = Bits("rows", 1, 0, 18, "rows of the matrix")
_WORDS = Bits("words", 1, 18, 12, "activation words per row: ceil(row length / 16)")
_Q4 = Bits("q4", 0, 5, 1, "4-bit codes; otherwise 8-bit")
_GROUP64 = Bits("group64", 0, 6, 1, "weight groups of 64; otherwise 32")
_EXPONENT = Bits("exponent", 0, 24, 8, "power of two of the tensor's scales", signed=True)

#: Fields that every command has.
COMMON = (
    Bits("opcode",  0,  0, 4, "Opcode"),
    Bits("fence",   0,  4, 1, "wait until every earlier command's results have landed"),
    Bits("columns", 0,  8, 3, "active columns of the step minus one"),
    Bits("phase",   0, 19, 4, "Phase, for the counters"),
)
#: The other fields of each command. A name has the same bits wherever it appears.
LAYOUTS = {
    Opcode.NOP: (),
    Opcode.GAIN: (_EXPONENT, replace(_ROWS, doc="gains"), replace(_WORDS, doc="gains / 8"), _BASE, _BEATS),
    Opcode.EMBED: (
        _Q4, _GROUP64, _COLUMN, _EXPONENT, _WORDS, replace(_BASE, doc="first beat of the tensor"),
        Bits("last_token", 0, 7, 1, "the token is the last argmax, not ``token``"),
        Bits("awaited",    0, 17, 1, "the token is the one written to the window's ``TOKEN`` for this column; wait for "
                                     "it"),
        Bits("token",      1, 0, 18, "the token id"),
        Bits("position",   3, 0, 28, "the position of the column"),
    ),
    Opcode.MATVEC: (
        _Q4, _GROUP64, _EXPONENT, _ROWS, _WORDS, _BASE, _BEATS,
        replace(_COLUMN, doc="LOGITS: the first column whose result comes, then those of all behind it; otherwise 0"),
        Bits("dest", 0, 14, 3, "Dest"),
        Bits("keep", 0, 17, 1, "LOGITS: keep candidates and the mass, of every column that yields a result; of one "
                               "only, where the core has one set of candidates"),
        Bits("dump", 0, 18, 1, "LOGITS: hand every logit to firmware (slow)"),
    ),
    Opcode.ATTEND: (
        _COLUMN, _FIRST, _BASE, _BEATS,
        replace(_ROWS, doc="K/V rows: those of the segment, then those of the columns from ``first`` to ``column``"),
        Bits("kv", 0, 23, 1, "the segment is K/V rows: read it only after every STORE pushed before"),
    ),
    Opcode.STORE: (
        _FIRST, replace(_BASE, doc="where the row of column ``first`` begins; the others follow"),
        replace(_COLUMN, doc="the last column of the run"),
    ),
    Opcode.CRC: (_BASE, _BEATS),
}
#: The place of every field, by name.
COMMAND = tuple({bits.name: bits for layout in (COMMON, *LAYOUTS.values()) for bits in layout}.values())
QUEUE_DEPTH = 96    #: commands
RESULT_DEPTH = 8    #: results that wait for firmware
MAX_CANDIDATES = 64
CANDIDATE_WEIGHT = 15   #: bits of a candidate's weight, of which 2**14 is 1.0 and the most
CANDIDATE_TOTAL = 21    #: bits of the sum of all


def encode(opcode: Opcode, **fields: int) -> tuple[int, int, int, int]:
    """Pack a command into its four 32-bit words; unnamed fields are zero. Raises ValueError for a field that
    ``opcode`` does not have, and for a value that does not fit."""
    layout = (*COMMON, *LAYOUTS[opcode])
    words, values = [0, 0, 0, 0], {"opcode": int(opcode), **fields}
    strange = sorted(values.keys() - {bits.name for bits in layout})
    if strange:
        raise ValueError(f"{opcode.name} has no field {', '.join(strange)}; "
                         f"it has {', '.join(bits.name for bits in layout)}")
    for bits in layout:
        value = int(values.get(bits.name, 0))
        low, high = (-(1 << bits.size - 1), 1 << bits.size - 1) if bits.signed else (0, 1 << bits.size)
        if not low <= value < high:
            raise ValueError(f"{bits.name} = {value} does not fit {bits.size} bits")
        words[bits.word] |= (value & (1 << bits.size) - 1) << bits.low
    a, b, c, d = words
    return a, b, c, d
