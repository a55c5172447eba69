"""The logit unit: argmax, the largest logits as candidates for sampling, and the mass of the whole vocabulary.

Computes :meth:`spec.golden.Logits.kept` and :func:`spec.golden.running_mass`; logits never go to DRAM.
"""
from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from accel.numeric import coarse_shift, fine_shift
from accel.softmax_weight import SoftmaxWeight
from accel.window import RESULT
from spec.numerics import ROW_FRACTION, SCORE_FRACTION

KEY = 50            # a candidate's rank: {logit, ~token}, so that of equal logits the later token goes first
GROUP = 8


class LogitUnit(wiring.Component):
    """One logit a cycle, or with ``keep`` one in about 20 cycles where it is inserted among the candidates.

    Members
    -------
    start : In
        Forget the last pass.
    logits : In(stream)
    keep, dump : In
        Gather candidates and mass; offer each logit at ``dump_data`` and wait for ``dump_take``.
    result : Out(stream)
        One per pass.
    candidate_index : In
        ``candidate_token`` and ``candidate_logit`` follow one cycle later, in no particular order.
    """
    def __init__(self, *, candidates=64):
        self.candidates = candidates
        super().__init__({
            "start": In(1), "keep": In(1), "dump": In(1), "busy": Out(1), "cycles": In(32),
            "scale_mantissa": In(16), "scale_exponent": In(signed(8)),
            "logits": In(stream.Signature(data.StructLayout({"value": signed(32), "last": 1}))),
            "result": Out(stream.Signature(RESULT)),
            "dump_valid": Out(1), "dump_data": Out(32), "dump_take": In(1),
            "candidate_index": In(6), "candidate_token": Out(18), "candidate_logit": Out(signed(32)),
        })

    def elaborate(self, platform):
        m = Module()
        item = self.logits.payload
        token, best, best_token, none_yet = Signal(18), Signal(signed(32)), Signal(18), Signal(init=1)
        keep, dump, running, ended = Signal(), Signal(), Signal(), Signal()
        free, take = Signal(), Signal()
        m.d.comb += [
            self.logits.ready.eq(free & running & ~ended & (~dump | self.dump_take)),
            take.eq(self.logits.ready & self.logits.valid),
            self.dump_valid.eq(dump & running & ~ended & free & self.logits.valid), self.dump_data.eq(item.value),
        ]
        cycles = Signal(32)
        with m.If(take):
            m.d.sync += [token.eq(token + 1), none_yet.eq(0), ended.eq(item.last), cycles.eq(self.cycles)]
            with m.If(none_yet | (item.value > best)):
                m.d.sync += [best.eq(item.value), best_token.eq(token)]

        # Candidates: eight groups of eight; the smallest of each group and of all is known ------------------------
        key = Cat(~token, item.value).as_signed()
        m.submodules.store = store = memory.Memory(shape=signed(KEY), depth=self.candidates, init=[])
        w, r, view = store.write_port(), store.read_port(), store.read_port()
        groups = self.candidates // GROUP
        m.submodules.smallest = smallest = memory.Memory(shape=data.StructLayout({"key": signed(KEY), "slot": 3}), depth=groups,
                                                         init=[])
        smallest_in, smallest_out = smallest.write_port(), smallest.read_port(domain="comb")
        low, low_group, low_slot = Signal(signed(KEY)), Signal(range(groups)), Signal(3)
        kept = Signal(7)
        full = kept == self.candidates
        group, at, seen, scan_all = Signal(range(groups)), Signal(4), Signal(), Signal()
        found, found_slot = Signal(signed(KEY)), Signal(3)
        m.d.comb += [view.addr.eq(self.candidate_index), self.candidate_token.eq(~view.data[:18]),
                     self.candidate_logit.eq(view.data[18:].as_signed()),
                     w.data.eq(key), r.addr.eq(Cat(at[:3], group)), smallest_in.addr.eq(group),
                     smallest_in.data.key.eq(found), smallest_in.data.slot.eq(found_slot), smallest_out.addr.eq(at)]
        with m.FSM() as fsm:
            with m.State("READY"):
                m.d.comb += free.eq(1)
                m.d.sync += [at.eq(0), seen.eq(0), scan_all.eq(0), group.eq(low_group)]
                with m.If(take & keep):
                    with m.If(~full):
                        m.d.comb += [w.en.eq(1), w.addr.eq(kept)]
                        m.d.sync += kept.eq(kept + 1)
                        with m.If(kept == self.candidates - 1):
                            m.d.sync += [scan_all.eq(1), group.eq(0)]
                            m.next = "SCAN"
                    with m.Elif(key > low):
                        m.d.comb += [w.en.eq(1), w.addr.eq(Cat(low_slot, low_group))]
                        m.next = "SCAN"
            with m.State("SCAN"):
                # Entry at - 1 is there while entry at is asked for
                m.d.sync += at.eq(at + 1)
                with m.If((at != 0) & ((at == 1) | (r.data < found))):
                    m.d.sync += [found.eq(r.data), found_slot.eq(at - 1)]
                with m.If(at == GROUP):
                    m.next = "GROUP"
            with m.State("GROUP"):
                m.d.comb += smallest_in.en.eq(1)
                m.d.sync += at.eq(0)
                with m.If(scan_all & (group != groups - 1)):
                    m.d.sync += group.eq(group + 1)
                    m.next = "SCAN"
                with m.Else():
                    m.next = "LOWEST"
            with m.State("LOWEST"):
                entry = smallest_out.data
                m.d.sync += at.eq(at + 1)
                with m.If((at == 0) | (entry.key < low)):
                    m.d.sync += [low.eq(entry.key), low_slot.eq(entry.slot), low_group.eq(at)]
                with m.If(at == groups - 1):
                    m.next = "READY"

        # Mass: scale to log2, raise the reference with each new maximum, weigh, add --------------------------------
        wanted, shift = Signal(signed(9)), Signal(6)
        product, coarse = Signal(signed(48)), Signal(signed(32 + 18))
        score, maximum, first = Signal(signed(32)), Signal(signed(17)), Signal(init=1)
        m.d.comb += wanted.eq(ROW_FRACTION - SCORE_FRACTION - self.scale_exponent)
        m.d.sync += [
            shift.eq(Mux(wanted < 0, 0, Mux(wanted > 63, 63, wanted))),     # a constant of the pass
            product.eq(item.value * Cat(self.scale_mantissa, Const(0, 1)).as_signed()),     # |product| <= 2**47
            coarse.eq(coarse_shift(m, product, shift, 32)), score.eq(fine_shift(m, coarse, shift, 32)[0]),
        ]
        # A score that reaches the reference raises it to one above the score's integer part
        integer, fraction = score[SCORE_FRACTION:].as_signed(), score[:SCORE_FRACTION]
        above, rise = Signal(signed(18)), Signal(6)
        d = Signal(data.StructLayout({"fraction": SCORE_FRACTION, "integer": signed(18)}))
        m.d.comb += above.eq(integer - maximum)
        raised = first | (above >= 0)
        stages = [take & keep]
        for i in range(4 + SoftmaxWeight.latency):
            v = Signal(name=f"mass_valid{i}")
            m.d.sync += v.eq(stages[-1])
            stages.append(v)
        with m.If(stages[3]):
            m.d.sync += [first.eq(0), d.fraction.eq(fraction), d.integer.eq(Mux(raised, -1, above)),
                         rise.eq(Mux(first | (above < 0), 0, Mux(above >= 63, 63, above + 1)))]
            with m.If(raised):
                m.d.sync += maximum.eq(integer + 1)
        m.submodules.weight = weight = SoftmaxWeight(width=34)
        m.d.comb += weight.d.eq(d)
        rises = [rise]
        for i in range(SoftmaxWeight.latency):
            x = Signal(6, name=f"rise{i}")
            m.d.sync += x.eq(rises[-1])
            rises.append(x)
        mass = Signal(48)
        with m.If(stages[4 + SoftmaxWeight.latency]):
            m.d.sync += mass.eq((mass >> rises[-1]) + weight.p)

        # The result, when all has settled -------------------------------------------------------------------------------
        out = self.result.payload
        settled = running & ended & fsm.ongoing("READY") & ~Cat(*stages[1:]).any()
        m.d.comb += [
            self.result.valid.eq(settled), out.token.eq(best_token), out.logit.eq(best), out.cycles.eq(cycles),
            out.maximum.eq(maximum), out.mass.eq(mass), out.kept.eq(kept), self.busy.eq(running),
        ]
        with m.If(self.result.valid & self.result.ready):
            m.d.sync += [running.eq(0), ended.eq(0)]
        with m.If(self.start):
            m.d.sync += [running.eq(1), ended.eq(0), keep.eq(self.keep), dump.eq(self.dump), token.eq(0), none_yet.eq(1),
                         kept.eq(0), first.eq(1), mass.eq(0), maximum.eq(0)]
        return m
