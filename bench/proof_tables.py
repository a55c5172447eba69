"""The tables of docs/proofs.md, from bench/results/proofs.json."""
import json

from bench import prove, records
from llama2_spec.emit_docs import table
from tests.proofs.catalogue import PROOFS


#: How each unit's claim is proved, by its name in the catalogue.
METHODS = {proof.name: proof.method for proof in PROOFS}


def _rows():
    """The record's rows, and the words on its age that stand beside the first column's name."""
    record = json.loads(prove.RECORD.read_text())
    old = records.stale("proofs", record)
    return record["rows"], f" *({old.note})*" if old else ""


def mutants_of(row) -> str:
    """How many of the tried mutants were refuted, and what became of the others."""
    living = row["refuted"] + row["equivalent"] + row["surviving"] + row["undecided"]
    parts = [f"{row['refuted']} of {living}"]
    parts += [f"{row['equivalent']} do the same"] if row["equivalent"] else []
    parts += [f"**{row['surviving']} survive**"] if row["surviving"] else []
    parts += [f"**{row['undecided']} undecided**"] if row["undecided"] else []
    tried = living + row["stillborn"]
    parts += [f"{tried} of all {row['mutants']} tried"] if tried != row["mutants"] else []
    return "; ".join(parts)


def proofs_table():
    """What is proved, of which size, how, how long it takes, and the mutants."""
    rows, age = _rows()
    shown = [(row["unit"], row["properties"], row["size"], *_how(row), f"{row['seconds']:.1f}", mutants_of(row))
             for row in rows]
    return table(("Unit" + age, "Property", "Size", "Method", "Cycles", "Seconds", "Mutants refuted"), shown)


def _how(row):
    if row["verdict"] == "proved":
        return METHODS[row["unit"]], "unbounded"
    if row["verdict"] == "bounded":
        return "bmc3", f"the first {row['depth']}"
    return "none", f"**{row['verdict']}**"


def missing_table():
    """For each bounded row, the invariant that is missing."""
    rows, age = _rows()
    return table(("Unit" + age, "Cycles", "What is missing"),
                 [(row["unit"], row["depth"], row["missing"]) for row in rows if row["verdict"] == "bounded"])


TABLES = {"proofs": proofs_table, "missing-invariants": missing_table}
