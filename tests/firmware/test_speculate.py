"""Speculation: guesses are the specification's, tokens those of one at a time, whatever is guessed wrong, and wherever
it ends."""
import ctypes
import random

import pytest

from llama2_spec.lookup import Lookup
from llama2_spec.protocol import LOOKUP_HISTORY, GenerateFlag, Generate, Opcode, Reason, Resend, Status, Subject, Tokens
from llama2_spec.sampling import ONE
from tests.firmware import library
from tests.firmware.images import SEQ_LEN, small_image
from tests.firmware.library import Device
from tests.firmware.test_generate import expected_commands, greedy
from tests.speculation import planned_steps

PATTERN = [5, 9, 13, 17, 21, 25, 29, 2]


def recite(device, script):
    """Let the model say ``script`` as long as its whole context is the script's."""
    device.library.fake_script((ctypes.c_uint32 * len(script))(*script), len(script))


def expected(planned):
    commands = []
    for position, tokens in planned:
        commands += expected_commands(position, tokens, len(tokens), every=len(tokens) > 1)
    return commands


@pytest.mark.parametrize("seed", range(4))
def test_guesses_are_the_specification_s(firmware, seed):
    rng, reference = random.Random(seed), Lookup()
    buffer = (ctypes.c_uint32 * 7)()
    lookup = ctypes.create_string_buffer(library.SLOT_BYTES)
    firmware.lookup_forget(lookup)
    for _ in range(2 * LOOKUP_HISTORY + 500):
        token = rng.choice((1, 2, 3, 258, 70000)) if rng.random() < .9 else rng.randrange(1 << 17)
        firmware.lookup_add(lookup, token)
        reference.add(token)
        limit = rng.randrange(8)
        count = firmware.lookup_guess(lookup, buffer, limit)
        assert list(buffer[:count]) == reference.guess(limit)
        if rng.random() < (0.002 if seed else 0.05):
            back = reference.end + 1 if rng.random() < .1 else reference.end - rng.randrange(min(reference.end, 40))
            firmware.lookup_rewind(lookup, back)
            reference.rewind(back)


def deviating(right, length=60):
    """The pattern again and again, each time with another token in one of its places."""
    rng = random.Random(right)
    script = [1]
    for turn in range(length):
        part = list(PATTERN)
        if turn > 1 and turn % 3 == 0:
            part[(3 + right) % len(part)] = rng.randrange(3, 30)
        script += part
    return script


@pytest.mark.parametrize("columns, most, right", [(4, 3, 0), (4, 3, 1), (4, 3, 2), (4, 3, 3), (4, 7, 5), (4, 2, 1),
                                                  (2, 1, 1), (2, 1, 3),
                                                  (8, 7, 4)])
def test_tokens_are_those_of_one_at_a_time(firmware, columns, most, right):
    device = Device(firmware, small_image(), columns)
    script = deviating(right)
    recite(device, script)
    tokens, done = device.generate(ids=tuple(script[:9]), max_new=200, speculate=most)
    assert tokens == script[9:209]
    planned = planned_steps(script, 9, columns=columns, most=most, seq_len=SEQ_LEN, max_new=200)
    wrong = {next((i for i, guess in enumerate(step[1:]) if script[at + 1 + i] != guess), columns)
             for at, step in planned}
    assert len(wrong) > 1                       # some guesses were rejected, at one column or another
    prompt = -(-9 // columns)
    begin = sum(len(expected_commands(0, [1] * n, n, classify=i == prompt - 1)) for i, n in
                enumerate([columns] * (prompt - 1) + [9 - columns * (prompt - 1)]))
    assert device.commands()[begin:] == expected(planned)
    assert (done.passes, done.guessed) == (1 + len(planned), sum(len(step) - 1 for _, step in planned))
    assert done.position == 9 + 199 and done.passes < 180
    stats = device.ask(Opcode.STATS)
    assert (stats.tokens, stats.passes, stats.guessed) == (200, done.passes, done.guessed)


@pytest.mark.parametrize("column", range(4))
def test_rejection_at_every_column(firmware, column):
    """The pattern ends behind ``column`` guesses of a step's three; what follows is what the model says, not the
    guesses."""
    device = Device(firmware, small_image(), 4)
    script = [1, *PATTERN, *PATTERN[:5 + column], 30, 31, 3, 4, 6, 7, 8, 10, 11, 12]
    recite(device, script)
    tokens, _ = device.generate(ids=tuple(script[:13]), max_new=len(script) - 13, speculate=3)
    assert tokens == script[13:]
    planned = planned_steps(script, 13, columns=4, most=3, seq_len=SEQ_LEN, max_new=len(script) - 13)
    lengths = [next((i for i, guess in enumerate(step[1:]) if script[at + 1 + i] != guess), 3)
               for at, step in planned if len(step) == 4]
    assert column in lengths


def test_off_is_as_it_was(firmware):
    device = Device(firmware, small_image(), 2)
    device.generate(ids=(1, 5), max_new=3)
    assert device.commands() == (expected_commands(0, [1, 5], 2) + expected_commands(2, [0], argmax=True)
                                 + expected_commands(3, [0], argmax=True))


def test_one_column_has_none_to_spare(firmware):
    device = Device(firmware, small_image(), 1)
    recite(device, [1, *PATTERN * 10])
    tokens, done = device.generate(ids=(1, *PATTERN, 5), max_new=40, speculate=7)
    assert tokens == (PATTERN * 6)[1:41] and (done.passes, done.guessed) == (40, 0)
    assert device.commands()[-1:] == expected_commands(48, [0], argmax=True)[-1:]


@pytest.mark.parametrize("max_new", range(1, 12))
def test_ends_at_the_length_asked_for(firmware, max_new):
    device = Device(firmware, small_image(), 4)
    script = [1, *PATTERN * 10]
    recite(device, script)
    tokens, done = device.generate(ids=tuple(script[:20]), max_new=max_new, speculate=3)
    assert tokens == script[20:20 + max_new]
    assert (done.reason, done.count, done.position) == (Reason.LENGTH, max_new, 20 + max_new - 1)
    tokens, _ = device.generate(position=done.position, ids=(tokens[-1],), max_new=9, speculate=3)
    assert tokens == script[20 + max_new:29 + max_new]


@pytest.mark.parametrize("room", range(1, 9))
def test_ends_where_the_context_does(firmware, room):
    device = Device(firmware, small_image(), 4)
    script = [1, *PATTERN * 100][:SEQ_LEN + 1]
    recite(device, script)
    at = SEQ_LEN - room
    for begin in range(0, at, 200):
        device.generate(position=begin, ids=tuple(script[begin:min(at, begin + 200)]), max_new=0, speculate=3)
    tokens, done = device.generate(position=at, ids=(script[at],), max_new=100, speculate=3)
    assert tokens == script[at + 1:]
    assert (done.reason, done.position) == (Reason.CONTEXT, SEQ_LEN)
    assert done.passes < max(room, 2) + (room < 3)      # and guesses were verified there


@pytest.mark.parametrize("place", range(8))
def test_stop_token_among_the_guesses(firmware, place):
    device = Device(firmware, small_image(), 4)
    script = [1, *PATTERN * 20]
    recite(device, script)
    stop = PATTERN[place]
    tokens, done = device.generate(ids=(*script[:17],), max_new=60, speculate=3, stop_count=1, stops=(stop, *[0] * 7))
    assert tokens == PATTERN[:place + 1]
    assert (done.reason, done.position) == (Reason.STOP, 17 + place)
    # What had been guessed beyond it is not in the cache, and a further turn goes on from there.
    tokens, done = device.generate(position=done.position, ids=(stop,), max_new=30, speculate=3)
    assert tokens == script[18 + place:48 + place] and done.passes < 15


def test_next_turn_guesses_from_the_whole_conversation(firmware):
    device = Device(firmware, small_image(), 4)
    script = [1, *PATTERN, 30, 31, 3, 5, 9, 13, 17, 21, 25]
    recite(device, script)
    tokens, done = device.generate(ids=tuple(script[:6]), max_new=4, speculate=3)
    assert tokens == script[6:10] and done.position == 9
    tokens, done = device.generate(position=9, ids=tuple(script[9:14]), max_new=4, speculate=3)
    assert tokens == script[14:18] and done.passes == 2


def test_turn_without_speculation_between(firmware):
    device = Device(firmware, small_image(), 4)
    script = [1, *PATTERN * 10]
    recite(device, script)
    device.generate(ids=tuple(script[:12]), max_new=4, speculate=3)
    device.generate(position=15, ids=tuple(script[15:20]), max_new=4)
    tokens, done = device.generate(position=23, ids=tuple(script[23:41]), max_new=20, speculate=3)
    assert tokens == script[41:61] and done.passes < 9


def test_abort_ends_promptly_and_recovers(firmware):
    device = Device(firmware, small_image(), 4)
    script = [1, *PATTERN * 60]
    recite(device, script)
    device.send(Opcode.GENERATE, Generate(ids=tuple(script[:12]), max_new=400, speculate=3))
    device.poll(60)
    device.send(Opcode.ABORT)
    tokens, done = device.finish(polls=10)
    assert done.reason == Reason.ABORT and 0 < done.count == len(tokens) < 400
    assert tokens == script[12:12 + done.count] and done.position == 12 + done.count - 1
    tokens, _ = device.generate(position=done.position, ids=tuple(tokens[-1:]), max_new=20, speculate=3)
    assert tokens == script[done.position + 1:done.position + 21]


def test_slow_link_holds_the_core_but_loses_no_token(firmware):
    device = Device(firmware, small_image(), 4)
    script = [1, *PATTERN * 60]
    recite(device, script)
    device.send(Opcode.GENERATE, Generate(ids=tuple(script[:12]), max_new=400, speculate=3))
    device.frames()
    firmware.fake_transmitter(0)
    device.poll(3000)
    firmware.fake_transmitter(64)
    tokens, ended = [], False
    while not ended:
        device.poll()
        for frame in device.frames():
            if frame.opcode == Opcode.TOKENS:
                tokens += Tokens.unpack(frame.payload).entries[::2]
                device.send(Opcode.RESEND, Resend(len(tokens), most=1))
            ended |= frame.opcode == Opcode.DONE
    assert tokens == script[12:412]


def test_model_that_does_not_repeat_is_decoded_as_ever(firmware):
    device = Device(firmware, small_image(), 4)
    tokens, done = device.generate(ids=(1, 5), max_new=100, speculate=3)
    assert tokens == greedy(device, 5, 1, 100) and done.count == 100 and done.passes <= 100


@pytest.mark.parametrize("options, limit", [
    (dict(temperature=ONE), 0), (dict(repetition_penalty=2 * ONE, repetition_window=8), 0),
    (dict(flags=GenerateFlag.DUMP_LOGITS), 0),
    (dict(speculate=8), 7)])
def test_what_cannot_be_speculated_is_refused(firmware, options, limit):
    device = Device(firmware, small_image(), 4)
    reply = device.request(Opcode.GENERATE, Generate(ids=(1,), **{"speculate": 3, **options}))
    assert library.error(reply) == (Status.BAD_VALUE, Subject.SPECULATE, options.get("speculate", 3), limit)
