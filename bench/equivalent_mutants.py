"""Mutants that do the same as what they were made of, or differ where nobody can tell: each was read by a person.

By file, and by the name that bench.mutants gives: the function, then what changes.
"""
EQUIVALENT: dict[str, dict[str, str]] = {
    "accel/core.py": {
        "Core._status: status.store_start.eq(store.start) -> (dropped)":
            "An abort in the very cycle in which a store begins drops the row whole, which it may, instead of waiting"
            " for it; busy is 1 by other signals then. tests/accel/test_core.py aborts at every third cycle of a "
            "step; all of them were tried.",
    },
    "firmware/dram.c": {
        "test: walk(p, TAKE, 0, 0, 0); -> walk(p, TAKE, 0, 1, 0);":
            "What is kept is kept as it is: the pattern, inverted or not, is for FILL and LOOK.",
    },
    "firmware/flash.c": {
        "flash_bytes: return 1u << (size_log2 < LARGEST ? size_log2 : LARGEST); -> "
        "return 1u << (size_log2 <= LARGEST ? size_log2 : LARGEST);":
            "Both sides are LARGEST where they are equal.",
    },
    "firmware/restart.c": {
        "restart_poll: if (++polls % LOOK != 0) -> if (++polls % LOOK != 1)":
            "Looks as often, one poll later.",
    },
    "firmware/sampler.c": {
        "penalised: int64_t factor = logit > 0 ? slot->reciprocal : (int64_t)slot->options->repetition_penalty; -> "
        "int64_t factor = logit >= 0 ? slot->reciprocal : (int64_t)slot->options->repetition_penalty;":
            "A logit of 0 is 0 times either.",
    },
    "host/llama2_host/device/device_generation.py": {
        "DeviceGeneration._ask_again: 2 * self._most -> 3 * self._most":
            "Replies may be long again after fewer that came through; which tokens come is the same.",
    },
    "host/llama2_host/device/rate.py": {
        "fastest: protocol.Baud(0, 0) -> protocol.Baud(0, 1)":
            "A rate of 0 asks what there is; the time to confirm another rate in is not looked at then.",
    },
    "spec/llama2_spec/packing.py": {
        "largest_scale: -1 -> -2":
            "NumPy takes any negative number for what is left.",
    },
    "spec/llama2_spec/sampling.py": {
        "Sampler._against: mass > kept -> mass >= kept":
            "Where they are equal nothing is dropped, and nothing is added.",
    },
    "spec/llama2_spec/tables.py": {
        "reciprocal: n >= 22 -> n >= 23":
            "With n = 22 both sides shift by 0.",
    },
}
