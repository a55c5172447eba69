"""What the users of the row units keep to, and what helps at their doors: each row that was taken has a place in the
queue that the door offers from, so nothing overruns it."""
from amaranth.hdl import Assert, Assume, Signal


def residual_rows(m, unit, back, inside):
    """Any rows at any time."""
    if inside is not None:
        s, take = inside.elaborate.s, inside._take
        accounted(m, s.room, take.some_room, take.given, *s.valid.until(s.product)[1:],
                  inside._results.results.level)


def gate_and_up(m, unit, back, inside):
    """Gate row, then up row."""
    up_comes = _pairs(m, unit.rows, back)
    if inside is not None:
        top, carried = inside.elaborate, inside.elaborate.pipe.carried
        # the gate row's place is the up row's
        ups = [valid & odd for valid, odd in zip(signals(carried["valid"])[1:], signals(carried["odd"])[1:])]
        accounted(m, top.room, top.some_room, top.given, up_comes, *ups, *signals(carried["up"])[1:],
                  top.results.level)


def pairs_of_rows(m, unit, back, inside):
    """Even row, then odd row: a pair's two results leave from its odd row on."""
    odd_comes = _pairs(m, unit.rows, back)
    if inside is not None:
        s, enter, rotate = inside.elaborate.s, inside._enter, inside._rotate
        tags = signals(s.pipe.carried["place_tag"])
        ends = [valid & odd for valid, odd in zip(signals(s.pipe.carried["valid"]),
                                                  (s.row.row[0], *(tag.index[0] for tag in tags)))]
        accounted(m, s.room, enter.some_room, enter.given, odd_comes, *(end << 1 for end in ends),
                  s.first << 1, s.second, *signals(rotate.pipe.carried["rotated"])[1:], s.results.level)
        # two pairs never follow each other at once
        m.d.comb += [Assert(~(ends[0] & odd_comes)),
                     *(Assert(~(one & other)) for one, other in zip(ends, (*ends[1:], s.first))),
                     Assert(~(s.first & s.second))]


def _pairs(m, rows, back):
    """Rows come even, odd, even, odd; high between the two of a pair."""
    second = Signal(name="second_comes")
    with m.If(rows.valid & rows.ready):
        m.d.sync += second.eq(~second)
    with m.If(back):
        m.d.sync += second.eq(0)
    m.d.comb += Assume(~rows.valid | ((rows.payload.odd == second) & (rows.payload.row[0] == second)))
    return second


def accounted(m, room, some, *places):
    """Each place, all of which are free after a reset, is free or counted once in ``places``."""
    m.d.comb += [Assert(room + sum(places) == room.init), Assert(some == (room != 0))]


def signals(carried):
    return [value.plain for value in carried.values]
