"""Beats come back in the order of the segments, whatever the memory's two ports do; what an abort drops is drained."""
from amaranth.hdl import Assert, Assume, Cat, Elaboratable, Module, Mux, Signal
from amaranth.hdl._ast import AnyConst
from amaranth.lib import data

from tests.proofs.streams import any_value


class Port:
    """A read port of a DRAM that takes commands and answers when it likes, in order; what it answers is one bit, set
    for the address ``marked``. ``waiting`` commands are not yet answered; ``depth`` is the most that there may be."""
    def __init__(self, m, native, answers, marked, drop, *, depth, name):
        self.fire, self.answers = Signal(name=f"{name}_fire"), answers
        m.d.comb += [native.cmd_ready.eq(any_value(m, 1, f"{name}_takes")), native.rdata_valid.eq(answers),
                     self.fire.eq(native.cmd_valid & native.cmd_ready)]
        self.waiting, kept = Signal(range(depth + 3), name=f"{name}_waiting"), Signal(range(depth + 3))
        bits = [Signal(name=f"{name}_bit{i}") for i in range(depth + 2)]
        m.d.comb += [kept.eq(self.waiting - answers), Assume(~answers | (self.waiting != 0)),
                     Assert(self.waiting <= depth)]
        m.d.sync += self.waiting.eq(kept + self.fire)
        for i in range(depth + 1):
            m.d.sync += bits[i].eq(Mux(self.fire & (kept == i), native.cmd_addr == marked,
                                       Mux(answers, bits[i + 1], bits[i])))
        self.bit = bits[0]
        self._keeps_asking(m, native, drop, name)

    def _keeps_asking(self, m, native, drop, name):
        """A command that was not taken is the next one, too. It may be withdrawn meanwhile, when the other port takes a
        block that is older."""
        asked, address = Signal(name=f"{name}_asked"), Signal(len(native.cmd_addr), name=f"{name}_address")
        with m.If(native.cmd_valid):
            m.d.sync += [asked.eq(~native.cmd_ready), address.eq(native.cmd_addr)]
        with m.If(drop):
            m.d.sync += asked.eq(0)
        m.d.comb += Assert(~asked | ~native.cmd_valid | (native.cmd_addr == address))


class ReaderProof(Elaboratable):
    """Follows one beat, chosen at will, of one segment: it leaves after exactly those that were before it, and it is of
    the address that the segment says.

    Segments have ``beats`` beats at most. An abort may come at any time; the segments that it drops give no beat any
    more, and those that come once the reader is no longer ``aborting`` are read as if nothing had been.
    """
    #: cycles in which nothing moves though nobody but the reader is to blame
    PATIENCE = 16

    def __init__(self, unit, *, beats):
        self.unit, self.beats = unit, beats

    def elaborate(self, platform):
        m = Module()
        m.submodules.unit = unit = self.unit
        marked, drop = Signal(unit.addr_width), Signal()
        abort = any_value(m, 1, "aborts")
        m.d.comb += [marked.eq(AnyConst(unit.addr_width)), unit.abort.eq(abort), drop.eq(abort | unit.aborting)]
        ports = self._memory(m, marked, drop)
        take, segment, accepted = self._segments(m, drop)
        both, given, count = self._sink(m, drop)
        pending, asked = Signal(10), Signal(range(self.unit.buffer + 4))
        m.d.sync += [pending.eq(Mux(drop, 0, pending + accepted - count)),
                     asked.eq(Mux(drop, 0, asked + ports[0].fire + ports[1].fire - count))]
        m.d.comb += [
            Assert(~given | (pending >= count)),                        # nothing is invented
            Assert(asked <= unit.buffer),                               # there is a place for all that was asked for
            Assert(unit.busy | (pending == 0) | drop),
        ]
        self._follow(m, take, segment, pending, marked, given, count, drop)
        self._abort(m, ports, drop)
        self._goes_on(m, ports, pending, both, drop)
        return m

    def _memory(self, m, marked, drop):
        unit, answers = self.unit, [any_value(m, 1, f"answers{i}") for i in range(2)]
        ports = [Port(m, native, answer, marked, drop, depth=unit.depth, name=f"port{i}")
                 for i, (native, answer) in enumerate(zip((unit.read0, unit.read1), answers))]
        m.d.comb += [Assume(~(answers[0] & answers[1])),
                     unit.read0.rdata_data.eq(Mux(answers[1], ports[1].bit, ports[0].bit).replicate(128))]
        return ports

    def _segments(self, m, drop):
        """Any segments, none of which waits for stores: :class:`BlocksProof` is about that."""
        segments, offers = self.unit.segments, any_value(m, 1, "offers")
        base, beats = any_value(m, self.unit.addr_width, "base"), any_value(m, range(self.beats + 1), "beats")
        m.d.comb += [segments.valid.eq(offers), segments.payload.base.eq(base), segments.payload.beats.eq(beats),
                     Assume((beats != 0) & (beats <= self.beats)), Assume(~offers | ~drop)]
        take, accepted = Signal(), Signal.like(beats)
        m.d.comb += [take.eq(offers & segments.ready), accepted.eq(Mux(take, beats, 0))]
        return take, (base, beats), accepted

    def _sink(self, m, drop):
        """Takes one beat or two, when it likes. An offer stays as long as as many are wanted."""
        beats, both = self.unit.beats, any_value(m, 1, "both")
        given, count = Signal(), Signal(2)
        m.d.comb += [beats.ready.eq(any_value(m, 1, "takes")), beats.both.eq(both), given.eq(beats.valid & beats.ready),
                     count.eq(Mux(given, Mux(both, 2, 1), 0))]
        waits, had_both, offered = Signal(), Signal(), Signal(2)
        now = Cat(beats.payload[0], beats.second[0] & both)
        m.d.sync += [waits.eq(beats.valid & ~beats.ready & ~drop), had_both.eq(both), offered.eq(now)]
        m.d.comb += Assert(~waits | (both != had_both) | (beats.valid & (now == offered)))
        return both, given, count

    def _follow(self, m, take, segment, pending, marked, given, count, drop):
        base, beats = segment
        chosen, offset = any_value(m, 1, "chosen"), any_value(m, range(self.beats), "offset")
        followed, before, expected = Signal(), Signal(10), Signal()
        with m.If(followed):
            m.d.sync += [before.eq(before - count), followed.eq(before >= count)]
        with m.Elif(take & chosen & (offset < beats)):
            m.d.sync += [followed.eq(1), before.eq(pending - count + offset),
                         expected.eq((base + offset)[:len(base)] == marked)]
        with m.If(drop):
            m.d.sync += followed.eq(0)
        for i, value in enumerate((self.unit.beats.payload, self.unit.beats.second)):
            here = followed & given & (before == i) & (count > i)
            m.d.comb += Assert(~here | (value[0] == expected))

    def _abort(self, m, ports, drop):
        """Nothing of before leaves any more; the reader says when all that was asked for has come back."""
        unit, dropped, aborted, was_aborting = self.unit, Signal(), Signal(), Signal()
        quiet = Signal(3)
        calm = (ports[0].waiting == 0) & (ports[1].waiting == 0)
        m.d.sync += [dropped.eq(drop), aborted.eq(unit.abort), was_aborting.eq(unit.aborting),
                     quiet.eq(Mux(unit.aborting & calm & ~unit.abort, quiet + 1, 0))]
        m.d.comb += [
            Assert(~dropped | ~unit.beats.valid), Assert(~aborted | unit.aborting),
            Assert(~was_aborting | unit.aborting | calm), Assert(quiet < 3),
            *(Assert(~dropped | ~native.cmd_valid) for native in (unit.read0, unit.read1)),
        ]

    def _goes_on(self, m, ports, pending, both, drop):
        """While nobody else is waited for, a command or a beat comes; at the end the reader is idle."""
        unit, idle, ended = self.unit, Signal(range(2 * self.PATIENCE)), Signal(4)
        others = (ports[0].waiting != 0) | (ports[1].waiting != 0) | unit.read0.cmd_valid | unit.read1.cmd_valid
        m.d.sync += [idle.eq(Mux((pending == 0) | others | unit.beats.valid | both | drop, 0, idle + 1)),
                     ended.eq(Mux((pending == 0) & unit.busy & ~drop, ended + 1, 0))]
        m.d.comb += [Assert(idle < self.PATIENCE), Assert(ended < 5)]


class BlocksProof(Elaboratable):
    """The blocks are the segments cut at the ends of DRAM rows, in order; no block of a segment that waits for stores
    is cut before as many are done. Each block stands in the order of all and in the queue of its row's port once.

    What is cut shows at ``turn``, a cycle later.
    """
    def __init__(self, unit, *, beats):
        self.unit, self.beats = unit, beats

    def elaborate(self, platform):
        m = Module()
        m.submodules.unit = unit = self.unit
        base, left, allowed, waiting, kv = self._segments(m)
        before, cut = Signal(unit.turn_bits), Signal(unit.turn_bits)
        row_end = Signal(unit.row_bits + 1)
        m.d.sync += before.eq(unit.turn)
        m.d.comb += [
            cut.eq(unit.turn - before), row_end.eq((1 << unit.row_bits) - base[:unit.row_bits]), self.cut.eq(cut),
            Assert((cut == 0) | ((waiting != 0) & allowed & (cut == Mux(left < row_end, left, row_end)))),
            Assert(unit.busy | (waiting == 0) | (cut == left)), Assert(unit.reading | (waiting < 2) | (cut == left)),
        ]
        self._queues(m, base, cut, before)
        stuck = Signal(5)
        # those that wait for stores may wait for long
        m.d.sync += stuck.eq(Mux((waiting == 0) | (cut != 0) | ~self.drained | kv, 0, stuck + 1))
        m.d.comb += Assert(stuck < 10)
        return m

    def _segments(self, m):
        """What was taken and not yet cut: of the oldest the next beat, how many are left, whether it may be read."""
        unit, aw, places = self.unit, self.unit.addr_width, 4
        offers, base = any_value(m, 1, "offers"), any_value(m, aw, "base")
        beats, kv = any_value(m, range(self.beats + 1), "beats"), any_value(m, 1, "kv")
        stores = any_value(m, 1, "stores")
        done, self.cut = any_value(m, 1, "done"), Signal(unit.turn_bits)
        segment = unit.segments.payload
        m.d.comb += [unit.segments.valid.eq(offers), segment.base.eq(base), segment.beats.eq(beats), segment.kv.eq(kv),
                     segment.stores.eq(stores), unit.stores_done.eq(done), Assume((beats != 0) & (beats <= self.beats))]
        take, count, kept = Signal(), Signal(range(places + 2)), Signal(range(places + 2))
        line = [{"base": Signal(aw, name=f"base{i}"), "left": Signal.like(beats, name=f"left{i}"),
                 "kv": Signal(name=f"kv{i}"), "stores": Signal(name=f"stores{i}"), "was": Signal(name=f"was{i}")}
                for i in range(places + 1)]
        head, ends = line[0], Signal()
        m.d.comb += [take.eq(offers & unit.segments.ready), ends.eq((self.cut != 0) & (self.cut == head["left"])),
                     kept.eq(count - ends), Assert(count <= places)]
        m.d.sync += count.eq(kept + take)
        for i in range(places):
            here, other = line[i], line[i + 1]
            after = {name: Mux(ends, other[name], here[name]) for name in here}
            if i == 0:
                after["base"] = Mux(ends, other["base"], here["base"] + self.cut)
                after["left"] = Mux(ends, other["left"], here["left"] - self.cut)
            new = {"base": base, "left": beats, "kv": kv, "stores": stores, "was": 0}
            seen = {each: here_["was"] | ~here_["kv"] | (here_["stores"] == done) for each, here_ in
                    (("here", here), ("other", other))}
            after["was"] = Mux(ends, seen["other"], seen["here"])
            m.d.sync += [here[name].eq(Mux(take & (kept == i), new[name], after[name])) for name in here]
        return head["base"], head["left"], head["was"], count, head["kv"]

    def _queues(self, m, base, cut, turn):
        """Follows a block, chosen at will, to the order and to its port; what leaves is looked at a cycle later."""
        unit, chosen = self.unit, any_value(m, 1, "chosen")
        port, begin, age = Signal(), Signal(), Signal(5)
        self.drained = Signal()
        followed = [Signal(name="follow_order"), Signal(name="follow_port")]
        kept = {"port": Signal(name="kept_port"), "count": Signal(unit.row_bits + 1, name="kept_count"),
                "base": Signal.like(base, name="kept_base"), "age": Signal(5, name="kept_age"),
                "turn": Signal(unit.turn_bits, name="kept_turn")}
        m.d.comb += [port.eq(base[unit.row_bits]), begin.eq((cut != 0) & chosen & ~followed[0] & ~followed[1])]
        m.d.sync += age.eq(age + (cut != 0))
        with m.If(begin):
            m.d.sync += [kept["port"].eq(port), kept["count"].eq(cut), kept["base"].eq(base), kept["age"].eq(age),
                         kept["turn"].eq(turn)]
        levels = []
        for i, (source, mine) in enumerate(((unit.order, 1), (unit.blocks0, ~port), (unit.blocks1, port))):
            m.d.comb += source.ready.eq(any_value(m, 1, f"takes{i}"))
            left, level = Signal(name=f"left_by{i}"), Signal(range(20), name=f"level{i}")
            payload = Signal(len(source.payload.as_value()), name=f"payload{i}")
            m.d.sync += [left.eq(source.valid & source.ready), payload.eq(source.payload.as_value()),
                         level.eq(level + ((cut != 0) & mine) - left)]
            m.d.comb += [Assert(~left | (level != 0)), Assert(level <= (17 if i == 0 else 3))]
            levels.append((level, left))
            before, follows = Signal(range(20), name=f"before{i}"), followed[min(i, 1)]
            mine_kept = 1 if i == 0 else kept["port"] == i - 1
            with m.If(begin & mine):
                m.d.sync += [before.eq(level - left), follows.eq(1)]
            with m.Elif(follows & left & mine_kept):
                m.d.sync += [before.eq(before - 1), follows.eq(before != 0)]
            seen = data.View(source.payload.shape(), payload)
            fields = ("port", "count") if i == 0 else ("base", "count", "age", "turn")
            for name in fields:
                m.d.comb += Assert(~(follows & left & mine_kept & (before == 0)) | (seen[name] == kept[name]))
        m.d.comb += self.drained.eq((levels[0][0] == 0) & (levels[1][0] == 0) & (levels[2][0] == 0))
