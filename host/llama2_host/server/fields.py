"""Reads the fields of a request's JSON object one by one, each with its type and range; what is left over is
refused."""
import json
import math
from collections.abc import Sequence
from typing import overload

from llama2_host import nested_json
from llama2_host.server.errors import ApiError, refused

MISSING = object()


def parse(body: bytes) -> dict:
    """A request's body as an object of whole characters."""
    try:
        found = nested_json.loads(body)
        # a lone surrogate is no character, and could not be answered
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ApiError(400, "the body has a \\u escape that is no whole character: send surrogates in pairs") from None
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON ({str(error)[:120]}): send one JSON object") from None
    if not isinstance(found, dict):
        raise ApiError(400, f"the body is {shown(found)}, expected a JSON object")
    return found


def shown(value) -> str:
    """A value as an error names it: short, and its kind where it is long."""
    kinds = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    if isinstance(value, (dict, list)) or isinstance(value, str) and len(value) > 40:
        return kinds[type(value)]
    if isinstance(value, str):
        return repr(value)
    return ({True: "true", False: "false", None: "null"}[value] if value is None or isinstance(value, bool)
            else str(value)[:40])


class Fields:
    """The fields of ``body``; null counts as left out. ``path`` begins the names in errors, as in
    ``stream_options.``"""

    def __init__(self, body: dict, path: str = ""):
        self.left = {name: value for name, value in body.items() if value is not None}
        self.path = path

    def take(self, name: str, default=None):
        """A field of any type."""
        return self.left.pop(name, default)

    def boolean(self, name: str, default: bool = False) -> bool:
        value = self.take(name, default)
        if not isinstance(value, bool):
            raise refused(self.path + name, f"{shown(value)}, expected true or false", "invalid_type")
        return value

    @overload
    def whole(self, name: str, low: int, high: int) -> int | None: ...

    @overload
    def whole(self, name: str, low: int, high: int, default: int) -> int: ...

    def whole(self, name: str, low: int, high: int, default: int | None = None) -> int | None:
        value = self.take(name, MISSING)
        if value is MISSING:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            raise refused(self.path + name, f"{shown(value)}, expected a whole number", "invalid_type")
        if not low <= value <= high:
            raise refused(self.path + name, f"{shown(value)}, expected {low} to {high}")
        return value

    def number(self, name: str, low: float, high: float, default: float) -> float:
        value = self.take(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise refused(self.path + name, f"{shown(value)}, expected a number", "invalid_type")
        if not low <= value <= high or not math.isfinite(value):
            raise refused(self.path + name, f"{shown(value)}, expected {low:g} to {high:g}")
        return float(value)

    def text(self, name: str, default: str | None = None) -> str | None:
        value = self.take(name, default)
        if value is not None and not isinstance(value, str):
            raise refused(self.path + name, f"{shown(value)}, expected a string", "invalid_type")
        return value

    def object(self, name: str) -> dict:
        value = self.take(name, {})
        if not isinstance(value, dict):
            raise refused(self.path + name, f"{shown(value)}, expected an object", "invalid_type")
        return value

    def neutral(self, name: str, values: Sequence, why: str) -> None:
        """A field that only these values may have, because they change nothing."""
        value = self.take(name, MISSING)
        if value is MISSING or any(value == allowed and isinstance(value, bool) == isinstance(allowed, bool)
                                   for allowed in values):
            return
        raise refused(self.path + name, f"{shown(value)} is not supported: {why}", "unsupported_value")

    def finish(self) -> None:
        """Refuse what nobody took."""
        for name in sorted(self.left):
            short = name if len(name) <= 60 else name[:60] + "..."
            raise ApiError(400, f"{self.path}{short}: no such field here: leave it out", param=self.path + short,
                           code="unknown_parameter")
