"""Generation: the tokens of the toy model, the commands of the contract word for word, stops, limits, abort,
re-send."""
import pytest

from llama2_spec.protocol import (MAX_PROMPT, MAX_STOPS, TOKEN_RING, Accepted, GenerateFlag, Generate, Hello, LoadBegin,
                                  Opcode, Reason, Resend,
                           Reset, ResetFlag, Stats, Status, Subject, Tokens)
from llama2_spec.program import commands
from llama2_spec.numerics import exp2_weight, logit_to_log2
from llama2_spec.sampling import ONE, Sampler
from tests.firmware import library
from tests.firmware.images import SEQ_LEN, VOCAB, layout, small_image
from tests.firmware.library import Device


@pytest.fixture
def device(firmware):
    return Device(firmware, small_image())


def logits(device, token, position):
    return [device.library.fake_logit(token, position, i) for i in range(VOCAB)]


def greedy(device, token, position, count):
    """Tokens that the toy model yields after token at position."""
    tokens = []
    for _ in range(count):
        row = logits(device, token, position)
        token, position = row.index(max(row)), position + 1
        tokens.append(token)
    return tokens


def expected_commands(position, tokens, columns=1, argmax=False, every=False, **options):
    """The schedule's commands of one step of one sequence, see :func:`llama2_spec.program.commands`."""
    image, kv_base, row_beats, _ = layout(small_image())
    return list(commands(image, tokens[:columns], [(0, position + i) for i in range(columns)], kv_base=kv_base,
                         row_beats=row_beats, last_token=argmax, first=0 if every else None, **options))


def test_greedy_tokens_and_statistics(device):
    tokens, done = device.generate(ids=(1, 5, 9), max_new=10)
    assert tokens == greedy(device, 9, 2, 10)
    assert (done.reason, done.count, done.position, done.prompt_count) == (Reason.LENGTH, 10, 3 + 9, 3)
    stats = device.ask(Opcode.STATS)
    assert (stats.tokens, stats.prompt_tokens, stats.draws) == (10, 3, 0)
    assert stats.counters[:7] == (0, 1, 2, 3, 4, 100, 101)
    device.ask(Opcode.RESET, Reset(ResetFlag.COUNTERS | ResetFlag.ERRORS))
    assert device.ask(Opcode.STATS).tokens == 0


def test_commands_are_the_contract_s_word_for_word(device):
    device.generate(ids=(1, 5), max_new=3)
    expected = (expected_commands(0, [1], classify=False) + expected_commands(1, [5])
                + expected_commands(2, [0], argmax=True) + expected_commands(3, [0], argmax=True))
    assert device.commands() == expected


@pytest.mark.parametrize("columns", [2, 4])
def test_prompt_takes_all_columns(firmware, columns):
    device = Device(firmware, small_image(), columns)
    ids = (1, 5, 9, 13, 17, 21, 25)
    tokens, _ = device.generate(ids=ids, max_new=2)
    expected = []
    for at in range(0, len(ids), columns):
        part = ids[at:at + columns]
        expected += expected_commands(at, part, len(part), classify=at + columns >= len(ids))
    assert device.commands() == expected + expected_commands(len(ids), [0], argmax=True)
    assert tokens == greedy(device, ids[-1], len(ids) - 1, 2)


def test_greedy_runs_ahead_of_execution(device):
    device.send(Opcode.GENERATE, Generate(ids=(1,), max_new=50))
    device.poll(20, execute=0)
    assert device.library.llama2_queue_free() == 0


def test_cache_is_kept_between_requests(device):
    device.generate(ids=(1, 5), max_new=4)
    begin = len(device.commands())
    tokens, done = device.generate(position=5, ids=(7, 8), max_new=2)
    assert device.commands()[begin:] == (expected_commands(5, [7], classify=False) + expected_commands(6, [8])
                                         + expected_commands(7, [0], argmax=True))
    assert tokens == greedy(device, 8, 6, 2) and done.position == 8


def test_rewinding_is_free(device):
    device.generate(ids=(1, 5, 6, 7), max_new=4)
    tokens, done = device.generate(position=2, ids=(6,), max_new=2)
    assert tokens == greedy(device, 6, 2, 2) and done.position == 4


def test_long_prompt_in_pieces(device):
    for at in range(0, 2 * MAX_PROMPT, MAX_PROMPT):
        tokens, done = device.generate(position=at, ids=tuple(i % VOCAB for i in range(MAX_PROMPT)), max_new=0)
        assert tokens == [] and done.position == at + MAX_PROMPT and done.reason == Reason.LENGTH
    tokens, _ = device.generate(position=2 * MAX_PROMPT, ids=(3,), max_new=1)
    assert tokens == greedy(device, 3, 2 * MAX_PROMPT, 1)


def test_stop_token_ends_and_is_sent(device):
    chain = greedy(device, 5, 1, 20)
    stop = chain[6]
    expected = chain[:chain.index(stop) + 1]
    tokens, done = device.generate(ids=(1, 5), max_new=20, stop_count=2,
                                   stops=(VOCAB - 1 if stop != VOCAB - 1 else 0, stop))
    assert tokens == expected
    assert (done.reason, done.position) == (Reason.STOP, 2 + len(expected) - 1)
    # What ran ahead was dropped: the next generation is not disturbed.
    tokens, _ = device.generate(position=done.position, ids=(stop,), max_new=3)
    assert tokens == greedy(device, stop, done.position, 3)


def fill(device):
    """Feed two whole prompts; the position after them."""
    for at in (0, MAX_PROMPT):
        device.generate(position=at, ids=(1,) * MAX_PROMPT)
    return 2 * MAX_PROMPT


def test_context_ends_the_generation(device):
    filled = fill(device)
    device.generate(position=filled, ids=(1,) * (SEQ_LEN - filled - 3))
    tokens, done = device.generate(position=SEQ_LEN - 3, ids=(7,), max_new=100)
    assert tokens == greedy(device, 7, SEQ_LEN - 3, 3)
    assert (done.reason, done.position) == (Reason.CONTEXT, SEQ_LEN)
    # Where the request's length ends there, too, the context is still full.
    assert device.generate(position=SEQ_LEN - 3, ids=(7,), max_new=3)[1].reason == Reason.CONTEXT
    assert device.generate(position=SEQ_LEN - 3, ids=(7,), max_new=2)[1].reason == Reason.LENGTH


def test_abort_ends_promptly_and_recovers(device):
    device.send(Opcode.GENERATE, Generate(ids=(1, 5), max_new=400))
    device.poll(100)
    device.send(Opcode.ABORT)
    tokens, done = device.finish(polls=10)
    assert done.reason == Reason.ABORT and done.count == len(tokens) < 400
    assert tokens == greedy(device, 5, 1, len(tokens))
    assert device.generate(ids=(1, 5), max_new=5)[0] == greedy(device, 5, 1, 5)


def test_hello_ends_what_a_lost_host_began(device):
    device.send(Opcode.GENERATE, Generate(ids=(1, 5), max_new=400))
    device.poll(50)
    device.frames()
    device.ask(Opcode.HELLO, Hello())
    device.poll(50)
    assert device.frames() == []
    assert device.generate(ids=(1, 5), max_new=5)[0] == greedy(device, 5, 1, 5)


def test_request_sent_twice_is_answered_twice_and_done_once(device):
    request = Generate(ids=(1, 5), max_new=3)
    sequence = device.send(Opcode.GENERATE, request)
    device.send(Opcode.GENERATE, request, sequence)
    device.poll(300)
    device.send(Opcode.GENERATE, request, sequence)
    device.poll(300)
    frames = device.frames()
    replies = [Accepted.unpack(frame.payload).position for frame in frames if frame.opcode == Opcode.GENERATE]
    assert replies == [2, 2, 2]
    assert sum(frame.opcode == Opcode.DONE for frame in frames) == 1
    assert device.ask(Opcode.STATS).tokens == 3


def test_lost_tokens_are_sent_again(device):
    tokens, _ = device.generate(ids=(1, 5), max_new=20)
    reply = device.ask(Opcode.RESEND, Resend(12))
    assert (reply.index, reply.position, reply.count, reply.running) == (12, 14, 20, 0)
    assert list(reply.entries[::2]) == tokens[12:]
    device.send(Opcode.RESEND, Resend(20))
    reply, done = device.frames()
    assert Tokens.unpack(reply.payload).entries == () and done.opcode == Opcode.DONE
    device.generate(ids=(1, 5), max_new=TOKEN_RING + 7)
    assert library.error(device.request(Opcode.RESEND, Resend(6))) == (Status.BAD_VALUE, Subject.NONE, 6, 7)


def test_slow_link_holds_the_core_but_loses_no_token(device, firmware):
    sequence = device.send(Opcode.GENERATE, Generate(ids=(1, 5), max_new=400))
    device.frames()
    firmware.fake_transmitter(0)
    device.poll(3000)
    firmware.fake_transmitter(64)
    tokens, done = [], None
    for _ in range(20000):
        device.poll()
        for frame in device.frames():
            if frame.opcode == Opcode.TOKENS:
                assert frame.sequence == sequence
                tokens += Tokens.unpack(frame.payload).entries[::2]
                device.send(Opcode.RESEND, Resend(len(tokens), most=1))
            elif frame.opcode == Opcode.DONE:
                done = done or frame
        if done:
            break
    assert tokens == greedy(device, 5, 1, 400)


def test_generation_waits_for_an_acknowledgement(device):
    """A ring full of tokens that may all have been lost; whatever is asked for again is there."""
    sequence = device.send(Opcode.GENERATE, Generate(ids=(1, 5), max_new=400))
    device.poll(5000)
    device.frames()                                 # all are lost
    expected, tokens = greedy(device, 5, 1, 400), []
    assert device.ask(Opcode.RESEND, Resend(0, sequence, 1)).count == TOKEN_RING
    while len(tokens) < 400:
        reply = device.ask(Opcode.RESEND, Resend(len(tokens), sequence, 10))
        assert len(reply.entries) <= 20 and reply.count - len(tokens) <= TOKEN_RING
        tokens += reply.entries[::2]
        device.poll(200)
        device.frames()
    assert tokens == expected


def test_generation_of_another_session_is_forgotten(device):
    tokens, _ = device.generate(ids=(1, 5), max_new=3)
    sequence = device.sequence
    assert device.ask(Opcode.RESEND, Resend(0, sequence)).entries[::2] == tuple(tokens)
    assert library.error(device.request(Opcode.RESEND, Resend(0, sequence + 65536)))[0] == Status.FORGOTTEN
    device.ask(Opcode.HELLO, Hello())
    assert library.error(device.request(Opcode.RESEND, Resend(0, sequence)))[0] == Status.FORGOTTEN


def test_sequence_numbers_of_16_equal_bits_are_two_requests(device):
    request = Generate(ids=(1, 5), max_new=3)
    device.sequence = 7
    device.send(Opcode.GENERATE, request, 7)
    device.finish()
    device.send(Opcode.GENERATE, Generate(ids=(1, 9), max_new=3), 7 + 65536)
    assert device.finish()[0] == greedy(device, 9, 1, 3)


def test_every_logit_is_dumped(device):
    tokens, _ = device.generate(ids=(1, 5, 9), max_new=2, flags=GenerateFlag.DUMP_LOGITS | GenerateFlag.ALL_LOGITS)
    chain = greedy(device, 9, 2, 2)
    assert tokens == chain
    rows = {}
    for event in device.logits:
        assert event.first == len(rows.setdefault(event.position, []))
        rows[event.position] += event.logits
    assert rows == {position: logits(device, token, position) for position, token in enumerate((1, 5, 9, chain[0]))}
    tokens, _ = device.generate(ids=(1, 5), max_new=0, flags=GenerateFlag.DUMP_LOGITS | GenerateFlag.ALL_LOGITS)
    assert tokens == [] and {event.position for event in device.logits} == {0, 1}


@pytest.mark.parametrize("options", [
    dict(temperature=ONE, seed=7), dict(temperature=ONE, seed=7, top_p=58982),
    dict(temperature=ONE // 2, top_k=5, seed=1),
    dict(temperature=ONE, repetition_penalty=2 * ONE, repetition_window=8, seed=3),
    dict(repetition_penalty=2 * ONE, repetition_window=64)])
def test_sampled_tokens_are_the_specification_s(device, options):
    ids = (1, 5, 9)
    request = Generate(ids=ids, max_new=30, **options)
    sampler, token, chosen = Sampler(request), ids[-1], []
    for position, prompt in enumerate(ids):
        sampler.remember(position, prompt)
    for position in range(2, 32):
        row = logits(device, token, position)
        logs = [int(logit_to_log2(logit, sampler.scale)) for logit in row]
        maximum = max(logs) >> 16
        best = sorted(range(VOCAB), key=lambda i: (-row[i], i))[:64]
        mass = sum(int(exp2_weight(s, maximum)) for s in logs)
        token = sampler.choose(position + 1, [(i, row[i]) for i in best], mass, maximum)
        sampler.remember(position + 1, token)
        chosen.append(token)
    tokens, done = device.generate(ids=ids, max_new=30, **options)
    assert tokens == chosen
    assert (done.draws, done.dropped) == (sampler.draws, sampler.dropped)


def test_sampled_decoding_pushes_the_next_step_before_its_token_is_drawn(device):
    device.send(Opcode.GENERATE, Generate(ids=(1,), max_new=2, temperature=ONE, seed=5))
    device.poll(20, execute=0)
    planned = expected_commands(0, [1], keep=True) + expected_commands(1, [0], keep=True, awaited=True)
    assert device.commands() == planned
    device.poll(400)
    events = [Tokens.unpack(frame.payload) for frame in device.frames() if frame.opcode == Opcode.TOKENS]
    assert device.commands() == planned and sum(len(event.entries) // 2 for event in events) == 2


def test_no_token_is_written_for_a_step_that_was_not_planned(device):
    """After a stop id nothing waits; the next generation's first EMBED takes its own token."""
    request = dict(ids=(1, 5), temperature=ONE, seed=5)
    tokens, _ = device.generate(max_new=6, **request)
    stopped, done = device.generate(max_new=6, stops=(tokens[2],), stop_count=1, **request)
    assert stopped == tokens[:tokens.index(tokens[2]) + 1] and done.reason == Reason.STOP
    assert device.generate(max_new=6, **request)[0] == tokens


@pytest.mark.parametrize("options, error", [
    (dict(ids=()), (Status.BAD_VALUE, Subject.PROMPT_COUNT, 0, 1)),
    (dict(ids=(1,), stop_count=MAX_STOPS + 1), (Status.BAD_VALUE, Subject.STOP_COUNT, MAX_STOPS + 1, MAX_STOPS)),
    (dict(ids=(1,), top_p=ONE + 1), (Status.BAD_VALUE, Subject.TOP_P, ONE + 1, ONE)),
    (dict(ids=(1,), repetition_penalty=0), (Status.BAD_VALUE, Subject.PENALTY, 0, ONE)),
    (dict(ids=(1,), repetition_window=257), (Status.BAD_VALUE, Subject.WINDOW, 257, 256)),
    (dict(ids=(1,), position=1), (Status.BAD_POSITION, Subject.NONE, 1, 0)),
    (dict(ids=(1,), position=SEQ_LEN + 1, flags=GenerateFlag.PRELOADED),
     (Status.BAD_POSITION, Subject.NONE, SEQ_LEN + 1, SEQ_LEN)),
    (dict(ids=(1, VOCAB)), (Status.BAD_TOKEN, Subject.NONE, VOCAB, VOCAB))])
def test_bad_request_is_refused_with_its_numbers(device, options, error):
    assert library.error(device.request(Opcode.GENERATE, Generate(**options))) == error


def test_prompt_beyond_the_context_is_refused(device):
    filled = fill(device)
    reply = device.request(Opcode.GENERATE, Generate(position=filled, ids=(1,) * (SEQ_LEN - filled + 1)))
    assert library.error(reply) == (Status.CONTEXT_FULL, Subject.NONE, SEQ_LEN + 1, SEQ_LEN)


def test_busy_device_refuses_what_would_disturb(device):
    device.send(Opcode.GENERATE, Generate(ids=(1,), max_new=100))
    assert library.error(device.request(Opcode.LOAD_BEGIN, LoadBegin(100, 1)))[0] == Status.BUSY
    assert library.error(device.request(Opcode.GENERATE, Generate(ids=(1,))))[0] == Status.BUSY
    assert isinstance(device.ask(Opcode.STATS), Stats)


def test_preloaded_cache_is_taken_on_trust(device):
    tokens, done = device.generate(ids=(1,), position=300, max_new=2, flags=GenerateFlag.PRELOADED)
    assert tokens == greedy(device, 1, 300, 2) and done.position == 302
    assert device.request(Opcode.GENERATE, Generate(ids=(1,), position=303)).status == Status.BAD_POSITION
