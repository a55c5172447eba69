"""Mutants that do the same as what they were made of, or differ where nobody can tell: each was read by a person.

By file, and by the name that bench.mutants gives: the function, then what changes.
"""
EQUIVALENT: dict[str, dict[str, str]] = {
}
