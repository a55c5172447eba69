"""Everything that flows between the core's stations: a signature or a layout for each, its fields with width and
meaning.

Fields are unsigned unless said otherwise. A field of a stream is valid with ``valid``; what holds for the others is
said with them. A *job* is what the sequencer asks of a station: ``start`` is high for one cycle, and the fields beside
it, which come from the command being executed, are valid from the cycle before ``start`` until the next command is
dispatched.
"""
from amaranth.hdl import signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from llama2_spec.numerics import WIDE
from llama2_spec.registers import CANDIDATE_WEIGHT, COMMAND, REGISTERS
from llama2_spec.tables import EXP2

BEAT = 128          #: bits of a beat


def column_shape(columns):
    """The number of a column: at least one bit, so that a core of one column has the same fields."""
    return range(max(columns, 2))


# The model ----------------------------------------------------------------------------------------

class ModelConstants(wiring.Signature):
    """Constants of the model, from the window; constant while commands are executed, so they are valid at any time.

    Members
    -------
    dim : 13
        Elements of the residual.
    epsilon : 32
        round(dim * norm_epsilon * 2**32).
    head_dim : 8
        Elements of a head, a multiple of 8.
    n_heads, n_kv_heads : 7
        Query heads; K/V heads.
    score_mantissa, score_exponent : 16, signed 8
        log2(e) / sqrt(head_dim).
    narrow : 2
        Elements of 8 bits in the K/V cache: V's (bit 0), K's (bit 1).
    """
    def __init__(self):
        super().__init__({
            "dim": Out(13), "epsilon": Out(32), "head_dim": Out(8), "n_heads": Out(7), "n_kv_heads": Out(7),
            "score_mantissa": Out(16), "score_exponent": Out(signed(8)), "narrow": Out(2),
        })


class LogitScales(wiring.Signature):
    """log2(e) / temperature of each set of candidates. Changes between two classifier passes, a cycle before the start
    of one at the latest.

    Members
    -------
    mantissas, exponents : array of 16 by set, array of signed 8 by set
        The factor is ``mantissa * 2**exponent``.
    """
    def __init__(self, sets):
        super().__init__({"mantissas": Out(data.ArrayLayout(16, sets)),
                          "exponents": Out(data.ArrayLayout(signed(8), sets))})


class FrequencyRead(wiring.Signature):
    """A look-up in the model's RoPE frequencies.

    Members
    -------
    index : 6
        Pair of elements of a head; any, at any time.
    value : 32
        Turns per position as a fraction of 2**32, valid one cycle after ``index``.
    """
    def __init__(self):
        super().__init__({"index": Out(6), "value": In(32)})


class Exp2Read(wiring.Signature):
    """Attention's table of 2**x, lent to the logit unit: see :class:`accel.lib.table.InterpolatedTable`.

    Members
    -------
    busy : 1
        The table answers this unit; only while no keys are on their way in attention, which the fences see to.
    index, t : EXP2's
        Segment and place in it; any, while ``busy``.
    value : 17
        2**x, :data:`accel.attention.softmax.EXP2_LATENCY` cycles later.
    """
    def __init__(self):
        super().__init__({"busy": Out(1), "index": Out(EXP2.index_bits), "t": Out(EXP2.t_bits), "value": In(17)})


# DRAM ---------------------------------------------------------------------------------------------

class Segment(data.StructLayout):
    """Consecutive beats of DRAM.

    Fields
    ------
    base : addr_width
        First beat.
    beats : 28
        How many; not 0.
    kv : 1
        Not to be read before ``stores_done`` equals ``stores``.
    stores : 8
        STORE commands pushed before, modulo 2**8.
    """
    def __init__(self, addr_width):
        super().__init__({"base": addr_width, "beats": 28, "kv": 1, "stores": 8})


class Beats(wiring.Signature):
    """Beats of the weight stream, in order; a stream that may carry two a cycle.

    Members
    -------
    payload : 128
        The beat that comes next.
    second : 128, only with ``words=2``
        The one after it; valid with ``valid`` while ``both``.
    both : 1, only with ``words=2``
        From the sink: it takes two, and ``valid`` then says that two are there. From a register.
    valid, ready : 1
        As in any stream.
    """
    def __init__(self, words=1):
        if words not in (1, 2):
            raise ValueError(f"Beats carry one or two words, not {words}")
        self.words = words
        super().__init__({"payload": Out(BEAT), "valid": Out(1), "ready": In(1),
                          **({"second": Out(BEAT), "both": In(1)} if words == 2 else {})})


class BeatTurns(wiring.Signature):
    """Whose the beats are that come next, as the sequencer says; the matrix engine knows by itself.

    Members
    -------
    gain, crc, attend : 1
        For the residual's gains, for the CRC, for attention; at most one, from registers.
    valid, taken_ready : 1
        From the stream: a beat is there; a sink that has its turn, the engine aside, is ready.
    """
    def __init__(self):
        super().__init__({"gain": Out(1), "crc": Out(1), "attend": Out(1), "valid": In(1), "taken_ready": In(1)})


# Commands and jobs --------------------------------------------------------------------------------

class Command(data.FlexibleLayout):
    """The 128-bit command: a field has the name, the width and the meaning that it has in
    :data:`llama2_spec.registers.LAYOUTS` for the command's opcode."""
    def __init__(self):
        super().__init__(128, {b.name: data.Field(signed(b.size) if b.signed else b.size, 32 * b.word + b.low)
                               for b in COMMAND})


class Ahead(data.StructLayout):
    """What is known of a command ahead of its turn: ``opcode``, ``kv``, ``base`` and ``beats``; all of it lies in words
    0, 2 and 3."""
    def __init__(self):
        super().__init__({b.name: b.size for b in COMMAND if b.name in ("opcode", "kv", "base", "beats")})


class EmbedJob(wiring.Signature):
    """Fetch a row of the embedding and begin the residual with it.

    Members
    -------
    start : 1
        Only while the fetch is not busy.
    token : 18
        The row.
    base, words : addr_width, 12
        First beat of the tensor; activation words of a row.
    q4, group64 : 1
        Its format: 4-bit codes; groups of 64 weights.
    column, shift : column, 6
        Column it is for; right shift of its elements. Valid with ``start``.
    """
    def __init__(self, columns, addr_width):
        super().__init__({"start": Out(1), "token": Out(18), "base": Out(addr_width), "words": Out(12), "q4": Out(1),
                          "group64": Out(1), "column": Out(column_shape(columns)), "shift": Out(6)})


class MatrixJob(wiring.Signature):
    """Multiply a matrix by the active columns.

    Members
    -------
    start, ready : 1
        Begin; stays high until ``ready``, which says that all beats of the matrix before were taken.
    q4, group64 : 1
        4-bit codes; groups of 64 weights.
    words, rows : 12, 18
        Activation words of a row; rows.
    dest : 3
        A :class:`llama2_spec.registers.Dest` for its rows.
    first, count : column, range(columns + 1)
        First column whose sums leave; active columns.
    gang : 1
        One position only: columns 0 and 1 work on it together, two beats a cycle.
    shifts : array of 6 by column
        Right shift of each column's sums.
    """
    def __init__(self, columns):
        super().__init__({"start": Out(1), "ready": In(1), "q4": Out(1), "group64": Out(1), "words": Out(12),
                          "rows": Out(18), "dest": Out(3),
                          "first": Out(column_shape(columns)), "count": Out(range(columns + 1)), "gang": Out(1),
                          "shifts": Out(data.ArrayLayout(6, columns))})


class AttendJob(wiring.Signature):
    """Attend with one column's query.

    Members
    -------
    start, done : 1
        Begin; ``done`` pulses in the cycle after the last element of the output was taken.
    column : column
        Whose query it is.
    rows : 17
        K/V rows, those from DRAM and then those held on chip: at least one.
    local : 1
        Rows come from the chip now; none comes from DRAM. Valid at any time.
    """
    def __init__(self, columns):
        super().__init__({"start": Out(1), "done": In(1), "column": Out(column_shape(columns)), "rows": Out(17),
                          "local": Out(1)})


class NewestJob(wiring.Signature):
    """Hand the newest K/V rows, which are on chip, to attention.

    Members
    -------
    start : 1
        Begin.
    first, last : column, column
        Columns whose rows are wanted, one after the other; valid with ``start``.
    """
    def __init__(self, columns):
        super().__init__({"start": Out(1), "first": Out(column_shape(columns)), "last": Out(column_shape(columns))})


class StoreJob(wiring.Signature):
    """Write the K/V rows of a run of columns to DRAM, beside the commands that follow.

    Members
    -------
    next, start : 1
        ``start``, and the cycle before it. Only while there is ``room``.
    first, last : column, column
        Columns of the run; valid with ``start``.
    base : addr_width
        First beat of the first row; the others follow. Valid with ``start``.
    room : 1
        One more run may come.
    storing : 1
        Runs wait or are on their way: nothing may change the rows, or read them for attention.
    stored : 1
        Pulses when the last beat of a run was accepted.
    """
    def __init__(self, columns, addr_width):
        super().__init__({"next": Out(1), "start": Out(1), "first": Out(column_shape(columns)),
                          "last": Out(column_shape(columns)), "base": Out(addr_width),
                          "room": In(1), "storing": In(1), "stored": In(1)})


class LogitsJob(wiring.Signature):
    """A pass of the classifier.

    Members
    -------
    start : 1
        Forget the last pass; the fields are taken a cycle later.
    first, last : column
        The columns whose logits come: every row has one of each, in order.
    keep : 1
        Gather candidates and mass: of each column, or, where the core has one set of candidates, of one column only.
    dump : 1
        Offer each logit to firmware and wait until it is taken.
    """
    def __init__(self, columns):
        super().__init__({"start": Out(1), "first": Out(column_shape(columns)), "last": Out(column_shape(columns)),
                          "keep": Out(1), "dump": Out(1)})


# Activations --------------------------------------------------------------------------------------

class ActivationControl(wiring.Signature):
    """How the activation vectors are used.

    Members
    -------
    clear, clear_buffer : mask of columns, 1
        Forget the largest exponent of these columns' vectors in this half, before they are written anew.
    both : 1
        One position is decoded: what is written to column 0 is written to column 1, too. Constant within a step.
    read_buffer : 1
        Half that is read: 0, x; 1, attention's output or the hidden vector. Valid two cycles before the first address.
    largest : array of 6 by column
        Largest exponent of the half that is read; valid a cycle after its last exponent was written.
    """
    def __init__(self, columns):
        super().__init__({"clear": Out(columns), "clear_buffer": Out(1), "both": Out(1), "read_buffer": Out(1),
                          "largest": In(data.ArrayLayout(6, columns))})


class ActivationRead(wiring.Signature):
    """Reading of activation words, one a cycle for every column.

    Members
    -------
    address : 12
        Word of 16 elements; any, at any time.
    odd_word : 1
        Column 1 reads the odd word of the chunk instead.
    words : array of 256 by column
        16 elements of signed 16 bits; valid one cycle after ``address``.
    offsets : array of 6 by column
        Largest exponent of the vector minus the chunk's, which is a right shift; valid three cycles after ``address``.
    """
    words_latency = 1       #: from ``address`` to ``words``
    offsets_latency = 3     #: from ``address`` to ``offsets``

    def __init__(self, columns):
        super().__init__({"address": Out(12), "odd_word": Out(1), "words": In(data.ArrayLayout(256, columns)),
                          "offsets": In(data.ArrayLayout(6, columns))})


# Rows ---------------------------------------------------------------------------------------------

class RowSum(data.StructLayout):
    """A row's sum, on its way to the scaler.

    Of a matrix, sums come in this order, on which RoPE, SwiGLU and the logit unit rely: for each pair of rows, for each
    column from the first to the last, the even row and then the odd one; an odd last row comes alone.

    Fields
    ------
    value : signed WIDE
        The exact sum.
    column : column
        Whose.
    row, odd : 18, 1
        The row, and its lowest bit.
    last : 1
        The matrix's last row.
    dest : 3
        :class:`llama2_spec.registers.Dest`.
    shift : 6
        Right shift by the scaler.
    """
    def __init__(self, columns):
        super().__init__({"value": signed(WIDE), "column": column_shape(columns), "row": 18, "odd": 1, "last": 1,
                          "dest": 3, "shift": 6})


class Row(data.StructLayout):
    """A scaled row, in the order of :class:`RowSum`.

    Fields
    ------
    value : signed 32
        Fixed point.
    column, row, odd, last, dest : column, 18, 1, 1, 3
        As of :class:`RowSum`.
    to : 2
        The unit that takes it, an :class:`accel.rows.scale.To`.
    """
    def __init__(self, columns):
        super().__init__({"value": signed(32), "column": column_shape(columns), "row": 18, "odd": 1, "last": 1,
                          "dest": 3, "to": 2})


class Logit(data.StructLayout):
    """A logit: ``value`` (signed 32), its ``column`` (column), its ``row`` (18), which is the token; ``last`` (1) for
    the last row's."""
    def __init__(self, columns):
        super().__init__({"value": signed(32), "column": column_shape(columns), "row": 18, "last": 1})


class Wide(data.StructLayout):
    """A value on its way to the quantiser.

    Fields
    ------
    value : signed WIDE
        Fixed point; its fraction bits are those of its source.
    column : column
        Whose.
    index : 13
        Its place in the vector.
    end : 1
        Closes its group: a chunk of 32, or a head.
    dest : 3
        :class:`llama2_spec.registers.Dest`, the vector it belongs to.
    """
    def __init__(self, columns):
        super().__init__({"value": signed(WIDE), "column": column_shape(columns), "index": 13, "end": 1, "dest": 3})


class Norms(wiring.Signature):
    """1/rms of each column, of the vector in the residual; valid from the end of a sum of squares to that of the next.

    Members
    -------
    factors : array of 17 by column
        Mantissa of 1/sqrt(sum of squares + epsilon), 2**15 .. 2**16.
    halves : array of 6 by column
        h, where 1/rms is ``factors * 2**(-15 - h)``.
    """
    def __init__(self, columns):
        super().__init__({"factors": Out(data.ArrayLayout(17, columns)), "halves": Out(data.ArrayLayout(6, columns))})


class Quantised(wiring.Signature):
    """Groups of values as mantissas with a shared exponent. Cannot be stalled: there is always room.

    Members
    -------
    write, exponent_write : 1
        An element; the exponent of a group, which comes before its elements. Never both.
    column, dest : column, 3
        Whose; which vector, :class:`llama2_spec.registers.Dest`. Valid with either.
    index : 13
        Place in the vector of the element, or of the group's first. Valid with either.
    mantissa, exponent : signed 16, 6
        Valid with ``write``; with ``exponent_write``.
    head : 7, only behind the router
        The head of a Q, K or V element. Valid with either.
    """
    def __init__(self, columns, *, routed=False):
        super().__init__({"write": Out(1), "exponent_write": Out(1), "column": Out(column_shape(columns)),
                          "dest": Out(3), "index": Out(13),
                          "mantissa": Out(signed(16)), "exponent": Out(6), **({"head": Out(7)} if routed else {})})


class AttentionElement(data.StructLayout):
    """An element of attention's output: ``value`` (signed WIDE, 33 fraction bits); ``last`` (1) for the column's
    last."""
    def __init__(self):
        super().__init__({"value": signed(WIDE), "last": 1})


# Results and firmware -----------------------------------------------------------------------------

class PassResult(data.StructLayout):
    """What one classifier pass yields for a column, in the order of :class:`llama2_spec.registers.Result`, which
    describes the fields.

    Fields
    ------
    token, logit, cycles, maximum, mass, kept, column, total : 32, signed 32, 32, signed 32, 64, 8, 3, 32
        Valid together.
    """
    def __init__(self):
        super().__init__({"token": 32, "logit": signed(32), "cycles": 32, "maximum": signed(32), "mass": 64,
                          "kept": 8, "column": 3, "total": 32})


class LogitDump(wiring.Signature):
    """Logits for firmware, one by one.

    Members
    -------
    valid, data : 1, 32
        A logit waits; a signed number.
    take : 1
        It is taken; two cycles later the next may be valid.
    """
    def __init__(self):
        super().__init__({"valid": Out(1), "data": Out(32), "take": In(1)})


class CandidateRead(wiring.Signature):
    """Reading of the candidates of the last pass; between passes.

    Members
    -------
    which : set
        Whose. The other members are of this set, from the second cycle after a change on.
    index : 6
        A place; they are in no particular order.
    token, logit : 18, signed 32
        Of the candidate there; valid two cycles after ``index``, unless ``busy``.
    place, weight : 6, CANDIDATE_WEIGHT
        Place and weight of the largest candidate that was not popped; the weight is 0 when all were. Valid unless
        ``busy``.
    pop : 1
        On to the next largest one.
    busy : 1
        Candidates are being moved; for less than 100 cycles between passes.
    """
    def __init__(self, sets):
        super().__init__({"which": Out(range(sets)), "index": Out(6), "token": In(18), "logit": In(signed(32)),
                          "place": In(6), "weight": In(CANDIDATE_WEIGHT), "pop": Out(1), "busy": In(1)})


class TokenWrite(wiring.Signature):
    """The token of a column, from firmware, for the EMBED that waits or will wait for it.

    Members
    -------
    write : 1
        Lasts one cycle.
    column, token : 3, 18
        Valid with ``write``.
    """
    def __init__(self):
        super().__init__({"write": Out(1), "column": Out(3), "token": Out(18)})


class QueueState(wiring.Signature):
    """How full the command queue is.

    Members
    -------
    free : 8
        Commands that fit.
    busy : 1
        A command waits to be executed.
    overflow : 1
        A command did not fit in this cycle and was dropped.
    """
    def __init__(self):
        super().__init__({"free": Out(8), "busy": Out(1), "overflow": Out(1)})


class Execution(wiring.Signature):
    """What the sequencer does in this cycle.

    Members
    -------
    phase : 4
        :class:`llama2_spec.registers.Phase` of the command.
    executing : 1
        A command is being executed.
    fenced : 1
        It waits for the results of earlier ones.
    waiting_beat : 1
        GAIN, CRC or ATTEND could take a beat and none is there.
    """
    def __init__(self):
        super().__init__({"phase": Out(4), "executing": Out(1), "fenced": Out(1), "waiting_beat": Out(1)})


class Activity(wiring.Signature):
    """What the counters count in this cycle; at most three in all, and a phase lasts three cycles at least.

    Members
    -------
    phase : 4
        :class:`llama2_spec.registers.Phase`.
    beat : 2
        Beats taken.
    cycle, starved, fenced, stalled : 1
        See :class:`llama2_spec.registers.Counter`.
    """
    def __init__(self):
        super().__init__({"phase": Out(4), "cycle": Out(1), "beat": Out(2), "starved": Out(1), "fenced": Out(1),
                          "stalled": Out(1)})


class ErrorFlags(wiring.Signature):
    """A member of one bit for each field of the register ``errors``, see :data:`llama2_spec.registers.REGISTERS`; high
    for a cycle or more."""
    def __init__(self):
        errors = next(register for register in REGISTERS if register.name == "errors")
        super().__init__({field.name: Out(field.size) for field in errors.fields})


class Csr(wiring.Signature):
    """The registers of :data:`llama2_spec.registers.REGISTERS`, seen from the core: ``ro`` fields go out, ``rw`` fields
    come in.

    Member ``status.busy`` is the field ``busy`` of the register ``status``; widths and meanings are in that table.
    """
    def __init__(self):
        super().__init__({r.name: Out(wiring.Signature({f.name: In(f.size) if r.access == "rw" else Out(f.size)
                                                        for f in r.fields}))
                          for r in REGISTERS})


class Wishbone(wiring.Signature):
    """A classic Wishbone slave of 32-bit words, seen from the master.

    Members
    -------
    cyc, stb, we : 1
        As in Wishbone B4; the access is held until ``ack``.
    adr : addr_width
        Address in words.
    dat_w, dat_r : 32
        Written; read, valid with ``ack``.
    sel : 4
        Ignored: every access is one whole word.
    ack : 1
        Ends the access.
    """
    def __init__(self, addr_width=10):
        super().__init__({"cyc": Out(1), "stb": Out(1), "we": Out(1), "adr": Out(addr_width), "dat_w": Out(32),
                          "sel": Out(4), "dat_r": In(32), "ack": In(1)})
