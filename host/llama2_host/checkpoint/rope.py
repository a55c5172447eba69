"""Gives RoPE scaling as factors that divide the frequencies, one per pair: linear and LLaMA-3; other kinds are
refused."""
# Ref: Su et al. 2021, RoFormer; Chen et al. 2023, position interpolation; Grattafiori et al. 2024, The Llama 3 Herd of
# Models

import math

from llama2_host.checkpoint.errors import CheckpointError


def linear(factor: float, head_dim: int) -> tuple[float, ...]:
    """Positions are stretched, so every frequency falls by the same factor."""
    return (float(factor),) * (head_dim // 2)


def llama3(head_dim: int, theta: float, *, factor: float, low: float, high: float, context: float) -> tuple[float, ...]:
    """Wavelengths above context/low are stretched by ``factor``, those below context/high stay, those between change
    smoothly from one to the other."""
    def divisor(pair):
        wavelength = 2 * math.pi * theta ** (2 * pair / head_dim)
        kept = min(max((context / wavelength - low) / (high - low), 0.0), 1.0)
        return 1 / ((1 - kept) / factor + kept)
    return tuple(divisor(pair) for pair in range(head_dim // 2))


def factors(kind: str, head_dim: int, theta: float, parameter, where) -> tuple[float, ...]:
    """Factors of a scaling by the name that checkpoints use; ``parameter(name)`` gives its positive numbers."""
    if kind in ("default", "none", ""):
        return ()
    if kind == "linear":
        return linear(parameter("factor"), head_dim)
    if kind == "llama3":
        low, high = parameter("low_freq_factor"), parameter("high_freq_factor")
        if low >= high:
            raise CheckpointError(f"{where}: low_freq_factor {low:g} is not below high_freq_factor {high:g}: "
                                  "copy the file again")
        return llama3(head_dim, theta, factor=parameter("factor"), low=low, high=high,
                      context=parameter("original_max_position_embeddings"))
    raise CheckpointError(f"{where}: unsupported: RoPE scaling of type {kind[:40]!r}, expected default, linear or "
                          "llama3: use a checkpoint without it")
