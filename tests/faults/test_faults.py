"""A small share of ``make faults``, and that its judge finds what a worse client or firmware would do."""
import json
import subprocess
import sys
from dataclasses import replace

import pytest

from bench import faults
from llama2_host.chat.conversation import Conversation
from llama2_host.device.device import DeviceGeneration
from llama2_host.device.link import Link
from llama2_spec import frame
from llama2_spec.frame import Frame
from llama2_spec.protocol import Generate, Opcode
from tests.faults import cable
from tests.faults.models import models
from tests.faults.oracle import Oracle
from tests.faults.trial import Scenario, Trial, virtual
from tests.faults.world import Firmware


@pytest.fixture(scope="module")
def bench():
    """Without ASan, which a running Python cannot load any more."""
    firmware, made = Firmware(sanitized=False), models()
    oracle = Oracle(firmware, made)

    def run(seed, scenario):
        with virtual():
            return Trial(firmware, oracle, made, seed, scenario).run()
    return run


@pytest.mark.parametrize("name", ["a bad line", "resets", "a loose cable", "flash", "chats", "several slots",
                                  "slots, resets"])
def test_nothing_is_wrong_lost_or_hung(bench, name):
    result = bench(12, replace(faults.scenarios()[name], operations=4))
    assert not result.failures
    assert sum(result.faults.values()) >= 5 and result.tokens > 0


def test_a_seed_gives_the_same_trial_again(bench):
    scenario = Scenario(rate=1e-3, resets=0.3, pulls=0.3, operations=4)
    assert bench(5, scenario) == bench(5, scenario) != bench(6, scenario)


def trusting(encoded):
    """Frame.decode without its CRC."""
    body = frame.cobs_decode(encoded)
    header = frame.Header.unpack(body[:frame.Header.FORMAT.size])
    return Frame(header.opcode, header.sequence | header.sequence_high << 16, body[frame.Header.FORMAT.size:-4],
                 header.status)


def test_a_client_that_trusts_damaged_frames_is_caught(bench, monkeypatch):
    monkeypatch.setattr(Frame, "decode", trusting)
    monkeypatch.setattr(cable, "KINDS", {"flip": 1})
    scenario = Scenario(rate=3e-3, resets=0, pulls=0, operations=20, only=("long_generation",), loaded=True)
    assert any("wrong: tokens" in what for _, _, what in bench(13, scenario).failures)


def test_a_chat_that_trusts_a_lost_cache_is_caught(bench, monkeypatch):
    monkeypatch.setattr(Conversation, "lost_cache", lambda self: None)
    scenario = replace(faults.scenarios()["chats"], resets=1.0, operations=4)
    assert any("the chat" in what for _, _, what in bench(1, scenario).failures)


WHOLE = Scenario(rate=0, resets=0, pulls=0, operations=4, only=("several",), loaded=True)


def test_conversations_beside_each_other_are_compared_each(bench):
    result = bench(3, replace(WHOLE, columns=4, operations=8, only=("several", "chats_together")))
    assert not result.failures and result.tokens > 1000
    assert result.beside["taken whole"] > 10 and result.beside["ended by its owner"] > 2


def test_a_client_that_gives_a_conversation_another_one_s_events_is_caught(bench, monkeypatch):
    monkeypatch.setattr(Link, "_event", lambda self, sequence: self.events.popleft() if self.events else None)
    assert bench(3, WHOLE).failures


def test_an_abort_that_ends_the_other_conversations_is_caught(bench, monkeypatch):
    monkeypatch.setattr(DeviceGeneration, "end", lambda self: self.link.request(Opcode.ABORT))
    assert any("which nobody asked for" in what for _, _, what in bench(3, WHOLE).failures)


def test_a_client_that_forgets_the_slot_is_caught(bench, monkeypatch):
    monkeypatch.setattr(Generate, "pack", lambda self, pack=Generate.pack: pack(replace(self, flags=self.flags & 7)))
    assert bench(3, WHOLE).failures


def test_a_failing_seed_is_one_command_away(tmp_path):
    """The command runs, under ASan, and tells the trial as it goes."""
    done = subprocess.run([sys.executable, "-m", "bench.faults", "--seed", "1", "--scenario", "few faults"],
                          capture_output=True, text=True, cwd=faults.ROOT)
    assert done.returncode == 0 and "failures=[]" in done.stdout and "chat" in done.stdout, done.stderr


def test_recorded_campaigns_are_whole():
    """Twice as many faults as are wanted of one, with different seeds, and no failure."""
    first, second = json.loads(faults.RESULTS.read_text())["campaigns"]
    assert first["seeds"] != second["seeds"]
    for campaign in (first, second):
        assert campaign["faults"] >= faults.ENOUGH and campaign["failures"] == []
