"""The core's Wishbone window: commands in, model constants in, results, candidates and counters out."""
from types import SimpleNamespace

from amaranth.hdl import Array, Cat, Const, Module, Mux, ResetInserter, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.control.command_queue import CommandQueue
from accel.interfaces import (
    Activity, Ahead, CandidateRead, FrequencyRead, LogitDump, LogitScales, ModelConstants, PassResult, QueueState,
    TokenWrite, Wishbone)
from accel.lib.numeric import delay
from llama2_spec.registers import RESULT_DEPTH, Counter, Model, Phase, Result
from llama2_spec.registers import Window as Region

LOW = 6             # bits of a counter that are counted where they are kept


class Window(wiring.Component):
    """The map is :class:`llama2_spec.registers.Window`. What is read may be changing.

    Parameters
    ----------
    candidate_sets : int
        As of the core.

    Members
    -------
    ahead, commands : Out(stream of Ahead), Out(stream of 128)
        Commands in the order of their fourth word, see :class:`accel.control.command_queue.CommandQueue`.
    bus : In(Wishbone)
        An access takes four cycles, more beside a counter's carry or clear; one to the candidates waits while they are
        busy.
    abort : In(1)
        Drop commands and results.
    queue : Out(QueueState)
        How full the command queue is.
    model : Out(ModelConstants)
        From the words of :class:`llama2_spec.registers.Model`.
    scales : Out(LogitScales)
        From those words, too.
    frequencies : In(FrequencyRead)
        Answers RoPE's look-ups.
    results : In(stream of PassResult)
        Results of classifier passes; taken eight cycles after they came, while there is a place.
    result_valid : Out(1)
        A result waits for firmware.
    dump : In(LogitDump)
        The logit that waits for firmware.
    candidates : Out(CandidateRead)
        Read by firmware's address; popped when the next one was read.
    tokens : Out(TokenWrite)
        From firmware.
    activity : In(Activity)
        So many more for the counter of ``phase``.
    clear : In(1)
        Set all counters to zero; takes 64 cycles, in which an access waits.
    """
    latency = None      #: varies
    budget_lut = 604

    def __init__(self, *, candidate_sets=1):
        self.candidate_sets = candidate_sets
        super().__init__({
            "bus": In(Wishbone()), "abort": In(1),
            "ahead": Out(stream.Signature(Ahead())), "commands": Out(stream.Signature(128)),
            "queue": Out(QueueState()),
            "model": Out(ModelConstants()), "scales": Out(LogitScales(candidate_sets)),
            "frequencies": In(FrequencyRead()),
            "results": In(stream.Signature(PassResult())), "result_valid": Out(1),
            "dump": In(LogitDump()), "candidates": Out(CandidateRead(candidate_sets)),
            "tokens": Out(TokenWrite()), "activity": In(Activity()), "clear": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        s = SimpleNamespace()               # signals that several steps share
        self._bus(m, s)
        self._commands(m, s)
        self._constants(m, s)
        self._results(m, s)
        self._counter_ports(m, s)
        self._low_bits(m, s)
        self._high_bits(m, s)
        self._reads(m, s)
        return m

    def _bus(self, m, s):
        """The access: its address, its end, where it is written to."""
        s.bus = self.bus
        s.address, s.written, we = Signal(12), Signal(32), Signal()
        write, step = Signal(), Signal(2)
        # held while there is no ack
        m.d.sync += [s.address.eq(s.bus.adr << 2), s.written.eq(s.bus.dat_w), we.eq(s.bus.we)]
        s.clearing, s.place, s.counting, s.counting1, s.adding = Signal(), Signal(6), Signal(), Signal(), Signal()
        s.added = Signal()
        s.over = Signal(len(Counter))         # counters whose low bits overflowed in the cycle before
        access = s.bus.cyc & s.bus.stb & ~s.bus.ack
        # What a counter has carried is added before anything is read; after a clear every access waits for its end.
        calm, was_calm = Signal(), Signal()
        of_candidates = Signal()
        m.d.sync += of_candidates.eq(s.address[10:] == Region.CANDIDATES >> 10)
        m.d.comb += calm.eq(~s.over.any() & ~s.counting & ~s.counting1 & ~s.adding & ~s.added & ~s.clearing
                            & ~(of_candidates & self.candidates.busy))
        m.d.sync += was_calm.eq(calm)            # and so is what was read a cycle ago
        last_step = access & (step == 3) & calm & was_calm
        m.d.sync += [s.bus.ack.eq(last_step), step.eq(Mux(last_step | ~access, 0, Mux(step == 3, 3, step + 1)))]
        m.d.sync += [
            write.eq(last_step & we),     # with the acknowledgement: address and word are still there
            self.candidates.pop.eq(last_step & ~we & of_candidates & s.address[9]),
        ]

        def written_to(region, bits=0, name=None):
            """A word goes to ``region``, of ``2**bits`` bytes: compared ahead, for the address has been there for three
            cycles."""
            here = Signal(name=f"is_{name or region.name.lower()}")
            m.d.sync += here.eq(s.address[bits:] == region >> bits)
            return write & here
        s.written_to = written_to

    def _commands(self, m, s):
        """Words of commands to the queue, tokens for some."""
        m.d.comb += [self.tokens.write.eq(s.written_to(Region.TOKEN, 5)), self.tokens.column.eq(s.address[2:5]),
                     self.tokens.token.eq(s.written)]
        queue = CommandQueue()
        m.submodules.queue = ResetInserter(self.abort)(queue)
        m.d.comb += [
            queue.write.eq(s.written_to(Region.COMMAND, 4)), queue.word.eq(s.address[2:4]), queue.data.eq(s.written),
            self.queue.overflow.eq(queue.overflow), self.queue.busy.eq(queue.busy), self.queue.free.eq(queue.free),
        ]
        wiring.connect(m, wiring.flipped(self.commands), queue.commands)
        wiring.connect(m, wiring.flipped(self.ahead), queue.ahead)

    def _constants(self, m, s):
        """The model's constants and frequencies."""
        # Constants of the model
        names = {word: word.name.lower() for word in Model if word != Model.LOGIT_SCALE}
        names |= {Model.LOGIT_SCALE + i: f"logit_scale{i}" for i in range(self.candidate_sets)}
        words = {word: Signal(32, name=f"model_{name}") for word, name in names.items()}
        for word, value in words.items():
            with m.If(s.written_to(Region.MODEL + 4 * word, name=f"model_{names[word]}")):
                m.d.sync += value.eq(s.written)
        for i in range(self.candidate_sets):
            scale = words[Model.LOGIT_SCALE + i]
            m.d.comb += [self.scales.mantissas[i].eq(scale[:16]), self.scales.exponents[i].eq(scale[16:24])]
        model = self.model
        m.d.comb += [
            model.dim.eq(words[Model.DIM]), model.epsilon.eq(words[Model.EPSILON]),
            model.head_dim.eq(words[Model.HEAD_DIM]),
            model.n_heads.eq(words[Model.N_HEADS]), model.n_kv_heads.eq(words[Model.N_KV_HEADS]),
            model.narrow.eq(words[Model.KV_FORMAT]),
            model.score_mantissa.eq(words[Model.SCORE_SCALE][:16]),
            model.score_exponent.eq(words[Model.SCORE_SCALE][16:24]),
        ]
        m.submodules.rope = rope = memory.Memory(shape=32, depth=64, init=[], attrs={"ram_style": "distributed"})
        rope_write, rope_read = rope.write_port(), rope.read_port()
        m.d.comb += [rope_write.addr.eq(s.address[2:8]), rope_write.data.eq(s.written),
                     rope_write.en.eq(s.written_to(Region.ROPE, 8)),
                     rope_read.addr.eq(self.frequencies.index), self.frequencies.value.eq(rope_read.data)]

    def _results(self, m, s):
        """Results, word by word."""
        # Results: word by word into distributed memory, eight words each
        m.submodules.results = results = memory.Memory(shape=32, depth=8 * RESULT_DEPTH, init=[],
                                                           attrs={"ram_style": "distributed"})
        result_write, s.result_read = results.write_port(), results.read_port(domain="comb")
        newest, oldest, kept = Signal(range(RESULT_DEPTH)), Signal(range(RESULT_DEPTH)), Signal(range(RESULT_DEPTH + 1))
        s.word, stored, removed, dump_take = Signal(3), Signal(), Signal(), Signal(reset_less=True)
        result = self.results.payload
        words_of_result = Array([result.token, result.logit, result.cycles, result.maximum, result.mass[:32],
                                 result.mass[32:], Cat(result.kept, result.column), result.total])
        assert len(Result) == 8
        m.d.comb += [
            result_write.addr.eq(Cat(s.word, newest)), result_write.data.eq(words_of_result[s.word]),
            result_write.en.eq(self.results.valid & (kept != RESULT_DEPTH)),
            stored.eq(result_write.en & (s.word == len(Result) - 1)), self.results.ready.eq(stored),
            self.result_valid.eq(kept != 0), removed.eq(s.written_to(Region.RESULT) & self.result_valid),
            s.result_read.addr.eq(delay(m, Cat(s.address[2:5], oldest), 1, "result_at")),
            self.dump.take.eq(dump_take), self.candidates.index.eq(s.address[3:9]),
        ]
        m.d.sync += dump_take.eq(s.written_to(Region.LOGIT))
        if self.candidate_sets != 1:
            with m.If(s.written_to(Region.CANDIDATES)):
                m.d.sync += self.candidates.which.eq(s.written)
        with m.If(result_write.en):
            m.d.sync += s.word.eq(Mux(stored, 0, s.word + 1))
        m.d.sync += [newest.eq(newest + stored), oldest.eq(oldest + removed), kept.eq(kept + stored - removed)]
        with m.If(self.abort):
            m.d.sync += [s.word.eq(0), newest.eq(0), oldest.eq(0), kept.eq(0)]

    def _counter_ports(self, m, s):
        """Whose turn it is, and where its upper bits lie."""
        # Counters: the low bits of each in a memory of its own, what they carry into one for all, one a cycle
        counted = self.activity
        s.inputs = (counted.cycle, counted.beat, counted.starved, counted.fenced, counted.stalled)
        assert len(s.inputs) == len(Counter) and len(Phase) <= 9
        s.phase, s.shown = Signal(4), Signal(4)
        m.d.comb += [s.phase.eq(Mux(counted.phase[3], 8, counted.phase)),
                     s.shown.eq(Mux(s.address[8], 8, s.address[5:9]))]
        m.submodules.counters = high = memory.Memory(shape=32 - LOW, depth=64, init=[],
                                                          attrs={"ram_style": "distributed"})
        s.high_write, s.high_read = high.write_port(), high.read_port(domain="comb")

        def entry(counter, phase):
            """Place of a counter: eight phases of each, then the ninth of each."""
            return Mux(phase[3], Cat(counter[:3], Const(0b101, 3)), Cat(phase[:3], counter[:3]))
        s.high_at, s.added_at, s.shown1 = Signal(6), Signal(6), delay(m, s.shown, 1, "shown1")
        s.of_counters = Signal(32)            # what is read
        s.last_phase, s.phase1 = Signal(4), Signal(4)
        m.d.sync += s.last_phase.eq(s.phase)
        s.carried, s.serving = Signal(len(Counter)), Signal(range(len(Counter)))
        s.serving1 = Signal(range(len(Counter)))
        s.carried_phase = Array(Signal(4, name=f"carried_phase{i}") for i in range(len(Counter)))
        s.lows = Array(Signal(LOW, name=f"low{i}") for i in range(8))
        s.entry = entry

    def _low_bits(self, m, s):
        """The low bits of each counter, in a memory of its own."""
        for i, one in enumerate(s.inputs):
            m.submodules[f"counter{i}"] = low = memory.Memory(shape=LOW, depth=16, init=[])
            w, r, view = low.write_port(), low.read_port(domain="comb"), low.read_port(domain="comb")
            total = Signal(LOW + 1, name=f"total{i}")
            m.d.comb += [
                r.addr.eq(s.phase), view.addr.eq(s.shown1), s.lows[i].eq(view.data), total.eq(r.data + one),
                w.addr.eq(Mux(s.clearing, s.place[:4], s.phase)), w.data.eq(Mux(s.clearing, 0, total)),
                w.en.eq((one != 0) | s.clearing),
            ]
            m.d.sync += s.over[i].eq(total[LOW] & ~s.clearing)
            with m.If(s.over[i]):
                m.d.sync += [s.carried[i].eq(1), s.carried_phase[i].eq(s.last_phase)]
            with m.Elif(s.serving == i):
                m.d.sync += s.carried[i].eq(0)

    def _high_bits(self, m, s):
        """What the low bits carry, one a cycle; a clear."""
        for i in reversed(range(len(Counter))):
            with m.If(s.carried[i]):
                m.d.comb += s.serving.eq(i)
        m.d.sync += [s.counting1.eq(s.counting), s.serving1.eq(s.serving), s.phase1.eq(s.carried_phase[s.serving])]
        m.d.comb += [
            s.counting.eq(s.carried.any()),
            s.high_read.addr.eq(s.high_at), s.high_write.addr.eq(Mux(s.clearing, s.place, s.added_at)),
            s.high_write.en.eq(s.added | s.clearing), s.high_write.data.eq(Mux(s.clearing, 0, s.of_counters[LOW:] + 1)),
        ]
        m.d.sync += [s.place.eq(s.place + 1), s.adding.eq(s.counting1), s.added.eq(s.adding), s.added_at.eq(s.high_at),
                     s.high_at.eq(Mux(s.counting1, s.entry(s.serving1, s.phase1), s.entry(s.address[2:5], s.shown)))]
        # What is being carried arrives within 10 cycles, while the clear still writes: then nothing is added.
        with m.If(self.clear):
            m.d.sync += [s.clearing.eq(1), s.place.eq(0)]
        with m.Elif(s.place == 63):
            m.d.sync += s.clearing.eq(0)

    def _reads(self, m, s):
        """What a read yields."""
        # Reads
        read, of = Signal(32), self.candidates
        of_result = delay(m, s.result_read.data, 1, "of_result")
        m.d.sync += s.of_counters.eq(Cat(s.lows[s.address[2:5]], s.high_read.data))
        with m.Switch(s.address[10:]):
            with m.Case(Region.RESULT >> 10):
                m.d.comb += read.eq(Mux(s.address[6], self.dump.data, of_result))
            with m.Case(Region.COUNTERS >> 10):
                m.d.comb += read.eq(s.of_counters)
            with m.Case(Region.CANDIDATES >> 10):
                m.d.comb += read.eq(Mux(s.address[9], Cat(of.weight, Const(0, 1), of.place),
                                        Mux(s.address[2], of.logit, of.token)))
        m.d.sync += s.bus.dat_r.eq(read)
