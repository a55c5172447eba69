"""Takes the beats of a matrix in their order: a superblock's scales, then its rows' data, pair by pair and word by word."""
from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from accel.lib.numeric import delay

PAIRS = 16          # row pairs whose sums are on their way or wait

#: What is known of a beat: its format; the row it is of, in q8; whether it is its chunk's last, in its row's first chunk, its row's
#: last; whether two columns work for one position, and both have a beat.
TAG = data.StructLayout({"q4": 1, "odd": 1, "chunk_last": 1, "row_first": 1, "row_last": 1, "gang": 1, "full": 1})


class MatrixWalk(wiring.Component):
    """One beat a cycle, or two, while there is room for the row pair's sums.

    Whether the next beat may be taken is in a register, as what hangs on it reaches far. Whether one is there comes from far
    away, and so chooses between what is known in either case.

    Members
    -------
    q4, group64, words, rows, gang : In
        The matrix; it has been there since the cycle before ``start``.
    start, ready, hold : In, Out, In
        Begin; only while ``ready``, which waits for ``hold`` to fall.
    loading : Out
        What describes the matrix may change, and is taken with ``start``.
    beat_valid, beat_ready, both : In, Out, Out
        A beat is there, with ``both`` two; what is there is taken.
    freed : In
        A row pair's sums have left.
    scaling, group : Out
        A beat, if there, holds scales, of the row's ``group``-th group.
    take, word, pair, tag : Out
        A beat is taken that goes with this word of the activations, of the superblock's ``pair``-th two rows.
    of64, wide : Out
        Groups have 64 weights; two words are taken together.
    busy : Out
        Not done with the matrix, or with its sums.
    starved, stalled : Out
        For want of a beat, of room.
    """
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
        take, word, pair, group, wide = self.take, self.word, self.pair, self.group, self.wide
        # The matrix. A row has so many steps: its words one by one, or two together
        q4, gang, steps, last_group = Signal(), Signal(), Signal(12), Signal(12)
        one_step, two_steps, single = Signal(), Signal(), Signal()      # a whole row has; its last step has one word
        # Where it is; comparisons are registers
        rows_left, final_pair = Signal(18), Signal()        # rows not yet begun; none
        ending, odd = Signal(), Signal()                    # at the last group; at a q8 word's second row
        to_come, last_word, two = Signal(12), Signal(), Signal()        # steps of the row, this one included; one, two
        room, none = Signal(range(PAIRS + 1), init=PAIRS), Signal()
        # With this beat the word, the row, the superblock is done; it begins a pair; it may be taken
        advance, row_ends, ends, begin, active = Signal(), Signal(), Signal(), Signal(), Signal()
        next_last, waits = Signal(), Signal()
        goes_on, begins = Signal(), Signal()                # the next cycle is of data, of a pair's first, if no beat is taken
        none_then, none_still = Signal(), Signal()          # no room in the next cycle, if a beat is taken, if none is

        def two_beats(last):
            return gang & (~q4 | ~(last & single))
        tag = self.tag
        m.d.comb += [
            self.beat_ready.eq(self.scaling | active), take.eq(active & self.beat_valid),
            tag.q4.eq(q4), tag.odd.eq(odd), tag.chunk_last.eq(word[0] | last_word | wide), tag.row_first.eq(word[1:] == 0),
            tag.row_last.eq(last_word), tag.gang.eq(gang),
            # Together, in q8 the columns take the two rows of a word, in q4 the two words of a chunk
            tag.full.eq(~(last_word & single)),
            next_last.eq(Mux(row_ends, one_step, two)),
            # In q4 both rows' chunk sums come at once and leave in two cycles: a chunk of one word waits for one.
            waits.eq(q4 & ~gang & next_last & (word[0] | last_word)),
            ends.eq(row_ends & (final_pair | (pair == 3))), begins.eq(begin),
            none_then.eq(Mux(begin ^ self.freed, begin & (room == 1), none)), none_still.eq(none & ~self.freed),
        ]
        with m.If(take & begin ^ self.freed):
            m.d.sync += room.eq(room + Mux(self.freed, 1, -1))
        with m.If(take):
            m.d.sync += [
                begin.eq(row_ends), none.eq(none_then), active.eq(~ends & ~(advance & waits) & ~(row_ends & none_then)),
                self.both.eq(~ends & two_beats(Mux(advance, next_last, last_word))),
                advance.eq(~advance | q4 | gang), row_ends.eq(Mux(advance, next_last & (q4 | gang), last_word)),
            ]
        with m.Else():
            m.d.sync += [
                begin.eq(begins), none.eq(none_still), active.eq(goes_on & ~(begins & none_still)),
                self.both.eq(goes_on & two_beats(last_word)),
                advance.eq(q4 | gang | odd), row_ends.eq(last_word & (q4 | gang | odd)),
            ]

        together = self.gang & self.q4
        all_steps, last_at, of_one, of_two, one_group, one_pair = (delay(m, value, 1, name) for value, name in (
            (Mux(together, (self.words + 1) >> 1, self.words)[:12], "all_steps"),
            (Mux(self.group64, (self.words - 1)[:12] >> 2, (self.words - 1)[:12] >> 1), "last_at"),
            (self.words <= Mux(together, 2, 1), "of_one"),
            (Mux(together, (self.words == 3) | (self.words == 4), self.words == 2), "of_two"),
            (self.words <= Mux(self.group64, 4, 2), "one_group"), (self.rows <= 2, "one_pair")))
        with m.FSM() as fsm:
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE") | (room != PAIRS))
            with m.State("IDLE"):
                m.d.comb += [self.ready.eq(~self.hold), self.loading.eq(~self.hold), begins.eq(1)]
                with m.If(~self.hold):        # as they are when it starts: an enable that comes from here
                    m.d.sync += [
                        q4.eq(self.q4), gang.eq(self.gang), wide.eq(together), self.of64.eq(self.group64),
                        steps.eq(all_steps), one_step.eq(of_one), two_steps.eq(of_two), single.eq(self.words[0]), last_group.eq(last_at),
                        rows_left.eq(self.rows), final_pair.eq(one_pair), pair.eq(0), group.eq(0), ending.eq(one_group),
                        word.eq(0), odd.eq(0), to_come.eq(all_steps), last_word.eq(of_one), two.eq(of_two),
                    ]
                with m.If(self.start & ~self.hold):
                    m.d.sync += self.scaling.eq(1)
                    m.next = "SCALES"
            with m.State("SCALES"):
                m.d.comb += self.starved.eq(~self.beat_valid)
                with m.If(self.beat_valid):
                    m.d.sync += [group.eq(group + 1), ending.eq(group + 1 == last_group)]
                    with m.If(ending):
                        m.d.comb += goes_on.eq(1)
                        m.d.sync += [group.eq(0), self.scaling.eq(0)]
                        m.next = "DATA"
            with m.State("DATA"):
                blocked = begin & none
                m.d.comb += [self.starved.eq(~self.beat_valid & ~blocked), self.stalled.eq(self.beat_valid & blocked), goes_on.eq(1)]
                with m.If(take & ends):
                    with m.If(final_pair):
                        m.next = "IDLE"
                    with m.Else():
                        m.d.sync += [self.scaling.eq(1), ending.eq(last_group == 0)]
                        m.next = "SCALES"
        with m.If(take & advance):              # only in DATA
            m.d.sync += [word.eq(word + Mux(wide, 2, 1)), to_come.eq(to_come - 1), last_word.eq(next_last), two.eq(to_come == 3)]
        with m.If(take & row_ends):
            m.d.sync += [word.eq(0), to_come.eq(steps), two.eq(two_steps), pair.eq(pair + 1),
                         rows_left.eq(rows_left - 2), final_pair.eq(rows_left <= 4)]
        with m.If(take):
            m.d.sync += odd.eq(~advance)
        return m
