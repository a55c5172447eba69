"""The core's Wishbone window: commands in, model constants in, results, candidates and counters out."""
from amaranth.hdl import Array, Cat, Module, Mux, ResetInserter, Signal, signed
from amaranth.lib import data, fifo, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from spec.registers import QUEUE_DEPTH, RESULT_DEPTH, Counter, Model, Phase, Result
from spec.registers import Window as Region

#: What one classifier pass yields, in the order of spec.registers.Result.
RESULT = data.StructLayout({"token": 32, "logit": signed(32), "cycles": 32, "maximum": signed(32), "mass": 64, "kept": 32})


class WishboneSignature(wiring.Signature):
    """A classic Wishbone slave of 32-bit words, seen from the master."""
    def __init__(self, addr_width=10):
        super().__init__({"cyc": Out(1), "stb": Out(1), "we": Out(1), "adr": Out(addr_width), "dat_w": Out(32),
                          "sel": Out(4), "dat_r": In(32), "ack": In(1)})


class Window(wiring.Component):
    """See spec.registers.Window for the map; an access takes three cycles.

    Members
    -------
    commands : Out(stream)
        Commands in the order of their fourth word.
    model__<name> : Out
        The words of spec.registers.Model.
    count_* : In
        So many more for the counter of ``phase``.
    """
    def __init__(self):
        super().__init__({
            "bus": In(WishboneSignature()), "abort": In(1),
            "commands": Out(stream.Signature(128)), "queue_free": Out(8), "queue_busy": Out(1), "queue_overflow": Out(1),
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
        address = Signal(12)
        write, step = Signal(), Signal(2)
        m.d.comb += address.eq(bus.adr << 2)
        access = bus.cyc & bus.stb & ~bus.ack
        m.d.sync += [bus.ack.eq(access & (step == 2)), step.eq(Mux(access & (step != 2), step + 1, 0))]
        m.d.comb += write.eq(access & bus.we & (step == 2))

        # Commands ----------------------------------------------------------------------------------------------
        queue = fifo.SyncFIFOBuffered(width=128, depth=QUEUE_DEPTH)
        m.submodules.queue = ResetInserter(self.abort)(queue)
        words = [Signal(32, name=f"word{i}") for i in range(3)]
        in_commands = address[4:] == Region.COMMAND >> 4
        for i in range(3):
            with m.If(write & in_commands & (address[2:4] == i)):
                m.d.sync += words[i].eq(bus.dat_w)
        push = write & in_commands & (address[2:4] == 3)
        m.d.comb += [
            queue.w_data.eq(Cat(*words, bus.dat_w)), queue.w_en.eq(push), self.queue_overflow.eq(push & ~queue.w_rdy),
            self.queue_busy.eq(queue.level != 0), self.queue_free.eq(Mux(queue.w_rdy, QUEUE_DEPTH - queue.level, 0)),
            self.commands.valid.eq(queue.r_rdy & ~self.abort), self.commands.payload.eq(queue.r_data),
            queue.r_en.eq(self.commands.ready),
        ]

        # Constants of the model ----------------------------------------------------------------------------------
        for word in Model:
            with m.If(write & (address == Region.MODEL + 4 * word)):
                m.d.sync += getattr(self, f"model__{word.name.lower()}").eq(bus.dat_w)
        m.submodules.rope = rope = memory.Memory(shape=32, depth=64, init=[])
        rope_write, rope_read = rope.write_port(), rope.read_port()
        m.d.comb += [rope_write.addr.eq(address[2:8]), rope_write.data.eq(bus.dat_w),
                     rope_write.en.eq(write & (address[8:] == Region.ROPE >> 8)),
                     rope_read.addr.eq(self.rope_index), self.rope_frequency.eq(rope_read.data)]

        # Results ---------------------------------------------------------------------------------------------------
        results = fifo.SyncFIFO(width=RESULT.size, depth=RESULT_DEPTH)
        m.submodules.results = ResetInserter(self.abort)(results)
        oldest = data.View(RESULT, results.r_data)
        m.d.comb += [
            results.w_en.eq(self.results.valid), self.results.ready.eq(results.w_rdy), results.w_data.eq(self.results.payload),
            self.result_valid.eq(results.r_rdy), results.r_en.eq(write & (address == Region.RESULT)),
            self.dump_take.eq(write & (address == Region.LOGIT)), self.candidate_index.eq(address[3:9]),
        ]
        answers = Array([oldest.token, oldest.logit, oldest.cycles, oldest.maximum, oldest.mass[:32], oldest.mass[32:],
                         oldest.kept, 0])
        assert len(Result) == 7

        # Counters: one entry a phase in distributed memory, read and written in the same cycle --------------------
        counters = [memory.Memory(shape=32, depth=16, init=[]) for _ in Counter]
        inputs = (self.count_cycle, self.count_beat, self.count_starved, self.count_fenced, self.count_stalled)
        clearing = Signal(5)
        count_read = Array(Signal(32, name=f"counter{i}") for i in range(8))
        with m.If(self.clear):
            m.d.sync += clearing.eq(16)
        with m.Elif(clearing != 0):
            m.d.sync += clearing.eq(clearing - 1)
        for i, (counter, one) in enumerate(zip(counters, inputs)):
            m.submodules[f"counter{i}"] = counter
            w, r, view = counter.write_port(), counter.read_port(domain="comb"), counter.read_port(domain="comb")
            total = Signal(32, name=f"total{i}")
            m.d.comb += [r.addr.eq(self.phase), view.addr.eq(address[5:9]), count_read[i].eq(view.data),
                         total.eq(r.data + one)]
            m.d.comb += [w.addr.eq(Mux(clearing != 0, clearing[:4], self.phase)),
                         w.data.eq(Mux(clearing != 0, 0, total)), w.en.eq((one != 0) | (clearing != 0))]
        assert len(Phase) <= 16

        # Reads ---------------------------------------------------------------------------------------------------------
        read = Signal(32)
        with m.Switch(address[10:]):
            with m.Case(Region.RESULT >> 10):
                m.d.comb += read.eq(Mux(address[6], self.dump_data, answers[address[2:5]]))
            with m.Case(Region.COUNTERS >> 10):
                m.d.comb += read.eq(count_read[address[2:5]])
            with m.Case(Region.CANDIDATES >> 10):
                m.d.comb += read.eq(Mux(address[2], self.candidate_logit, self.candidate_token))
        m.d.sync += bus.dat_r.eq(read)
        return m
