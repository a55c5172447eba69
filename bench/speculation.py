"""Measures what speculation by prompt lookup gains over one pass a token, on text that repeats and on ordinary
stories."""
import numpy as np

from bench.prefill import BOS, rows
from bench.session import session
from llama2_host.generation import Options, Sampling
from llama2_host.statistics import WORD32

#: Repeating text: two sentences that differ in a word, four times over.
REPEATING = "The cat sat on the mat. The dog sat on the mat. "*4
STORIES   = ("Once upon a time", "The dog was sad because", "One day, a little girl named Lily")
TOKENS    = 120


def prompts(device):
    """Token ids of prompts, by kind of text. A shape of random weights has no tokenizer and gets random ids, for which
    guesses fail."""
    if device.model.tokenizer is None:
        ids = [int(token) for token in np.random.default_rng(5).integers(3, device.config.vocab_size, 8)]
        return {"random": [[BOS, *ids*3]]}
    return {"repeating": [device.tokenizer.encode(REPEATING)],
            "stories": [device.tokenizer.encode(text) for text in STORIES]}


def run(device, ids, count, most):
    """Tokens of a greedy generation, cycles from the first to the last, and its outcome."""
    generation = device.generate(ids, Options(0, count, Sampling(temperature=0, speculate=most), stops=()))
    events = list(generation)
    return [event.token for event in events], (events[-1].cycles - events[0].cycles) % WORD32, generation.outcome


def measure_text(device, path, ids, count, most):
    """The same generation without guesses and with up to ``most``; tokens and K/V rows are compared."""
    plain, plain_cycles, _ = run(device, ids, count, 0)
    held = rows(device, path, len(ids) + count - 1)
    guessed, cycles, outcome = run(device, ids, count, most)
    same = plain == guessed and held == rows(device, path, len(ids) + count - 1)
    # The first token is the prompt's; its pass is in none of these figures.
    return {"prompt_tokens": len(ids), "tokens": count - 1, "passes": outcome.passes - 1, "guessed": outcome.guessed,
            "cycles": cycles, "cycles_off": plain_cycles, "identical": same}


def summary(texts):
    """Sums over texts, and the ratios that follow from them."""
    total = {key: sum(text[key] for text in texts) for key in ("tokens", "passes", "guessed", "cycles", "cycles_off")}
    return {**total, "right": total["tokens"] - total["passes"], "tokens_per_pass": total["tokens"]/total["passes"],
            "cycles_per_token": total["cycles"]/total["tokens"],
            "cycles_per_token_off": total["cycles_off"]/total["tokens"],
            "cycles_per_pass": total["cycles"]/total["passes"], "speedup": total["cycles_off"]/total["cycles"],
            "identical": all(text["identical"] for text in texts), "texts": texts}


def measure_speculation(vsim, path, most, count=TOKENS):
    """Results by kind of text."""
    with session(vsim, path, path) as (simulator, device):
        columns = device.device.info.columns
        result = {kind: summary([measure_text(device, path, ids, count, most) for ids in texts])
                  for kind, texts in prompts(device).items()}
        return {"guesses": min(most, columns - 1), "dram_violations": sum(simulator.violations().values()), **result}
