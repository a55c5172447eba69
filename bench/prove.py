"""Proves what tests/proofs/catalogue.py lists, and refutes every mutant of each unit; ``python -m bench.prove``
(`make prove`).

A mutant that the search can't refute is either named in the catalogue as doing the same, or a property is missing: the
run fails and prints it. The record goes to bench/results/proofs.json.
"""
import sys
from pathlib import Path

from bench import records
from bench.mutation import mutated_classes
from tests.proofs.catalogue import PROOFS, Proof
from tests.proofs.harness import ProofError, Verdict, prove

RECORD = Path(__file__).parent/"results"/"proofs.json"


def mutants_of(proof: Proof) -> dict[str, list[str]]:
    """The unit's mutants by their fate: refuted, equivalent (as listed), stillborn (no hardware), surviving."""
    fates = {"refuted": [], "equivalent": [], "stillborn": [], "surviving": []}
    for mutant, unit in mutated_classes(proof.unit, **proof.constants):
        try:
            refuted = prove(proof.make(unit), limit_s=60).verdict is Verdict.REFUTED
        except ProofError:          # the circuit has a loop, say
            fates["stillborn"].append(str(mutant))
        except Exception as error:  # Amaranth refuses it, in as many ways as there are mutants
            fates["stillborn"].append(f"{mutant} ({type(error).__name__})")
        else:
            fates["refuted" if refuted else "equivalent" if mutant.change in proof.equivalent
                  else "surviving"].append(str(mutant))
    return fates


def main() -> int:
    rows, failed = [], 0
    for proof in PROOFS:
        outcome, fates = prove(proof.top()), mutants_of(proof)
        rows.append({"unit": proof.name, "properties": proof.properties, "verdict": outcome.verdict.value,
                     "method": "pdr, unbounded",
                     "constants": proof.constants, "seconds": round(outcome.seconds, 2),
                     **{fate: len(those) for fate, those in fates.items()}})
        print(f"{proof.name}: {outcome.verdict.value} in {outcome.seconds:.1f} s; mutants: "
              + ", ".join(f"{len(those)} {fate}" for fate, those in fates.items()), flush=True)
        for mutant in fates["surviving"]:
            print(f"  survives: {mutant}")
        failed += outcome.verdict is not Verdict.PROVED or bool(fates["surviving"])
    records.write(RECORD, "proofs", {"rows": rows})
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
