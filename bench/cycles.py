"""Cycles per token of the simulated SoC, from token event to token event: ``python -m bench.cycles --model FILE``.

Every position is a full decode with classifier and sampling by the shipped firmware and client. Cycles are differences
of the core's free-running counter between consecutive token events; useful bytes are reckoned from shapes and formats.
Stalls are counted in the simulated SoC, outside the core, for the same cycles: with the beats they sum to them exactly.
"""
import argparse
from dataclasses import asdict
from pathlib import Path

from bench import baseline, shapes
from bench.prefill import measure_prefill
from bench.records import write as write_record
from bench.session import session
from bench.slots import measure_slots, report_slots
from bench.speculation import measure_speculation
from llama2_host import connect
from llama2_host.device.simulator import COLUMNS
from llama2_host.generation import Options, Sampling
from llama2_host.statistics import token_cycles
from soc.sim.simulator import WATCH_CAUSES
from llama2_spec.golden import Golden
from llama2_spec.image import Image
from llama2_spec.model import KvFormat
from llama2_spec.packing import BEAT, row_beats
from llama2_spec.protocol import MAX_SLOTS, GenerateFlag
from llama2_spec.registers import Counter, Phase
from targets import sim

BOS = 1
TOP_P = 0.9

# What is decoded ----------------------------------------------------------------------------------


def prepare(args, layers=None):
    """Path of the image that the arguments name."""
    if args.shape:
        return shapes.random_image(args.shape, args.format, args.group, layers, args.seq_len,
                                   KvFormat[args.kv.upper()])
    options = {"group": args.group} if args.group else {}
    options |= {"seq_len": args.seq_len} if args.seq_len else {}
    return connect(golden=True, model=args.model, tokenizer=args.tokenizer, format=args.format, embedding=args.format,
                   **options).model.path


def moved_beats(image, stats, passes):
    """Beats that went through DRAM: those that were counted, and the embedding rows, which no counter sees."""
    table = image.embedding
    embedding = row_beats(table.words, table.format.name.lower(), table.group)
    taken = sum(stats.counters[phase*len(Counter) + Counter.BEATS] for phase in Phase)
    return taken + stats.stores + passes*embedding


def breakdown(stats, passes):
    """Phase counters, per pass of the whole run."""
    return {phase.name: {counter.name.lower(): stats.counters[phase*len(Counter) + counter]/passes
                         for counter in Counter}
            for phase in Phase}


def stalls(watch, first, last, cycles):
    """Cycles from result ``first`` to result ``last`` by cause (soc.sim.simulator.WATCH_CAUSES), beats among them.

    They add up to ``cycles``, which the core counted from token to token; anything else is an error.
    """
    parts = {cause: watch[last][cause] - watch[first][cause] for cause in ("cycles", *WATCH_CAUSES)}
    if watch[last]["strays"] != watch[0]["strays"] or sum(parts.values()) != 2*cycles or parts["cycles"] != cycles:
        raise SystemExit("bench.cycles: the simulated SoC's counts of causes do not add up")
    return parts

# Measurements -------------------------------------------------------------------------------------


def decode(vsim, path, first, last, temperature=0.0):
    """Cycles of the passes at positions ``first`` .. ``last - 1``, and what else a run says.

    Decoding starts at position 0 with BOS. If ``first`` is 255 or more, it starts at ``first - 1`` over a cache of
    random rows, which lies in DRAM beside the image.
    """
    image = Image.parse(path.read_bytes())
    preloaded = first >= 255
    begin = first - 1 if preloaded else 0
    dram = shapes.with_cache(path, image.config) if preloaded else path
    with session(vsim, dram, path) as (simulator, device):
        device.device.reset()
        before = len(simulator.watch())
        # The pass at position p yields the token event of position p + 1; cycles run from the one before.
        sampling = Sampling(temperature=temperature, top_p=TOP_P, seed=1)
        generation = device.generate([BOS], Options(begin, last - begin, sampling, stops=()),
                                     flags=GenerateFlag.PRELOADED if preloaded else 0)
        events = list(generation)
        stats = device.device.stats()
        violations, watch = sum(simulator.violations().values()), simulator.watch()[before:]
    passes = {event.position - 1: cycles for event, cycles in zip(events[1:], token_cycles(events))}
    chosen = [p for p in range(max(first, begin + 1), last) if p in passes]
    if not chosen:
        raise SystemExit(f"bench.cycles: no position measured: {len(events)} tokens came of {last - begin}")
    total = sum(passes[p] for p in chosen)
    useful = sum(device.useful_beats(p) for p in chosen)
    moved = moved_beats(image, stats, len(events))
    needed = sum(device.useful_beats(p) for p in range(begin, begin + len(events)))
    return {
        "positions": [chosen[0], chosen[-1] + 1], "cycles": total, "useful_beats": useful,
        "per_position": [passes[p] for p in chosen], "dram_violations": violations,
        "preloaded": "random rows" if preloaded else False, "moved_over_useful": moved/needed,
        "breakdown": breakdown(stats, len(events)),
        "stalls": stalls(watch, chosen[0] - begin - 1, chosen[-1] - begin, total),
        "config": asdict(image.config),
    }


def per_token(run):
    """The figures that are compared, from a run's sums."""
    count = run["positions"][1] - run["positions"][0]
    cycles, useful = run.pop("cycles"), run.pop("useful_beats")
    return {"cycles_per_token": cycles/count, "tokens_per_second": sim.SYS_CLK_FREQ*count/cycles,
            "bytes_per_token": BEAT*useful/count, "useful_bytes": BEAT*useful/count,
            "moved_bytes": BEAT*useful/count*run["moved_over_useful"], "roofline_percent": 100*useful/cycles, **run}


def extrapolate(few, more, few_layers, more_layers, layers):
    """A run of ``more_layers`` extrapolated to ``layers``: every further layer is taken to cost as much as the last
    ones did.

    The breakdown and the stalls stay those of the simulated ``more_layers``.
    """
    factor = (layers - more_layers)/(more_layers - few_layers)

    def grown(a, b):
        return b + factor*(b - a)
    return {**more, "cycles": grown(few["cycles"], more["cycles"]),
            "useful_beats": grown(few["useful_beats"], more["useful_beats"]),
            "per_position": [grown(a, b) for a, b in zip(few["per_position"], more["per_position"])],
            "layers": layers, "simulated_layers": [few_layers, more_layers]}


def measure(args):
    """The result for the arguments of the command line, as it goes into a file."""
    vsim = sim.build(columns=args.columns, variant={name: getattr(args, name) for name in sim.VARIANTS})
    first, last = args.positions
    path = prepare(args, args.layers)
    common = {"command": command(args), "model": args.shape or Path(args.model).name, "format": args.format,
              "random_weights": bool(args.shape), "temperature": args.temperature, "columns": args.columns,
              **{name: getattr(args, name) for name in sim.VARIANTS}, "kv": args.kv}
    if args.slots:
        return common | {"slots": measure_slots(vsim, path, Image.parse(path.read_bytes()).config, args.slots, first,
                                                last, args.temperature)}
    run = decode(vsim, path, first, last, args.temperature)
    if args.layers:
        few = decode(vsim, prepare(args, args.layers//2), first, last, args.temperature)
        run = extrapolate(few, run, args.layers//2, args.layers, shapes.SHAPES[args.shape].n_layers)
    result = common | per_token(run)
    if args.prefill:
        result["prefill"] = measure_prefill(vsim, path, args.prefill)
    if args.speculate:
        result["speculation"] = measure_speculation(vsim, path, args.speculate)
    if args.baseline:
        against_software(result, path, args.baseline)
    return result


def against_software(result, path, count):
    """Add what ``count`` positions cost the CPU alone, and how many times the core's cycles that is at the same
    ones."""
    cycles = baseline.decode(path, Golden(Image.parse(path.read_bytes())), count)
    first, last = result["positions"]
    common = range(first, min(last, count))
    result["baseline"] = {"cycles_per_position": cycles, "cycles_per_token": sum(cycles)/count}
    if common:
        core = [result["per_position"][p - first] for p in common]
        result["baseline"]["ratio"] = sum(cycles[p] for p in common)/sum(core)

# Command line -------------------------------------------------------------------------------------


def positions(text):
    first, colon, last = text.partition(":")
    if not (colon and first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected A:B with A < B, as in 0:64")
    return int(first), int(last)


def command(args):
    """The command line that repeats this run."""
    options = [("model", args.model and Path(args.model).name), ("shape", args.shape), ("format", args.format),
               ("group", args.group), ("layers", args.layers), ("seq-len", args.seq_len),
               ("positions", ":".join(map(str, args.positions))), ("columns", args.columns),
               *((name.replace("_", "-"), getattr(args, name)) for name, usual in {**sim.USUAL, "kv": "k16v16"}.items()
                 if getattr(args, name) != usual),
               ("prefill", args.prefill),
               ("speculate", args.speculate), ("slots", args.slots),
               ("temperature", args.temperature), ("baseline", args.baseline)]
    return "python -m bench.cycles " + " ".join(f"--{name} {value}" for name, value in options if value)


def report(result):
    """Print what matters."""
    if "slots" in result:
        return report_slots(result)
    print(f"{result['model']} {result['format']}: {result['cycles_per_token']:,.0f} cycles/token, "
          f"{result['tokens_per_second']:,.1f} tokens/s at 100 MHz, {result['roofline_percent']:.1f} % of the roofline "
          f"({result['useful_bytes']:,.0f} useful bytes/token, {100*(result['moved_over_useful'] - 1):+.2f} % moved), "
          f"DRAM timing violations: {result['dram_violations']}")
    if "simulated_layers" in result:
        few, more = result["simulated_layers"]
        print(f"  extrapolated to {result['layers']} layers from runs of {few} and {more}")
    for phase, counters in result["breakdown"].items():
        if counters["cycles"]:
            print(f"  {phase:11} " + "  ".join(f"{name} {value:8,.0f}" for name, value in counters.items()))
    print("  of all cycles: " + ", ".join(f"{name} {100*value/result['stalls']['cycles']:.1f} %"
                                         for name, value in result["stalls"].items() if name != "cycles"))
    if "prefill" in result:
        p = result["prefill"]
        print(f"  prefill of {p['tokens']} tokens: {p['cycles_per_token']:,.0f} cycles/token, "
              f"{p['one_by_one_cycles_per_token']:,.0f} one by one: {p['speedup']:.2f} times faster, "
              f"{'identical' if p['identical'] else 'NOT IDENTICAL'}")
        for phase, counters in p["breakdown"].items():
            if counters["cycles"]:
                alone = p["one_by_one_breakdown"][phase]["cycles"]
                print(f"    {phase:11} " + "  ".join(f"{name} {value:8,.0f}" for name, value in counters.items())
                      + f"  one by one {alone:8,.0f}")
    for kind in ("repeating", "stories", "random"):
        if kind in result.get("speculation", {}):
            s = result["speculation"][kind]
            print(f"  speculation on {kind} text: {s['tokens_per_pass']:.2f} tokens a pass, {s['right']} of "
                  f"{s['guessed']} guesses right, {s['cycles_per_token']:,.0f} cycles/token, "
                  f"{s['cycles_per_token_off']:,.0f} without: {s['speedup']:.2f} times faster, "
                  f"{'identical' if s['identical'] else 'NOT IDENTICAL'}")
    if "baseline" in result:
        software = result["baseline"]
        print(f"  the same in C by the CPU: {software['cycles_per_token']:,.0f} cycles/token (positions 0 to "
              f"{len(software['cycles_per_position']) - 1}, logits equal to golden's)"
              + (f", {software['ratio']:.0f} times the core's" if "ratio" in software else ""))


def parse(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m bench.cycles", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", help="checkpoint or image")
    what.add_argument("--shape", choices=tuple(shapes.SHAPES), help="a known model's shape, random weights")
    parser.add_argument("--tokenizer")
    parser.add_argument("--format", choices=("q8", "q4"), default="q8", help="of all matrices, the embedding too")
    parser.add_argument("--group", type=int, choices=(32, 64), help="weights per scale (q8: 64, q4: 32)")
    parser.add_argument("--layers", type=int, help="simulate this many layers and half of them, and extrapolate")
    parser.add_argument("--seq-len", type=int, help="another context than the shape's")
    parser.add_argument("--positions", type=positions, default=(0, 64), help="A:B")
    parser.add_argument("--columns", type=int, choices=COLUMNS, default=sim.COLUMNS)
    sim.add_variant(parser.add_argument)
    parser.add_argument("--kv", choices=tuple(kv.name.lower() for kv in KvFormat), default="k16v16",
                        help="elements of the K/V cache, with --shape")
    parser.add_argument("--prefill", type=int, metavar="N", help="also measure a prompt of N tokens")
    parser.add_argument("--speculate", type=int, default=0, metavar="N",
                        help="also decode texts with up to N guesses a pass, and without")
    parser.add_argument("--slots", type=int, default=0, metavar="N",
                        help="N conversations at a time, against one; of a device whose K/V cache is divided so")
    parser.add_argument("--temperature", type=float, default=0.0,
                        help=f"sample, with top-p {TOP_P}; 0, the default, is greedy")
    parser.add_argument("--baseline", type=int, default=0, metavar="N",
                        help="also decode N positions in C on the CPU: seconds of wall time for each")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(arguments)
    for other in ("layers", "prefill", "speculate", "baseline"):
        if args.slots and getattr(args, other):
            parser.error(f"--slots measures conversations, all layers of them, and nothing else: leave --{other} out")
    if not 0 <= args.slots <= MAX_SLOTS:
        parser.error(f"--slots is from 1 to {MAX_SLOTS}")
    if args.layers and not (args.shape and args.layers >= 2 and args.layers % 2 == 0):
        parser.error("--layers needs --shape, and an even number")
    if args.tokenizer and args.shape:
        parser.error("--tokenizer needs --model: a shape has no text")
    if args.kv != "k16v16" and not args.shape:
        parser.error("--kv needs --shape: an image has its own")
    sim.variant_of(parser, args)
    return args


def main():
    args = parse()
    result = measure(args)
    report(result)
    if args.json:
        write_record(args.json, "cycles", result)
    return 0 if sound(result) else 1


def sound(result):
    """Everything that was compared is identical, and no DRAM timing was violated."""
    parts = [result, result.get("prefill", {}), result.get("slots", {}), result.get("speculation", {})]
    parts += [part for part in parts[-1].values() if isinstance(part, dict)]
    return all(part.get("identical", True) and not part.get("dram_violations") for part in parts)


if __name__ == "__main__":
    raise SystemExit(main())
