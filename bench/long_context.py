"""A context of more than 16,384 positions on the simulated SoC, equal to golden in every number: ``make long-context``.

Random weights in stories260K's shape. Golden decodes a random text; its K/V rows go into the DRAM beside the image, and
the last positions are decoded on the SoC by the shipped firmware: greedily, so that the tokens too depend on all that
came before. Every logit is compared, and the K/V rows that the SoC wrote.
"""
import argparse
import time
from pathlib import Path

import numpy as np

from bench import records, shapes
from bench.session import session
from llama2_host.image.fit import cache_arithmetic, kv_bytes
from llama2_host.generation import Options, Sampling
from llama2_host.progress import Progress
from llama2_host.statistics import token_cycles
from llama2_spec.golden import BLOCK, Golden
from llama2_spec.image import PAYLOAD_ALIGN, Image, row_layout
from llama2_spec.model import KvFormat
from llama2_spec.numerics import MAX_SEQ_LEN
from llama2_spec.packing import BEAT
from llama2_spec.protocol import GenerateFlag
from targets import sim

RESULT    = Path(__file__).resolve().parent/"results"/"long-context.json"
SHAPE     = "stories260K"
POSITIONS = 16_400      # of the context; the last of them are decoded on the SoC
LAST      = 8


def earlier(golden, tokens, progress):
    """Have golden decode ``tokens``; returns the seconds that it took."""
    start_s = time.monotonic()
    with progress.bar("golden", len(tokens), "positions") as bar:
        for at in range(0, len(tokens), BLOCK):
            golden.decode(tokens[at:at + BLOCK], at)
            bar.update(min(at + BLOCK, len(tokens)))
    return time.monotonic() - start_s


def with_rows(path, golden, count):
    """Write the DRAM's content, the image at ``path`` and golden's rows of the first ``count`` positions, and return
    its path."""
    config, data = golden.config, path.read_bytes()
    rest   = bytes((config.seq_len - count)*row_layout(config)[1]*BEAT)
    filled = path.with_suffix(".golden")
    with open(filled, "wb") as file:
        file.write(data + bytes(-len(data) % PAYLOAD_ALIGN))
        for layer in range(config.n_layers):
            file.write(b"".join(golden.kv_row(layer, position) for position in range(count)) + rest)
    return filled


def greedy(golden, token, position, count):
    """Logits of ``count`` positions from ``position`` on, by position, and the tokens chosen."""
    logits, tokens = {}, []
    for p in range(position, position + count):
        step = golden.step(token, p)
        logits[p], token = step.values.tolist(), step.argmax
        tokens.append(token)
    return logits, tokens


def rows_differ(device, path, golden, positions):
    """Those (layer, position) whose row in the device's DRAM is not golden's."""
    config, size = golden.config, row_layout(golden.config)[1]*BEAT
    base = -(-path.stat().st_size//PAYLOAD_ALIGN)*PAYLOAD_ALIGN
    return [(layer, p) for layer in range(config.n_layers) for p in positions
            if device.device.read(base + (layer*config.seq_len + p)*size, size) != golden.kv_row(layer, p)]


def measure(kv, positions=POSITIONS, progress=Progress.silent):
    """The result for one K/V format, as it goes into the file."""
    path   = shapes.random_image(SHAPE, "q8", seq_len=positions, kv=kv)
    golden = Golden(Image.parse(path.read_bytes()))
    first  = positions - LAST
    tokens = np.random.default_rng(5).integers(3, golden.config.vocab_size, first + 1).tolist()
    golden_s = earlier(golden, tokens[:first], progress)
    dram = with_rows(path, golden, first)
    expected, chosen = greedy(golden, tokens[first], first, LAST)
    seen = {}

    def on_logits(position, at, values):
        assert at == len(seen.setdefault(position, []))
        seen[position] += [int(value) for value in values]
    start_s = time.monotonic()
    with session(sim.build(), dram, path) as (simulator, device):
        options = Options(first, LAST, Sampling(temperature=0), stops=())
        # logits on the wire take time
        timed = list(device.generate([tokens[first]], options, flags=GenerateFlag.PRELOADED))
        generation = device.generate([tokens[first]], options, flags=GenerateFlag.PRELOADED | GenerateFlag.DUMP_LOGITS,
                                     on_logits=on_logits)
        events = list(generation)
        differ = rows_differ(device, path, golden, range(first, positions))
        violations = sum(simulator.violations().values())
    simulation_s = time.monotonic() - start_s
    cycles = token_cycles(timed)
    return {
        "shape": SHAPE, "format": "q8", "kv": kv.name.lower(), "positions": [first, positions],
        "cache": cache_arithmetic(golden.config), "cache_bytes": kv_bytes(golden.config),
        "tokens_equal": all([event.token for event in run] == chosen for run in (timed, events)),
        "logits": sum(map(len, expected.values())), "logits_equal": seen == expected,
        "rows": golden.config.n_layers*LAST, "rows_differ": differ, "errors": generation.outcome.errors,
        "dram_violations": violations, "cycles_per_token": sum(cycles)/len(cycles),
        "golden_tokens_per_second": first/golden_s, "golden_seconds": round(golden_s),
        "simulation_seconds": round(simulation_s),
    }


def good(row):
    """Returns whether everything was equal and no error occurred."""
    return row["tokens_equal"] and row["logits_equal"] and not (row["rows_differ"] or row["errors"]
                                                                or row["dram_violations"])


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m bench.long_context", description=__doc__.splitlines()[0])
    parser.add_argument("--kv", choices=[kv.name.lower() for kv in KvFormat], nargs="+",
                        help="formats of the cache (default: all)")
    parser.add_argument("--positions", type=int, default=POSITIONS, metavar="N",
                        help="of the context (default %(default)s)")
    parser.add_argument("--json", type=Path, default=RESULT)
    args = parser.parse_args(argv)
    if not LAST < args.positions <= MAX_SEQ_LEN:
        parser.error(f"--positions {args.positions}: from {LAST + 1} to {MAX_SEQ_LEN}")
    options = "".join(f" --{name} {value}" for name, value in (("kv", " ".join(args.kv or [])),
                      ("positions", args.positions if args.positions != POSITIONS else "")) if value)
    rows = []
    for kv in [KvFormat[name.upper()] for name in args.kv] if args.kv else KvFormat:
        rows.append(row := measure(kv, args.positions, Progress.stderr()))
        print(f"{row['kv']}: positions {row['positions'][0]} to {row['positions'][1] - 1}, {row['logits']} logits and "
              f"{row['rows']} K/V rows {'equal' if good(row) else 'NOT EQUAL'} to golden's, "
              f"{row['cycles_per_token']:,.0f} cycles a token; golden "
              f"{row['golden_tokens_per_second']:.0f} positions/s",
              flush=True)
        records.write(args.json, "long-context", {"command": "python -m bench.long_context" + options, "rows": rows})
    return 0 if all(map(good, rows)) else 1

if __name__ == "__main__":
    raise SystemExit(main())
