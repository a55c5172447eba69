"""Proves what tests/proofs/catalogue.py lists, and refutes mutants of each unit; ``python -m bench.prove``
(`make prove`).

A mutant that the search can't refute is either named in the catalogue as doing the same, or a property is missing, or
the search ran out of time, which is called undecided: the run fails and prints it. The record goes to
bench/results/proofs.json, from which docs/proofs.md has its tables.
"""
import argparse
import json
import os
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import records
from tests.proofs.catalogue import PROOFS, Proof

RECORD = Path(__file__).parent/"results"/"proofs.json"
FATES  = ("refuted", "equivalent", "stillborn", "surviving", "undecided")
UNSEEN = ("surviving", "undecided")     #: fates with which a run fails
SEED   = 1      #: of the choice among a unit's mutants, where not all are tried


def chosen_mutants(proof: Proof, most: int | None) -> tuple[list, int]:
    """Mutants that are tried, at most ``most`` or as many as the catalogue says, and how many there are."""
    found = list(proof.mutants_of_all())
    limit = min(len(found), *(number for number in (most, proof.sample) if number is not None), len(found))
    return (found if limit == len(found) else random.Random(SEED).sample(found, limit)), len(found)


def row_of(proof: Proof, pool: ThreadPoolExecutor, most: int | None) -> tuple[dict, list[str]]:
    """The record of one proof, and lines on the mutants that it does not see."""
    outcome = proof.search()
    tried, there_are = chosen_mutants(proof, most)
    fates = list(pool.map(lambda one: proof.fate(*one), tried))
    counts = {fate: fates.count(fate) for fate in FATES}
    row = {"unit": proof.name, "properties": proof.properties, "size": proof.size, "verdict": outcome.verdict.value,
           "depth": proof.depth, "missing": proof.missing, "constants": proof.constants,
           "seconds": round(outcome.seconds, 2), "mutants": there_are, **counts}
    return row, [f"{fate}: {mutant}" for (mutant, _), fate in zip(tried, fates) if fate in UNSEEN]


def merged(rows: list[dict]) -> list[dict]:
    """The record's rows with ``rows`` in the place of those of the same units, in the catalogue's order; of a record of
    earlier sources nothing is kept."""
    record = json.loads(RECORD.read_text()) if RECORD.is_file() else {"rows": []}
    today = RECORD.is_file() and not records.stale("proofs", record)
    kept = {row["unit"]: row for row in record["rows"]} if today else {}
    kept |= {row["unit"]: row for row in rows}
    return [kept[proof.name] for proof in PROOFS if proof.name in kept]


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.prove", description=__doc__.split("\n\n")[0])
    parser.add_argument("units", nargs="*", help="names in the catalogue; without any all, and a record is written")
    parser.add_argument("--update", action="store_true",
                        help="with names: put their rows into the record beside those of today's sources")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="searches at the same time")
    parser.add_argument("--mutants", type=int, help="try so many of a unit's mutants at most")
    args = parser.parse_args(argv)
    unknown = sorted(set(args.units) - {proof.name for proof in PROOFS})
    if unknown:
        parser.error(f"no proof is called {', '.join(unknown)}; there are: {', '.join(p.name for p in PROOFS)}")
    rows, failed = [], 0
    with ThreadPoolExecutor(args.jobs) as pool:
        for proof in (proof for proof in PROOFS if not args.units or proof.name in args.units):
            row, unseen = row_of(proof, pool, args.mutants)
            rows.append(row)
            print(f"{proof.name}: {row['verdict']} in {row['seconds']:.1f} s; mutants: "
                  + ", ".join(f"{row[fate]} {fate}" for fate in FATES), flush=True)
            for line in unseen:
                print(f"  {line}", flush=True)
            failed += row["verdict"] != proof.wanted.value or bool(unseen)
    if args.update:
        rows = merged(rows)
    if args.update or not args.units:
        records.write(RECORD, "proofs", {"rows": rows})
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
