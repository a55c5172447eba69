"""The tables of docs/mutants.md, from bench/results/mutants.json and bench/equivalent_mutants.py."""
import json
from collections import Counter

from bench import mutants
from bench.equivalent_mutants import EQUIVALENT
from llama2_spec.emit_docs import table


def _place(file: str) -> str:
    """The row of a file: its folder, or its room where that is all there is."""
    folder = file.rsplit("/", 1)[0]
    return folder.removesuffix("/llama2_spec")


def outcome_table():
    """What became of the mutants, by folder."""
    files = json.loads(mutants.RECORD.read_text())["files"]
    sums: dict[str, Counter] = {}
    for file, found in files.items():
        for row in (_place(file), "**all**"):
            sums.setdefault(row, Counter()).update({"files": 1, "made": found["made"]})
            sums[row].update({fate: found[fate] for fate in mutants.FATES})
    rows = []
    for place in sorted(sums, key=lambda place: (place == "**all**", place)):
        n = sums[place]
        lives = n["made"] - n["stillborn"]
        rows.append((f"`{place}`" if "*" not in place else place, n["files"], n["made"], n["stillborn"], n["caught"],
                     n["hangs"], n["equivalent"], n["survives"],
                     f"{100*(n['caught'] + n['hangs'])/lives:.1f} %" if lives else ""))
    return table(("Of", "Files", "Made", "Stillborn", "Caught by a failing test", "By one that hangs", "Equivalent",
                  "Surviving", "Caught, of those that live"), rows)


def equivalents_table():
    """Survivors that a person read, with the reason of each."""
    return table(("File", "Mutant", "Why no test can tell it, or need not"),
                 [(f"`{file}`", f"`{name}`", reason) for file, listed in sorted(EQUIVALENT.items())
                  for name, reason in listed.items()])


TABLES = {"mutants": outcome_table, "equivalent-mutants": equivalents_table}
