"""The tables of docs/performance.md on several conversations, from the records of bench.arrival and
bench.server_slots."""
from pathlib import Path

from llama2_spec.emit_docs import table


def label(result):
    """The model, its format and the core's columns, as the other tables say them."""
    shape = " shape" if result.get("random_weights") else ""
    return f"{Path(result['model']).stem}{shape}, {result['format']}, {result['columns']} columns"


def arrival_table(results, note):
    """``note`` says how old a record is."""
    rows = [(label(r) + note(r), f"{r['prompt']:,}", f"{r['slots'] - 1}", f"{max(r['usual_cycles']):,.0f}",
             f"{max(r['longest_cycles']):,}", f"{max(r['passes_left_out'])}", f"{r['rule']}",
             "yes" if r["identical"] else "NO", f"`{r['command']}`") for r in results]
    return table(("Model", "Prompt tokens", "Decode meanwhile", "Cycles between two tokens, usually", "At most",
                  "Passes in a row without one, at most", "By the rule", "Texts identical", "Command"), rows)


def clients_table(results, note):
    """``note`` says how old a record is."""
    rows = [(label(r) + note(r), f"{r['clients']}", f"{r['tokens']:,}", f"{r['alone']:,.1f}", f"{r['together']:,.1f}",
             f"{r['ratio']:.2f}", f"{r['ratio_with_prompts']:.2f}", "yes" if r["identical"] else "NO",
             f"`{r['command']}`") for r in results]
    return table(("Model", "Clients", "Tokens each", "Tokens/s of one", "Of all together", "Times as many",
                  "Prompts included", "Texts identical", "Command"), rows)
