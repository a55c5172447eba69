"""Finds the reference data that benches and tests use on request: a real checkpoint with its recorded texts, and
stories.

``REFERENCE_DATA`` names the folder, with ``models/`` and ``corpus/`` in it. Nothing is used because it happens to lie
beside the repository: without the variable every bench and every test does the same everywhere.
"""
import os
from pathlib import Path

VARIABLE = "REFERENCE_DATA"


def folder() -> Path | None:
    """The folder that REFERENCE_DATA names, or None.

    Raises
    ------
    SystemExit
        The variable is set, and names no folder with ``models/`` in it.
    """
    name = os.environ.get(VARIABLE)
    if not name:
        return None
    if not (Path(name)/"models").is_dir():
        raise SystemExit(f"{VARIABLE}={name}: there is no folder {Path(name)/'models'}: name the folder with models/ "
                         "and corpus/ in it")
    return Path(name).resolve()


def path(*parts: str) -> Path:
    """Path of a file of the reference data; without reference data, of a file that does not exist."""
    return (folder() or Path("/nonexistent")).joinpath(*parts)
