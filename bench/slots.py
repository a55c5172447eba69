"""What conversations together cost, against one alone: tokens a cycle; and each one's ids are those it has alone.

Alone the first one decodes on the simulated SoC; what each must say comes from the integer model. Over a cache of
random rows, which that has not, all of them decode alone on the SoC.
"""
import time

from bench import shapes
from bench.prefill import BOS
from bench.session import session
from llama2_host import connect
from llama2_host.generation import Options, Sampling
from llama2_host.statistics import WORD32
from llama2_spec.protocol import GenerateFlag

LATER = 255     # a position from which on the caches are filled with random rows, not by decoding


def options(slot, position, last, temperature):
    sampling = Sampling(temperature=temperature, top_p=0.9 if temperature else 0, seed=1 + slot)
    return Options(position, last - position + 1, sampling, stops=())


def begin(device, slot, first, last, temperature, preloaded):
    """A generation of a slot, each with a beginning of its own, up to position ``last``."""
    return device.generate([BOS + slot], options(slot, first if preloaded else 0, last, temperature), slot=slot,
                           flags=GenerateFlag.PRELOADED if preloaded else 0)


def integer_ids(path, slots, last, temperature):
    """What each conversation says, by the integer model."""
    with connect(golden=True, model=path) as golden:
        return [[event.token for event in golden.generate([BOS + slot], options(slot, 0, last, temperature))]
                for slot in range(slots)]


def in_turns(generations):
    """Events of each, taken as they come."""
    events = [[] for _ in generations]
    while any(generation.outcome is None for generation in generations):
        for generation, taken in zip(generations, events):
            event = next(generation, None)
            if event is not None:
                taken.append(event)
    return events


def rate(events, first, last):
    """Tokens a cycle, from where the last conversation has reached position ``first`` to where the first has reached
    ``last``."""
    origin = events[0][0].cycles
    stamps = [[((event.cycles - origin) % WORD32, event.position) for event in taken] for taken in events]
    since = max(min(at for at, position in taken if position > first) for taken in stamps)
    until = min(max(at for at, position in taken if position <= last) for taken in stamps)
    tokens = sum(since < at <= until for taken in stamps for at, _ in taken)
    if tokens < len(events) * (last - first) // 2:
        raise SystemExit("bench.slots: the conversations were together for less than half of these positions")
    return tokens, until - since


def measure_slots(vsim, path, config, count, first, last, temperature):
    """Results for ``count`` conversations in as many slots, at positions ``first`` to ``last``."""
    preloaded = first >= LATER
    dram = shapes.with_cache(path, config, slots=count) if preloaded else path
    start_s = time.monotonic()
    with session(vsim, dram, path) as (simulator, backend):
        backend.divide(count)
        device = backend.device
        alone = [in_turns([begin(device, slot, first, last, temperature, preloaded)])[0]
                 for slot in range(count if preloaded else 1)]
        together = in_turns([begin(device, slot, first, last, temperature, preloaded) for slot in range(count)])
        violations = sum(simulator.violations().values())
        columns = device.info.columns
    one, many = rate(alone[:1], first, last), rate(together, first, last)
    said, ids = ([[event.token for event in taken] for taken in events] for events in (alone, together))
    expected = said if preloaded else integer_ids(path, count, last, temperature)
    return {"slots": count, "columns": columns, "positions": [first, last], "temperature": temperature,
            "alone_tokens": one[0], "alone_cycles": one[1], "tokens": many[0], "cycles": many[1],
            "ratio": many[0]/many[1]*one[1]/one[0], "identical": ids == expected and said == expected[:len(said)],
            "dram_violations": violations, "wall_s": time.monotonic() - start_s}


def report_slots(result):
    """Print what matters."""
    print(f"{result['model']} {result['format']}, temperature {result['temperature']:g}: DRAM timing violations: "
          f"{result['slots']['dram_violations']}")
    result = result["slots"]
    print(f"  {result['slots']} conversations on {result['columns']} columns at positions {result['positions'][0]} to "
          f"{result['positions'][1]}: {result['cycles']/result['tokens']:,.0f} cycles/token together, "
          f"{result['alone_cycles']/result['alone_tokens']:,.0f} alone: {result['ratio']:.2f} times as many, "
          f"{'identical' if result['identical'] else 'NOT IDENTICAL'}")
