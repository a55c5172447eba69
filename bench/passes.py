"""Counts the passes over the weights between two tokens of a slot, from what the simulated SoC counts at each result.

Every pass reads the matrices of all layers, one with logits the classifier too, and each of its columns an embedding
row and the K/V rows of its slot. Beats and embedding rows are counted outside the core (soc/sim/stream_watch.py), so
what the others leave of the beats is passes times the layers' beats: a whole number, but for what was read ahead.
"""
from dataclasses import dataclass

from llama2_host.statistics import WORD32
from llama2_spec.image import Kind, row_layout
from llama2_spec.packing import row_beats

BLUR = 0.25     # of a pass, that the stream may have read ahead


@dataclass(frozen=True)
class Traffic:
    """Beats of a pass of a model: of the layers, of the classifier, of a position's K/V rows, of an embedding row."""
    layers: int
    classifier: int
    rows: int
    embedding: int

    @classmethod
    def of(cls, image):
        def beats(*kinds):
            return sum(entry.beats for entry in image.entries if entry.kind in kinds)
        table = image.embedding
        return cls(beats(*Kind) - beats(Kind.CLASSIFIER, Kind.EMBEDDING), beats(Kind.CLASSIFIER),
                   image.config.n_layers*row_layout(image.config)[1],
                   row_beats(table.words, table.format.name.lower(), table.group))


class Ledger:
    """The conversations of a run with the columns and beats at each of their tokens.

    ``watch`` are the simulator's lines from its start on; ``prompts`` the lengths of the prompts, ``events`` the token
    events of each. Only the last conversation's prompt may be fed while another one decodes.
    """
    def __init__(self, traffic, watch, prompts, events):
        self.traffic, self.prompts, self.events = traffic, prompts, events
        stamps = [[(event.cycles - events[0][0].cycles + WORD32//2) % WORD32 for event in taken] for taken in events]
        origin = watch[0]["cycles"] - min(map(min, stamps))
        lines  = {line["cycles"]: line for line in watch}
        #: of each conversation, (columns executed so far, beats so far) at each token
        self.at = [self._counted([lines.get(origin + stamp) for stamp in taken]) for taken in stamps]

    def _counted(self, lines):
        """Where an earlier result waited for firmware, the simulator printed no line in time: the next one counts."""
        found = []
        for line in reversed(lines):
            found.append((line["embedding"]//self.traffic.embedding, line["beats"]) if line else found[-1])
        return found[::-1]

    def arriving(self, columns):
        """Columns of the last conversation among the first ``columns`` of all."""
        others = sum(prompt - 1 + sum(at <= columns for at, _ in taken)
                     for prompt, taken in zip(self.prompts[:-1], self.at[:-1]))
        return columns - others

    def passes(self, slot, index):
        """Passes from behind a slot's token up to its next one, that one's among them."""
        (since, before), (until, after) = self.at[slot][index:index + 2]
        with_logits = {at for taken in self.at for at, _ in taken if since < at <= until}
        rows = sum(event.position - 1 for taken, events in zip(self.at[:-1], self.events[:-1])
                   for (at, _), event in zip(taken, events) if since < at <= until)
        rows += sum(range(self.arriving(since), self.arriving(until)))
        beats = after - before - self.traffic.classifier*len(with_logits) - self.traffic.rows*rows
        passes = beats/self.traffic.layers
        if abs(passes - round(passes)) > BLUR:
            raise SystemExit(f"bench.passes: {passes:.2f} passes before a token are no whole number: the simulated "
                             "SoC's counts do not add up")
        return round(passes)
