"""The tables of docs/soak.md, from bench/results/soak.json and fuzz-core.json."""
import json

from bench import fuzz_core, soak
from llama2_spec.emit_docs import table

SESSIONS = {
    "generations": "Generations", "generations speculate": "– with speculation",
    "generations DUMP_LOGITS": "– with their logits",
    "generations ALL_LOGITS": "– with a result of every prompt position",
    "generations PRELOADED": "– behind rows that were put into memory", "tokens": "**Tokens compared**",
    "logits": "**Logits compared**", "rows": "K/V rows compared", "prompt tokens": "Prompt tokens",
    "ended LENGTH": "Ended by their length", "ended STOP": "– by a stop token", "ended CONTEXT": "– by a full context",
    "ended ABORT": "– by an abort", "aborts of all": "Aborts of all generations",
    "superseded": "Generations that a newer one in their slot ended", "reconnects": "Sessions that began anew",
    "divisions": "Divisions of the cache", "uploads": "Models uploaded",
    "commands refused": "Bad commands, each refused",
    "calls refused": "Bad calls, each refused by the client", "violations": "**DRAM timing violations**",
}
SHAPES = {"steps": "Steps", "steps sampled": "– with candidates and mass",
          "steps awaited": "– begun before their tokens were there",
          "steps chained": "– with the last argmax as their token",
          "columns": "Columns, each a token at a position of a slot", "results compared": "Results compared",
          "logits": "Logits compared", "rows": "K/V rows compared", "cycles": "Cycles"}


def rows_of(record, words):
    """Lines of a table: seeds, what ``words`` name, and all counts of the kinds that begin with a known word."""
    counts = record["counts"]
    rows = [("Seeds", f"{record['seeds'][0]:,} to {record['seeds'][1]:,}")]
    rows += [(text, f"{counts.get(name, 0):,}") for name, text in words.items()]
    for kind in ("build", "columns", "lanes", "pipes", "candidate sets", "slots", "format", "kv"):
        found = sorted(name for name in counts if name.startswith(f"{kind} "))
        if found:
            rows.append((f"By {kind}", ", ".join(f"{name[len(kind) + 1:]}: {counts[name]:,}" for name in found)))
    return [*rows, ("Processor time, minutes", f"{record['cpu_s']/60:.0f}"),
            ("**Failures**", f"**{len(record['failures'])}**")]


def recorded(path, command, title, words):
    """The table of a record; a line where nobody has made it yet."""
    if not path.exists():
        return f"There is no record yet: `{command}` makes it.\n"
    return table((title, ""), rows_of(json.loads(path.read_text()), words))


def sessions_table():
    return recorded(soak.RESULTS, "make soak", "Sessions on the simulated SoC", SESSIONS)


def shapes_table():
    return recorded(fuzz_core.RESULTS, "make fuzz-core", "Decoders on the core alone", SHAPES)


TABLES = {"soak": sessions_table, "fuzz-core": shapes_table}
