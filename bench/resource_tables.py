"""The tables in docs/boards.md, from bench/results/resources.json: what each board's SoC costs, unit by unit."""
import json

from bench import records
from bench.resources import KINDS, RESULT
from llama2_spec.emit_docs import table


def boards() -> str:
    """A table for each board."""
    return "\n\n".join(_board(name, result) for name, result in json.loads(RESULT.read_text()).items())


def _board(name: str, result: dict) -> str:
    old = records.stale("resources", result, name)
    rows = sorted(([unit, *(cells[kind] for kind in KINDS)] for unit, cells in result["units"].items()),
                  key=lambda row: -row[1])
    rows += [["**all**", *(result[kind] for kind in KINDS)],
             ["device has", *(result[f"limit_{kind}"] for kind in KINDS)],
             ["used", *(f"{100*result[kind]/result[f'limit_{kind}']:.0f} %" for kind in KINDS)]]
    shown = [[f"{cell:,g}" if isinstance(cell, (int, float)) else cell for cell in row] for row in rows]
    title = f"**{name}** ({result['device']})" + (f" *({old.note})*" if old else "")
    return f"{title}\n\n{table(('Unit', 'LUT', 'FF', 'BRAM36', 'DSP'), shown)}"


TABLES = {"resources": boards}
