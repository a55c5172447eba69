"""Cycles per token of the simulated SoC, from token event to token event: ``python -m bench.cycles --model FILE``.

Every position is a full decode with classifier and sampling by the shipped firmware and client. Cycles are differences of
the core's free-running counter between consecutive token events; the breakdown is what the phase counters say.
"""
import argparse
import json
from pathlib import Path

from bench import baseline
from host import connect
from host.generation import Options, Sampling
from host.statistics import token_cycles
from soc.sim.simulator import Simulator
from spec.golden import Golden
from spec.registers import Counter, Phase
from targets import sim

BOS = 1


def measure(model, tokenizer, format: str, first: int, last: int, columns: int = sim.COLUMNS) -> dict:
    """Mean over the passes at positions ``first`` .. ``last - 1``, greedy, from BOS alone."""
    vsim = sim.build(columns=columns)
    prepared = connect(golden=True, model=model, tokenizer=tokenizer, format=format, embedding=format).model
    image = prepared.path
    with Simulator(vsim, dram_image=image) as simulator:
        with connect(port=simulator.url, wait_s=60, model=image) as device:
            device.device.reset()
            # The pass at position p yields the token event of position p + 1; cycles run from the one before.
            events = list(device.generate([BOS], Options(max_new=last, sampling=Sampling(temperature=0), stops=())))
            stats = device.device.stats()
        cycles = token_cycles(events)
        passes = {event.position - 1: c for event, c in zip(events[1:], cycles)}
        chosen = [p for p in range(max(first, 1), last) if p in passes]
        total = sum(passes[p] for p in chosen)
        useful = sum(device.useful_beats(p) for p in chosen)
        violations = sum(simulator.violations().values())
    return {
        "command": f"python -m bench.cycles --model {Path(model).name} --format {format} --positions {first}:{last} "
                   f"--columns {columns}",
        "model": Path(model).name, "format": format, "columns": columns, "positions": [chosen[0], chosen[-1] + 1],
        "cycles_per_token": total / len(chosen), "tokens_per_second": sim.SYS_CLK_FREQ * len(chosen) / total,
        "bytes_per_token": 16 * useful / len(chosen), "roofline_percent": 100 * useful / total,
        "per_position": [passes[p] for p in chosen], "dram_violations": violations,
        "breakdown": breakdown(stats, len(events)),
    }


def against_software(result, model, tokenizer, format: str, count: int) -> None:
    """Add what ``count`` positions cost the CPU alone, and how many times the core's cycles that is at the same ones."""
    prepared = connect(golden=True, model=model, tokenizer=tokenizer, format=format, embedding=format).model
    cycles = baseline.decode(prepared.path, Golden(prepared.image), count)
    first, last = result["positions"]
    common = range(max(first, 0), min(last, count))
    result["baseline"] = {"cycles_per_position": cycles, "cycles_per_token": sum(cycles) / count}
    if common:
        core = [result["per_position"][p - first] for p in common]
        result["baseline"]["ratio"] = sum(cycles[p] for p in common) / sum(core)


def breakdown(stats, tokens: int) -> dict:
    """Phase counters, per token of the whole run."""
    return {phase.name: {counter.name.lower(): stats.counters[phase * len(Counter) + counter] / tokens for counter in Counter}
            for phase in Phase}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--tokenizer")
    parser.add_argument("--format", choices=("q8", "q4"), default="q8", help="of all matrices, the embedding too")
    parser.add_argument("--positions", default="0:64", help="A:B")
    parser.add_argument("--columns", type=int, default=sim.COLUMNS)
    parser.add_argument("--baseline", type=int, default=0, metavar="N",
                        help="also decode N positions in C on the CPU: seconds of wall time for each")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    first, last = map(int, args.positions.split(":"))
    result = measure(args.model, args.tokenizer, args.format, first, last, args.columns)
    print(f"{result['model']} {result['format']}: {result['cycles_per_token']:,.0f} cycles/token, "
          f"{result['tokens_per_second']:,.0f} tokens/s at 100 MHz, {result['roofline_percent']:.1f} % of the roofline "
          f"({result['bytes_per_token']:,.0f} bytes/token), DRAM timing violations: {result['dram_violations']}")
    for phase, counters in result["breakdown"].items():
        if counters["cycles"]:
            print(f"  {phase:11} " + "  ".join(f"{name} {value:8,.0f}" for name, value in counters.items()))
    if args.baseline:
        against_software(result, args.model, args.tokenizer, args.format, args.baseline)
        software = result["baseline"]
        print(f"  the same in C by the CPU: {software['cycles_per_token']:,.0f} cycles/token (positions 0 to "
              f"{args.baseline - 1}, logits equal to golden's)"
              + (f", {software['ratio']:.0f} times the core's" if "ratio" in software else ""))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
