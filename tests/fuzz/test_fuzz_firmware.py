"""A small share of ``make fuzz-firmware``, and that it finds what a worse firmware would do."""
import json

import pytest

from bench import fuzz_firmware
from tests.firmware import library

SESSIONS = 500


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return fuzz_firmware.build(tmp_path_factory.mktemp("fuzz"))


def test_a_batch_has_no_finding(program):
    counts, said = fuzz_firmware.batches(program, 1, 1)
    counts = dict(zip(fuzz_firmware.COUNTS, counts))
    assert not said
    assert counts["sessions"] == SESSIONS and counts["images"] > SESSIONS
    assert counts["replies"] > counts["frames"] / 2 > counts["refused"] / 2 > 1000 and counts["commands"] > 10000
    assert counts["divisions"] > 100 and counts["together"] > 100, "hardly any session has several slots"


@pytest.mark.parametrize("first, file, before, after", [    # one batch in eight finds the first
    (20, "image.c", "entry->offset_beats < first", "entry->offset_beats + 64 < first"),
    (1, "link.c", "if (in.length < FRAME_MAX)", "if (in.length < FRAME_MAX + 64)"),
    (1, "slot.c", "slots.length - slot->first + 1", "slots.length - slot->first + 2"),
])
def test_a_check_that_lets_too_much_pass_is_found(tmp_path, first, file, before, after):
    sources = tmp_path/"firmware"
    sources.mkdir()
    for path in (library.ROOT/"firmware").glob("*.[ch]"):
        text = path.read_text()
        if path.name == file:
            assert text.count(before) == 1
            text = text.replace(before, after)
        (sources/path.name).write_text(text)
    program = fuzz_firmware.build(tmp_path, firmware=sources)
    assert any(fuzz_firmware.batches(program, batch, 1)[1] for batch in range(first, first + 20))


def test_recorded_run_is_long_enough_and_clean():
    recorded = json.loads(fuzz_firmware.RESULTS.read_text())
    assert recorded["inputs"] >= 1_000_000 and recorded["findings"] == []
