"""What a long prompt costs those who decode: ``python -m bench.arrival`` has conversations decode on the simulated SoC,
sends a prompt to one more slot, and says how many passes in a row each of them was left out of, by the rule of
docs/decisions/slots.md and by the counts of the simulated SoC (bench/passes.py).
"""
import argparse
import statistics
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from bench import records
from bench.passes import Ledger, Traffic
from bench.prefill import BOS, GREEDY
from bench.session import session
from llama2_host import connect
from llama2_host.device.simulator import COLUMNS
from llama2_host.generation import Options
from llama2_host.statistics import WORD32, token_cycles
from llama2_spec.image import Image
from llama2_spec.protocol import MAX_SLOTS
from targets import sim

RESULTS = Path(__file__).parent/"results"
BEFORE  = 16        # tokens of each conversation before the prompt comes
AFTER   = 16        # tokens that follow the prompt

# Conversations ------------------------------------------------------------------------------------


class Talk:
    """A conversation in a slot, which feeds ``ids`` and takes ``count`` tokens at most."""
    def __init__(self, slot, ids, count):
        self.slot, self.ids, self.count = slot, ids, count
        self.decodes = threading.Event()    # BEFORE tokens have come; or no more will

    def events(self, device, last=lambda event: False):
        """All token events, as they come; up to the ``last`` one, and what is under way then."""
        events = []
        try:
            generation = device.generate(self.ids, Options(0, self.count, GREEDY, stops=()), slot=self.slot)
            for event in generation:
                events.append(event)
                if len(events) == BEFORE:
                    self.decodes.set()
                if last(event):
                    return events + generation.abort()
        finally:
            self.decodes.set()
        return events


def talks(config, slots, prompt):
    """Conversations that decode as long as the context is, each with a beginning of its own; the last one brings a
    prompt of random tokens."""
    ids = [BOS, *map(int, np.random.default_rng(5).integers(3, config.vocab_size, prompt - 1))]
    return [*(Talk(slot, [BOS, 3 + slot], config.seq_len - 2) for slot in range(slots - 1)),
            Talk(slots - 1, ids, AFTER)]


def together(device, conversations):
    """Token events of each; the last one begins when all the others decode, and they end after it."""
    *decoding, arriving = conversations
    ended = []
    with ThreadPoolExecutor(len(conversations)) as pool:
        under_way = [pool.submit(talk.events, device, lambda event: any(later(event, other) for other in ended))
                     for talk in decoding]
        for talk in decoding:
            talk.decodes.wait()
        events = arriving.events(device)
        ended.append(events[-1])
        return [*(future.result() for future in under_way), events]


def later(event, other):
    """By the device's counter, which wraps."""
    return 0 < (event.cycles - other.cycles) % WORD32 < WORD32//2


def alone(device, conversations, shared):
    """Token events of each by itself, as many as it had among the others."""
    return [Talk(talk.slot, talk.ids, len(events)).events(device) for talk, events in zip(conversations, shared)]

# Pauses -------------------------------------------------------------------------------------------


def pauses(events, passes):
    """Of each decoding conversation, from its token BEFORE on until the prompt's conversation ended: cycles between
    its tokens before that, usually, and then, at most; and the most passes in a row without it.

    ``passes(slot, index)`` counts those from behind a token to the next one.
    """
    *decoding, arriving = events
    found = []
    for slot, taken in enumerate(decoding):
        gaps = token_cycles(taken)
        shared = sum(not later(event, arriving[-1]) for event in taken)
        if shared == len(taken):
            raise SystemExit("bench.arrival: a conversation was over before the prompt's: it shows no pause")
        found.append((statistics.median(gaps[:BEFORE - 1]), max(gaps[BEFORE - 1:shared]),
                      max(passes(slot, index) for index in range(BEFORE - 1, shared)) - 1))
    return found


def rule(decoding, columns):
    """The most passes in a row that leave out one of so many slots. Ref: firmware/schedule.h"""
    return 2*-(-decoding//columns) - 1

# Measurement --------------------------------------------------------------------------------------


def measure(vsim, path, slots, prompt):
    """Results for ``slots`` - 1 conversations and a prompt of so many tokens."""
    image = Image.parse(path.read_bytes())
    conversations = talks(image.config, slots, prompt)
    with session(vsim, path, path) as (simulator, backend):
        backend.divide(slots)
        columns = backend.device.info.columns
        shared = together(backend.device, conversations)
        watch = simulator.watch()
        single = alone(backend.device, conversations, shared)
        violations = sum(simulator.violations().values())
    ids = [[[event.token for event in taken] for taken in events] for events in (single, shared)]
    ledger = Ledger(Traffic.of(image), watch, [len(talk.ids) for talk in conversations], shared)
    usual, longest, left_out = zip(*pauses(shared, ledger.passes))
    return {"prompt": prompt, "slots": slots, "columns": columns, "tokens": [len(taken) for taken in shared],
            "usual_cycles": usual, "longest_cycles": longest, "passes_left_out": left_out,
            "rule": rule(slots - 1, columns), "identical": ids[0] == ids[1], "dram_violations": violations}


def sound(result):
    """Returns whether all texts are those alone, nobody paused longer than the rule says, and the DRAM was content."""
    return (result["identical"] and not result["dram_violations"]
            and max(result["passes_left_out"]) <= result["rule"])


def report(result):
    """Print what matters."""
    print(f"{result['model']}, {result['columns']} columns: a prompt of {result['prompt']} tokens beside "
          f"{result['slots'] - 1} that decode: between two tokens of one usually {max(result['usual_cycles']):,.0f} "
          f"cycles, at most {max(result['longest_cycles']):,}; passes in a row without it: at most "
          f"{max(result['passes_left_out'])}, the rule says {result['rule']}; texts "
          f"{'identical' if result['identical'] else 'NOT IDENTICAL'}, DRAM timing violations: "
          f"{result['dram_violations']}")


def parse(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m bench.arrival", description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", type=Path, default=Path("models/stories.bin"), help="checkpoint or image "
                        "(%(default)s)")
    parser.add_argument("--prompt", type=int, default=256, metavar="N", help="its tokens (%(default)s)")
    parser.add_argument("--slots", type=int, default=4, metavar="N", help="conversations, the prompt's among them "
                        "(%(default)s)")
    parser.add_argument("--columns", type=int, choices=COLUMNS, default=4)
    parser.add_argument("--json", type=Path, default=RESULTS/"arrival.json", help="where the figures go (%(default)s)")
    args = parser.parse_args(arguments)
    if not 2 <= args.slots <= MAX_SLOTS:
        parser.error(f"--slots is from 2 to {MAX_SLOTS}: one decodes, one brings the prompt")
    if args.prompt < 1:
        parser.error("--prompt is at least 1")
    return args


def main():
    args = parse()
    path = connect(golden=True, model=args.model).model.path
    context = Image.parse(path.read_bytes()).config.seq_len
    if args.prompt + AFTER > context:
        raise SystemExit(f"bench.arrival: --prompt {args.prompt} and {AFTER} tokens need as many positions, "
                         f"{args.model} has {context}")
    result = {"command": f"python -m bench.arrival --model {args.model} --prompt {args.prompt} --slots {args.slots} "
                         f"--columns {args.columns}",
              "model": args.model.name, "format": "q8",
              **measure(sim.build(columns=args.columns, variant=sim.USUAL), path, args.slots, args.prompt)}
    report(result)
    records.write(args.json, "arrival", result)
    return 0 if sound(result) else 1


if __name__ == "__main__":
    raise SystemExit(main())
