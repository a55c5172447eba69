"""What a proof is: a unit, what is claimed of it, and how the claim is shown to be able to fail."""
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from amaranth.hdl import Elaboratable

from bench.mutation import Mutant, mutated_classes, with_constants
from tests.proofs.harness import Outcome, ProofError, Verdict, prove

#: Cycles over which induction goes.
INDUCTION = 4
#: Cycles in which most mutants fail, if they do.
MUTANT_CYCLES = 24


def is_named(mutant: Mutant, names: tuple[str, ...]) -> bool:
    """Whether a mutant is one of ``names``, each a change or ``step: change``."""
    return mutant.change in names or f"{mutant.scope.split('.')[-1]}: {mutant.change}" in names


@dataclass
class Proof:
    """One property of one unit.

    Attributes
    ----------
    unit : type or function
        What is proved, and mutated.
    properties : str
        What is claimed, in words.
    make : callable
        From the unit, or a mutant of it, the module with the assertions.
    helped : callable or None
        As ``make``, with assertions on the unit's own registers that make the claim inductive. Mutants are held against
        the claim alone.
    also : tuple of callables
        As ``make``: other claims of the same unit, proved in lines of their own. A mutant is held against these, too.
    size : str
        What the search covers of the unit's sizes.
    constants : dict
        Of the unit's module, for a size that a search can cover.
    equivalent : tuple of str
        Mutants, by :attr:`bench.mutation.Mutant.change`, that do the same: read by a person. Each names one mutant of
        the unit; behind ``step: `` where another step has the same change.
    only : tuple of str
        Mutants, named as those, that are tried: those that the claim is about, where another claim is about the rest.
    steps : tuple of str
        The unit's methods that are mutated; all without it.
    depth : int or None
        The claim is checked in so many cycles from reset only; ``missing`` says what keeps the search from more.
    sample : int or None
        So many mutants are tried, chosen at random; all without it.
    limit_s : float
        Of one search.
    quick : bool
        Short enough for ``make test``.
    rewrite : bool
        As of :func:`tests.proofs.harness.prove`.
    """
    name: str
    unit: type
    properties: str
    make: Callable[[type], Elaboratable]
    helped: Callable[[type], Elaboratable] | None = None
    also: tuple[Callable[[type], Elaboratable], ...] = ()
    size: str = ""
    constants: dict = field(default_factory=dict)
    equivalent: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    depth: int | None = None
    missing: str = ""
    sample: int | None = None
    limit_s: float = 120
    quick: bool = True
    rewrite: bool = True

    @property
    def engine(self) -> str:
        if self.depth is not None:
            return f"bmc3 -F {self.depth}"
        return "pdr" if self.helped is None else f"ind -F {INDUCTION}"

    @property
    def wanted(self) -> Verdict:
        return Verdict.PROVED if self.depth is None else Verdict.BOUNDED

    @property
    def against_mutants(self) -> tuple[str, ...]:
        """Most mutants fail within a few cycles, where a bounded search is the quicker one."""
        if self.depth is not None or self.helped is not None:
            return (f"bmc3 -F {self.depth or MUTANT_CYCLES}",)
        return (f"bmc3 -F {MUTANT_CYCLES}", "pdr")

    @property
    def method(self) -> str:
        """How an unbounded claim is shown, for people."""
        return "pdr" if self.helped is None else "induction"

    def fate(self, mutant: Mutant, makes: list[Callable[[], Elaboratable]]) -> str:
        """``refuted``, by one of the claims that ``makes`` make, ``equivalent`` (as listed), ``stillborn`` (no
        hardware), ``undecided`` (a search ran out of time) or ``surviving``."""
        verdicts = set()
        for number, make in enumerate(makes):
            engine = self.against_mutants if number == 0 else f"bmc3 -F {MUTANT_CYCLES}"
            try:
                verdict = prove(make(), limit_s=self.limit_s, engine=engine, rewrite=self.rewrite).verdict
            except ProofError:          # the circuit has a loop, say
                return "stillborn"
            except Exception:           # Amaranth refuses it, in as many ways as there are mutants
                return "stillborn"
            if verdict is Verdict.REFUTED:
                return "refuted"
            verdicts.add(verdict)
        if is_named(mutant, self.equivalent):
            return "equivalent"
        return "undecided" if Verdict.UNKNOWN in verdicts else "surviving"

    def search(self) -> Outcome:
        return prove(self.top(), limit_s=self.limit_s, engine=self.engine, rewrite=self.rewrite)

    def top(self) -> Elaboratable:
        return (self.helped or self.make)(with_constants(self.unit, **self.constants))

    def mutants(self) -> Iterator[tuple[Mutant, Callable[[], Elaboratable]]]:
        """Each mutant with what makes its module."""
        for mutant, makes in self.mutants_of_all():
            yield mutant, makes[0]

    def mutants_of_all(self) -> Iterator[tuple[Mutant, list[Callable[[], Elaboratable]]]]:
        """Each mutant with what makes its module of this claim, and then those of the others."""
        for mutant, unit in mutated_classes(self.unit, steps=self.steps, **self.constants):
            if self.only and not is_named(mutant, self.only):
                continue
            yield mutant, [lambda unit=unit, make=make: make(unit) for make in (self.make, *self.also)]
