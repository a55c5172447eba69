"""Reads named values of a checkpoint's description, and refuses missing ones and other types in one line."""
import math
from collections.abc import Mapping
from pathlib import Path

from llama2_host import nested_json
from llama2_host.checkpoint.errors import CheckpointError
from llama2_host.checkpoint.foreign import refuse_pointer

MAX_JSON_BYTES = 64 << 20
_REQUIRED = object()


def read_json(path: Path) -> dict:
    """The object in a JSON file."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise CheckpointError(f"{path}: {path.stat().st_size} bytes, expected at most {MAX_JSON_BYTES}: "
                                  "is this a model's description?")
        data = path.read_bytes()
        refuse_pointer(path, data)
        value = nested_json.loads(data)
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}: check the folder") from None
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path}: not JSON: copy the file again") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object: copy the file again")
    return value


class Fields:
    """Values by name, with their source for error messages."""

    def __init__(self, values: Mapping, where):
        self.values, self.where = values, where

    def get(self, name: str):
        return self.values.get(name)

    def whole(self, name: str, default=_REQUIRED) -> int:
        """A positive integer."""
        return self._number(name, default, lambda value: isinstance(value, int) and 0 < value < 1 << 31,
                            "a positive integer")

    def real(self, name: str, default=_REQUIRED) -> float:
        """A positive number."""
        return float(self._number(name, default, lambda value: 0 < value < math.inf and 1e-30 < value < 1e30,
                                  "a positive number"))

    def text(self, name: str, default: str = "") -> str:
        value = self.values.get(name)
        return value if isinstance(value, str) else default

    def object(self, name: str) -> "Fields":
        """A nested object; empty where there is none."""
        value = self.values.get(name)
        return Fields(value if isinstance(value, dict) else {}, f"{self.where}: {name}")

    def _number(self, name, default, accepts, expected):
        value = self.values.get(name)
        if value is None and default is not _REQUIRED:
            return default
        if value is None:
            raise CheckpointError(f"{self.where}: {name} is missing: copy the file again, or is this a LLaMA?")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not accepts(value):
            raise CheckpointError(f"{self.where}: {name} is {str(value)[:40]!r}, expected {expected}: copy the file "
                                  "again")
        return value
