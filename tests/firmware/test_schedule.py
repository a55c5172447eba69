"""Who gets the columns of a pass: the rule of firmware/schedule.h, for random arrivals."""
import ctypes
import random
from dataclasses import dataclass

import pytest


class Demand(ctypes.Structure):
    _fields_ = [("columns", ctypes.c_uint32), ("since", ctypes.c_uint32), ("prompt", ctypes.c_bool),
                ("classified", ctypes.c_bool), ("alone", ctypes.c_bool), ("granted", ctypes.c_uint32)]


class Schedule(ctypes.Structure):
    _fields_ = [("columns", ctypes.c_uint32), ("prompts_led", ctypes.c_bool)]


class Rule:
    """The firmware's rule, from pass to pass."""

    def __init__(self, firmware, columns):
        self.firmware, self.schedule = firmware, Schedule(columns, False)

    def fill(self, demands):
        """Columns granted to each demand; they and their sum are checked against what a pass has room for."""
        array, led = (Demand * len(demands))(*demands), ctypes.c_bool()
        total = self.firmware.schedule_fill(ctypes.byref(self.schedule), array, len(demands), ctypes.byref(led))
        self.schedule.prompts_led = led.value
        granted = [demand.granted for demand in array]
        assert total == sum(granted) <= self.schedule.columns
        assert all(count <= demand.columns for count, demand in zip(granted, array))
        assert total > 0
        logits = [demand for demand, count in zip(array, granted)
                  if count and demand.classified and (not demand.prompt or count == demand.columns)]
        assert len(logits) < 2 or not any(demand.alone for demand in logits)
        return granted


def decoding(since, **more):
    return Demand(**{"columns": 1, "since": since, "prompt": False, "classified": True, **more})


def prompt(columns, since=0, **more):
    return Demand(**{"columns": columns, "since": since, "prompt": True, "classified": True, **more})


def test_a_pass_alone_is_one_s_own(firmware):
    rule = Rule(firmware, 4)
    assert rule.fill([prompt(100)]) == [4]
    assert rule.fill([prompt(3)]) == [3]
    assert rule.fill([decoding(0, columns=3)]) == [3]


def test_conversations_share_a_pass_and_a_prompt_takes_what_is_left(firmware):
    rule = Rule(firmware, 4)
    assert rule.fill([decoding(0), decoding(0), decoding(1), decoding(2)]) == [1, 1, 1, 1]
    assert rule.fill([decoding(0), prompt(100), decoding(0)]) == [1, 2, 1]
    assert rule.fill([decoding(0, columns=4), decoding(0)]) == [3, 1]
    assert rule.fill([decoding(3), decoding(2), decoding(1), decoding(0), decoding(0)]) == [0, 1, 1, 1, 1]


def test_a_prompt_that_would_get_too_little_leads_every_other_pass(firmware):
    """256 tokens while three others decode on four columns: nobody pauses for two passes in a row."""
    rule, left, passes, paused = Rule(firmware, 4), 256, 0, [0, 0, 0]
    while left:
        granted = rule.fill([*(decoding(passes - pause) for pause in paused), prompt(left)])
        passes, left = passes + 1, left - granted[3]
        paused = [0 if count else pause + 1 for count, pause in zip(granted, paused)]
        assert max(paused) <= 1
    assert passes <= 2 * 256 / 4


def test_logits_that_stand_alone_share_with_prompts_only(firmware):
    rule = Rule(firmware, 4)
    sampled = decoding(0, alone=True)
    assert rule.fill([sampled, decoding(1), prompt(100)]) == [1, 0, 3]
    rule = Rule(firmware, 4)
    assert rule.fill([sampled, decoding(1), prompt(3)]) == [1, 0, 2], "its end would have logits, too"
    rule = Rule(firmware, 4)
    assert rule.fill([decoding(0), decoding(1, alone=True), decoding(2)]) == [1, 0, 1]


def test_a_prompt_s_end_is_not_put_off_for_ever(firmware):
    """Beside logits that stand alone, be they its own or another's, it leads every other pass."""
    for other in (decoding(0, alone=True), decoding(0)):
        rule = Rule(firmware, 2)
        end = prompt(1, alone=not other.alone)
        assert rule.fill([other, end]) == [0, 1]
        assert rule.fill([other, end]) == [1, 0]
        assert rule.fill([other, end]) == [0, 1]


def test_time_wraps(firmware):
    rule = Rule(firmware, 1)
    assert rule.fill([decoding(5), decoding(2 ** 32 - 5)]) == [0, 1]


@dataclass
class Client:
    """Feeds a prompt, then decodes."""
    left: int
    tokens: int
    since: int
    alone: bool
    waited: int = 0
    most: int = 0           # passes that the rule allows for those who decoded since
    put_off: int = 0        # passes in a row in which it was the oldest prompt and got nothing, its end being left


def allowed(decoders, columns):
    """Passes without a column: a round of all who decode, and a pass of prompts before each; those whose logits stand
    alone need a pass each."""
    rounds = len(decoders) if any(client.alone for client in decoders) else -(-len(decoders) // columns)
    return 2 * rounds - 1


@pytest.mark.parametrize("seed", range(12))
def test_nobody_starves(firmware, seed):
    """Clients come at random: nobody is without a column for longer than the rule says, whatever prompts come; and
    prompts get half of what they can use."""
    rng = random.Random(seed)
    columns = rng.choice([1, 2, 4])
    rule, slots, now, came = Rule(firmware, columns), [None] * rng.choice([2, 4, 8]), 0, 0
    fed = fair = 0
    for _ in range(1500):
        for i, client in enumerate(slots):
            if client is None and rng.random() < .05:
                slots[i] = Client(rng.choice([1, 5, 60, 208]), rng.choice([0, 1, 20, 100]), now, rng.random() < .3)
                came += 1
        waiting = [client for client in slots if client]
        if not waiting:
            continue
        now += 1
        demands = [prompt(c.left, c.since, alone=c.alone, classified=c.tokens != 0) if c.left
                   else decoding(c.since, alone=c.alone) for c in waiting]
        decoders = [c for c in waiting if not c.left]
        prompts = sum(c.left for c in waiting)
        granted = rule.fill(demands)
        oldest = min((c for c in waiting if c.left), key=lambda c: c.since, default=None)
        fed += sum(count for client, count in zip(waiting, granted) if client.left)
        fair += min(prompts, columns) / 2 if decoders else min(prompts, columns)
        for client, count in zip(waiting, granted):
            if client.left:
                client.put_off = client.put_off + 1 if client is oldest and client.left == 1 and not count else 0
                assert client.put_off <= 1
                client.left -= count
            elif count:
                client.tokens -= 1
                client.waited = client.most = 0
            else:
                client.waited += 1
                client.most = max(client.most, allowed(decoders, columns))
                assert client.waited <= client.most
            if count and not client.left:
                client.since = now
        slots = [client if client and (client.left or client.tokens > 0) else None for client in slots]
    assert came > 15 and fed >= .9 * fair
