"""The version of this client, as pyproject.toml has it."""
import importlib.metadata
import re
from pathlib import Path

DISTRIBUTION = "llama2-host"
PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def version() -> str:
    """The version of the clone that this runs in, else of the installed package."""
    if PYPROJECT.is_file():
        text = PYPROJECT.read_text()
        match = re.search(r'^version = "([^"]+)"', text, re.MULTILINE)
        if match and f'name = "{DISTRIBUTION}"' in text:
            return match[1]
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "of an unknown version"
