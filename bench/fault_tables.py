"""The tables of docs/faults.md, from bench/results/faults.json and fuzz-firmware.json."""
import json

from bench import faults, fuzz_firmware
from llama2_spec.emit_docs import table


#: rows that records of before slots have not
IN_SLOTS = (("divisions", "Divisions of the cache into slots"), ("together", "Generations begun while another one ran"))


def campaigns_table():
    """What each campaign did and met."""
    found = json.loads(faults.RESULTS.read_text())["campaigns"]
    rows = [("Seeds", *(f"{one['seeds'][0]:,} to {one['seeds'][1]:,}" for one in found)),
            ("Trials", *(f"{one['trials']:,}" for one in found)),
            ("Faults", *(f"{one['faults']:,}" for one in found))]
    for kind in sorted({kind for one in found for kind in one["by_kind"]}):
        rows.append((f"– {kind}", *(f"{one['by_kind'].get(kind, 0):,}" for one in found)))
    rows.append(("Bytes on the line", *(f"{one['bytes']:,}" for one in found)))
    rows.append(("Tokens compared", *(f"{one['tokens_compared']:,}" for one in found)))
    for how in sorted({how for one in found for how in one["operations"]}):
        what = "restarts told" if how == "restarts told" else f"operations: {how}"
        rows.append((what, *(f"{one['operations'].get(how, 0):,}" for one in found)))
    for how in sorted({how for one in found for how in one.get("in_slots", ())}):
        rows.append((f"generations in slots: {how}", *(f"{one['in_slots'].get(how, 0):,}" for one in found)))
    rows.append(("Longest operation, virtual seconds", *(f"{one['longest_operation_s']:,}" for one in found)))
    rows.append(("**Wrong, lost, untrue or hung**", *(f"**{len(one['failures'])}**" for one in found)))
    return table(("", *(f"Campaign {number}" for number in range(1, len(found) + 1))), rows)


def fuzz_table():
    """What the firmware was sent."""
    found = json.loads(fuzz_firmware.RESULTS.read_text())
    rows = [("Sessions", f"{found['sessions']:,}"), ("Inputs: frames and images", f"{found['inputs']:,}"),
            ("Images in memory or flash", f"{found['images']:,}"),
            ("Replies, each a whole frame", f"{found['replies']:,}"),
            ("– refusals among them", f"{found['refused']:,}"),
            *((what, f"{found[name]:,}") for name, what in IN_SLOTS if name in found),
            ("Commands to the core, each within bounds", f"{found['commands']:,}"),
            ("**Findings**", f"**{len(found['findings'])}**")]
    return table(("Under ASan and UBSan", ""), rows)


TABLES = {"fault-campaigns": campaigns_table, "firmware-fuzz": fuzz_table}
