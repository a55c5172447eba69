"""What bench.arrival makes of token events, and its conversations with the firmware on this PC."""
import contextlib
import time
from types import SimpleNamespace

import pytest

from bench import arrival
from llama2_host.connection import DeviceBackend
from llama2_host.device.device import Device
from llama2_host.device.link import Link
from llama2_host.image.model import Model
from llama2_host.statistics import WORD32
from tests.firmware import library
from tests.firmware.conftest import built  # noqa: F401 - a fixture
from tests.firmware.images import small_image
from tests.firmware.line import transport
from tests.firmware.test_slots_client import Locked


def stream(*cycles):
    return [SimpleNamespace(position=n, cycles=at % WORD32) for n, at in enumerate(cycles)]


def test_the_longest_pause_is_found_until_the_prompt_s_conversation_ends():
    start = WORD32 - 1000       # the counter wraps
    regular = [start + 100 * n for n in range(60)]
    paused = [at + 250 * (n > 30) for n, at in enumerate(regular)]
    later = [at + 900 * (n > 55) for n, at in enumerate(regular)]
    arriving = stream(start + 4000, start + 5000)
    passes = {(1, 30): 3, (2, 55): 9}
    assert arrival.pauses([stream(*regular), stream(*paused), stream(*later), arriving],
                          lambda slot, index: passes.get((slot, index), 1)) == [
        (100, 100, 0), (100, 350, 2), (100, 100, 0)]
    with pytest.raises(SystemExit, match="over before the prompt"):
        arrival.pauses([stream(*regular), stream(*regular[:40]), arriving], lambda *_: 1)


@pytest.mark.parametrize("decoding, columns, most", [(3, 4, 1), (1, 1, 1), (3, 2, 3), (4, 4, 1), (7, 2, 7)])
def test_the_rule_is_that_of_the_firmware(decoding, columns, most):
    assert arrival.rule(decoding, columns) == most


class Slow(Locked):
    """A line whose firmware does little while a thread begins."""
    def read(self, size):
        time.sleep(0.001)
        return super().read(size)


@pytest.fixture
def measured(built, tmp_path, monkeypatch):  # noqa: F811
    """measure with the firmware on this PC, whose time says nothing about cycles."""
    device = library.Device(library.load(built, tmp_path / "firmware.so"), small_image(), 4, boot=False)
    device.poll(200)
    client = Device(Link(transport(Slow(device))), hello_timeout_s=60)

    @contextlib.contextmanager
    def session(vsim, dram, path):
        yield SimpleNamespace(violations=dict, watch=list), DeviceBackend(client, Model(small_image()))
    monkeypatch.setattr(arrival, "session", session)
    monkeypatch.setattr(arrival, "Ledger", lambda *_: SimpleNamespace(passes=lambda slot, index: 2))
    path = tmp_path / "small.llm"
    path.write_bytes(small_image())
    return arrival.measure(None, path, 4, 220)


def test_a_prompt_of_several_requests_arrives_while_others_decode(measured):
    """More than one request takes; all ids are those alone."""
    assert measured["identical"] and (measured["columns"], measured["rule"]) == (4, 1)
    assert measured["passes_left_out"] == (1, 1, 1) and len(measured["longest_cycles"]) == 3
    assert all(0 < usual and 0 < most for usual, most in zip(measured["usual_cycles"], measured["longest_cycles"]))


@pytest.mark.parametrize("change, good", [({}, True), ({"identical": False}, False), ({"dram_violations": 1}, False),
                                          ({"passes_left_out": [1, 1, 2]}, False)])
def test_what_makes_a_measurement_fail(change, good):
    result = {"identical": True, "dram_violations": 0, "passes_left_out": [1, 1, 0], "rule": 1}
    assert arrival.sound(result | change) == good


@pytest.mark.parametrize("arguments", [["--slots", "1"], ["--slots", "9"], ["--prompt", "0"], ["--columns", "3"]])
def test_bad_arguments_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as refused:
        arrival.parse(arguments)
    assert refused.value.code == 2 and "error: " in capsys.readouterr().err
