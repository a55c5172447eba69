"""The quick properties of tests/proofs/catalogue.py hold, and the search tells a broken unit."""
import pytest
from amaranth.hdl import Assert, Elaboratable, Module, Signal
from amaranth.lib.wiring import Flow

from accel.stations import make_stations
from soc.configuration import create_core
from tests.proofs import independence
from tests.proofs.catalogue import PROOFS
from tests.proofs.doors import streams
from tests.proofs.harness import Verdict, prove
from tests.proofs.proof import is_named

QUICK = [proof for proof in PROOFS if proof.quick]


@pytest.mark.parametrize("proof", QUICK, ids=lambda proof: proof.name)
def test_holds(proof):
    outcome = proof.search()
    assert outcome.verdict is proof.wanted, outcome


@pytest.mark.parametrize("proof", [proof for proof in PROOFS if proof.equivalent], ids=lambda proof: proof.name)
def test_equivalents_name_one_mutant_each(proof):
    """So none of them hides another mutant that nobody has read."""
    mutants = [mutant for mutant, _ in proof.mutants()]
    assert [sum(is_named(mutant, (name,)) for mutant in mutants) for name in proof.equivalent] == [1] * len(
        proof.equivalent)


@pytest.mark.parametrize("name", independence.QUICK)
def test_valid_does_not_wait_for_ready(name):
    assert not independence.waiting(independence.QUICK[name]())


def test_an_offer_that_waits_until_it_is_wanted_is_found():
    assert independence.waiting(independence.Late(2)) == ["output"]


def test_all_that_offers_a_stream_is_looked_at():
    """Every station, too, but those that offer none."""
    stations = make_stations(create_core())
    offering = {type(unit).__name__ for unit in vars(stations).values() if streams(unit, Flow.Out)}
    assert offering <= independence.UNITS.keys()


@pytest.mark.parametrize("proof", [proof for proof in PROOFS if proof.only], ids=lambda proof: proof.name)
def test_those_that_are_tried_are_mutants(proof):
    mutants = [mutant for mutant, _ in proof.mutants()]
    assert all(any(is_named(mutant, (name,)) for mutant in mutants) for name in proof.only)


@pytest.mark.parametrize("name", ["Skid", "HalfRate", "Waiting", "RowDispatch, doors"])
def test_mutants_are_refuted(name):
    """All of two registers' and of the queue's that says in time that it is nearly full, and each fault of a door;
    `make prove` does all units'."""
    proof = next(proof for proof in PROOFS if proof.name == name)
    survivors = [str(mutant) for mutant, make in proof.mutants() if not is_named(mutant, proof.equivalent)
                 and prove(make(), engine=proof.against_mutants, rewrite=proof.rewrite).verdict is not Verdict.REFUTED]
    assert not survivors


class Late(Elaboratable):
    """A counter that breaks its assertion after ``cycles``, or, without an end, one that never does."""
    def __init__(self, cycles):
        self.cycles = cycles

    def elaborate(self, platform):
        m, count = Module(), Signal(4)
        m.d.sync += count.eq(count + (count != 12))
        m.d.comb += Assert(count != self.cycles)
        return m


@pytest.mark.parametrize("cycles, engine, verdict", [
    (9, "bmc3 -F 5", Verdict.BOUNDED), (9, "bmc3 -F 12", Verdict.REFUTED), (9, "pdr", Verdict.REFUTED),
    (13, "pdr", Verdict.PROVED), (13, "ind -F 2", Verdict.PROVED), (9, "ind -F 2", Verdict.UNKNOWN),
    (2, "ind -F 2", Verdict.REFUTED), (9, ("bmc3 -F 5", "pdr"), Verdict.REFUTED)])
def test_verdicts(cycles, engine, verdict):
    """A bound that is too short proves nothing, and neither does induction that has not looked far enough back."""
    assert prove(Late(cycles), engine=engine).verdict is verdict
