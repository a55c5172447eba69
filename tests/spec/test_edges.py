"""What the specification's functions refuse, and what they give at the ends of their ranges."""
import io
import struct
import zlib

import numpy as np
import pytest

from llama2_spec import image, packing
from llama2_spec.attention import Cache, Scores
from llama2_spec.frame import Frame, FrameError, Header, cobs_encode
from llama2_spec.golden import Flags
from llama2_spec.lookup import Lookup
from llama2_spec.numerics import pack_scale, split_scale
from llama2_spec.protocol import Generate
from llama2_spec.reference import rmsnorm
from llama2_spec.registers import MAX_CANDIDATES
from llama2_spec.sampling import MASS_LIMIT, Sampler
from llama2_spec.wire import Structure, structure, wire


def row(value, count=1):
    return [np.full((count, 2, *tail), value, np.int16) for tail in ((8,), (), (8,), ())]


def test_a_cache_has_the_rows_that_were_stored_and_no_gap():
    cache = Cache(2, 8)
    cache.store(0, *row(1, 3))
    with pytest.raises(ValueError, match="position 4: 3 rows are cached"):
        cache.store(4, *row(2))
    assert (cache[2][0] == 1).all()
    for position in (3, -1):
        with pytest.raises(IndexError, match="3 rows are cached"):
            cache[position]


def test_frames_that_are_too_short_or_of_another_length_than_they_say():
    def framed(body):
        return cobs_encode(body + struct.pack("<I", zlib.crc32(body)))
    whole = Header(8, 0, 5, 3, 0).pack() + b"abc"
    assert Frame.decode(framed(whole)).payload == b"abc"
    for body, match in ((b"ab", "frame of 6 bytes is too short"), (whole + b"d", "says 3 bytes of payload and has 4")):
        with pytest.raises(FrameError, match=match):
            Frame.decode(framed(body))


def test_a_shift_to_the_left_is_clamped_and_told():
    flags = Flags()
    assert np.array_equal(flags.clamp(np.array([0, 3])), [0, 3]) and not flags.raised
    assert np.array_equal(flags.clamp(np.array([-2, 3])), [0, 3]) and flags.raised == {"shift_clamped"}


@pytest.mark.parametrize("head_dim", [8, 128])
def test_scores_end_where_thirty_two_bits_do(head_dim):
    """By both ways in which they are reckoned."""
    scores = Scores(np.full((1, 1, head_dim), 32767), np.zeros((1, 1), np.int64), (65535, 10))
    for k, end in ((32767, (1 << 31) - 1), (-32768, -(1 << 31))):
        assert scores(np.full((1, 1, head_dim), k), np.zeros((1, 1), np.int64)).item() == end


def test_no_image_is_larger_than_its_lengths_can_say():
    stream = image._Stream(io.BytesIO(), (1 << 32) - 4)
    stream.write(b"abc")
    with pytest.raises(image.ImageError, match="larger than 4 GiB"):
        stream.write(b"d")


def test_nothing_is_guessed_of_nothing():
    assert Lookup().guess(3) == []
    lookup = Lookup()
    lookup.add(5)
    lookup.rewind(9)
    assert lookup.guess(3) == []


def test_a_scale_is_positive_and_its_mantissa_has_its_bits():
    assert split_scale(1 - 2.0**-20) == split_scale(1.0) == (1 << 15, -15), "rounding up carries"
    assert pack_scale(1.0) == 1 << 15 | (-15 & 0xff) << 16
    with pytest.raises(ValueError, match="must be positive, not 0"):
        split_scale(0.0)


def test_codes_are_centred_and_padded():
    tensor = packing.Quantised("q4", 32, np.full((2, 40), 9, np.int16), np.array([[7, 8], [8, 7]], np.int16),
                               np.ones((2, 2), np.int16), 0)
    centred = tensor.centred()
    assert centred.shape == (2, 48) and not centred[:, 40:].any()
    assert [centred[0, 0], centred[0, 39], centred[1, 0], centred[1, 39]] == [2, 1, 1, 2]


def test_a_group_far_below_the_largest_takes_fewer_codes_and_its_weights_stay():
    codes, scales = np.full((1, 64), 100, np.int16), np.array([[1.0, 2.0**-11]])
    carried = packing.carried_over(codes, scales, 32)
    kept = carried.codes.astype(float) * np.repeat(carried.mantissas, 32, axis=1) * 2.0**carried.exponent
    assert abs(kept[0, 0] - 100) < .1 and abs(kept[0, 40] / (100 * 2.0**-11) - 1) < .02
    assert packing.scale_exponent(0) == -24


def test_the_mean_of_a_row_with_added_zeros_is_that_of_its_elements():
    x, weight = np.array([[3.0, 4.0, 0.0, 0.0]], np.float32), np.ones(4, np.float32)
    assert np.allclose(rmsnorm(x, weight, 0.0, size=2)[0, :2], rmsnorm(x[:, :2], weight[:2], 0.0)[0])


def test_a_sampler_refuses_what_no_core_gives():
    sampler = Sampler(Generate(temperature=1 << 16))
    for candidates, mass, match in (([], 1, "1 to 64 candidates, not 0"),
                                    ([(1, 1)] * (MAX_CANDIDATES + 1), 1, "candidates, not 65"),
                                    ([(1, 1)], MASS_LIMIT + 1, "is not below")):
        with pytest.raises(ValueError, match=match):
            sampler.choose(0, candidates, mass, 0)


def test_where_no_candidate_weighs_anything_the_likeliest_is_drawn():
    assert Sampler(Generate(temperature=1 << 16))._draw([(7, 0), (8, 0)], 0) == 7


def test_a_structure_that_c_would_pad_is_refused():
    with pytest.raises(ValueError, match="padded at its end"):
        @structure
        class Padded(Structure):
            word: int = wire("I", "four bytes")
            byte: int = wire("B", "one more")
