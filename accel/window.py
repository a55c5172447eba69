"""The core's Wishbone window: commands in, model constants in, results, candidates and counters out."""
from amaranth.hdl import Array, Cat, Const, Module, Mux, ResetInserter, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.command_queue import AHEAD, CommandQueue
from accel.numeric import delay
from llama2_spec.registers import RESULT_DEPTH, Counter, Model, Phase, Result
from llama2_spec.registers import Window as Region

#: What one classifier pass yields, in the order of llama2_spec.registers.Result.
RESULT = data.StructLayout({"token": 32, "logit": signed(32), "cycles": 32, "maximum": signed(32), "mass": 64, "kept": 32})


LOW = 6             # bits of a counter that are counted where they are kept


class WishboneSignature(wiring.Signature):
    """A classic Wishbone slave of 32-bit words, seen from the master."""
    def __init__(self, addr_width=10):
        super().__init__({"cyc": Out(1), "stb": Out(1), "we": Out(1), "adr": Out(addr_width), "dat_w": Out(32),
                          "sel": Out(4), "dat_r": In(32), "ack": In(1)})


class Window(wiring.Component):
    """See llama2_spec.registers.Window for the map; an access takes four cycles, more beside a counter's carry or clear.

    Members
    -------
    ahead, commands : Out(stream)
        Commands in the order of their fourth word, see :class:`accel.command_queue.CommandQueue`.
    model__<name> : Out
        The words of llama2_spec.registers.Model.
    count_* : In
        So many more for the counter of ``phase``. At most three count in a cycle, and a phase lasts three at least:
        then what a counter carries is added before it can carry again.
    """
    def __init__(self):
        super().__init__({
            "bus": In(WishboneSignature()), "abort": In(1),
            "ahead": Out(stream.Signature(AHEAD)), "commands": Out(stream.Signature(128)),
            "queue_free": Out(8), "queue_busy": Out(1), "queue_overflow": Out(1),
            **{f"model__{word.name.lower()}": Out(32) for word in Model},
            "rope_index": In(6), "rope_frequency": Out(32),
            "results": In(stream.Signature(RESULT)), "result_valid": Out(1),
            "dump_valid": In(1), "dump_data": In(32), "dump_take": Out(1),
            "candidate_index": Out(6), "candidate_token": In(18), "candidate_logit": In(signed(32)),
            "phase": In(4), "clear": In(1),
            "count_beat": In(2), **{f"count_{name}": In(1) for name in ("cycle", "starved", "fenced", "stalled")},
        })

    def elaborate(self, platform):
        m = Module()
        bus = self.bus
        address, written, we = Signal(12), Signal(32), Signal()
        write, step = Signal(), Signal(2)
        m.d.sync += [address.eq(bus.adr << 2), written.eq(bus.dat_w), we.eq(bus.we)]    # held while there is no ack
        clearing, place, counting, counting1, adding, added = Signal(), Signal(6), Signal(), Signal(), Signal(), Signal()
        over = Signal(len(Counter))         # counters whose low bits overflowed in the cycle before
        access = bus.cyc & bus.stb & ~bus.ack
        # What a counter has carried is added before anything is read; after a clear every access waits for its end.
        calm, was_calm = Signal(), Signal()
        m.d.comb += calm.eq(~over.any() & ~counting & ~counting1 & ~adding & ~added & ~clearing)
        m.d.sync += was_calm.eq(calm)            # and so is what was read a cycle ago
        last_step = access & (step == 3) & calm & was_calm
        m.d.sync += [bus.ack.eq(last_step), step.eq(Mux(last_step | ~access, 0, Mux(step == 3, 3, step + 1)))]
        m.d.sync += write.eq(last_step & we)     # with the acknowledgement: address and word are still there

        def written_to(region, bits=0, name=None):
            """A word goes to ``region``, of ``2**bits`` bytes: compared ahead, for the address has been there for three cycles."""
            here = Signal(name=f"is_{name or region.name.lower()}")
            m.d.sync += here.eq(address[bits:] == region >> bits)
            return write & here

        # Commands ----------------------------------------------------------------------------------------------
        queue = CommandQueue()
        m.submodules.queue = ResetInserter(self.abort)(queue)
        m.d.comb += [
            queue.write.eq(written_to(Region.COMMAND, 4)), queue.word.eq(address[2:4]), queue.data.eq(written),
            self.queue_overflow.eq(queue.overflow), self.queue_busy.eq(queue.busy), self.queue_free.eq(queue.free),
        ]
        wiring.connect(m, wiring.flipped(self.commands), queue.commands)
        wiring.connect(m, wiring.flipped(self.ahead), queue.ahead)

        # Constants of the model ----------------------------------------------------------------------------------
        for word in Model:
            with m.If(written_to(Region.MODEL + 4 * word, name=f"model_{word.name.lower()}")):
                m.d.sync += getattr(self, f"model__{word.name.lower()}").eq(written)
        m.submodules.rope = rope = memory.Memory(shape=32, depth=64, init=[], attrs={"ram_style": "distributed"})
        rope_write, rope_read = rope.write_port(), rope.read_port()
        m.d.comb += [rope_write.addr.eq(address[2:8]), rope_write.data.eq(written),
                     rope_write.en.eq(written_to(Region.ROPE, 8)),
                     rope_read.addr.eq(self.rope_index), self.rope_frequency.eq(rope_read.data)]

        # Results: word by word into distributed memory, eight words each ----------------------------------------
        m.submodules.results = results = memory.Memory(shape=32, depth=8 * RESULT_DEPTH, init=[],
                                                           attrs={"ram_style": "distributed"})
        result_write, result_read = results.write_port(), results.read_port(domain="comb")
        newest, oldest, kept = Signal(range(RESULT_DEPTH)), Signal(range(RESULT_DEPTH)), Signal(range(RESULT_DEPTH + 1))
        word, stored, removed = Signal(3), Signal(), Signal()
        result = self.results.payload
        words_of_result = Array([result.token, result.logit, result.cycles, result.maximum, result.mass[:32], result.mass[32:],
                                 result.kept, 0])
        assert len(Result) == 7
        m.d.comb += [
            result_write.addr.eq(Cat(word, newest)), result_write.data.eq(words_of_result[word]),
            result_write.en.eq(self.results.valid & (kept != RESULT_DEPTH)),
            stored.eq(result_write.en & (word == len(Result) - 1)), self.results.ready.eq(stored),
            self.result_valid.eq(kept != 0), removed.eq(written_to(Region.RESULT) & self.result_valid),
            result_read.addr.eq(delay(m, Cat(address[2:5], oldest), 1, "result_at")),
            self.dump_take.eq(written_to(Region.LOGIT)), self.candidate_index.eq(address[3:9]),
        ]
        with m.If(result_write.en):
            m.d.sync += word.eq(Mux(stored, 0, word + 1))
        m.d.sync += [newest.eq(newest + stored), oldest.eq(oldest + removed), kept.eq(kept + stored - removed)]
        with m.If(self.abort):
            m.d.sync += [word.eq(0), newest.eq(0), oldest.eq(0), kept.eq(0)]

        # Counters: the low bits of each in a memory of its own, what they carry into one for all, one a cycle ------
        inputs = (self.count_cycle, self.count_beat, self.count_starved, self.count_fenced, self.count_stalled)
        assert len(inputs) == len(Counter) and len(Phase) <= 9
        phase, shown = Signal(4), Signal(4)
        m.d.comb += [phase.eq(Mux(self.phase[3], 8, self.phase)), shown.eq(Mux(address[8], 8, address[5:9]))]
        m.submodules.counters = high = memory.Memory(shape=32 - LOW, depth=64, init=[],
                                                          attrs={"ram_style": "distributed"})
        high_write, high_read = high.write_port(), high.read_port(domain="comb")

        def entry(counter, phase):
            """Place of a counter: eight phases of each, then the ninth of each."""
            return Mux(phase[3], Cat(counter[:3], Const(0b101, 3)), Cat(phase[:3], counter[:3]))
        high_at, added_at, shown1 = Signal(6), Signal(6), delay(m, shown, 1, "shown1")
        of_counters = Signal(32)            # what is read
        last_phase, phase1 = Signal(4), Signal(4)
        m.d.sync += last_phase.eq(phase)
        carried, serving, serving1 = Signal(len(Counter)), Signal(range(len(Counter))), Signal(range(len(Counter)))
        carried_phase = Array(Signal(4, name=f"carried_phase{i}") for i in range(len(Counter)))
        lows = Array(Signal(LOW, name=f"low{i}") for i in range(8))
        for i, one in enumerate(inputs):
            m.submodules[f"counter{i}"] = low = memory.Memory(shape=LOW, depth=16, init=[])
            w, r, view = low.write_port(), low.read_port(domain="comb"), low.read_port(domain="comb")
            total = Signal(LOW + 1, name=f"total{i}")
            m.d.comb += [
                r.addr.eq(phase), view.addr.eq(shown1), lows[i].eq(view.data), total.eq(r.data + one),
                w.addr.eq(Mux(clearing, place[:4], phase)), w.data.eq(Mux(clearing, 0, total)), w.en.eq((one != 0) | clearing),
            ]
            m.d.sync += over[i].eq(total[LOW] & ~clearing)
            with m.If(over[i]):
                m.d.sync += [carried[i].eq(1), carried_phase[i].eq(last_phase)]
            with m.Elif(serving == i):
                m.d.sync += carried[i].eq(0)
        for i in reversed(range(len(Counter))):
            with m.If(carried[i]):
                m.d.comb += serving.eq(i)
        m.d.sync += [counting1.eq(counting), serving1.eq(serving), phase1.eq(carried_phase[serving])]
        m.d.comb += [
            counting.eq(carried.any()),
            high_read.addr.eq(high_at), high_write.addr.eq(Mux(clearing, place, added_at)), high_write.en.eq(added | clearing),
            high_write.data.eq(Mux(clearing, 0, of_counters[LOW:] + 1)),
        ]
        m.d.sync += [place.eq(place + 1), adding.eq(counting1), added.eq(adding), added_at.eq(high_at),
                     high_at.eq(Mux(counting1, entry(serving1, phase1), entry(address[2:5], shown)))]
        with m.If(self.clear):
            m.d.sync += [clearing.eq(1), place.eq(0), over.eq(0), carried.eq(0), counting1.eq(0), adding.eq(0), added.eq(0)]
        with m.Elif(place == 63):
            m.d.sync += clearing.eq(0)

        # Reads ---------------------------------------------------------------------------------------------------------
        read = Signal(32)
        of_result = delay(m, result_read.data, 1, "of_result")
        m.d.sync += of_counters.eq(Cat(lows[address[2:5]], high_read.data))
        with m.Switch(address[10:]):
            with m.Case(Region.RESULT >> 10):
                m.d.comb += read.eq(Mux(address[6], self.dump_data, of_result))
            with m.Case(Region.COUNTERS >> 10):
                m.d.comb += read.eq(of_counters)
            with m.Case(Region.CANDIDATES >> 10):
                m.d.comb += read.eq(Mux(address[2], self.candidate_logit, self.candidate_token))
        m.d.sync += bus.dat_r.eq(read)
        return m
