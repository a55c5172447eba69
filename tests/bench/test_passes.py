"""bench.passes finds how many passes a made-up run took from its beats and columns."""
from types import SimpleNamespace

import pytest

from bench.passes import Ledger, Traffic
from llama2_host.statistics import WORD32
from llama2_spec.image import Image
from llama2_spec.traffic import useful_beats
from tests.firmware.images import small_image

TRAFFIC = Traffic(layers=1000, classifier=300, rows=7, embedding=4)
LATER = 13      # cycles from a result to its line


class Run:
    """Passes of two conversations that decode, and of one whose prompt comes; and what is seen of them."""
    def __init__(self, start=0):
        self.columns = self.beats = 0
        self.start, self.cycles = start, 0
        self.positions, self.events, self.watch = [0, 0, 0], [[], [], []], []

    def run(self, *columns, tokens=()):
        """A pass of so many columns of each; those of ``tokens`` have logits."""
        for slot, count in enumerate(columns):
            self.beats += TRAFFIC.rows*count*self.positions[slot]       # rows before the run
            self.positions[slot] += count
            self.columns += count
        self.cycles += 5000
        self.beats += TRAFFIC.layers + (TRAFFIC.classifier if tokens else 0)
        for slot in tokens:
            self.events[slot].append(SimpleNamespace(position=self.positions[slot],
                                                     cycles=(self.start + self.cycles) % WORD32))
        if tokens:
            self.watch.append({"cycles": self.cycles + LATER, "beats": self.beats,
                               "embedding": self.columns*TRAFFIC.embedding})
        return self

    def ledger(self, prompt):
        return Ledger(TRAFFIC, self.watch, [2, 2, prompt], self.events)


def sequence(start=0, between=1):
    """Both decode; then a prompt of 40 is fed beside them and in ``between`` passes of its own, and decodes, too."""
    made = Run(start).run(2, 0, 0, tokens=[0]).run(1, 2, 0, tokens=[0, 1]).run(1, 1, 0, tokens=[0, 1])
    left = 40
    while left > 2:
        for _ in range(between):
            made.run(0, 0, min(4, left - 2))
            left -= min(4, left - 2)
        made.run(1, 1, min(2, left), tokens=[0, 1, *([2] if left <= 2 else [])])
        left -= min(2, left)
    if left:
        made.run(1, 1, left, tokens=[0, 1, 2])
    return made.run(1, 1, 1, tokens=[0, 1, 2]).run(1, 1, 1, tokens=[0, 1, 2])


@pytest.mark.parametrize("start", [0, WORD32 - 12_000])
@pytest.mark.parametrize("between", [0, 1, 2, 3])
def test_passes_without_a_token_are_counted(start, between):
    made = sequence(start, between)
    ledger = made.ledger(40)
    counted = [ledger.passes(0, index) for index in range(1, len(made.events[0]) - 1)]
    assert sum(counted) == made.cycles//5000 - 2 and counted[0] == counted[-1] == 1
    assert max(counted) == between + 1
    assert [ledger.passes(1, index) for index in range(len(made.events[1]) - 1)] == counted


def test_beats_that_are_no_whole_passes_are_refused():
    made = sequence()
    made.watch[-1]["beats"] += TRAFFIC.layers//2
    with pytest.raises(SystemExit, match="do not add up"):
        made.ledger(40).passes(0, len(made.events[0]) - 2)


def test_a_line_that_came_late_is_passed_over():
    made = sequence()
    made.watch[1]["cycles"] += 40
    assert made.ledger(40).passes(1, 2) == 2


def test_traffic_is_that_of_a_token():
    image = Image.parse(small_image())
    one = Traffic.of(image)
    for position in (0, 9):
        assert (one.layers + one.classifier + (position + 1)*one.rows + one.embedding
                == useful_beats(image.config, image.entries, position))
