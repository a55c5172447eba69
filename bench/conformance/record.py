"""Recorded answers of the references: a readable file for each, which the tests replay without them."""
import json
import re
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "conformance"
LEAF = re.compile(r"\[\s+((?:-?\d+,\s+)*-?\d+)\s+\]")        #: a list of numbers, which is one line


def path(reference: str) -> Path:
    return FOLDER / f"{reference.replace('.', '-')}.json"


def write(reference: str, answers: dict[str, dict]) -> None:
    """Answers by the names of their cases."""
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps(answers, indent=1, ensure_ascii=True)
    text = LEAF.sub(lambda found: "[" + re.sub(r"\s+", " ", found[1]) + "]", text)
    path(reference).write_text(text + "\n")


def read(reference: str) -> dict[str, dict]:
    return json.loads(path(reference).read_text())
