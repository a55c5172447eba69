"""The worst error of every function table, over its whole domain or a dense part of it."""
import numpy as np

from llama2_spec import tables


def test_exp2_within_1_5_units():
    f = np.arange(65536)
    assert np.abs(tables.EXP2(f >> 8, f & 255) - 2.0 ** (15 + f / 65536)).max() < 1.5


def test_reciprocal_within_1_6_units():
    m = np.arange(1 << 21, 1 << 22)
    assert np.abs(tables.RECIPROCAL((m >> 12) & 511, m & 4095) - 2.0 ** 37 / m).max() < 1.6


def test_rsqrt_within_1_6_units():
    f = np.arange(1 << 20, 1 << 22)
    assert np.abs(tables.RSQRT(f >> 12, f & 4095) - 2.0 ** 15 / np.sqrt(f / 2 ** 22)).max() < 1.6


def test_sine_and_cosine_within_1_6_units():
    phase = np.arange(0, 1 << 32, 9973)
    sine, cosine = tables.sine_cosine(phase)
    turn = 2 * np.pi * phase / 2 ** 32
    assert np.abs(sine - 65536 * np.sin(turn)).max() < 1.6
    assert np.abs(cosine - 65536 * np.cos(turn)).max() < 1.6


def test_silu_within_1_6_units():
    g = np.arange(-20 << 18, 20 << 18, 37)
    x = g / 2 ** 18
    assert np.abs(tables.silu(g) - 2 ** 18 * x / (1 + np.exp(-x))).max() < 1.6


def test_slopes_and_bases_fit_their_widths():
    for table in tables.TABLES:
        assert max(table.base) < 1 << table.base_bits and min(table.base) >= 0
        assert -(1 << table.slope_bits - 1) <= min(table.slope) and max(table.slope) < 1 << table.slope_bits - 1
