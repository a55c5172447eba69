"""Takes the beats of a matrix in their order: a superblock's scales, then its rows' data, pair by pair and word by
word."""
from types import SimpleNamespace

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from accel.lib.numeric import delay

PAIRS = 16          # row pairs whose sums are on their way or wait

#: What is known of a beat: its format; the row it is of, in q8; whether it is its chunk's last, in its row's first
#: chunk, its row's last; whether two columns work for one position, and both have a beat.
TAG = data.StructLayout({"q4": 1, "odd": 1, "chunk_last": 1, "row_first": 1, "row_last": 1, "gang": 1, "full": 1})


class MatrixWalk(wiring.Component):
    """One beat a cycle, or two, while there is room for the row pair's sums.

    `beat_ready` drives many registers, so it is registered. `beat_valid` arrives late, so it only selects between two
    precomputed next states. Equals the order of :mod:`llama2_spec.packing`.

    Members
    -------
    q4, group64, words, rows, gang : In(1), In(1), In(12), In(18), In(1)
        The matrix; it has been there since the cycle before ``start``.
    start, ready, hold : In(1), Out(1), In(1)
        Begin; only while ``ready``, which waits for ``hold`` to fall.
    loading : Out(1)
        What describes the matrix may change, and is taken with ``start``.
    beat_valid, beat_ready, both : In(1), Out(1), Out(1)
        A beat is there, with ``both`` two; what is there is taken.
    freed : In(1)
        A row pair's sums have left.
    scaling, group : Out(1), Out(12)
        A beat, if there, holds scales, of the row's ``group``-th group.
    take, word, pair, tag : Out(1), Out(12), Out(2), Out(TAG)
        A beat is taken that goes with this word of the activations, of the superblock's ``pair``-th two rows.
    of64, wide : Out(1)
        Groups have 64 weights; two words are taken together.
    busy : Out(1)
        Not done with the matrix, or with its sums.
    starved, stalled : Out(1)
        For want of a beat, of room.
    """
    latency = None      #: varies

    def __init__(self):
        super().__init__({
            "q4": In(1), "group64": In(1), "words": In(12), "rows": In(18), "gang": In(1),
            "start": In(1), "ready": Out(1), "hold": In(1), "loading": Out(1),
            "beat_valid": In(1), "beat_ready": Out(1), "both": Out(1), "freed": In(1),
            "scaling": Out(1), "group": Out(12), "take": Out(1), "word": Out(12), "pair": Out(2), "tag": Out(TAG),
            "of64": Out(1), "wide": Out(1), "busy": Out(1), "starved": Out(1), "stalled": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        s = SimpleNamespace()               # signals that several steps share
        self._registers(m, s)
        self._take(m, s)
        self._shape(m, s)
        self._states(m, s)
        self._step(m, s)
        return m

    def _registers(self, m, s):
        """The matrix, and where the walk is."""
        s.take, s.word, s.pair, s.group, s.wide = self.take, self.word, self.pair, self.group, self.wide
        # The matrix. A row has so many steps: its words one by one, or two together
        s.q4 = Signal()
        s.gang = Signal()
        s.steps = Signal(12)
        s.last_group = Signal(12)
        # a whole row has; its last step has one word
        s.one_step = Signal()
        s.two_steps = Signal()
        s.single = Signal()
        # Where it is; comparisons are registers
        # Rows not yet begun; none.
        s.rows_left = Signal(18)
        s.final_pair = Signal()
        # At the last group; at a q8 word's second row.
        s.ending = Signal()
        s.odd = Signal()
        # steps of the row, this one included; one, two
        s.to_come = Signal(12)
        s.last_word = Signal()
        s.two = Signal()
        s.room = Signal(range(PAIRS + 1), init=PAIRS)
        s.none = Signal()
        # With this beat the word, the row, the superblock is done; it begins a pair; it may be taken
        s.advance = Signal()
        s.row_ends = Signal()
        s.ends = Signal()
        s.begin = Signal()
        s.active = Signal()
        s.next_last = Signal()
        s.waits = Signal()
        # the next cycle is of data, of a pair's first, if no beat is taken
        s.goes_on = Signal()
        s.begins = Signal()
        # no room in the next cycle, if a beat is taken, if none is
        s.none_then = Signal()
        s.none_still = Signal()

    def _take(self, m, s):
        """Whether this beat and the next may be taken."""
        def two_beats(last):
            return s.gang & (~s.q4 | ~(last & s.single))
        tag = self.tag
        m.d.comb += [
            self.beat_ready.eq(self.scaling | s.active), s.take.eq(s.active & self.beat_valid),
            tag.q4.eq(s.q4), tag.odd.eq(s.odd), tag.chunk_last.eq(s.word[0] | s.last_word | s.wide),
            tag.row_first.eq(s.word[1:] == 0), tag.row_last.eq(s.last_word), tag.gang.eq(s.gang),
            # Together, in q8 the columns take the two rows of a word, in q4 the two words of a chunk
            tag.full.eq(~(s.last_word & s.single)),
            s.next_last.eq(Mux(s.row_ends, s.one_step, s.two)),
            # In q4 both rows' chunk sums come at once and leave in two cycles: a chunk of one word waits for one.
            s.waits.eq(s.q4 & ~s.gang & s.next_last & (s.word[0] | s.last_word)),
            s.ends.eq(s.row_ends & (s.final_pair | (s.pair == 3))), s.begins.eq(s.begin),
            s.none_then.eq(Mux(s.begin ^ self.freed, s.begin & (s.room == 1), s.none)),
            s.none_still.eq(s.none & ~self.freed),
        ]
        with m.If(s.take & s.begin ^ self.freed):
            m.d.sync += s.room.eq(s.room + Mux(self.freed, 1, -1))
        with m.If(s.take):
            m.d.sync += [
                s.begin.eq(s.row_ends), s.none.eq(s.none_then),
                s.active.eq(~s.ends & ~(s.advance & s.waits) & ~(s.row_ends & s.none_then)),
                self.both.eq(~s.ends & two_beats(Mux(s.advance, s.next_last, s.last_word))),
                s.advance.eq(~s.advance | s.q4 | s.gang),
                s.row_ends.eq(Mux(s.advance, s.next_last & (s.q4 | s.gang), s.last_word)),
            ]
        with m.Else():
            m.d.sync += [
                s.begin.eq(s.begins), s.none.eq(s.none_still), s.active.eq(s.goes_on & ~(s.begins & s.none_still)),
                self.both.eq(s.goes_on & two_beats(s.last_word)),
                s.advance.eq(s.q4 | s.gang | s.odd), s.row_ends.eq(s.last_word & (s.q4 | s.gang | s.odd)),
            ]

    def _shape(self, m, s):
        """What the configuration means."""
        s.together = self.gang & self.q4
        s.all_steps, s.last_at, s.of_one, s.of_two, s.one_group, s.one_pair = (delay(m, value, 1, name)
                                                                               for value, name in (
            (Mux(s.together, (self.words + 1) >> 1, self.words)[:12], "all_steps"),
            (Mux(self.group64, (self.words - 1)[:12] >> 2, (self.words - 1)[:12] >> 1), "last_at"),
            (self.words <= Mux(s.together, 2, 1), "of_one"),
            (Mux(s.together, (self.words == 3) | (self.words == 4), self.words == 2), "of_two"),
            (self.words <= Mux(self.group64, 4, 2), "one_group"), (self.rows <= 2, "one_pair")))

    def _states(self, m, s):
        """Scales, then data."""
        with m.FSM() as fsm:
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE") | (s.room != PAIRS))
            with m.State("IDLE"):
                m.d.comb += [self.ready.eq(~self.hold), self.loading.eq(~self.hold), s.begins.eq(1)]
                with m.If(~self.hold):        # as they are when it starts: an enable that comes from here
                    m.d.sync += [
                        s.q4.eq(self.q4), s.gang.eq(self.gang), s.wide.eq(s.together), self.of64.eq(self.group64),
                        s.steps.eq(s.all_steps), s.one_step.eq(s.of_one), s.two_steps.eq(s.of_two),
                        s.single.eq(self.words[0]), s.last_group.eq(s.last_at),
                        s.rows_left.eq(self.rows), s.final_pair.eq(s.one_pair), s.pair.eq(0), s.group.eq(0),
                        s.ending.eq(s.one_group),
                        s.word.eq(0), s.odd.eq(0), s.to_come.eq(s.all_steps), s.last_word.eq(s.of_one),
                        s.two.eq(s.of_two),
                    ]
                with m.If(self.start & ~self.hold):
                    m.d.sync += self.scaling.eq(1)
                    m.next = "SCALES"
            with m.State("SCALES"):
                m.d.comb += self.starved.eq(~self.beat_valid)
                with m.If(self.beat_valid):
                    m.d.sync += [s.group.eq(s.group + 1), s.ending.eq(s.group + 1 == s.last_group)]
                    with m.If(s.ending):
                        m.d.comb += s.goes_on.eq(1)
                        m.d.sync += [s.group.eq(0), self.scaling.eq(0)]
                        m.next = "DATA"
            with m.State("DATA"):
                blocked = s.begin & s.none
                m.d.comb += [self.starved.eq(~self.beat_valid & ~blocked), self.stalled.eq(self.beat_valid & blocked),
                             s.goes_on.eq(1)]
                with m.If(s.take & s.ends):
                    with m.If(s.final_pair):
                        m.next = "IDLE"
                    with m.Else():
                        m.d.sync += [self.scaling.eq(1), s.ending.eq(s.last_group == 0)]
                        m.next = "SCALES"

    def _step(self, m, s):
        """The next word, row, pair."""
        with m.If(s.take & s.advance):              # only in DATA
            m.d.sync += [s.word.eq(s.word + Mux(s.wide, 2, 1)), s.to_come.eq(s.to_come - 1),
                         s.last_word.eq(s.next_last), s.two.eq(s.to_come == 3)]
        with m.If(s.take & s.row_ends):
            m.d.sync += [s.word.eq(0), s.to_come.eq(s.steps), s.two.eq(s.two_steps), s.pair.eq(s.pair + 1),
                         s.rows_left.eq(s.rows_left - 2), s.final_pair.eq(s.rows_left <= 4)]
        with m.If(s.take):
            m.d.sync += s.odd.eq(~s.advance)
