"""The tables of docs/performance.md with its plot, of docs/checkpoints.md and of the pages in :data:`ROOMS`, from
bench/results: ``python -m bench.emit_docs`` writes them.

The page's prose is written by hand; what stands between a table's two marks is replaced. A record of earlier sources is
refused; with ``--allow-stale`` the tables are written and say which of their figures are old.
"""
import argparse
import json
import re
import sys
from pathlib import Path

from bench import (conversation_tables, coverage_tables, fault_tables, mutant_tables, proof_tables, published,
                   resource_tables, soak_tables, variations)
from bench.cycles import TOP_P
from bench.fitting import fits_table
from bench.long_context import good
from bench.plot import bars
from bench import records
from soc.sim.simulator import WATCH_CAUSES
from llama2_spec.emit_docs import table
from targets import sim

ROOT    = Path(__file__).resolve().parent.parent
RESULTS = ROOT/"bench"/"results"
PAGE    = ROOT/"docs"/"performance.md"
MODELS  = ROOT/"docs"/"checkpoints.md"
FAULTS  = ROOT/"docs"/"faults.md"
MUTANTS = ROOT/"docs"/"mutants.md"
REACHED = ROOT/"docs"/"coverage.md"
PROOFS  = ROOT/"docs"/"proofs.md"
SOAK    = ROOT/"docs"/"soak.md"
BOARDS  = ROOT/"docs"/"boards.md"
#: Pages whose tables stand in a module of their own.
ROOMS   = {FAULTS: fault_tables, MUTANTS: mutant_tables, PROOFS: proof_tables, REACHED: coverage_tables,
           SOAK: soak_tables, BOARDS: resource_tables}
PLOT    = ROOT/"docs"/"roofline.svg"
MARKS   = "<!-- {0}: begin, written by bench/emit_docs.py -->\n", "<!-- {0}: end -->"


def read(pattern):
    """Results by name of file, in order; each has that name as its ``record``."""
    return {path.stem: {**json.loads(path.read_text()), "record": path.stem} for path in sorted(RESULTS.glob(pattern))}


def one(name):
    """A result, and what its table says beside its first column's name: nothing, if it is of today's sources."""
    result = json.loads((RESULTS/f"{name}.json").read_text())
    return result, note({**result, "record": name})


def note(result):
    """The text on a record's age beside a table's figures: empty, or the commit of the record."""
    old = records.stale(result["record"], result)
    return f" *({old.note})*" if old else ""


def without_notes(text):
    """A page or the plot as it would be if every record were of today's sources."""
    return re.sub(r" \*\(of (?:an earlier core|earlier sources)(?:, \w+\+?)?\)\*", "", text)


#: What a run says where it is not of the default build, by the key of its record.
USUAL   = {**sim.USUAL, "kv": "k16v16"}
UNUSUAL = {"attention_lanes": "{} attention lanes", "softmax_pipes": "{} softmax pipes",
           "candidate_sets": "{} sets of candidates", "kv": "{}"}


def label(run):
    """The model, format and columns of a run of bench.cycles, and what else differs from the default build."""
    name = Path(run["model"]).stem
    columns = run["columns"]
    shape = " shape" if run.get("random_weights") else ""
    other = [words.format(run[key]) for key, words in UNUSUAL.items() if run.get(key, USUAL[key]) != USUAL[key]]
    return ", ".join([f"{name}{shape}", run["format"], f"{columns} column{'s' if columns > 1 else ''}", *other,
                      *(["sampled"] if run.get("temperature") else [])])


def titled(run):
    """The first column of a run's rows: what it decoded, and how old it is."""
    return label(run) + note(run)


def positions(run):
    first, end = run["positions"]
    return f"{first}-{end - 1}" if end - first > 1 else f"{first}"


def runs():
    """Runs of bench.cycles, by model and position; the largest models last."""
    found = read("cycles-*.json").values()
    smallest = {}
    for run in found:
        smallest[run["model"]] = min(run["bytes_per_token"], smallest.get(run["model"], float("inf")))
    return sorted(found, key=lambda run: (smallest[run["model"]], run["model"], run["format"] == "q4",
                                          run["positions"]))


def trained_260k():
    """Runs of stories260K, of which others publish figures: the default build over 64 positions."""
    return [run for run in runs() if run["model"] == "stories260K.bin" and run["columns"] == 2
            and run["positions"] == [1, 64] and all(run.get(key, usual) == usual for key, usual in USUAL.items())]

# Tables -------------------------------------------------------------------------------------------


def cycles_table():
    rows = []
    for run in runs():
        notes = ["extrapolated to {} layers from {} and {}".format(run["layers"], *run["simulated_layers"])
                 ] if "simulated_layers" in run else []
        notes += [f"sampled, temperature {run['temperature']:g}, top-p {TOP_P}"] if run.get("temperature") else []
        notes += [f"K/V preloaded: {run['preloaded']}"] if run.get("preloaded") else []
        notes += [f"{run['dram_violations']} DRAM timing violations"] if run["dram_violations"] else []
        rows.append((titled(run), positions(run), f"{run['cycles_per_token']:,.0f}", f"{run['tokens_per_second']:,.1f}",
                     f"{run['bytes_per_token']:,.0f}", f"{run['roofline_percent']:.1f} %", "; ".join(notes),
                     f"`{run['command']}`"))
    return table(("Model", "Positions", "Cycles/token", "Tokens/s at 100 MHz", "Useful bytes/token", "Of the roofline",
                  "",
                  "Command"), rows)


def breakdown_table():
    """Per run, the phases' counters summed, per token."""
    names = ("cycles", "beats", "starved", "fenced", "stalled")
    rows = []
    for run in runs():
        sums = {name: sum(counters[name] for counters in run["breakdown"].values()) for name in names}
        rows.append((titled(run), positions(run), *(f"{sums[name]:,.0f}" for name in names)))
    return table(("Model", "Positions", "Cycles of commands", "Beats", "Starved", "Fenced", "Stalled"), rows)


def stalls_table():
    """Per run, all cycles of the stream by cause, in percent; runs from before causes were counted are left out."""
    rows = []
    for run in (run for run in runs() if all(cause in run.get("stalls", {}) for cause in WATCH_CAUSES)):
        tokens = run["positions"][1] - run["positions"][0]
        total = run["stalls"]["cycles"]
        rows.append((titled(run), positions(run), f"{total/tokens:,.0f}",
                     *(f"{100*run['stalls'][cause]/total:.2f}" for cause in WATCH_CAUSES)))
    return table(("Model", "Positions", "Cycles/token", *(f"{cause}, %" for cause in WATCH_CAUSES)), rows)


def causes_table():
    return table(("Cause", "A cycle in which"), list(WATCH_CAUSES.items()))


def prefill_table():
    rows = []
    for run in (run for run in runs() if "prefill" in run):
        p = run["prefill"]
        rows.append((titled(run), p["tokens"], f"{p['one_by_one_cycles_per_token']:,.0f}",
                     f"{p['cycles_per_token']:,.0f}", f"{p['speedup']:.2f}",
                     "yes" if p["identical"] else "NO", f"`{run['command']}`"))
    return table(("Model", "Prompt tokens", "Cycles/token, one by one", "Together", "Times faster", "Identical",
                  "Command"), rows)


def speculation_table():
    rows = []
    for run in (run for run in runs() if "speculation" in run):
        spec = run["speculation"]
        for kind, s in ((kind, s) for kind, s in spec.items() if isinstance(s, dict)):
            rows.append((titled(run), kind, spec["guesses"], f"{s['tokens_per_pass']:.2f}",
                         f"{s['right']} of {s['guessed']}",
                         f"{s['cycles_per_token_off']:,.0f}", f"{s['cycles_per_token']:,.0f}", f"{s['speedup']:.2f}",
                         "yes" if s["identical"] else "NO", f"`{run['command']}`"))
    return table(("Model", "Text", "Guesses a pass, at most", "Tokens a pass", "Guesses right", "Cycles/token, off",
                  "On", "Times faster",
                  "Identical", "Command"), rows)


def sampling_table():
    """Sampled runs against greedy ones of the same model, format, columns and positions."""
    keys = ("model", "format", "columns", "positions")
    rows = []
    for run in (run for run in runs() if run.get("temperature")):
        greedy = next((r for r in runs() if not r.get("temperature") and all(r[key] == run[key] for key in keys)), None)
        if greedy:
            extra = run["cycles_per_token"] - greedy["cycles_per_token"]
            rows.append((titled(run), f"{greedy['cycles_per_token']:,.0f}", f"{run['cycles_per_token']:,.0f}",
                         f"{extra:,.0f}", f"{100*extra/greedy['cycles_per_token']:.1f} %"))
    return table(("Model", "Cycles/token, greedy", "Sampled", "More", "Of a greedy token"), rows)


def slots_table():
    """Conversations together, by model and how many."""
    rows = []
    for run in sorted(read("slots-*.json").values(), key=lambda run: (run["model"].startswith("stories15M"),
                      run["slots"]["positions"], run["temperature"], run["slots"]["slots"])):
        found = run["slots"]
        rows.append((titled(run), found["slots"], "{} to {}".format(*found["positions"]),
                     f"{found['alone_cycles']/found['alone_tokens']:,.0f}", f"{found['cycles']/found['tokens']:,.0f}",
                     f"**{found['ratio']:.2f}**", "yes" if found["identical"] else "NO", f"`{run['command']}`"))
    return table(("Model", "Conversations", "Positions", "Cycles/token, one alone", "Together",
                  "Tokens a cycle against one", "Identical", "Command"), rows)


def baseline_table():
    rows = [(titled(run), len(run["baseline"]["cycles_per_position"]), f"{run['baseline']['cycles_per_token']:,.0f}",
             f"{run['baseline']['ratio']:.0f}") for run in runs() if "ratio" in run.get("baseline", {})]
    return table(("Model", "Positions compared, from 0", "Cycles/token in C by the CPU", "Times the core's"), rows)


def published_table():
    ours = [("this core", "Arty's DRAM timings, 100 MHz", titled(run), f"{run['tokens_per_second']:,.1f}",
             f"{run['roofline_percent']:.1f} %", "simulated",
             "above") for run in shown_runs()]
    rows = [(d.name, d.device, d.model, d.tokens_per_s, d.share, "silicon" if d.silicon else "not said", d.source)
            for d in published.DECODERS]
    return table(("Decoder", "Device", "Model", "Tokens/s", "Of the memory's peak", "On", "Source"), ours + rows)


def stories260k_table():
    ours = [(titled(run), f"{run['cycles_per_token']:,.0f}", f"positions {positions(run)}, everything included")
            for run in trained_260k()]
    return table(("stories260K", "Cycles/token", "Counted"),
                 ours + [(name, f"{cycles:,}", how) for name, cycles, how in published.STORIES260K])


def machines_table():
    ours = [(f"This SoC at 100 MHz, {run['format']}{note(run)}", f"{run['tokens_per_second']:,.0f}", "simulated")
            for run in trained_260k()]
    return table(("Machine", "Tokens/s, stories260K", ""), ours + list(published.MACHINES))


def accuracy_table():
    result, age = one("accuracy")
    rows = [(r["model"], r["format"], f"{r['bits_per_weight']:.2f}", f"{r['perplexity_float32']:.4f}",
             f"{r['perplexity']:.4f}",
             f"{r['delta_percent']:+.2f} %", f"{r['kl']:.1e}", f"{100*r['top1']:.1f} %", f"{r['kl_same_weights']:.1e}")
            for r in result["rows"]]
    return table(("Model" + age, "Format", "Bits per weight", "Perplexity float32", "Perplexity golden", "Change", "KL",
                  "Top-1 agreement",
                  "KL, same weights"), rows)


def long_context_table():
    result, age = one("long-context")
    rows = [(r["kv"], f"{r['positions'][0]:,}-{r['positions'][1] - 1:,}",
             f"{r['cache_bytes']/(1 << 20):.1f} MiB: {r['cache']}",
             "all equal" if good(r) else "NOT EQUAL", f"{r['cycles_per_token']:,.0f}",
             f"{sim.SYS_CLK_FREQ/r['cycles_per_token']:,.1f}")
            for r in result["rows"]]
    return table(("K/V" + age, "Positions", "Cache", "Tokens, logits and K/V rows", "Cycles/token",
                  "Tokens/s at 100 MHz"), rows)


def simulator_table():
    r, age = one("simulator")
    rows = [("build from nothing, software and Verilator", f"{r['build_s']:.0f} s"),
            ("build when nothing changed", f"{r['unchanged_build_s']:.1f} s"),
            ("start", f"{r['start_s']:.2f} s"),
            ("idle", f"{r['idle']['khz_of_cpu']} kHz of processor time, {r['idle']['khz']} kHz of wall time"),
            ("decoding",
             f"{r['decoding']['khz_of_cpu']} kHz of processor time, {r['decoding']['khz']} kHz of wall time")]
    if against := r.get("against"):
        rows += [("decoding, side by side", f"{against['ratio']:.2f} times the rate of {against['what']} "
                  f"({against['new_khz_of_cpu']} against {against['old_khz_of_cpu']} kHz of processor time), same "
                  "tokens, cycles but for a refresh")]
    tools = ", ".join(r[name] for name in ("verilator", "compiler") if name in r)
    return table(("Simulator" + age, f"on {r['processor']}, {r['cores']} cores, {tools}"), rows)


def golden_table():
    result, age = one("golden")
    rows = [(r["shape"], r["format"], f"{r['tokens_per_second_step']:.0f}", f"{r['tokens_per_second_text']:.0f}")
            for r in result["rows"]]
    return table(("Shape" + age, "Format", "Tokens/s, one position after another", "Along a known text"), rows)


def stream_table():
    result, age = one("stream")
    rows = [(r["what"], f"{r['beats']:,}", f"{r['cycles']:,}", f"{r['percent']:.2f} %") for r in result["rows"]]
    return table(("Sequential reads" + age, "Beats", "Cycles", "Of 16 bytes a cycle"), rows)


def variations_table():
    results = json.loads((RESULTS/"variations.json").read_text())
    ages = {note({**result, "record": "variations"}) for result in results.values()} - {""}
    return table(("Artix-7, the core alone" + "".join(sorted(ages)), "LUT", "FF", "BRAM36", "DSP"),
                 variations.table_rows(results))


def conversion_table():
    results = json.loads((RESULTS/"conversion.json").read_text())
    rows = [(f"{r['shape']}, {r['weights']/1e6:,.1f} million weights" + note({**r, "record": "conversion"}),
             r["format"].replace("+calibrate", ", calibrated; embedding q8"), f"{r['cores']}", f"{r['wall_s']:,g}",
             f"{r['resident_mib']:,} MiB", f"{r['image_bytes']/(1 << 20):,.0f} MiB") for r in results.values()]
    return table(("Shape", "Format of all matrices", "Cores", "Seconds", "Most memory", "Image"), rows)


def shown_runs():
    """A few of our runs that differ: one model at the first positions and at late ones, the least share among greedy
    runs, and a sampled one."""
    greedy = [run for run in runs() if not run.get("temperature")]
    chosen = [min(greedy, key=lambda run: run["roofline_percent"])]
    chosen += [run for run in greedy if Path(run["model"]).stem == "stories15M" and run["format"] == "q8"
               and run["positions"] == [1, 64]]
    chosen += [max(greedy, key=lambda run: run["positions"][0])]
    chosen += [min((run for run in runs() if run.get("temperature")), key=lambda run: run["roofline_percent"])]
    return [run for i, run in enumerate(chosen) if run not in chosen[:i]]


def conformance_table():
    """Cells of bench.conformance by axis; the references' versions stand in its record."""
    result, age = one("conformance")
    names = {"settings": "vocabularies of a folder and settings", "beside": "what lies beside a vocabulary",
             "chat": "three turns of a chat",
             "elsewhere": "a vocabulary from elsewhere", "sentencepiece": "`tokenizer.model` alone", "GGUF": "GGUF",
             "tokenizer.bin": "`tokenizer.bin`"}
    rows = [(names[axis], f"{counts['cells']:,}", f"{counts['equal']:,}", f"{counts['listed']:,}",
             f"{counts['different']:,}")
            for axis, counts in result["axes"].items()]
    return table(("Cells" + age, "All", "Equal", "Listed below", "Different"), rows)


def differences_table():
    result, age = one("conformance")
    return table(("Differs, and why" + age, "Cells"),
                 [(reason, f"{count:,}") for reason, count in result["listed"].items()])


def plot():
    """The SVG: published decoders that state a share and a few of our runs, most of the peak first."""
    rows = [(f"{d.name}: {d.model}", d.percent, False, f"{d.device}; {d.source}") for d in published.DECODERS
            if d.percent is not None]
    rows += [(f"this core, simulated: {label(run)}" + (f", at {run['positions'][0]:,}" if run["positions"][0] > 1
                                                       else ""), run["roofline_percent"], True,
              f"positions {positions(run)}; {run['command']}{note(run)}") for run in shown_runs()]
    return bars("Share of the memory's peak bandwidth that decoding uses", sorted(rows, key=lambda row: -row[1]))


#: of docs/checkpoints.md
CONFORMANCE = {"conformance": conformance_table, "differences": differences_table, "conversion": conversion_table,
               "fits": lambda: fits_table(RESULTS, one("uart")[1])}
TABLES = {"cycles": cycles_table, "breakdown": breakdown_table, "baseline": baseline_table,
          "published": published_table,
          "stories260K": stories260k_table, "machines": machines_table, "accuracy": accuracy_table,
          "long-context": long_context_table, "golden": golden_table,
          "stalls": stalls_table, "causes": causes_table, "prefill": prefill_table, "speculation": speculation_table,
          "sampling": sampling_table, "slots": slots_table, "simulator": simulator_table, "stream": stream_table,
          "arrival": lambda: conversation_tables.arrival_table(read("arrival*.json").values(), note),
          "server-slots": lambda: conversation_tables.clients_table(read("server-slots-*.json").values(), note),
          "variations": variations_table}
ALL = TABLES | CONFORMANCE | {name: made for room in ROOMS.values() for name, made in room.TABLES.items()}


def marked(page):
    """Names of the tables in ``page``."""
    return re.findall(MARKS[0].format(r"([\w-]+)"), page)


def render(page):
    """``page`` with every marked table as the results say."""
    for name in marked(page):
        if name not in ALL:
            raise ValueError(f"{PAGE.name} marks a table {name}, there are: {', '.join(ALL)}")
        begin, end = (mark.format(name) for mark in MARKS)
        if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
            raise ValueError(f"{PAGE.name}: the table {name} needs one begin and one end mark, in this order")
        before, rest = page.split(begin)
        page = before + begin + "\n" + ALL[name]() + "\n" + end + rest.split(end)[1]
    return page


def quoted():
    """Records that the two pages speak of: those of their tables, and those that their prose links to."""
    text = "".join(page.read_text() for page in (PAGE, MODELS))
    of_tables = {"accuracy", "long-context", "golden", "simulator", "stream", "conformance", "uart", "variations",
                 "conversion", *read("cycles-*.json"), *read("slots-*.json"), *read("arrival*.json"),
                 *read("server-slots-*.json")}
    return sorted(of_tables | set(re.findall(r"bench/results/([\w-]+)\.json", text)))


def refuse_stale():
    """Exit with a line for each quoted record that is of earlier sources, if there is one."""
    old = records.check(quoted(), RESULTS)
    if old:
        print(*old, sep="\n", file=sys.stderr)
        sys.exit(f"bench.emit_docs: {len(old)} record{'s are' if len(old) > 1 else ' is'} of earlier sources: measure "
                 "again by the commands above, or mark the figures as old with --allow-stale (make docs "
                 "ALLOW_STALE=1); no table was written")


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m bench.emit_docs", description=__doc__.split("\n\n")[0])
    parser.add_argument("--allow-stale", action="store_true", help="write the tables with figures of earlier sources, "
                        "and say so beside them")
    if not parser.parse_args(argv).allow_stale:
        refuse_stale()
    try:
        for page in (PAGE, MODELS, *ROOMS):
            page.write_text(render(page.read_text()))
        PLOT.write_text(plot())
    except (ValueError, OSError) as error:
        sys.exit(f"bench.emit_docs: {error}")


if __name__ == "__main__":
    main()
