"""Measures the cost of a prompt whose positions share passes over the weights, against one position at a time."""
import numpy as np

from bench.session import session
from llama2_host.generation import Options, Sampling
from llama2_host.statistics import WORD32
from llama2_spec.image import row_layout
from llama2_spec.registers import Counter, Phase

GREEDY = Sampling(temperature=0)
BOS = 1


def span(device, ids, position, max_new):
    """Cycles from the start of a request to its end, and its tokens."""
    generation = device.generate(ids, Options(position, max_new, GREEDY, stops=()))
    tokens = [event.token for event in generation]
    return (generation.outcome.end_cycles - generation.outcome.start_cycles) % WORD32, tokens


def executing(stats):
    """Cycles in which the core executed a command."""
    return sum(stats.counters[phase*len(Counter) + Counter.CYCLES] for phase in Phase)


def phases(stats, count):
    """Phase counters per prompt token."""
    return {phase.name: {counter.name.lower(): stats.counters[phase*len(Counter) + counter]/count
                         for counter in Counter}
            for phase in Phase}


def measure_prefill(vsim, path, count):
    """Cycles of ``count`` random prompt tokens in one request, and in ``count`` requests of one each; no classifier.

    All cycles of the one request count, but only those cycles of the single requests in which the core was executing,
    so that the cost of a request makes nothing look faster. ``identical``: the token that follows, and every K/V row,
    are the same after both.
    """
    with session(vsim, path, path) as (simulator, device):
        rng = np.random.default_rng(3)
        ids = [BOS, *map(int, rng.integers(3, device.config.vocab_size, count - 1))]
        device.device.reset()
        requests = sum(span(device, [token], position, 0)[0] for position, token in enumerate(ids))
        single = device.device.stats()
        after_single = [span(device, [BOS], count, 1)[1], rows(device, path, count)]
        device.device.reset()
        together, _ = span(device, ids, 0, 0)
        shared = device.device.stats()
        after_together = [span(device, [BOS], count, 1)[1], rows(device, path, count)]
        violations = sum(simulator.violations().values())
    one_by_one = executing(single)
    return {"tokens": count, "cycles": together, "cycles_per_token": together/count,
            "one_by_one_cycles_per_token": one_by_one/count,
            "one_by_one_requests_cycles_per_token": requests/count, "speedup": one_by_one/together,
            "identical": after_single == after_together, "dram_violations": violations,
            "breakdown": phases(shared, count), "one_by_one_breakdown": phases(single, count)}


def rows(device, path, count):
    """The last layer's K/V rows of the first ``count`` positions: they depend on all that came before."""
    config = device.config
    _, beats = row_layout(config)
    base = -(-path.stat().st_size//2048)*2048
    return device.device.read(base + (config.n_layers - 1)*config.seq_len*beats*16, count*beats*16)
