"""The newcomer's page: its examples print what it says."""
import contextlib
import io
import re
from pathlib import Path

import pytest

from llama2_host import connect
from llama2_spec.traffic import useful_beats

ROOT     = Path(__file__).resolve().parents[2]
PAGE     = (ROOT/"docs"/"ten-minutes.md").read_text("utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", EXAMPLES)
def test_examples_print_what_they_say(code, monkeypatch):
    monkeypatch.chdir(ROOT)
    said = re.findall(r"print\(.*\) +# (.*)$", code, re.MULTILINE)
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(code, "docs/ten-minutes.md", "exec"), {})
    assert said and output.getvalue().splitlines() == said


def test_has_examples():
    assert len(EXAMPLES) == 2


def test_beats_of_a_token():
    with connect(golden=True, model=ROOT/"models"/"stories.bin") as llama:
        beats = useful_beats(llama.config, llama.model.image.entries, 5)
    assert f"moves {beats:,} beats" in " ".join(PAGE.split())


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:host|spec|firmware)/[\w/.]+)`", PAGE))))
def test_files_are_there(path):
    assert (ROOT/path).exists()
