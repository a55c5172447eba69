"""Sizes in bytes as people write them: ``500MB``, ``8GiB``, ``4096``."""
import re

#: bytes of a unit, its letters in capitals: people write kB, KiB and kib
UNITS = {"": 1, "B": 1, "KB": 10 ** 3, "MB": 10 ** 6, "GB": 10 ** 9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}


def parse(text: str) -> int | None:
    """Bytes; None where it is no size."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)", text.strip())
    if match is None or match[2].upper() not in UNITS:
        return None
    return int(float(match[1]) * UNITS[match[2].upper()])
