"""The arithmetic of the statistics line."""
import pytest

from llama2_host.generation import Outcome, TokenEvent
from llama2_host.statistics import measure, saturations, token_cycles
from llama2_spec.protocol import Reason


def events(*cycles, first_position=5):
    return [TokenEvent(index, first_position + index, 9, value % 2 ** 32) for index, value in enumerate(cycles)]


def test_differences_survive_the_counter_wrapping():
    assert token_cycles(events(2 ** 32 - 100, 2 ** 32 + 900, 2 ** 32 + 3900)) == [1000, 3000]


def test_rate_and_roofline():
    # a token at position p was computed at p - 1; the first token's pass is not measured
    beats = {5: 700, 6: 800, 7: 900}
    statistics = measure(events(0, 1000, 2000, 3000), prompt_tokens=5, wall_s=2.0, clock_hz=100_000_000,
                         useful_beats=beats.__getitem__)
    assert statistics.cycles_per_token == 1000
    assert statistics.tokens_per_s == 100_000
    assert statistics.bytes_per_token == 16 * 800
    assert statistics.roofline_percent == pytest.approx(80.0)
    assert statistics.line() == \
        "100,000.0 tokens/s at 100 MHz, 1,000 cycles/token, 80.0 % of the DRAM roofline (4 tokens in 2.0 s)"


@pytest.mark.parametrize("cycles, clock_hz", [((), 100), ((5,), 100), ((0, 0, 0), 0)])
def test_nothing_measured_is_said_as_such(cycles, clock_hz):
    statistics = measure(events(*cycles), prompt_tokens=1, wall_s=0.5, clock_hz=clock_hz)
    assert statistics.cycles_per_token is None
    assert statistics.line() == f"{len(cycles)} tokens in 0.5 s"


def test_prompt_is_counted_from_the_start_of_the_generation():
    outcome = Outcome(Reason.LENGTH, 8, errors=1, dropped=0.25, start_cycles=2 ** 32 - 50)
    statistics = measure(events(2 ** 32 + 50, 2 ** 32 + 150), prompt_tokens=3, wall_s=1, clock_hz=1, outcome=outcome,
                         useful_beats=lambda position: 1)
    assert statistics.prompt_cycles == 100
    assert statistics.dropped == 0.25
    assert saturations(statistics.errors) == ["residual_saturated"]


def test_speculation_is_told():
    outcome = Outcome(Reason.LENGTH, 8, passes=3, guessed=4)
    statistics = measure(events(0, 1000, 1000, 1000, 4000), prompt_tokens=5, wall_s=2.0, clock_hz=100_000_000,
                         useful_beats=lambda position: 1200, outcome=outcome)
    assert statistics.tokens_per_pass == pytest.approx(5 / 3) and statistics.cycles_per_token == 1000
    assert statistics.line() == ("100,000.0 tokens/s at 100 MHz, 1,000 cycles/token, 120.0 % of the DRAM roofline of "
                                 "one pass a token, 1.67 tokens a pass, 2 of 4 guesses right (5 tokens in 2.0 s)")
