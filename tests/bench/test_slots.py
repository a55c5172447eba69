"""What bench.slots makes of token events, with the firmware on this PC."""
import contextlib
from types import SimpleNamespace

import pytest

from bench import slots
from llama2_host.connection import DeviceBackend
from llama2_host.device.device import Device
from llama2_host.device.link import Link
from llama2_host.image.model import Model
from tests.firmware import library
from tests.firmware.conftest import built  # noqa: F401 - a fixture
from tests.firmware.images import CONFIG, small_image
from tests.firmware.line import LinePort, transport


@pytest.fixture
def measure(built, tmp_path, monkeypatch):  # noqa: F811
    """measure_slots with so many columns instead of the simulated SoC."""
    def run(columns, count, temperature=0.0):
        device = library.Device(library.load(built, tmp_path / "firmware.so"), small_image(), columns, boot=False)
        device.poll(200)
        client = Device(Link(transport(LinePort(device))), hello_timeout_s=60)

        @contextlib.contextmanager
        def session(vsim, dram, path):
            yield SimpleNamespace(violations=dict), DeviceBackend(client, Model(small_image()))

        def integer_ids(path, count, last, temperature):
            """The scripted core decodes no text of the integer model: one slot at a time instead."""
            with session(None, None, None) as (_, backend):
                return [[event.token for event in slots.begin(backend.device, slot, 0, last, temperature, False)]
                        for slot in range(count)]
        monkeypatch.setattr(slots, "session", session)
        monkeypatch.setattr(slots, "integer_ids", integer_ids)
        return slots.measure_slots(None, None, CONFIG, count, 0, 400, temperature)
    return run


@pytest.mark.parametrize("columns, count, temperature", [(2, 2, 0.0), (1, 2, 0.0), (4, 3, 0.0), (2, 2, 1.0)])
def test_conversations_together_and_alone_have_the_same_ids(measure, columns, count, temperature):
    """The PC's time is in these cycles: they say nothing, but they must fit together."""
    result = measure(columns, count, temperature)
    assert result["identical"] and (result["columns"], result["slots"]) == (columns, count)
    assert result["tokens"] > 200 * count and result["alone_tokens"] > 390
    assert result["ratio"] == pytest.approx(result["tokens"]*result["alone_cycles"]
                                            / (result["cycles"]*result["alone_tokens"]))


def test_conversations_that_were_hardly_together_are_no_measurement():
    event = lambda position, cycles: SimpleNamespace(position=position, cycles=cycles)
    one = [event(position, 100 * position) for position in range(1, 41)]
    late = [event(position, 3500 + 100 * position) for position in range(1, 41)]
    assert slots.rate([one, one], 0, 40) == (78, 3900)
    with pytest.raises(SystemExit, match="together for less than half"):
        slots.rate([one, late], 0, 40)
