"""Compares ids, texts, templates and ends with those of the models' own tools: ``python -m bench.conformance``.

Writes bench/results/conformance.json, and the references' answers for the tests. It installs the references if they are
missing.
"""
import argparse
import collections
import json
import tempfile
from pathlib import Path

from bench import records
from bench.conformance import compare, environment, product, record, run_c
from bench.conformance.cases import MODEL, Case, all_cases

RESULT = environment.ROOT / "bench" / "results" / "conformance.json"


def ask(references: environment.References, case: Case, path: Path, ours: dict) -> dict:
    """The reference's answer to a case, or why it refuses it."""
    if case.reference == "run.c":
        return run_c.says(path.read_bytes(), case.texts, ours["decode"])
    return references.ask(reference=case.reference, path=str(path), model=str(path / MODEL) if case.model else "",
                          texts=case.texts, decode=ours["decode"],
                          chats=[turn["messages"] for turn in ours.get("chats", [])])


def summary(cells: list[compare.Cell], refused: list[str], versions: dict) -> dict:
    """Counts by axis, and what differs."""
    axes = collections.defaultdict(collections.Counter)
    for cell in cells:
        axes[cell.axis]["cells"] += 1
        axes[cell.axis]["equal" if cell.equal else "listed" if cell.reason else "different"] += 1
    count = lambda keep: sum(map(keep, cells))
    return {"command": "python -m bench.conformance", "versions": versions, "cells": len(cells),
            "equal": count(lambda c: c.equal),
            "listed": {reason: count(lambda c, reason=reason: not c.equal and c.reason == reason)
                       for reason in compare.REASONS},
            "different": count(lambda c: not c.good), "refused by the reference": refused,
            "axes": {axis: {name: counts[name] for name in ("cells", "equal", "listed", "different")} for axis,
                     counts in axes.items()}}


def versions() -> dict[str, str]:
    pins = environment.REQUIREMENTS.read_text().split("\n") + [environment.LLAMA_CPP]
    found = dict(pin.split("==") for pin in pins if "==" in pin and not pin.startswith("#"))
    return {name: found[name] for name in ("transformers", "tokenizers", "sentencepiece", "llama-cpp-python")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--python", type=Path, help="an interpreter that has the references already")
    args = parser.parse_args()
    cells, refused, answers = [], [], collections.defaultdict(dict)
    with tempfile.TemporaryDirectory() as temporary, environment.References(args.python
                                                                            or environment.make()) as references:
        for i, case in enumerate(all_cases()):
            path = case.write(Path(temporary) / str(i))
            ours = product.says(case, path)
            theirs = ask(references, case, path, ours)
            if "refused" in theirs:
                refused.append(f"{case.name}: {theirs['refused']}".replace(str(Path(temporary) / str(i)), "FOLDER"))
                continue
            answers[case.reference][case.name] = theirs
            found = list(compare.cells(case, ours, theirs))
            for cell in found:
                if not cell.good:
                    print(f"{cell.case}: {cell.what}: {cell.ours!r}, the reference has {cell.theirs!r}", flush=True)
            cells += found
    for reference, told in answers.items():
        record.write(reference, told)
    result = summary(cells, refused, versions())
    records.write(RESULT, RESULT.stem, result, ensure_ascii=False)
    print(json.dumps({key: result[key] for key in ("cells", "equal", "listed", "different")}), *refused, sep="\n")
    return 1 if result["different"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
