"""Shows where the core's integers end, and that builds and conversions end there too."""
from dataclasses import replace

import numpy as np
import pytest

from accel.core import Core
from soc.configuration import PARAMETERS
from llama2_spec.golden import Matrix, Vector
from llama2_spec.image import ImageError, check
from llama2_spec.maxima import BUILD, CORE, ENDS, check_build
from llama2_spec.model import ModelConfig
from llama2_spec.numerics import CHUNK, INDEX_BITS, MAX_DIM, MAX_ROW, WIDE, WORD
from llama2_spec.packing import Quantised

CONFIG = ModelConfig(dim=2048, hidden_dim=8192, n_layers=1, n_heads=32, n_kv_heads=8, head_dim=64, vocab_size=512,
                     seq_len=16)


def extreme(columns):
    """A row of the largest codes and scales, and the largest activations of the same sign."""
    tensor = Quantised("q8", 64, np.full((1, columns), -127, np.int16), np.zeros((1, columns // 64), np.int16),
                       np.full((1, columns // 64), 4095, np.int16), 0)
    return Matrix(tensor), Vector(np.full((1, columns), -32768, np.int64), np.zeros((1, columns // CHUNK), np.int64), 0)


def test_the_longest_row_of_extremes_fits_its_accumulator():
    matrix, vector = extreme(MAX_ROW)
    total = int(matrix.sums(vector)[0, 0])
    assert total == MAX_ROW * 127 * 4095 * 32768 < 1 << WIDE - 1
    beyond = -(-(1 << WIDE - 1) // (127 * 4095 * 32768 * CHUNK)) * CHUNK
    assert MAX_ROW == 8192 and MAX_ROW < beyond <= MAX_ROW + 3 * CHUNK


@pytest.mark.parametrize("name", ENDS)
def test_a_build_has_maxima_from_one_to_their_end(name):
    check_build(**{name: 1})
    check_build(**{name: ENDS[name]})
    for value in (0, ENDS[name] + 1):
        with pytest.raises(ValueError, match=f"^{name} {value}: indices of"):
            check_build(**{name: value})


def test_indices_end_where_it_is_said():
    assert MAX_DIM == (1 << INDEX_BITS) - 1 == 8191 and MAX_ROW - 1 < 1 << INDEX_BITS
    assert MAX_DIM // WORD < 1 << 12            # a command's words


@pytest.mark.parametrize("fields, message", [
    ({}, None), ({"hidden_dim": 8193}, "hidden_dim 8193: the core's 48-bit row sums hold rows of 8192 columns"),
    ({"hidden_dim": 11008}, "hidden_dim 11008"), ({"dim": 8176}, None),
    ({"dim": 8192}, "dim 8192 .* 13-bit indices end at 8191"),
    ({"n_heads": 128, "head_dim": 64}, "n_heads \\* head_dim 8192: .* end at 8191")])
def test_conversions_end_there(fields, message):
    config = replace(CONFIG, **fields)
    if message is None:
        check(config)
    else:
        with pytest.raises(ImageError, match=message):
            check(config)


@pytest.mark.parametrize("name, last", [("max_dim", 8191), ("max_hidden_dim", 8192), ("max_kv_dim", 8191),
                                        ("max_heads", 64)])
def test_builds_end_there(name, last):
    assert getattr(Core(**{name: last}), name) == last
    for beyond in (last + 1, 0, -1):
        with pytest.raises(ValueError, match=f"^{name} {beyond}: indices of 13 bits end at 8191, row sums of 48 bits "
                                             "at 8192 columns, heads at 64: build"):
            Core(**{name: beyond})


def test_every_maximum_that_is_wrong_is_named():
    with pytest.raises(ValueError, match="^max_dim 9000 and max_heads 65: "):
        Core(max_dim=9000, max_hidden_dim=8192, max_heads=65)
    assert set(ENDS) == set(CORE)


def test_the_default_build_is_what_info_reckons_with():
    assert ({name: PARAMETERS[name] for name in CORE} == CORE and BUILD["max_hidden_dim"] <= MAX_ROW
            and BUILD["max_dim"] <= MAX_DIM)
