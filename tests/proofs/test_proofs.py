"""The properties of tests/proofs/catalogue.py hold in every reachable state, and the search tells a broken unit."""
import pytest

from bench.mutation import mutated_classes
from tests.proofs.catalogue import PROOFS
from tests.proofs.harness import Verdict, prove


@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: proof.name)
def test_holds(proof):
    outcome = prove(proof.top())
    assert outcome.verdict is Verdict.PROVED, outcome


@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: proof.name)
def test_equivalents_name_one_mutant_each(proof):
    """So none of them hides another mutant that nobody has read."""
    changes = [mutant.change for mutant, _ in mutated_classes(proof.unit, **proof.constants)]
    assert [changes.count(change) for change in proof.equivalent] == [1] * len(proof.equivalent)


@pytest.mark.parametrize("name", ["Skid", "Waiting"])
def test_mutants_are_refuted(name):
    """All of the skid's and of the queue's that says in time that it is nearly full; `make prove` does all units'."""
    proof = next(proof for proof in PROOFS if proof.name == name)
    survivors = [str(mutant) for mutant, unit in mutated_classes(proof.unit, **proof.constants)
                 if mutant.change not in proof.equivalent and prove(proof.make(unit)).verdict is not Verdict.REFUTED]
    assert not survivors
